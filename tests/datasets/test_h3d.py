import json
import random

import cv2
import numpy as np
import pytest

from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers.tfds_source import TfdsSource
from jaxpose.datasets import prepare
from jaxpose.datasets.h3d import H3d

# tllib's order, each finger from its base.
TLLIB = [
    *("wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *("index_mcp", "index_pip", "index_dip", "index_tip", "middle_mcp", "middle_pip", "middle_dip", "middle_tip"),
    *("ring_mcp", "ring_pip", "ring_dip", "ring_tip", "little_mcp", "little_pip", "little_dip", "little_tip"),
]
JPG = cv2.imencode(".jpg", np.full((90, 90, 3), 120, np.uint8))[1].tobytes()
K = np.array([[700.0, 0, 2000], [0, 710, 1500], [0, 0, 1]])  # of a whole photograph
CORNER = np.array([1955.0, 1455])  # of the crop in it


def label(number, *, part=1, without_object=1, unit=1000.0, cropped_intrinsics=True):
    """A hand of 9.5 centimetres from wrist to knuckle, 80 centimetres away."""
    rng = np.random.default_rng(number)
    joints = rng.uniform(-0.05, 0.05, (21, 3)) + np.array([0, 0, 0.8])
    joints[TLLIB.index("middle_mcp")] = joints[0] + [0, 0.095, 0]
    matrix = K.copy()
    matrix[:2, 2] -= CORNER
    projected = joints @ matrix.T
    return {
        "name": f"part{part}/{number}.jpg",
        "keypoint2d": (projected[:, :2] / projected[:, 2:]).tolist(),
        "keypoint3d": (joints * unit).tolist(),
        "intrinsic_matrix": (matrix if cropped_intrinsics else K).tolist(),
        "without_object": without_object,
    }


def write(root, labels, *, images=True):
    folder = root / "H3D_crop"
    folder.mkdir(exist_ok=True)
    (folder / "annotation.json").write_text(json.dumps(labels))
    for item in labels if images else ():
        path = folder / item["name"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(JPG)
    return root


def read(root, split="noobject"):
    shards = H3d(data_dir=str(root / "out"), file_format="array_record").shards(root)
    return [item for shard in shards[split] for item in shard()]


def projected(record):
    points = record["keypoints3d"] @ record["intrinsics"].T
    return points[:, :2] / points[:, 2:]


def test_images_without_and_with_an_object_in_the_order_of_the_file(tmp_path):
    labels = [label(i, part=1 + i % 3, without_object=i % 2) for i in range(6)]
    labels[1]["without_object"] = "1"
    write(tmp_path, labels)
    found = read(tmp_path)
    assert [r["name"] for r in found] == ["part2/1.jpg", "part1/3.jpg", "part3/5.jpg"]
    assert [r["sequence"] for r in found] == ["part2", "part1", "part3"]
    assert [r["name"] for r in read(tmp_path, "object")] == ["part1/0.jpg", "part3/2.jpg", "part2/4.jpg"]
    for k, joint in enumerate(H3d.SKELETON.joints):
        row = TLLIB.index(joint)
        np.testing.assert_allclose(found[0]["keypoints"][k], labels[1]["keypoint2d"][row], rtol=1e-6)
        np.testing.assert_allclose(found[0]["keypoints3d"][k], np.array(labels[1]["keypoint3d"][row]) / 1000, rtol=1e-6)
    np.testing.assert_allclose(projected(found[0]), found[0]["keypoints"], atol=1e-3)
    assert found[0]["hand"] == "right"
    assert (found[0]["visible"] == 2).all()


@pytest.mark.parametrize("unit", [1.0, 100.0, 1000.0], ids=["metres", "centimetres", "millimetres"])
def test_the_unit_is_taken_from_the_palm(tmp_path, unit):
    write(tmp_path, [label(i, unit=unit) for i in range(3)])
    joints = read(tmp_path)[2]["keypoints3d"]
    palm = joints[H3d.SKELETON.joints.index("middle_mcp")] - joints[H3d.SKELETON.joints.index("wrist")]
    np.testing.assert_allclose(palm, [0, 0.095, 0], atol=1e-6)


def test_intrinsics_of_the_photograph_are_moved_into_the_crop(tmp_path):
    half = label(1, cropped_intrinsics=False)
    half["keypoint2d"] = (np.array(half["keypoint2d"]) / 2).tolist()
    wrong = label(2)
    wrong["keypoint2d"] = np.random.default_rng(9).uniform(0, 90, (21, 2)).tolist()
    write(tmp_path, [label(0, cropped_intrinsics=False), half, wrong])
    moved, shrunk, skipped = read(tmp_path)
    expected = K.copy()
    expected[:2, 2] -= CORNER
    np.testing.assert_allclose(moved["intrinsics"], expected, rtol=1e-4)
    np.testing.assert_allclose(np.diag(shrunk["intrinsics"]), [350, 355, 1], rtol=1e-4)
    for record in (moved, shrunk):
        np.testing.assert_allclose(projected(record), record["keypoints"], atol=1e-2)
    assert skipped == Skipped("part1/2.jpg", "the 3D joints do not project to the 2D joints")


def test_broken_labels_and_images_are_left_out(tmp_path):
    labels = [label(i) for i in range(6)]
    write(tmp_path, labels)
    labels[0]["keypoint2d"] = labels[0]["keypoint2d"][:20]
    labels[1]["name"] = 7
    labels[2]["name"] = "../../secret.jpg"
    labels[3]["intrinsic_matrix"] = None
    labels[4]["name"] = "part1/absent.jpg"
    del labels[5]["keypoint3d"]
    (tmp_path.parent / "secret.jpg").write_bytes(JPG)
    write(tmp_path, labels, images=False)
    assert [item.reason for item in read(tmp_path)] == [
        "the label lacks 21 joints in 2D or 3D",
        "the label names no image",
        "its image lies outside of the folder of images",
        "the label lacks 3x3 intrinsics",
        "the image is missing",
        "the label lacks 21 joints in 2D or 3D",
    ]


@pytest.mark.parametrize("count", [13_777, 20_000])
def test_tllib_preset(count):
    names = [f"{i}" for i in range(count)]
    state = random.getstate()
    random.seed(42)
    random.shuffle(names)
    random.setstate(state)
    tests = min(int(count * 0.2), 3200)
    found = H3d.PRESETS["tllib"]({"noobject": count, "object": 5})
    assert {split: [f"{i}" for _, i in rows] for split, rows in found.items()} == {
        "train": names[tests:],
        "test": names[:tests],
    }
    assert {split for rows in found.values() for split, _ in rows} == {"noobject"}


def test_layout_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotation\.json: no such file, expected a list of images"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"annotation\.json: found a dict, expected a list of images"):
        read(write(tmp_path, {}, images=False))
    with pytest.raises(ValueError, match=r"without_object of 'part1/0\.jpg' is 2, expected 0 or 1"):
        read(write(tmp_path, [label(0, without_object=2)], images=False))


def test_prepared(tmp_path):
    write(tmp_path, [label(i) for i in range(3)])
    folder = prepare.prepare(H3d, tmp_path, tmp_path / "data")
    source = TfdsSource(folder=folder, split="noobject")
    assert len(source) == 3
    record, expected = source[2], read(tmp_path)[2]
    assert (record["image"], record["sequence"], record["hand"]) == (JPG, "part1", "right")
    for field in ("keypoints", "keypoints3d", "intrinsics"):
        np.testing.assert_array_equal(record[field], expected[field])
