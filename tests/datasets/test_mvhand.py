import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers.tfds_source import TfdsSource
from jaxpose.datasets import prepare
from jaxpose.datasets.mvhand import Mvhand

# The owners' order: the thumb comes last.
OWNERS = [
    *("wrist", "index_mcp", "index_pip", "index_dip", "index_tip", "middle_mcp", "middle_pip", "middle_dip"),
    *("middle_tip", "ring_mcp", "ring_pip", "ring_dip", "ring_tip", "little_mcp", "little_pip", "little_dip"),
    *("little_tip", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
]
SERIALS = ("840412062035", "840412062037", "840412062038", "840412062076")
JPG = cv2.imencode(".jpg", np.full((480, 640, 3), 120, np.uint8))[1].tobytes()


def poses():
    """Cameras around a point 600 millimetres before the second one, whose frame the joints are in."""
    found = {}
    for serial, angle in zip(SERIALS, (-40, 0, 30, 60), strict=True):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("y", angle, degrees=True).as_matrix()
        pose[:3, 3] = np.array([0, 0, 600]) - pose[:3, :3] @ [0, 0, 600]
        found[serial] = pose
    return found


def write(root, name, frames, *, seed=0, column=False):
    folder = root / name
    (folder / "rgb").mkdir(parents=True)
    (folder / "mlresults").mkdir()
    for frame in range(frames):
        for view in range(4):
            (folder / "rgb" / f"{frame:05d}_{view}.jpg").write_bytes(JPG)
    (folder / "calib.pkl").write_bytes(pickle.dumps(dict(reversed(poses().items()))))
    joints = np.ones((frames, 21, 4))
    joints[..., :3] = np.random.default_rng(seed).uniform(-80, 80, (frames, 21, 3)) + np.array([0, 0, 600])
    np.save(folder / "mlresults" / f"{name}-joints.npy", joints[..., None] if column else joints)
    return joints


def shards(root):
    return Mvhand(data_dir=str(root / "out"), file_format="array_record").shards(root)


def read(root, split="train"):
    return [item for shard in shards(root)[split] for item in shard()]


@pytest.mark.parametrize("column", [False, True], ids=["Nx21x4", "Nx21x4x1"])
def test_each_view_has_the_joints_in_its_own_frame(tmp_path, column):
    joints = write(tmp_path, "7-14-1-2", 2, column=column)
    found = read(tmp_path)
    assert [r["name"] for r in found] == [f"7-14-1-2/rgb/0000{f}_{v}.jpg" for v in range(4) for f in range(2)]
    assert [(r["sequence"], r["frame"]) for r in found] == [(f"7-14-1-2_{v}", f) for v in range(4) for f in range(2)]
    for view, serial in enumerate(SERIALS):
        record = found[2 * view + 1]
        pose = poses()[serial]
        for k, joint in enumerate(Mvhand.SKELETON.joints):
            # The pose maps from the camera, in millimetres.
            back = pose[:3, :3] @ (record["keypoints3d"][k] * 1000) + pose[:3, 3]
            np.testing.assert_allclose(back, joints[1, OWNERS.index(joint), :3], atol=1e-2)
        projected = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record["keypoints"], atol=1e-3)
        assert (record["visible"] == 2).all()
        assert record["hand"] == "right"
    np.testing.assert_allclose(found[4]["intrinsics"], [[619.475, 0, 313.715], [0, 619.189, 223.921], [0, 0, 1]])


def test_people_are_divided_by_date(tmp_path):
    for name in ("10-1-1-2", "9-25-1-2", "7-14-1-2", "9-10-1-2"):
        write(tmp_path, name, 1)
    (tmp_path / "other").mkdir()
    people = {split: [r["sequence"] for r in read(tmp_path, split)[::4]] for split in ("train", "test")}
    assert people == {"train": ["7-14-1-2_0", "9-10-1-2_0"], "test": ["9-25-1-2_0", "10-1-1-2_0"]}


def test_a_single_recording_is_for_training(tmp_path):
    write(tmp_path, "7-14-1-2", 1)
    assert set(shards(tmp_path)) == {"train"}


def test_broken_frames_are_left_out(tmp_path):
    joints = write(tmp_path, "7-14-1-2", 3)
    joints[0, :, :3] = np.nan
    joints[1, OWNERS.index("thumb_tip"), :3] = (2000, 0, 600)
    np.save(tmp_path / "7-14-1-2/mlresults/7-14-1-2-joints.npy", joints)
    (tmp_path / "7-14-1-2/rgb/00002_0.jpg").unlink()
    found = read(tmp_path)[:3]
    assert found[0] == Skipped("7-14-1-2/rgb/00000_0.jpg", "no joint lies in the image")
    assert found[2] == Skipped("7-14-1-2/rgb/00002_0.jpg", "the image is missing")
    second = shards(tmp_path)["train"][1]  # the view whose frame the joints are in
    record = list(second())[1]
    missing = [j for j, v in zip(Mvhand.SKELETON.joints, record["visible"], strict=True) if v == 0]
    assert missing == ["thumb_tip"]


class _Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile"),)


def test_layout_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"found no recording, expected folders with calib\.pkl"):
        read(tmp_path)
    write(tmp_path, "7-14-1-2", 1)
    calib = tmp_path / "7-14-1-2/calib.pkl"
    calib.write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(ValueError, match=r"calib\.pkl: refused .*expected only arrays"):
        read(tmp_path)
    assert not Path("hostile").exists()
    calib.write_bytes(pickle.dumps({"840412062035": np.eye(4)}))
    with pytest.raises(ValueError, match=r"calib\.pkl: found 840412062035, expected poses of the cameras"):
        read(tmp_path)
    calib.write_bytes(pickle.dumps(poses() | {"840412062038": np.eye(4) * 2}))
    with pytest.raises(ValueError, match=r"the pose of 840412062038 is no rotation and shift, expected a rigid"):
        read(tmp_path)
    calib.write_bytes(pickle.dumps(poses()))
    joints = tmp_path / "7-14-1-2/mlresults/7-14-1-2-joints.npy"
    np.save(joints, np.zeros((3, 20, 4)))
    with pytest.raises(ValueError, match=r"joints\.npy: found float64 \(3, 20, 4\), expected numbers of shape"):
        read(tmp_path)
    np.save(joints, np.array([_Hostile()]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"joints\.npy: .*expected an array of numbers"):
        read(tmp_path)
    assert not Path("hostile").exists()
    joints.unlink()
    with pytest.raises(FileNotFoundError, match=r"joints\.npy: found no such file or folder, expected 21 joints"):
        read(tmp_path)


def test_prepared(tmp_path):
    write(tmp_path, "7-14-1-2", 2)
    write(tmp_path, "9-10-1-2", 1)
    folder = prepare.prepare(Mvhand, tmp_path, tmp_path / "data")
    source = TfdsSource(folder=folder, split="train")
    assert (len(source), len(TfdsSource(folder=folder, split="test"))) == (8, 4)
    record, expected = source[3], read(tmp_path)[3]
    assert (record["sequence"], record["frame"], record["image"]) == ("7-14-1-2_1", 1, JPG)
    np.testing.assert_array_equal(record["keypoints3d"], expected["keypoints3d"])
