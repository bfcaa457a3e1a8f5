import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from jaxpose.data import wrappers
from jaxpose.data.joints import joint_sets, skeletons
from jaxpose.data.joints.skeletons import Skeleton


@dataclass
class One:
    """A source of one record whose joints lie where their names say."""

    skeleton: Skeleton
    points: dict[str, tuple[float, float]]
    hidden: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    labelled: bool = True

    def __len__(self):
        return 1

    def __getitem__(self, index):
        joints = self.skeleton.joints
        points = np.array([self.points[j] for j in joints], np.float32)
        points[[j in self.absent for j in joints]] = np.nan
        flags = [0 if j in self.absent else 1 if j in self.hidden else 2 for j in joints]
        depth = np.arange(len(joints), dtype=np.float32)[:, None]
        return {
            "image": b"",
            "name": "one",
            "keypoints": points,
            "visible": np.array(flags, np.uint8),
            "keypoints3d": np.concatenate([points / 100, depth], axis=1),
            "bbox": np.array([1, 2, 3, 4], np.float32),
        }


def person(skeleton, **fields):
    points = {j: (10.0 * i, 100.0 - i) for i, j in enumerate(skeleton.joints)}
    return One(skeleton, points, **fields)


def by_name(view):
    record = view[0]
    found = zip(view.skeleton.joints, record["keypoints"].tolist(), record["visible"].tolist(), strict=True)
    return {joint: (tuple(point), visible) for joint, point, visible in found}


def test_common12_takes_names_not_places():
    coco, mpii = person(skeletons.COCO17), person(skeletons.MPII16)
    for source in (coco, mpii):
        found = by_name(joint_sets.common12(source))
        assert len(found) == 12
        assert found == {joint: (source.points[joint], 2) for joint in found}
    assert joint_sets.common12(coco).skeleton == joint_sets.common12(mpii).skeleton
    assert {name for name in joint_sets.COMMON12.joints if "wrist" in name} == {"left_wrist", "right_wrist"}


def test_coco_in_mpii16():
    source = person(skeletons.COCO17, hidden=("left_hip",))
    found = by_name(joint_sets.mpii16(source))
    hips = np.mean([source.points["left_hip"], source.points["right_hip"]], axis=0)
    shoulders = np.mean([source.points["left_shoulder"], source.points["right_shoulder"]], axis=0)
    assert found["pelvis"] == (tuple(hips), 1)  # as visible as the less visible hip
    assert found["thorax"] == (tuple(shoulders), 2)
    assert found["neck"] == found["head_top"] == ((0, 0), 0)
    assert found["right_ankle"] == (source.points["right_ankle"], 2)
    assert by_name(joint_sets.mpii16(source, head_mode="nose"))["head_top"] == (source.points["nose"], 2)


def test_mpii_in_mpii16_keeps_its_own_pelvis_and_thorax():
    source = person(skeletons.MPII16)
    assert by_name(joint_sets.mpii16(source)) == {j: (source.points[j], 2) for j in skeletons.MPII16.joints}


def test_derived_joints_need_all_their_parents():
    source = person(skeletons.COCO17, absent=("right_hip", "nose"))
    record = joint_sets.union21(source)[0]
    found = by_name(joint_sets.union21(source))
    assert found["pelvis"] == ((0, 0), 0)
    assert found["thorax"][1] == 2
    assert np.isfinite(record["keypoints"]).all()
    assert np.isfinite(record.get("keypoints3d")).all()
    np.testing.assert_array_equal(record.get("bbox"), [1, 2, 3, 4])


def test_union21_in_3d():
    source = person(skeletons.COCO17)
    view = joint_sets.union21(source)
    depth = dict(zip(view.skeleton.joints, view[0].get("keypoints3d")[:, 2], strict=True))
    assert depth["pelvis"] == (11 + 12) / 2  # the places of the hips in COCO's order
    assert depth["left_eye"] == 1
    assert depth["neck"] == 0
    assert (view[0]["keypoints"].dtype, view[0]["visible"].dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize(
    ("mode", "expected"), [("any", "nose"), ("nose", "nose"), ("top", None), ("head", None), ("none", None)]
)
def test_flexpose15_of_coco(mode, expected):
    source = person(skeletons.COCO17)
    found = by_name(joint_sets.flexpose15(source, head_mode=mode))
    assert found["head"] == ((source.points[expected], 2) if expected else ((0, 0), 0))
    shoulders = np.mean([source.points["left_shoulder"], source.points["right_shoulder"]], axis=0)
    assert found["neck"] == (tuple(shoulders), 2)


def test_flexpose15_neck_is_the_base_of_the_neck():
    source = person(skeletons.MPII16)
    found = by_name(joint_sets.flexpose15(source))
    assert found["neck"][0] == source.points["thorax"]
    assert found["head"][0] == source.points["head_top"]
    assert len(joint_sets.FLEXPOSE15.bones) == 14
    lsp = person(skeletons.LSP14)
    assert by_name(joint_sets.flexpose15(lsp))["neck"][0] == lsp.points["neck"]


def test_face68_flips():
    assert len(joint_sets.FACE68) == 68
    assert len(joint_sets.FACE68.flips) == 29
    flips = joint_sets.FACE68.flip_permutation
    np.testing.assert_array_equal(flips[flips], np.arange(68))
    # On the middle of the face: chin, bridge of the nose, its base, lips.
    assert np.flatnonzero(flips == np.arange(68)).tolist() == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert ("face_45", "face_36") in joint_sets.FACE68.flips  # outer corners of the eyes, the person's left first
    assert sum(map(len, joint_sets.FACE68.groups.values())) == 68


def test_animal14_leaves_out_shoulders():
    joints = ("chin", "left_shoulder", *joint_sets.ANIMAL14.joints)
    source = person(Skeleton(name="animal", joints=joints))
    found = by_name(joint_sets.animal14(source))
    assert found == {j: (source.points[j], 2) for j in joint_sets.ANIMAL14.joints}
    assert len(joint_sets.ANIMAL14.flips) == 7


def test_sources_travel_to_workers():
    view = pickle.loads(pickle.dumps(joint_sets.mpii16(person(skeletons.COCO17))))
    assert by_name(view)["pelvis"][1] == 2
    assert wrappers.sequences_of(view) is None
    assert (len(view), view.labelled) == (1, True)


def test_errors():
    hand = person(skeletons.HAND21)
    with pytest.raises(ValueError, match=r"joint set common12: found none of its joints in skeleton hand21: wrist,"):
        joint_sets.common12(hand)
    with pytest.raises(ValueError, match=r"found head_mode 'ears', expected one of head, nose, top, any, none"):
        joint_sets.mpii16(person(skeletons.COCO17), head_mode="ears")
