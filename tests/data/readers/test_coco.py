import copy
import json
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import COCO17
from jaxpose.data.readers import coco

IMAGE = cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()
CONTENT = {
    "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}],
    "categories": [{"id": 2, "name": "mouse", "keypoints": ["snout", "left_ear", "right_ear"], "skeleton": [[1, 3]]}],
    "annotations": [
        {
            "id": 11,
            "image_id": 3,
            "category_id": 2,
            "keypoints": [1.5, 2, 2, 30, 40, 1, 0, 0, 0],
            "num_keypoints": 2,
            "bbox": [1, 2, 33.5, 44],
            "area": 700.25,
            "iscrowd": 0,
        },
        {"id": 12, "image_id": 7, "category_id": 2, "keypoints": [10, 0, 2, 30, 20, 2, 20, 5, 0]},
    ],
}


def write(root, tree):
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return root


def changed(change):
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


def dataset(root, change=lambda content: None):
    return write(root, {"labels.json": changed(change), "a.png": IMAGE, "b.png": IMAGE})


def check(source):
    assert source.skeleton.joints == ("snout", "left_ear", "right_ear")
    assert source.skeleton.bones == (("snout", "right_ear"),)
    assert source.skeleton.flips == (("left_ear", "right_ear"),)
    assert source.skeleton.sigmas == ()
    assert [name.rsplit("/")[-1] for name in source.names] == ["a.png", "b.png"]
    np.testing.assert_array_equal(source.keypoints, [[[1.5, 2], [30, 40], [0, 0]], [[10, 0], [30, 20], [0, 0]]])
    np.testing.assert_array_equal(source.visible, [[2, 1, 0], [2, 2, 0]])
    # The second object has no box: a square of 1.3 times 20 pixels about (20, 10).
    np.testing.assert_allclose(source.bboxes, [[1, 2, 33.5, 44], [7, -3, 26, 26]], atol=1e-5)
    assert source[0].get("area") == 700.25
    assert "area" not in source[1]
    assert files.decode_image(source[1]["image"], "x").shape == (60, 80, 3)


def test_records_of_file_folder_and_tar(tmp_path):
    root = dataset(tmp_path / "d")
    check(coco.read(root / "labels.json"))
    check(coco.read(root))
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(root, "x/d")
    check(coco.read(tmp_path / "d.tar"))
    check(pickle.loads(pickle.dumps(coco.read(tmp_path / "d.tar"))))
    part = coco.read(root).subset([1])
    assert part.names == ("b.png",)
    assert "area" not in part[0]
    assert coco.read(root).subset([1, 0])[1].get("area") == 700.25


@pytest.mark.parametrize(
    ("labels", "folder", "options"),
    [
        ("labels.json", "images", {}),
        ("labels.json", "somewhere/below", {}),
        ("annotations/labels.json", "val2017", {}),
        ("annotations/labels.json", "val2017", {"images": "../val2017"}),
        ("labels.json", "val2017", {"images": "val2017"}),
    ],
)
def test_images_are_found(tmp_path, labels, folder, options):
    tree = {labels: CONTENT, f"{folder}/a.png": IMAGE, f"{folder}/b.png": IMAGE}
    root = write(tmp_path / "d", tree)
    check(coco.read(root / labels, **options))
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(root, "d")
    if "images" not in options:
        check(coco.read(root))
        check(coco.read(tmp_path / "d.tar"))


def test_images_elsewhere_and_of_one_name(tmp_path):
    root = write(tmp_path / "d", {"labels.json": CONTENT, "x/a.png": b"", "x/b.png": b"", "y/a.png": IMAGE})
    with pytest.raises(ValueError, match=r"a\.png may be x/a\.png or y/a\.png; choose with the option images$"):
        coco.read(root)
    other = write(tmp_path / "e", {"a.png": IMAGE, "b.png": IMAGE})
    check(coco.read(root, images=other))
    check(coco.read(root / "labels.json", images="../e"))
    assert coco.read(root, images="x").names == ("x/a.png", "x/b.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        coco.read(root, images="nowhere")


def test_longer_names_and_backslashes_are_told_apart(tmp_path):
    def change(content):
        content["images"][0]["file_name"] = "s2\\a.png"
        content["images"][1]["file_name"] = "s1/a.png"

    content = changed(change)
    root = write(tmp_path / "d", {"l.json": content, "f/s1/a.png": IMAGE, "f/s2/a.png": IMAGE})
    assert coco.read(root).names == ("f/s1/a.png", "f/s2/a.png")


def test_one_json_is_chosen(tmp_path):
    tree = {"x/train.json": CONTENT, "x/val.json": [], "y/train.json": CONTENT, "a.png": IMAGE, "b.png": IMAGE}
    root = write(tmp_path / "d", tree)
    with pytest.raises(ValueError, match=r"d: found x/train\.json, x/val\.json, y/train\.json; expected one JSON file"):
        coco.read(root)
    with pytest.raises(ValueError, match=r"found x/train\.json, y/train\.json; expected train$"):
        coco.read(root, annotations="train")
    with pytest.raises(ValueError, match=r"found x/train.*; expected rain\.json$"):
        coco.read(root, annotations="rain.json")
    check(coco.read(root, annotations="y/train.json"))
    with pytest.raises(ValueError, match=r"found no \.json file"):
        coco.read(write(tmp_path / "e", {"a.png": IMAGE}))
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        coco.read(root / "none.json")


def test_bones_count_from_zero_where_they_do(tmp_path):
    def change(content):
        content["categories"][0]["skeleton"] = [[0, 1], [2, 0]]

    assert coco.read(dataset(tmp_path / "a", change)).skeleton.bones == (("snout", "left_ear"), ("right_ear", "snout"))

    def damage(content):
        content["categories"][0]["skeleton"] = [[1, 2], [3, 4], [1], "x", [2, 2], [1, -1], [1.5, 2]]

    source = coco.read(dataset(tmp_path / "b", damage))
    assert source.skeleton.bones == (("snout", "left_ear"),)
    assert [str(note) for note in source.notes] == ["left out bones that are no pair of joints: 6"]


def test_joints_of_coco_have_its_sigmas_in_the_files_order(tmp_path):
    joints = COCO17.joints[::-1]

    def change(content):
        content["categories"][0]["keypoints"] = list(joints)
        content["annotations"] = content["annotations"][:1]
        content["annotations"][0]["keypoints"] = [1, 2, 2] * 17

    skeleton = coco.read(dataset(tmp_path, change)).skeleton
    assert skeleton.joints == joints
    assert skeleton.sigmas == COCO17.sigmas[::-1]
    assert skeleton.groups["face"] == COCO17.groups["face"]
    assert skeleton.bones == (("right_ankle", "right_knee"),)


def test_categories(tmp_path):
    rat = {"id": 4, "name": "rat", "keypoints": ["tail"]}
    same = {"id": 5, "name": "vole", "keypoints": ["snout", "left_ear", "right_ear"]}
    none = {"id": 6, "name": "ball"}

    def change(content):
        content["categories"] += [same, none]
        content["annotations"][1]["category_id"] = 5
        content["annotations"].append({"id": 1, "image_id": 3, "category_id": 6, "bbox": [0, 0, 1, 1]})
        content["annotations"].append({"id": 2, "image_id": 3, "category_id": 6, "keypoints": [1, 2, 2]})

    check(coco.read(dataset(tmp_path / "a", change)))
    assert coco.read(tmp_path / "a", category="vole").names == ("b.png",)

    def differ(content):
        content["categories"].append(rat)
        content["annotations"].append({"id": 1, "image_id": 3, "category_id": 4, "keypoints": [1, 2, 2]})

    with pytest.raises(ValueError, match=r"choose one with the option category: mouse \(snout, .*\); rat \(tail\)$"):
        coco.read(dataset(tmp_path / "b", differ))
    check(coco.read(tmp_path / "b", category="mouse"))
    with pytest.raises(ValueError, match=r"found the categories mouse, rat; expected cat$"):
        coco.read(tmp_path / "b", category="cat")


def test_crowds_and_objects_without_joints_are_left_out(tmp_path):
    def change(content):
        good = content["annotations"][0]
        content["annotations"] += [
            good | {"id": 1, "iscrowd": 1},
            good | {"id": 2, "keypoints": [0] * 9},
            good | {"id": 3, "keypoints": []},
        ]

    source = coco.read(dataset(tmp_path, change))
    check(source)
    assert source.notes == ()


def test_unusable_objects_are_counted(tmp_path):
    def change(content):
        good = content["annotations"][0]
        content["images"].append({"id": 8, "file_name": "gone.png"})
        wrong = [{"image_id": 99}, {"image_id": 8}, {"image_id": 8}, {"category_id": 9}]
        boxes = [[1, 2, 0, 4], [1, 2, 3, -4], [1, 2, 3], [1, 2, 3, float("nan")], "x", [1, 2, 3, 10**400]]
        wrong += [{"bbox": box} for box in boxes]
        wrong.append({"bbox": None, "keypoints": [1, 2, 2, 0, 0, 0, 0, 0, 0]})
        content["annotations"] += [good | {"id": i} | each for i, each in enumerate(wrong)]

    source = coco.read(dataset(tmp_path, change))
    check(source)
    assert [str(note) for note in source.subset([0]).notes] == [
        "left out objects whose image is unknown: 1 (image 99)",
        "left out objects whose image does not exist: 2 (gone.png, ...)",
        "left out objects whose category is unknown: 1 (category 9)",
        "left out objects whose box is unusable: 7 (a.png, ...)",
    ]


def test_points_that_are_no_numbers_are_missing(tmp_path):
    def change(content):
        content["annotations"][0]["keypoints"] = [float("nan"), 2, 2, 30, 40, 1, float("inf"), 1, 2]
        content["annotations"][1]["keypoints"] = [[10, 0, 2], [30, 20, 2], [1e300, 5, 1]]

    source = coco.read(dataset(tmp_path, change))
    np.testing.assert_array_equal(source.visible, [[0, 1, 0], [2, 2, 0]])
    np.testing.assert_array_equal(source.keypoints, [[[0, 0], [30, 40], [0, 0]], [[10, 0], [30, 20], [0, 0]]])


@pytest.mark.parametrize(
    ("part", "index", "field", "value", "message"),
    [
        ("annotations", 0, "keypoints", [1, 2, 2], r"keypoints of annotation 11 are 3 numbers, expected 9: x, y and"),
        ("annotations", 0, "keypoints", ["a"] * 9, r"keypoints of annotation 11 are not numbers"),
        ("annotations", 0, "keypoints", {"x": 1}, r"keypoints of annotation 11 are not numbers"),
        ("annotations", 0, "keypoints", [[1, 2], [3]], r"keypoints of annotation 11 are not numbers"),
        ("annotations", 0, "keypoints", [10**400] * 9, r"keypoints of annotation 11 are not numbers"),
        ("annotations", 0, "keypoints", [1, 2, 3] * 3, r"annotation 11 have the flags \[3\.\], expected 0, 1 or 2$"),
        ("annotations", 0, "keypoints", [1, 2, float("nan")] * 3, r"have the flags \[nan.*expected 0, 1 or 2$"),
        ("annotations", 0, "id", 12, r"annotation id 12 occurs twice"),
        ("annotations", 0, "image_id", [3], r"image_id is \[3\], expected a number or a string$"),
        ("annotations", 0, "category_id", None, r"category_id is None, expected a number or a string$"),
        ("images", 0, "id", 3, r"image id 3 occurs twice"),
        ("images", 0, "id", None, r"id is None, expected a number or a string$"),
        ("images", 0, "file_name", 5, r"file_name of image 7 is 5, expected a path$"),
        ("categories", 0, "keypoints", [], r"no category names its keypoints, expected `keypoints` with a name"),
        ("categories", 0, "keypoints", ["a", 1], r"no category names its keypoints"),
        ("categories", 0, "keypoints", ["a", "b", "a"], r"joint names are not unique"),
        ("categories", 0, "id", 99, r"found no object with labelled joints to use, left out: 2 whose category is unk"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path, part, index, field, value, message):
    def change(content):
        content[part][index][field] = value

    with pytest.raises(ValueError, match=message) as error:
        coco.read(dataset(tmp_path, change))
    assert "labels.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"labels\.json: Expecting value.*, expected JSON$"),
        (b'{"images": [', r"labels\.json: .*, expected JSON$"),
        (b"\xff\xfe{", r"labels\.json: .*, expected JSON$"),
        (b"[" * 100_000, r"labels\.json: .*, expected JSON$"),
        (b"[]", r"found no list of objects 'images'"),
        (b'{"images": [], "annotations": {}, "categories": []}', r"found no list of objects 'annotations'"),
        (b'{"images": [], "annotations": [3], "categories": []}', r"found no list of objects 'annotations'"),
        (b'{"images": [], "annotations": [], "categories": []}', r"no category names its keypoints"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        coco.read(write(tmp_path, {"labels.json": data, "a.png": IMAGE}))


def test_random_damage_gives_one_line_errors(tmp_path):
    generator, text = random.Random(0), json.dumps(CONTENT)
    odd = [None, -1, 0, 1e308, float("nan"), "", "x", [], {}, [[]], True, 10**30]
    dataset(tmp_path)
    messages = []
    for _ in range(300):
        content = json.loads(text)
        for _ in range(generator.randint(1, 3)):
            part = generator.choice(list(content))
            item = generator.choice(content[part])
            place, key = generator.choice([(content, part), (item, generator.choice(list(item)))])
            nested = place[key]
            if isinstance(nested, list) and nested and generator.random() < 0.5:
                place, key = nested, generator.randrange(len(nested))
            place[key] = generator.choice(odd)
            if place is content or not all(isinstance(i, dict) and i for i in content[part]):
                break
        (tmp_path / "labels.json").write_text(json.dumps(content))
        try:
            source = coco.read(tmp_path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert np.isfinite(source.keypoints).all()
            assert (source.bboxes[:, 2:] > 0).all()
    assert len(messages) > 50
    assert all("labels.json" in message and "\n" not in message for message in messages)


def test_real_coco_pack(pack: Callable[[str], Path]) -> None:
    path = pack("coco_mini_and_munch.tar")
    with pytest.raises(ValueError, match=r"person_keypoints_train2017\.json, .*val2017\.json; expected one JSON"):
        coco.read(path)
    parts = [coco.read(path, annotations=f"person_keypoints_{part}2017") for part in ("train", "val")]
    assert [len(part) for part in parts] == [86, 68]
    assert len({name for part in parts for name in part.names}) <= 60
    skeleton = parts[0].skeleton
    assert (skeleton.joints, skeleton.sigmas, skeleton.flips) == (COCO17.joints, COCO17.sigmas, COCO17.flips)
    assert {frozenset(bone) for bone in COCO17.bones} <= {frozenset(bone) for bone in skeleton.bones}
    inside = []
    for record in (parts[0][index] for index in range(0, 86, 9)):
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        labelled = record["keypoints"][record["visible"] > 0]
        assert ((labelled >= 0) & (labelled < (width, height))).all()
        x, y, w, h = record.get("bbox", np.zeros(4))
        inside += list(((labelled > (x - 1, y - 1)) & (labelled < (x + w, y + h))).all(axis=1))
        assert 0 < record.get("area", 0) <= w * h
    assert np.mean(inside) > 0.9


@pytest.mark.parametrize(
    ("name", "records", "joints", "flips", "bones"),
    [
        ("coco/test_coco", 12, 17, 8, 19),
        ("ap10k/test_ap10k", 1, 17, 7, 17),
        ("animalpose/test_animalpose", 2, 20, 8, 20),
        ("horse10/test_horse10", 3, 22, 0, 0),
        ("atrw/test_atrw", 2, 15, 6, 14),
        ("fly/test_fly", 2, 32, 14, 25),
        ("macaque/test_macaque", 2, 17, 8, 19),
    ],
)
def test_real_files_of_other_data_sets(pack: Callable[[str], Path], tmp_path, name, records, joints, flips, bones):
    folder = f"tests/data/{name.split('/')[0]}/"
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [member for member in archive if member.name.startswith(folder)]
        archive.extractall(tmp_path, members, filter="data")
    source = coco.read(tmp_path / f"tests/data/{name}.json")
    assert (len(source), len(source.skeleton)) == (records, joints)
    assert (len(source.skeleton.flips), len(source.skeleton.bones)) == (flips, bones)
    for index in range(records):
        record = source[index]
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        labelled = record["keypoints"][record["visible"] > 0]
        assert ((labelled >= 0) & (labelled <= (width, height))).all()
