import cv2
import flat_common as common
import numpy as np
import pytest
import scipy.io

from jaxpose.data.joints import joint_sets
from jaxpose.datasets.simplified_human36m import HUMAN36M32, SimplifiedHuman36m

CLIP = "Directions 1.54138969"


def shares(frame):
    """x is the joint's number, y the frame's."""
    return np.stack([np.arange(32) / 40, np.full(32, frame / 100)], axis=1)


def write_frame(subject, clip, frame, points=None):
    mask = np.zeros((128, 128), np.uint8)
    mask[10:20, 30:50] = 255
    common.write(subject / "WithBackground" / clip / f"{frame}.jpg", common.picture(128, 128, 2 * frame))
    common.write(subject / "BackgroudMask" / clip / f"{frame}.png", cv2.imencode(".png", mask)[1].tobytes())
    path = subject / "Landmarks" / clip / f"{frame}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"keypoints_2d": shares(frame) if points is None else points})


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "simplified"
    for number in (1, 5, 6, 7, 8, 9, 11):
        for kind in ("WithBackground", "BackgroudMask", "Landmarks"):
            (folder / f"S{number}" / kind).mkdir(parents=True)
    for frame in (2, 10, 1, 9, 30):  # sorted as numbers: 1 2 | 9 10 30
        write_frame(folder / "S1", CLIP, frame)
    write_frame(folder / "S1", "Smoking.54138969", 1)
    write_frame(folder / "S9", "walking 2", 7)
    write_frame(folder / "S11", "Waiting", 40)
    return folder


def test_clips_are_halved(root):
    found = common.splits(SimplifiedHuman36m, root)
    assert [r["frame"] for r in found["train"]] == [1, 2]
    assert [(r["sequence"], r["frame"]) for r in found["poses"]] == [
        *((f"S1/{CLIP}", frame) for frame in (9, 10, 30)),
        ("S9/walking 2", 7),
    ]
    assert [r["name"] for r in found["test"]] == ["S11/Waiting/40"]


def test_joints_in_pixels(root):
    (record,) = common.splits(SimplifiedHuman36m, root)["test"]
    # The numbers of Human3.6M's joints.
    expected = {"pelvis": 0, "right_hip": 1, "left_hip": 6, "left_ankle": 8, "spine": 12, "neck": 13, "jaw": 14}
    expected |= {"head_top": 15, "left_shoulder": 17, "left_wrist": 19, "right_shoulder": 25, "right_wrist": 27}
    for name, number in expected.items():
        x, y, visible = common.joint(HUMAN36M32, record, name)
        assert (x, y) == (pytest.approx(128 * number / 40 - 0.5, abs=1e-4), pytest.approx(128 * 0.4 - 0.5, abs=1e-4))
        assert visible == 2
    assert record["image"] == common.picture(128, 128, 80)
    np.testing.assert_array_equal(record["bbox"], [0, 0, 128, 128])
    part = cv2.imdecode(np.frombuffer(record["segmentation"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert part.sum() == 10 * 20
    assert part[10, 30] == part[19, 49] == 1


def test_skeleton():
    assert len(HUMAN36M32) == 32
    assert len(HUMAN36M32.flips) == 13
    flips = HUMAN36M32.flip_permutation
    assert HUMAN36M32.joints[flips[HUMAN36M32.joints.index("left_toes")]] == "right_toes"
    assert set(joint_sets.COMMON12.joints) <= set(HUMAN36M32.joints)


def test_broken_frames_are_skipped(root):
    folder = root / "S1"
    (folder / "Landmarks" / CLIP / "1.mat").write_bytes(b"text")
    (folder / "BackgroudMask" / CLIP / "2.png").unlink()
    (folder / "BackgroudMask" / CLIP / "9.png").write_bytes(b"text")
    write_frame(folder, CLIP, 10, points=shares(10)[:17])
    common.write(folder / "BackgroudMask" / CLIP / "30.png", common.picture(64, 64, 255, ".png"))
    found = common.splits(SimplifiedHuman36m, root)
    assert common.reasons([*found["train"], *found["poses"]]) == {
        f"S1/{CLIP}/1": "there is no file with keypoints_2d of 32 joints",
        f"S1/{CLIP}/2": "the mask is missing",
        f"S1/{CLIP}/9": "the image or its mask cannot be decoded",
        f"S1/{CLIP}/10": "there is no file with keypoints_2d of 32 joints",
        f"S1/{CLIP}/30": "the mask is not of the image's size",
    }


def test_prepared(root, tmp_path):
    assert len(common.check_prepared(SimplifiedHuman36m, root, tmp_path / "data", "poses")) == 4


def test_missing_folder(root):
    (root / "S8" / "Landmarks").rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"S8/Landmarks: found no such file or folder, expected a folder of clips"
    ):
        common.splits(SimplifiedHuman36m, root)
