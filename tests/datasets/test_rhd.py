import json
import pickle
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers.tfds_source import TfdsSource
from jaxpose.datasets import prepare
from jaxpose.datasets.rhd import Rhd, RhdTllib

# The owners' joints of one hand: each finger from its tip to its base.
OWNERS = [
    *("wrist", "thumb_tip", "thumb_ip", "thumb_mcp", "thumb_cmc"),
    *("index_tip", "index_dip", "index_pip", "index_mcp", "middle_tip", "middle_dip", "middle_pip", "middle_mcp"),
    *("ring_tip", "ring_dip", "ring_pip", "ring_mcp", "little_tip", "little_dip", "little_pip", "little_mcp"),
]
K = np.array([[300, 0, 160], [0, 300, 160], [0, 0, 1]], np.float32)
PNG = cv2.imencode(".png", np.full((320, 320, 3), 70, np.uint8))[1].tobytes()


def label(seed=0, left=(60, 100), right=(220, 200), spread=60.0):
    """Joints in squares about two points."""
    rng = np.random.default_rng(seed)
    uv = np.concatenate([np.array(c) + rng.uniform(-0.5, 0.5, (21, 2)) * spread for c in (left, right)])
    z = rng.uniform(0.4, 0.6, (42, 1))
    xyz = np.concatenate([(uv - 160) / 300 * z, z], axis=1)
    return {
        "uv_vis": np.concatenate([uv, np.ones((42, 1))], axis=1).astype(np.float32),
        "xyz": xyz.astype(np.float32),
        "K": K,
    }


def write(root, labels, *, part="training", mask=None):
    folder = root / "RHD_published_v2" / part
    for kind in ("color", "mask"):
        (folder / kind).mkdir(parents=True)
    if mask is None:
        mask = np.zeros((320, 320), np.uint8)
        mask[10:20, 10:20] = 2  # 100 pixels of the left hand, its first number
        mask[30:33, 10:12] = 17  # 6 of its last
        mask[40:45, 10:20] = 18  # 50 of the right hand
        mask[50:51, 10:20] = 33  # 10 of its last
        mask[60:70, 10:20] = 1  # the person
    for number in labels:
        (folder / "color" / f"{number:05d}.png").write_bytes(PNG)
        cv2.imwrite(str(folder / "mask" / f"{number:05d}.png"), mask)
    (folder / f"anno_{part}.pickle").write_bytes(pickle.dumps(labels, protocol=2))
    return root


def both(root, training, evaluation=None):
    return write(write(root, training), evaluation or {0: label()}, part="evaluation")


def read(root, builder_class=Rhd, split="train"):
    builder = builder_class(data_dir=str(root / "out"), file_format="array_record")
    return [item for shard in builder.shards(root)[split] for item in shard()]


def test_both_hands_by_joint_name(tmp_path):
    labels = {3: label(1), 7: label(2)}
    labels[3]["uv_vis"][21 + OWNERS.index("ring_dip"), 2] = 0
    found = read(both(tmp_path, labels))
    assert [r["name"] for r in found] == [f"training/color/0000{i}.png {h}" for i in (3, 7) for h in ("left", "right")]
    assert [r["hand"] for r in found] == ["left", "right"] * 2
    for start, record in ((0, found[0]), (21, found[1])):
        for k, joint in enumerate(Rhd.SKELETON.joints):
            row = start + OWNERS.index(joint)
            np.testing.assert_array_equal(record["keypoints"][k], labels[3]["uv_vis"][row, :2])
            np.testing.assert_array_equal(record["keypoints3d"][k], labels[3]["xyz"][row])
        projected = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record["keypoints"], atol=1e-3)
        low = labels[3]["uv_vis"][start : start + 21, :2].min(axis=0)
        np.testing.assert_allclose(record["bbox"][:2], low)
    assert found[0]["visible"].tolist() == [2] * 21
    occluded = [j for j, v in zip(Rhd.SKELETON.joints, found[1]["visible"], strict=True) if v == 1]
    assert occluded == ["ring_dip"]
    assert (found[0]["visible"].dtype, found[0]["keypoints"].dtype) == (np.uint8, np.float32)


def test_mask_gives_area_and_parts(tmp_path):
    found = read(both(tmp_path, {0: label()}))
    assert [r["area"] for r in found] == [106.0, 60.0]
    parts = cv2.imdecode(np.frombuffer(found[0]["segmentation"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert (parts[12, 12], parts[31, 11], parts[42, 15], parts[50, 10], parts[65, 15]) == (2, 17, 18, 33, 1)


def test_joints_outside_are_missing(tmp_path):
    labels = {0: label()}
    labels[0]["uv_vis"][OWNERS.index("thumb_tip")] = (-30, 50, 0)
    labels[0]["uv_vis"][OWNERS.index("index_tip")] = (np.nan, 50, 0)
    labels[0]["xyz"][OWNERS.index("wrist"), 2] = -0.1  # behind the camera
    record = read(both(tmp_path, labels))[0]
    missing = {j for j, v in zip(Rhd.SKELETON.joints, record["visible"], strict=True) if v == 0}
    assert missing == {"thumb_tip", "index_tip", "wrist"}
    assert np.isfinite(record["keypoints"]).all()
    assert record["bbox"][0] > 0


def test_hands_and_images_that_are_left_out(tmp_path):
    labels = {i: label(i) for i in range(6)}
    labels[0]["uv_vis"][5:21, 2] = 0  # 5 visible joints
    labels[1]["uv_vis"] = labels[1]["uv_vis"][:21]
    labels[2] = "no label"
    root = both(tmp_path, labels)
    folder = root / "RHD_published_v2" / "training"
    (folder / "color" / "00003.png").unlink()
    (folder / "mask" / "00004.png").write_bytes(b"")
    cv2.imwrite(str(folder / "mask" / "00005.png"), np.zeros((320, 319), np.uint8))
    found = read(root)
    assert found[0] == Skipped("training/color/00000.png left", "fewer than 6 joints are visible")
    assert found[1]["name"].endswith("00000.png right")
    malformed = "the label is not 42 joints in 2D and 3D and 3x3 intrinsics"
    mask = "the mask is missing or not one channel of bytes"
    assert [item.reason for item in found[2:]] == [malformed, malformed, "the image is missing", mask, mask]


def test_tllib_filter(tmp_path):
    labels = {i: label(i) for i in range(5)}
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])

    def square(hand, low, side):
        points = np.tile(corners, (6, 1))[:21] * side + np.array(low)
        labels[hand[0]]["uv_vis"][hand[1] : hand[1] + 21, :2] = points

    square((0, 0), (20, 20), 44)  # crop of 66 pixels: its sides are 65 apart
    square((0, 21), (200, 200), 43)  # 64
    labels[1]["uv_vis"][:4, 2] = 0  # 17 visible joints
    labels[1]["uv_vis"][21:26, 2] = 0  # 16
    # The left crop is 85..234 in both axes; of its 150 x 150 the right box covers 80 x 84 (29.9 %), then 81 x 84.
    square((2, 0), (110, 110), 100)
    square((2, 21), (155, 151), 200)
    square((3, 0), (110, 110), 100)
    square((3, 21), (154, 151), 200)
    square((4, 0), (0, 0), 60)  # the crop moves into the image: 0..89
    square((4, 21), (35, 35), 200)  # covers 55 x 55 of its 90 x 90, but only 40 x 40 of the unmoved crop
    found = read(both(tmp_path, labels), RhdTllib)
    left = {}
    for item in found:
        name, hand = (item.name if isinstance(item, Skipped) else item["name"]).rsplit("/")[-1].split()
        left[f"{int(name[:5])} {hand}"] = item.reason if isinstance(item, Skipped) else "kept"
    assert {name: left[name] for name in ("0 left", "0 right", "1 left", "1 right")} == {
        "0 left": "kept",
        "0 right": "the crop is not larger than 65 pixels",
        "1 left": "kept",
        "1 right": "fewer than 17 joints are visible",
    }
    assert [left[f"{i} left"] for i in (2, 3, 4)] == ["kept", *["the other hand covers 30 % of the crop"] * 2]


def test_tllib_filter_agrees_with_a_plain_version(tmp_path):
    rng = np.random.default_rng(5)
    labels = {}
    for i in range(60):
        left, right = rng.uniform(20, 300, (2, 2))
        labels[i] = label(i, left, right, spread=rng.uniform(30, 200))
        labels[i]["uv_vis"][:, 2] = rng.uniform(size=42) < 0.85
    expected = []
    for number, item in labels.items():
        hands = {"left": item["uv_vis"][:21], "right": item["uv_vis"][21:]}
        for side, own in hands.items():
            other = hands["right" if side == "left" else "left"]
            width, height = np.ptp(own[:, 0]), np.ptp(own[:, 1])
            side_length = min(int(np.rint(1.5 * max(width, height))), 320)
            x0 = int(np.rint((own[:, 0].min() + own[:, 0].max()) / 2 - side_length / 2))
            y0 = int(np.rint((own[:, 1].min() + own[:, 1].max()) / 2 - side_length / 2))
            x0 -= max(x0 + side_length - 320, 0) + min(x0, 0)
            y0 -= max(y0 + side_length - 320, 0) + min(y0, 0)
            across = min(x0 + side_length - 1, other[:, 0].max()) - max(x0, other[:, 0].min()) + 1
            down = min(y0 + side_length - 1, other[:, 1].max()) - max(y0, other[:, 1].min()) + 1
            overlap = max(across, 0) * max(down, 0) / side_length**2
            if side_length > 65 and own[:, 2].sum() > 16 and overlap < 0.3:
                expected.append(f"training/color/{number:05d}.png {side}")
    found = [r["name"] for r in read(both(tmp_path, labels), RhdTllib) if not isinstance(r, Skipped)]
    assert found == expected
    assert 10 < len(found) < 110


def test_shards_are_of_500_images(tmp_path):
    labels = {i: {"uv_vis": None} for i in range(501)}
    root = both(tmp_path, {0: label()})
    (root / "RHD_published_v2/training/anno_training.pickle").write_bytes(pickle.dumps(labels))
    shards = Rhd(data_dir=str(root / "out"), file_format="array_record").shards(root)["train"]
    assert [len(list(pickle.loads(pickle.dumps(shard))())) for shard in shards] == [500, 1]


class _Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile"),)


def test_layout_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"anno_training\.pickle: found no such file or folder, expected the joints"
    ):
        read(tmp_path)
    root = both(tmp_path, {0: label()})
    path = root / "RHD_published_v2/training/anno_training.pickle"
    path.write_bytes(pickle.dumps({0: _Hostile()}))
    with pytest.raises(ValueError, match=r"anno_training\.pickle: refused .*expected only arrays and plain containers"):
        read(root)
    assert not Path("hostile").exists()
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"anno_training\.pickle: found list, expected labels by the number"):
        read(root)
    path.write_bytes(pickle.dumps({"../../0": label()}))
    with pytest.raises(ValueError, match=r"found an image '\.\./\.\./0', expected a number"):
        read(root)
    path.write_bytes(pickle.dumps({0: label()}))
    (root / "RHD_published_v2/training/mask/00000.png").unlink()
    (root / "RHD_published_v2/training/mask").rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"mask: found no such file or folder, expected the images mask/00000\.png"
    ):
        read(root)


def test_prepared(tmp_path):
    root = both(tmp_path, {3: label(1)})
    folder = prepare.prepare(Rhd, root, tmp_path / "data")
    source = TfdsSource(folder=folder, split="train")
    assert len(source) == 2
    record = source[1]
    assert (record["hand"], record["area"]) == ("right", 60.0)
    assert record["image"] == PNG
    np.testing.assert_array_equal(record["keypoints"], read(root)[1]["keypoints"])
    assert source.skeleton.joints == Rhd.SKELETON.joints


def test_real_images(tmp_path, pack):
    """Labels of real images, put into the owners' layout, keep their joints and sides."""
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [m for m in archive if m.name.startswith("tests/data/rhd/")]
        archive.extractall(tmp_path / "pack", members=members, filter="data")
    converted = json.loads((tmp_path / "pack/tests/data/rhd/test_rhd.json").read_text())
    cameras = {image["id"]: image["cam_param"] for image in converted["images"]}
    labels, sides = {}, []
    for item in converted["annotations"]:
        item_label, start = label(0), 0 if item["hand_type"] == "left" else 21
        item_label["uv_vis"][:, 2] = 0
        item_label["uv_vis"][start : start + 21] = item["keypoints"]
        item_label["xyz"][start : start + 21] = np.array(item["joint_cam"]) / 1000
        camera = cameras[item["image_id"]]
        item_label["K"] = np.array([[camera["focal"][0], 0, 160], [0, camera["focal"][1], 160], [0, 0, 1]])
        labels[item["image_id"]] = item_label
        sides.append(item["hand_type"])
    root = both(tmp_path, labels)
    for number in labels:
        image = (tmp_path / f"pack/tests/data/rhd/{number:05d}.png").read_bytes()
        (root / f"RHD_published_v2/training/color/{number:05d}.png").write_bytes(image)
    found = [r for r in read(root) if not isinstance(r, Skipped)]
    assert [r["hand"] for r in found] == sides
    for record in found:
        projected = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record["keypoints"], atol=0.1)
        assert (np.sign(bend(record["keypoints3d"])) > 0) == (record["hand"] == "right")


def bend(joints):
    """Positive where fingers bend the way a right hand's do: towards the cross product of across and along the palm."""
    at = dict(zip(Rhd.SKELETON.joints, np.float64(joints), strict=True))
    along = at["middle_mcp"] - at["wrist"]
    palm = np.cross(at["index_mcp"] - at["little_mcp"], along)
    curl = sum(at[f"{f}_tip"] - at[f"{f}_mcp"] for f in ("index", "middle", "ring", "little"))
    return curl @ palm
