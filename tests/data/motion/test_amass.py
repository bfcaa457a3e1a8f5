import io
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxpose.data.motion import amass

RNG = np.random.default_rng(0)


def write(path, **changes):
    arrays = {
        "poses": np.zeros((3, 156)),
        "trans": np.arange(9.0).reshape(3, 3),
        "betas": np.array([0.5, -1.0, 2.0]),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
        "dmpls": np.zeros((3, 8)),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def model(path, shapes=2):
    """A body of 60 vertices and 52 joints, the first 22 of which are sums of two vertices."""
    arrays = {
        "v_template": RNG.normal(size=(60, 3)),
        "shapedirs": RNG.normal(size=(60, 3, shapes)),
        "J_regressor": np.zeros((52, 60)),
        "f": np.zeros((1, 3), np.int32),
    }
    for joint in range(22):
        arrays["J_regressor"][joint, [joint, joint + 22]] = 0.25, 0.75
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays


def turned(vector, point):
    """Rodrigues' formula."""
    angle = math.sqrt(sum(v * v for v in vector))
    if angle == 0:
        return np.array(point)
    axis = np.array(vector) / angle
    across = np.cross(axis, point)
    return point + math.sin(angle) * across + (1 - math.cos(angle)) * np.cross(axis, across)


def test_joints_of_a_model(tmp_path):
    poses = RNG.normal(scale=0.7, size=(3, 156))
    file = write(tmp_path / "walk_poses.npz", poses=poses)
    arrays = model(tmp_path / "models" / "female" / "model.npz")
    model(tmp_path / "models" / "neutral" / "model.npz")
    motion = amass.read(file, model=tmp_path / "models", subject="07")
    assert (motion.name, motion.rate, motion.subject) == ("walk_poses", 120.0, "07")
    assert motion.joints[:3] == ("pelvis", "left_hip", "right_hip")
    vertices = arrays["v_template"] + 0.5 * arrays["shapedirs"][..., 0] - 1.0 * arrays["shapedirs"][..., 1]
    rest = 0.25 * vertices[:22] + 0.75 * vertices[22:44]
    parents = {"left_hip": "pelvis", "left_knee": "left_hip", "left_ankle": "left_knee", "left_foot": "left_ankle"}
    parents |= {"spine1": "pelvis", "spine2": "spine1", "spine3": "spine2", "neck": "spine3", "head": "neck"}
    parents |= {"right_collar": "spine3", "right_shoulder": "right_collar", "right_elbow": "right_shoulder"}
    parents |= {"right_wrist": "right_elbow"}
    for frame in range(3):
        for joint in ("pelvis", "left_foot", "head", "right_wrist"):
            # From the joint to the root: every ancestor turns what hangs on it.
            child, position = joint, np.zeros(3)
            while child in parents:
                parent = parents[child]
                i, j = motion.joints.index(child), motion.joints.index(parent)
                position = turned(poses[frame, 3 * j : 3 * j + 3], position + rest[i] - rest[j])
                child = parent
            expected = position + rest[0] + np.arange(9.0).reshape(3, 3)[frame]
            found = motion.positions[frame, motion.joints.index(joint)]
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=joint)


def test_without_a_model(tmp_path):
    poses = np.zeros((3, 156))
    poses[:, 0] = np.pi / 2  # y up becomes z up
    file = write(tmp_path / "stand.npz", poses=poses, mocap_framerate=None, mocap_frame_rate=np.array(100), betas=None)
    motion = amass.read(file)
    assert motion.rate == 100.0
    joint = dict(zip(motion.joints, motion.positions[0], strict=True))
    assert joint["head"][2] - joint["left_foot"][2] == pytest.approx(1.55, abs=0.05)
    assert joint["left_wrist"][0] - joint["right_wrist"][0] == pytest.approx(1.42, abs=0.05)
    assert joint["left_foot"][1] < joint["left_ankle"][1]  # looks along -y
    np.testing.assert_allclose(motion.positions[1] - motion.positions[0], np.full((22, 3), 3), atol=1e-5)
    np.testing.assert_allclose(joint["pelvis"], [0, 1, 2], atol=1e-6)


def test_a_body_of_the_mean_shape(tmp_path):
    arrays = model(tmp_path / "model.npz")
    rest = amass.rest_joints(tmp_path / "model.npz", None)
    np.testing.assert_allclose(rest, (arrays["J_regressor"] @ arrays["v_template"])[:22])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None}, "holds trans, betas, gender, mocap_framerate, dmpls; expected poses and trans"),
        ({"trans": np.zeros((2, 3))}, r"poses \(3, 156\), trans \(2, 3\); expected \(T, 66 or more\)"),
        ({"poses": np.zeros((3, 63))}, r"poses \(3, 63\)"),
        ({"poses": np.full((3, 156), np.nan)}, "not finite"),
        ({"mocap_framerate": None}, "frame rate None, expected mocap_framerate"),
        ({"mocap_framerate": np.array(0)}, "frame rate 0"),
        ({"betas": np.array([None])}, "betas does not hold numbers"),
    ],
)
def test_errors(tmp_path, changes, message):
    file = write(tmp_path / "walk.npz", **changes)
    with pytest.raises(ValueError, match=rf"walk\.npz: .*{message}"):
        amass.read(file)


def test_model_errors(tmp_path):
    file = write(tmp_path / "walk.npz")
    with pytest.raises(FileNotFoundError, match=r"female.model\.npz: no such file"):
        amass.read(file, model=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"a\.npz: no such file"):
        amass.read(tmp_path / "a.npz")
    arrays = model(tmp_path / "model.npz")
    np.savez(tmp_path / "model.npz", **{**arrays, "J_regressor": np.zeros((24, 59))})
    with pytest.raises(ValueError, match=r"model\.npz: found v_template \(60, 3\).*expected \(V, 3\), \(V, 3, S\)"):
        amass.read(file, model=tmp_path / "model.npz")
    np.savez(tmp_path / "model.npz", **{**arrays, "J_regressor": np.zeros((21, 60))})
    with pytest.raises(ValueError, match="J_regressor has 21 joints, expected at least 22"):
        amass.read(file, model=tmp_path / "model.npz")
    (tmp_path / "model.pkl").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match=r"model\.pkl: .*expected an \.npz with v_template"):
        amass.read(file, model=tmp_path / "model.pkl")


# Which of SMPL's joints the measured joints of the pack are, in their order.
MEASURED = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
)


def test_real_poses_of_the_approximate_body(pack: Callable[[str], Path]) -> None:
    with tarfile.open(pack("mmpose_tests_data.tar.gz"), "r:gz") as archive:
        data = archive.extractfile("tests/data/h36m/test_h36m.npz").read()
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        poses, measured = arrays["pose"], arrays["S"][:, :12, :3]
    found = amass.joint_positions(poses, amass.APPROXIMATE_REST, np.zeros((4, 3)))
    found = found[:, [amass.JOINTS.index(joint) for joint in MEASURED]]
    errors = found - found.mean(axis=1, keepdims=True) - (measured - measured.mean(axis=1, keepdims=True))
    # Both are in the camera's frame. With sides swapped, or turned the other way round, it is above 0.3.
    assert np.linalg.norm(errors, axis=-1).mean() < 0.06
