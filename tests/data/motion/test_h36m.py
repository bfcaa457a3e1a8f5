import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxpose.data.formats import unpickle
from jaxpose.data.motion import h36m

# VideoPose3D keeps these of 32, in this order.
KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]


def clip(frames, number):
    return np.arange(frames * 96, dtype=np.float32).reshape(frames, 32, 3) + 1000 * number


def write_3d(path):
    tree = {
        "S11": {"Directions": clip(2, 1), "Directions 1": clip(2, 2)},
        "S1": {"WalkingDog": clip(3, 3), "TakingPhoto 1": clip(1, 4), "Directions": clip(1, 5)},
    }
    np.savez_compressed(path, positions_3d=tree)
    return path


def test_motions(tmp_path):
    motions = h36m.read(write_3d(tmp_path / "data_3d_h36m.npz"))
    assert [motion.name for motion in motions] == ["S1/Directions", "S1/Photo 1", "S1/WalkDog", "S11/Directions 1"]
    assert [motion.subject for motion in motions] == ["S1", "S1", "S1", "S11"]
    assert {motion.rate for motion in motions} == {50.0}
    for motion, expected in zip(motions, (clip(1, 5), clip(1, 4), clip(3, 3), clip(2, 2)), strict=True):
        np.testing.assert_array_equal(motion.positions, expected[:, KEPT])
        assert motion.positions.dtype == np.float32
    joints = motions[0].joints
    assert joints == h36m.JOINTS17
    named = {"pelvis": 0, "right_hip": 1, "right_ankle": 3, "left_hip": 6, "left_ankle": 8, "spine": 12, "thorax": 13}
    named |= {"nose": 14, "head_top": 15, "left_shoulder": 17, "left_wrist": 19, "right_shoulder": 25}
    for name, index in (named | {"right_wrist": 27}).items():
        np.testing.assert_array_equal(motions[0].positions[:, joints.index(name)], clip(1, 5)[:, index])


def test_chosen_subjects_and_joints(tmp_path):
    path = write_3d(tmp_path / "data_3d_h36m.npz")
    (motion,) = h36m.read(path, subjects=["S11"], joints=("right_toe", "left_toe", "left_ball"))
    assert motion.joints == ("right_toe", "left_toe", "left_ball")
    np.testing.assert_array_equal(motion.positions, clip(2, 2)[:, [5, 10, 9]])
    with pytest.raises(ValueError, match=r"positions_3d: holds S11, S1; expected S9"):
        h36m.read(path, subjects=["S9"])
    with pytest.raises(ValueError, match="S1/Directions: has no joint neck; expected one of pelvis"):
        h36m.read(path, joints=("neck",))


def test_seventeen_joints_are_taken(tmp_path):
    np.savez(tmp_path / "a.npz", positions_3d={"S1": {"Walking": clip(2, 1)[:, KEPT]}})
    (motion,) = h36m.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(motion.positions, clip(2, 1)[:, KEPT])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"S1": {"Walking": np.zeros((2, 31, 3))}}, r"S1/Walking: found \(2, 31, 3\), expected finite numbers"),
        ({"S1": {"Walking": np.full((2, 32, 3), np.inf)}}, "expected finite numbers"),
        ({"S1": {"Walking": np.zeros((2, 96))}}, r"S1/Walking: found an array \(2, 96\), expected \(T, 32, 3\)"),
        ({"S1": {"Walking": [1]}}, r"S1/Walking: found list, expected \(T, 32, 3\)"),
        ({"S1": np.zeros(3)}, "positions_3d: found dict, expected actions by subject"),
        ({}, "holds no subject; expected S1"),
    ],
)
def test_errors(tmp_path, tree, message):
    np.savez(tmp_path / "a.npz", positions_3d=tree)
    with pytest.raises(ValueError, match=message):
        h36m.read(tmp_path / "a.npz")


def write_cdf(path, pose, name="Pose"):
    cdfwrite = pytest.importorskip("cdflib.cdfwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    cdf = cdfwrite.CDF(path, cdf_spec={"Compressed": 6})
    spec = {"Variable": name, "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": list(pose.shape[1:])}
    cdf.write_var(spec, var_data=pose)
    cdf.close()


def test_cdf(tmp_path):
    folder = tmp_path / "S9" / "MyPoseFeatures" / "D3_Positions"
    write_cdf(folder / "WalkingDog 1.cdf", clip(3, 1).reshape(1, 3, 96))
    other = tmp_path / "S11" / "MyPoseFeatures" / "D3_Positions"
    write_cdf(other / "Posing.cdf", clip(1, 3).reshape(1, 1, 96))
    motions = [h36m.read_cdf(path) for path in (folder / "WalkingDog 1.cdf", other / "Posing.cdf")]
    assert [motion.name for motion in motions] == ["S9/WalkDog 1", "S11/Posing"]
    assert (motions[0].subject, motions[0].rate, motions[0].joints) == ("S9", 50.0, h36m.JOINTS17)
    np.testing.assert_allclose(motions[0].positions, clip(3, 1)[:, KEPT] / 1000, rtol=1e-6)
    np.testing.assert_allclose(motions[1].positions, clip(1, 3)[:, KEPT] / 1000, rtol=1e-6)


def test_cdf_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.cdf: no such file"):
        h36m.read_cdf(tmp_path / "a.cdf")
    write_cdf(tmp_path / "a.cdf", np.zeros((1, 3, 96), np.float32), name="Poses")
    with pytest.raises(ValueError, match=r"a\.cdf: .*expected a \.cdf with the variable Pose"):
        h36m.read_cdf(tmp_path / "a.cdf")
    write_cdf(tmp_path / "b.cdf", np.zeros((1, 3, 64), np.float32))
    with pytest.raises(ValueError, match=r"b\.cdf: Pose has shape \(1, 3, 64\), expected \(1, T, 96\)"):
        h36m.read_cdf(tmp_path / "b.cdf")
    (tmp_path / "c.cdf").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"c\.cdf: .*expected a \.cdf"):
        h36m.read_cdf(tmp_path / "c.cdf")


def test_cdf_without_cdflib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cdflib", None)
    (tmp_path / "a.cdf").write_bytes(b"")
    with pytest.raises(ImportError, match=r"a\.cdf: reading \.cdf needs cdflib: pip install jaxpose\[h36m\]"):
        h36m.read_cdf(tmp_path / "a.cdf")


def test_joint_order_of_real_frames(pack: Callable[[str], Path]) -> None:
    with tarfile.open(pack("mmpose_tests_data.tar.gz"), "r:gz") as archive:
        data = archive.extractfile("tests/data/h36m/test_h36m_body3d.npz").read()
    positions = unpickle.load_npz(data, names=("S",))["S"][..., :3]
    joint = dict(zip(h36m.JOINTS17, np.moveaxis(positions, 1, 0), strict=True))
    for side in ("left", "right"):
        for a, b, low, high in (
            *(("hip", "knee", 0.4, 0.5), ("knee", "ankle", 0.38, 0.5)),
            *(("shoulder", "elbow", 0.23, 0.33), ("elbow", "wrist", 0.2, 0.28)),
        ):
            lengths = np.linalg.norm(joint[f"{side}_{a}"] - joint[f"{side}_{b}"], axis=-1)
            assert ((lengths > low) & (lengths < high)).all(), (side, a, lengths)
    np.testing.assert_allclose((joint["left_hip"] + joint["right_hip"]) / 2, joint["pelvis"], atol=0.01)
    # The nose is in front of the plane of the shoulders and the pelvis, seen from the person.
    left, up = joint["left_shoulder"] - joint["right_shoulder"], joint["thorax"] - joint["pelvis"]
    front = np.cross(left, up)
    assert (((joint["nose"] - joint["thorax"]) * front).sum(axis=-1) > 0).all()
