import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxpose.data.joints.skeletons import MPII16
from jaxpose.data.motion import amass, bvh, h36m, rigs
from jaxpose.data.records import Motion

RNG = np.random.default_rng(0)


def motion(joints, frames=3, rate=120.0):
    positions = RNG.normal(size=(frames, len(joints), 3)).astype(np.float32)
    return Motion(name="walk", joints=tuple(joints), positions=positions, rate=rate, subject="07")


def sides(left, right):
    return [*left.split(), *right.split()]


LIMBS = ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
CMU = sides(
    "LeftHip LeftKnee LeftAnkle LeftToe LeftCollar LeftShoulder LeftElbow LeftWrist",
    "RightHip RightKnee RightAnkle RightToe RightCollar RightShoulder RightElbow RightWrist",
)
CMU += ["Hips", "Chest", "Chest2", "lowerneck", "Neck", "Head", "Head_end"]
BUILDER = sides(
    "LeftUpLeg LeftLeg LeftFoot LeftToeBase LeftShoulder LeftArm LeftForeArm LeftHand",
    "RightUpLeg RightLeg RightFoot RightToeBase RightShoulder RightArm RightForeArm RightHand",
)
BUILDER += ["Hips", "LHipJoint", "Spine1", "Neck", "Neck1", "Head", "Head_end"]
ASF = sides(
    "root lhipjoint lfemur ltibia lfoot ltoes lclavicle lhumerus lradius lwrist lowerback upperback thorax",
    "lowerneck upperneck head rhipjoint rfemur rtibia rfoot rclavicle rhumerus rradius rwrist",
)
BANDAI = sides(
    "UpperLeg_L LowerLeg_L Foot_L Toes_L Shoulder_L UpperArm_L LowerArm_L Hand_L",
    "UpperLeg_R LowerLeg_R Foot_R Toes_R Shoulder_R UpperArm_R LowerArm_R Hand_R",
)
BANDAI += ["joint_Root", "Hips", "Spine", "Chest", "Neck", "Head", "Head_end"]


@pytest.mark.parametrize(
    ("joints", "left", "right", "trunk"),
    [
        (CMU, CMU[:8], CMU[8:16], {"thorax": "Neck", "neck": "Head", "head_top": "Head_end"}),
        (BUILDER, BUILDER[:8], BUILDER[8:16], {"thorax": "Neck1", "neck": "Head", "head_top": "Head_end"}),
        (
            ASF,
            ["lhipjoint", "lfemur", "ltibia", "lfoot", "thorax", "lclavicle", "lhumerus", "lradius"],
            ["rhipjoint", "rfemur", "rtibia", "rfoot", "thorax", "rclavicle", "rhumerus", "rradius"],
            {"thorax": "lowerneck", "neck": "upperneck", "head_top": "head"},
        ),
        (BANDAI, BANDAI[:8], BANDAI[8:16], {"thorax": "Neck", "neck": "Head"}),
        (
            amass.JOINTS,
            [f"left_{j}" for j in LIMBS],
            [f"right_{j}" for j in LIMBS],
            {"thorax": "neck", "neck": "head"},
        ),
        (
            h36m.JOINTS32,
            [f"left_{'toe' if j == 'foot' else j}" for j in LIMBS],
            [f"right_{'toe' if j == 'foot' else j}" for j in LIMBS],
            {"thorax": "thorax", "head_top": "head_top"},
        ),
    ],
    ids=["cmu", "motionbuilder", "asf", "bandai", "smpl", "h36m"],
)
def test_known_rigs(joints, left, right, trunk):
    recorded = motion(joints)
    found = rigs.to_canonical(recorded)
    expected = dict(trunk)
    for side, names in (("left", left), ("right", right)):
        for limb, name in zip(LIMBS, names, strict=True):
            expected[f"{side}_{limb}"] = name
    assert set(found.joints) == {*expected, "pelvis"}
    order = (*MPII16.joints, "left_collar", "right_collar", "left_foot", "right_foot")
    assert list(found.joints) == [j for j in order if j in found.joints]
    assert (found.name, found.rate, found.subject, found.positions.dtype) == ("walk", 120.0, "07", np.float32)
    for name, source in expected.items():
        position = recorded.positions[:, recorded.joints.index(source)]
        np.testing.assert_array_equal(found.positions[:, found.joints.index(name)], position, err_msg=name)
    hips = recorded.positions[:, [recorded.joints.index(left[0]), recorded.joints.index(right[0])]].mean(axis=1)
    np.testing.assert_allclose(found.positions[:, found.joints.index("pelvis")], hips, atol=1e-6)
    again = rigs.to_canonical(found)
    assert again.joints == found.joints
    np.testing.assert_allclose(again.positions, found.positions, atol=1e-6)


@pytest.mark.parametrize("joints", [CMU, BUILDER, ASF, BANDAI, amass.JOINTS])
def test_a_rig_without_toes_is_known_and_has_no_feet(joints):
    toes = {"Toe", "ToeBase", "lfoot", "rfoot", "Toes_L", "Toes_R", "left_foot", "right_foot"}
    without = [j for j in joints if j.removeprefix("Left").removeprefix("Right") not in toes]
    assert len(without) == len(joints) - 2
    whole, found = rigs.to_canonical(motion(joints)), rigs.to_canonical(motion(without))
    assert found.joints == whole.joints[:-2]
    assert whole.joints[-2:] == ("left_foot", "right_foot")
    assert rigs.known(without) is rigs.known(joints)


def test_h36m_of_seventeen_joints():
    found = rigs.to_canonical(motion(h36m.JOINTS17))
    assert set(found.joints) == set(h36m.JOINTS17) - {"spine", "nose"}


def test_own_map():
    recorded = motion(["a", "b", "c"])
    found = rigs.to_canonical(recorded, {"neck": "c", "pelvis": ("a", "b")})
    assert found.joints == ("pelvis", "neck")
    np.testing.assert_allclose(found.positions[:, 0], recorded.positions[:, :2].mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.positions[:, 1], recorded.positions[:, 2])


@pytest.mark.parametrize(
    ("rig", "message"),
    [
        (None, "walk: unknown rig with joints a, b, c; expected one of jaxpose's or a map"),
        ({"neck": "d"}, "walk: no joint d of the rig; found a, b, c"),
        ({"nock": "a"}, "walk: the rig maps nock; expected names of right_ankle"),
        ({"neck": ()}, "walk: no joint for some name"),
        ({}, "walk: no joint for some name"),
    ],
)
def test_errors(rig, message):
    with pytest.raises(ValueError, match=message):
        rigs.to_canonical(motion(["a", "b", "c"]), rig)


@pytest.mark.parametrize(("old", "new"), [(50.0, 30.0), (120.0, 30.0), (30.0, 50.0), (29.97, 30.0), (50.0, 50.0)])
def test_resample(old, new):
    times = np.arange(61) / old
    positions = np.stack([times, 2 - 3 * times, np.ones(61)], axis=-1)[:, None].astype(np.float32)
    recorded = Motion(name="a", joints=("a",), positions=positions, rate=old)
    found = rigs.resample(recorded, new)
    assert found.rate == new
    expected = np.arange(len(found.positions)) / new
    np.testing.assert_allclose(found.positions[:, 0, 0], expected, atol=1e-5)
    np.testing.assert_allclose(found.positions[:, 0, 1], 2 - 3 * expected, atol=1e-5)
    assert expected[-1] <= times[-1] + 1e-6 < expected[-1] + 1 / new
    assert found.positions.dtype == np.float32


def test_resample_interpolates_between_neighbours():
    recorded = motion(["a"], frames=6, rate=50.0)
    found = rigs.resample(recorded, 30.0).positions
    p = recorded.positions.astype(np.float64)
    np.testing.assert_allclose(found, [p[0], p[1] / 3 + 2 * p[2] / 3, 2 * p[3] / 3 + p[4] / 3, p[5]], atol=1e-6)
    np.testing.assert_array_equal(rigs.resample(motion(["a"], frames=1), 30.0).positions.shape, (1, 1, 3))
    for rate in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"walk: 50\.0 to .* frames per second"):
            rigs.resample(recorded, rate)


@pytest.mark.parametrize(
    ("name", "clip", "read"),
    [("cmu_walk_bvh.tar.xz", "/07_0", bvh.read_cmu), ("bandai1_bvh.tar.xz", "dataset-1_walk_", bvh.read_bandai)],
)
def test_real_walks(pack: Callable[[str], Path], name: str, clip: str, read: Callable) -> None:
    count = 0
    with tarfile.open(pack(name), "r:xz") as archive:
        for member in archive:
            if not (member.name.endswith(".bvh") and clip in member.name):
                continue
            walk = rigs.resample(rigs.to_canonical(read(archive.extractfile(member).read())), 30.0)
            joint = dict(zip(walk.joints, np.moveaxis(walk.positions, 1, 0), strict=True))
            ankles = np.minimum(joint["left_ankle"][:, 2], joint["right_ankle"][:, 2])
            assert -0.02 < ankles.min() < 0.15, member.name  # the floor is at 0
            assert 0.7 < np.median(joint["pelvis"][:, 2]) < 1.05, member.name
            # Whoever walks forward has the left hip and shoulder to the left of the way.
            way = joint["pelvis"][10:] - joint["pelvis"][:-10]
            for part in ("hip", "shoulder"):
                left = joint[f"left_{part}"] - joint[f"right_{part}"]
                front = np.cross(left, (0, 0, 1))[5:-5]
                assert ((front * way).sum(axis=-1) > 0).mean() > 0.9, member.name
            # Knees bend to the front, elbows to the back.
            left = joint["left_hip"] - joint["right_hip"]
            front = np.cross(left, (0, 0, 1))
            for side in ("left", "right"):
                for a, b, c, sign in (("hip", "knee", "ankle", 1), ("shoulder", "elbow", "wrist", -1)):
                    top, middle, low = (joint[f"{side}_{part}"] for part in (a, b, c))
                    bend = (middle - (top + low) / 2) * front
                    assert sign * np.median(bend.sum(axis=-1)) > 0, (member.name, side, b)
            # Toes are in front of the ankles by the length of a foot's middle, and next to the floor.
            for side in ("left", "right"):
                foot = joint[f"{side}_foot"] - joint[f"{side}_ankle"]
                assert np.median((foot * front / np.linalg.norm(front, axis=-1, keepdims=True)).sum(axis=-1)) > 0.05
                assert 0.08 < np.median(np.linalg.norm(foot, axis=-1)) < 0.25, member.name
                assert -0.06 < joint[f"{side}_foot"][:, 2].min() < 0.1, member.name
            count += 1
            if count == 6:
                break
    assert count >= 4
