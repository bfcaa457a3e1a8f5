import json
import pickle
import random

import cv2
import numpy as np
import pytest

from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers.tfds_source import TfdsSource, open_preset
from jaxpose.datasets import prepare
from jaxpose.datasets.freihand import Freihand

# The owners' order, each finger from its base.
OWNERS = [
    *("wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *("index_mcp", "index_pip", "index_dip", "index_tip", "middle_mcp", "middle_pip", "middle_dip", "middle_tip"),
    *("ring_mcp", "ring_pip", "ring_dip", "ring_tip", "little_mcp", "little_pip", "little_dip", "little_tip"),
]


def image(number):
    pixels = np.full((224, 224, 3), number % 200, np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write(root, poses, *, part="training", variants=4):
    """Labels of `poses` hands about 60 centimetres away and their images."""
    rng = np.random.default_rng(poses)
    (root / part / "rgb").mkdir(parents=True)
    for number in range(poses * variants):
        (root / part / "rgb" / f"{number:08d}.jpg").write_bytes(image(number))
    xyz = rng.uniform(-0.07, 0.07, (poses, 21, 3)) + np.array([0, 0, 0.6])
    k = np.array([[[480 + i, 0, 112], [0, 481 + i, 113], [0, 0, 1]] for i in range(poses)])
    (root / f"{part}_K.json").write_text(json.dumps(k.tolist()))
    (root / f"{part}_xyz.json").write_text(json.dumps(xyz.tolist()))
    return xyz, k


def read(root, split="train"):
    shards = Freihand(data_dir=str(root / "out"), file_format="array_record").shards(root)
    return [item for shard in shards[split] for item in shard()]


def test_four_variants_share_the_labels_of_a_pose(tmp_path):
    xyz, k = write(tmp_path, 3)
    found = read(tmp_path)
    assert [r["name"] for r in found] == [f"training/rgb/{i:08d}.jpg" for i in range(12)]
    for number, record in enumerate(found):
        assert record["image"] == image(number)
        pose = number % 3
        for joint, found3d, found2d in zip(
            Freihand.SKELETON.joints, record["keypoints3d"], record["keypoints"], strict=True
        ):
            x, y, z = xyz[pose, OWNERS.index(joint)]
            np.testing.assert_allclose(found3d, (x, y, z), rtol=1e-6)
            np.testing.assert_allclose(found2d, ((480 + pose) * x / z + 112, (481 + pose) * y / z + 113), rtol=1e-5)
        np.testing.assert_array_equal(record["intrinsics"], k[pose])
        assert record["hand"] == "right"
        assert (record["visible"] == 2).all()
        x, y, w, h = record["bbox"]
        np.testing.assert_allclose([x, y], record["keypoints"].min(axis=0))
        np.testing.assert_allclose([x + w - 1, y + h - 1], record["keypoints"].max(axis=0), rtol=1e-6)


def test_joints_outside_are_missing_and_broken_ones_are_left_out(tmp_path):
    xyz, _ = write(tmp_path, 3)
    xyz[0, OWNERS.index("ring_tip"), 0] = 0.3
    xyz[1, :, 2] = -0.6  # behind the camera
    xyz[2, OWNERS.index("wrist")] = np.nan
    (tmp_path / "training_xyz.json").write_text(json.dumps(xyz.tolist()))
    (tmp_path / "training/rgb/00000003.jpg").unlink()
    found = read(tmp_path)
    missing = [j for j, v in zip(Freihand.SKELETON.joints, found[0]["visible"], strict=True) if v == 0]
    assert missing == ["ring_tip"]
    assert found[1] == Skipped("training/rgb/00000001.jpg", "no joint lies in the image")
    assert np.isfinite(found[2]["keypoints3d"]).all()
    assert found[2]["visible"][Freihand.SKELETON.joints.index("wrist")] == 0
    assert found[3] == Skipped("training/rgb/00000003.jpg", "the image is missing")


def test_evaluation_is_a_split_once_it_has_labels(tmp_path):
    write(tmp_path, 1)
    assert set(Freihand(data_dir=str(tmp_path / "out")).shards(tmp_path)) == {"train"}
    write(tmp_path, 2, part="evaluation", variants=1)
    assert [r["name"] for r in read(tmp_path, "test")] == [f"evaluation/rgb/0000000{i}.jpg" for i in range(2)]


def test_shards_can_be_pickled_and_hold_a_thousand(tmp_path):
    write(tmp_path, 251, variants=0)
    shards = Freihand(data_dir=str(tmp_path / "out")).shards(tmp_path)["train"]
    assert [len(list(pickle.loads(pickle.dumps(shard))())) for shard in shards] == [1000, 4]


def test_tllib_preset():
    """Against the released procedure, image by image; the numbers are of the published set."""
    names = []
    for variant in ("gs", "auto", "sample", "hom"):
        first = {"gs": 0, "hom": 32560, "sample": 65120, "auto": 97680}[variant]
        names += range(first, first + 32560)
    state = random.getstate()
    random.seed(42)
    random.shuffle(names)
    random.setstate(state)
    found = Freihand.PRESETS["tllib"]({"train": 130240, "test": 3960})
    assert found == {"train": [("train", i) for i in names[3200:]], "test": [("train", i) for i in names[:3200]]}
    assert Freihand.PRESETS["tllib"]({"train": 130239}) == {}


def test_layout_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training/rgb: found no such file or folder, expected the images"):
        read(tmp_path)
    write(tmp_path, 2)
    (tmp_path / "training_K.json").write_text("[[[1, 2], [3, 4]]]")
    with pytest.raises(ValueError, match=r"training_K\.json: found shape \(1, 2, 2\), expected \(None, 3, 3\)"):
        read(tmp_path)
    (tmp_path / "training_K.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"training_K\.json: .*expected 3x3 intrinsics"):
        read(tmp_path)
    (tmp_path / "training_K.json").write_text(json.dumps(np.eye(3)[None].tolist()))
    with pytest.raises(ValueError, match=r"training_xyz\.json: found 2 poses, expected the 1 of _K\.json"):
        read(tmp_path)
    (tmp_path / "training_xyz.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"training_xyz\.json: no such file, expected 21 joints"):
        read(tmp_path)


def test_prepared(tmp_path):
    write(tmp_path, 3)
    write(tmp_path, 2, part="evaluation", variants=1)
    folder = prepare.prepare(Freihand, tmp_path, tmp_path / "data")
    source = TfdsSource(folder=folder, split="train")
    assert (len(source), len(TfdsSource(folder=folder, split="test"))) == (12, 2)
    record, expected = source[7], read(tmp_path)[7]
    assert record["image"] == image(7)
    for field in ("keypoints", "keypoints3d", "intrinsics", "bbox", "visible"):
        np.testing.assert_array_equal(record[field], expected[field])
    assert source.skeleton.joints == Freihand.SKELETON.joints
    preset = open_preset(folder, "tllib")
    assert {split: len(part) for split, part in preset.items()} == {"train": 10, "test": 2}
