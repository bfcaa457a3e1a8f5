import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from jaxpose.data import records
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


def test_points(tmp_path):
    def views(number):
        return [np.full((4 - camera, 17, 2), 10.0 * number + camera) for camera in range(4)]

    tree = {"S11": {"Directions": views(1)}, "S9": {"TakingPhoto": views(2)}}
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [[4, 5], [1, 2]]}
    np.savez(tmp_path / "data_2d_h36m_gt.npz", positions_2d=tree, metadata=metadata)
    points = h36m.read_2d(tmp_path / "data_2d_h36m_gt.npz")
    cameras = ("54138969", "55011271", "58860488", "60457274")
    assert list(points) == [("S9", "Photo", camera) for camera in cameras]
    for camera, value in enumerate(points.values()):
        np.testing.assert_array_equal(value, np.full((4 - camera, 17, 2), 20 + camera, np.float32))
    np.savez(tmp_path / "b.npz", positions_2d={"S9": {"Photo": views(1)[:3]}})
    with pytest.raises(ValueError, match="S9/Photo: found list, expected the views of 4 cameras"):
        h36m.read_2d(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", positions_2d={"S9": {"Photo": [np.zeros((2, 16, 2))] * 4}})
    with pytest.raises(ValueError, match=r"S9/Photo: camera 54138969: found an array \(2, 16, 2\), expected \(T, 17"):
        h36m.read_2d(tmp_path / "b.npz")


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
    write_cdf(tmp_path / "S11" / "MyPoseFeatures" / "D3_Positions" / "Directions.cdf", clip(3, 2).reshape(1, 3, 96))
    write_cdf(tmp_path / "S11" / "MyPoseFeatures" / "D3_Positions" / "Posing.cdf", clip(1, 3).reshape(1, 1, 96))
    motions = h36m.read_folder(tmp_path)
    assert [motion.name for motion in motions] == ["S9/WalkDog 1", "S11/Posing"]
    assert (motions[0].subject, motions[0].rate, motions[0].joints) == ("S9", 50.0, h36m.JOINTS17)
    np.testing.assert_allclose(motions[0].positions, clip(3, 1)[:, KEPT] / 1000, rtol=1e-6)
    np.testing.assert_allclose(motions[1].positions, clip(1, 3)[:, KEPT] / 1000, rtol=1e-6)
    assert h36m.read_cdf(folder / "WalkingDog 1.cdf").name == "S9/WalkDog 1"
    with pytest.raises(ValueError, match="holds S11, S9; expected S5"):
        h36m.read_folder(tmp_path, subjects=["S5"])


def test_cdf_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.cdf: no such file"):
        h36m.read_cdf(tmp_path / "a.cdf")
    with pytest.raises(FileNotFoundError, match="no such folder, expected the subjects"):
        h36m.read_folder(tmp_path / "a")
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


def test_skeleton():
    skeleton = h36m.SKELETON32
    permutation = skeleton.flip_permutation
    np.testing.assert_array_equal(permutation[:11], [0, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(permutation[16:], [*range(24, 32), *range(16, 24)])


def write_simplified(root, frames):
    """One pixel of each image tells its frame; landmarks are rows and columns."""
    for subject, folder in (("S1", "Walking 1.54138969"), ("S1", "Eating.54138969"), ("S11", "Walking.55011271")):
        for kind in ("WithBackground", "BackgroudMask", "Landmarks"):
            (root / subject / kind / folder).mkdir(parents=True)
        for frame in frames:
            image = np.full((64, 128, 3), 5 * frame, np.uint8)
            cv2.imwrite(str(root / subject / "WithBackground" / folder / f"{frame}.jpg"), image)
            cv2.imwrite(str(root / subject / "BackgroudMask" / folder / f"{frame}.png"), image[..., 0])
            points = np.stack([np.linspace(0, 1, 32), np.full(32, 0.01 * frame)], axis=1)
            scipy.io.savemat(root / subject / "Landmarks" / folder / f"{frame}.mat", {"keypoints_2d": points})
    return root


def test_simplified(tmp_path):
    root = write_simplified(tmp_path / "h36m", (1, 2, 10, 11))
    source = h36m.read_simplified(root)
    assert isinstance(source, records.Source)
    assert (len(source), source.labelled, source.skeleton) == (4, True, h36m.SKELETON32)
    found = [source[i] for i in range(4)]
    assert [record.get("frame") for record in found] == [1, 2, 10, 11]
    assert {record.get("sequence") for record in found} == {"S1/Walking 1.54138969"}
    record = found[2]
    # Rows over 64 pixels, columns over 128; the centre of the first pixel is 0.
    np.testing.assert_allclose(record["keypoints"][:, 0], 0.1 * 128 - 0.5, atol=1e-4)
    np.testing.assert_allclose(record["keypoints"][[0, 31], 1], [-0.5, 63.5], atol=1e-4)
    assert record["visible"].tolist() == [2] * 32
    mask = cv2.imdecode(np.frombuffer(record["segmentation"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert (mask.shape, mask.max()) == ((64, 128), 50)
    halves = [h36m.read_simplified(root, part=part) for part in ((0.0, 0.5), (0.5, 1.0))]
    assert [[half[i].get("frame") for i in range(len(half))] for half in halves] == [[1, 2], [10, 11]]
    assert len(h36m.read_simplified(root, subjects=h36m.SIMPLIFIED_TEST)) == 4
    assert len(h36m.read_simplified(root, subjects=("S1", "S11"), actions=("Eating", "Walking"))) == 12


def test_simplified_from_a_tar(tmp_path):
    root = write_simplified(tmp_path / "h36m", (1,))
    with tarfile.open(tmp_path / "h36m.tar", "w") as archive:
        archive.add(root, "some/h36m")
    (record,) = [source[0] for source in [h36m.read_simplified(tmp_path / "h36m.tar")]]
    assert record["name"] == "some/h36m/S1/WithBackground/Walking 1.54138969/1.jpg"
    assert "segmentation" in record


def test_simplified_errors(tmp_path):
    root = write_simplified(tmp_path / "h36m", (1, 2))
    with pytest.raises(ValueError, match=r"part .*expected two growing fractions"):
        h36m.read_simplified(root, part=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"no image <subject>/WithBackground.*subjects S2 and actions Directions"):
        h36m.read_simplified(root, subjects=["S2"])
    landmarks = root / "S1" / "Landmarks" / "Walking 1.54138969"
    scipy.io.savemat(landmarks / "1.mat", {"keypoints_2d": np.zeros((17, 2))})
    (landmarks / "2.mat").write_bytes(b"nothing")
    source = h36m.read_simplified(root)
    with pytest.raises(ValueError, match=r"1\.mat: keypoints_2d has shape \(17, 2\), expected finite numbers"):
        source[0]
    with pytest.raises(ValueError, match=r"2\.mat: .*expected a \.mat"):
        source[1]


def test_a_broken_image_keeps_its_record(tmp_path):
    root = write_simplified(tmp_path / "h36m", (1,))
    (root / "S1" / "WithBackground" / "Walking 1.54138969" / "1.jpg").write_bytes(b"\xff\xd8")
    assert h36m.read_simplified(root)[0]["image"] == b"\xff\xd8"


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
