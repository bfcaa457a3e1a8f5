import json
import tarfile

import flat_common as common
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import COCO17
from jaxpose.datasets import coco

NAMES = [
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
]


def person(number, **changes):
    keypoints = [value for i in range(17) for value in (20 + i, 30 - i, 2)]
    return {
        "id": number,
        "image_id": 785,
        "iscrowd": 0,
        "keypoints": keypoints,
        "num_keypoints": 17,
        "bbox": [10.5, 5, 30, 40],
        "area": 612.25,
        "segmentation": [[1, 2, 3, 4, 5, 6]],
        **changes,
    }


def annotations(people, file_name="000000000785.jpg", joints=NAMES):
    return json.dumps(
        {
            "images": [{"id": 785, "file_name": file_name}, {"id": 5, "file_name": "absent.jpg"}],
            "annotations": people,
            "categories": [{"id": 1, "name": "person", "keypoints": joints}],
        }
    )


@pytest.fixture
def root(tmp_path):
    partly = [0, 0, 0, 7, 8, 1, *[0] * 45]
    people = [
        person(1),
        person(2, keypoints=partly),
        person(3, keypoints=[0] * 51),
        person(4, iscrowd=1, segmentation={"counts": [1], "size": [1, 1]}),
        person(5, image_id=5),
        person(6, image_id=6),
        person(7, keypoints=partly[:50]),
        person(8, keypoints=[1, 1, 3, *[0] * 48]),
        person(9, bbox=[1, 2, 0, 4]),
        person(11, area=10**400),
    ]
    folder = tmp_path / "coco"
    common.write(folder / "annotations" / "person_keypoints_train2017.json", annotations(people))
    common.write(folder / "annotations" / "person_keypoints_val2017.json", annotations([person(10)]))
    common.write(folder / "train2017" / "000000000785.jpg", common.picture(value=20))
    common.write(folder / "val2017" / "000000000785.jpg", common.picture(value=220))
    return folder


def test_people_with_keypoints(root):
    found = common.splits(coco.CocoKeypoints, root)
    first, second = common.records(found["train"])
    for i, name in enumerate(NAMES):
        assert common.joint(COCO17, first, name) == (20 + i, 30 - i, 2)
    assert common.joint(COCO17, second, "left_eye") == (7, 8, 1)
    assert np.count_nonzero(second["visible"]) == 1
    np.testing.assert_array_equal(first["bbox"], [10.5, 5, 30, 40])
    assert first["area"] == 612.25
    assert first["image"] == common.picture(value=20)
    (valid,) = common.records(found["validation"])
    assert valid["image"] == common.picture(value=220)
    assert valid["name"] == "val2017/000000000785.jpg#10"


def test_reasons(root):
    assert common.reasons(common.splits(coco.CocoKeypoints, root)["train"]) == {
        "train2017/000000000785.jpg#3": "no keypoint is labelled",
        "train2017/000000000785.jpg#4": "it is a crowd",
        "train2017/absent.jpg#5": "the image is missing",
        f"train2017: {str(person(6, image_id=6))[:60]}": "it names no image",
        "train2017/000000000785.jpg#7": "it has no 17 keypoints of x, y and 0, 1 or 2",
        "train2017/000000000785.jpg#8": "it has no 17 keypoints of x, y and 0, 1 or 2",
        "train2017/000000000785.jpg#9": "it has no box and area",
        "train2017/000000000785.jpg#11": "it has no box and area",
    }


def test_prepared(root, tmp_path):
    common.check_prepared(coco.CocoKeypoints, root, tmp_path / "data", "train")


def test_images_outside_of_the_folder(root):
    path = root / "annotations" / "person_keypoints_val2017.json"
    for name in ("../annotations/person_keypoints_val2017.json", "../../secret.jpg"):
        path.write_text(annotations([person(1)], file_name=name))
        (reason,) = common.reasons(common.splits(coco.CocoKeypoints, root)["validation"]).values()
        assert reason == "its image lies outside of the folder of images"


def test_errors(root):
    path = root / "annotations" / "person_keypoints_val2017.json"
    path.write_text(annotations([], joints=NAMES[:12]))
    with pytest.raises(ValueError, match=r"val2017\.json: keypoints are \['nose'.*expected nose, left_eye"):
        common.splits(coco.CocoKeypoints, root)
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"val2017\.json: holds images; expected a list of annotations"):
        common.splits(coco.CocoKeypoints, root)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"val2017\.json: .*expected COCO's annotations of people"):
        common.splits(coco.CocoKeypoints, root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"person_keypoints_val2017\.json: found no such file"):
        common.splits(coco.CocoKeypoints, root)
    with pytest.raises(
        FileNotFoundError, match=r"train2017: found no such file or folder, expected a folder of COCO's"
    ):
        common.splits(coco.CocoKeypoints, root / "annotations")


def test_real_people(pack, tmp_path):
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("tests/data/coco/")]
        archive.extractall(tmp_path, members, filter="data")
    here = tmp_path / "tests" / "data" / "coco"
    (here / "annotations").mkdir()
    for part in ("train2017", "val2017"):
        (here / part).mkdir()
        (here / "annotations" / f"person_keypoints_{part}.json").write_bytes((here / "test_coco.json").read_bytes())
        for image in here.glob("*.jpg"):
            (here / part / image.name).write_bytes(image.read_bytes())
    found = common.splits(coco.CocoKeypoints, here)["validation"]
    assert len(common.records(found)) == 12
    assert set(common.reasons(found).values()) == {"no keypoint is labelled"}
    for record in common.records(found):
        x, y, width, height = record["bbox"]
        labelled = record["keypoints"][record["visible"] > 0]
        assert ((labelled >= (x, y)) & (labelled <= (x + width, y + height))).mean() > 0.9  # boxes are of the segments
        assert 0 < record["area"] <= width * height
        files.decode_image(record["image"], record["name"])
