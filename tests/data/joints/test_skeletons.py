import numpy as np
import pytest

from jaxpose.data.joints.skeletons import COCO17, HAND21, LSP14, MPII16, Skeleton


@pytest.mark.parametrize(("skeleton", "joints"), [(MPII16, 16), (LSP14, 14), (COCO17, 17), (HAND21, 21)])
def test_known_skeletons_are_complete(skeleton: Skeleton, joints: int) -> None:
    assert len(skeleton) == joints
    linked = {joint for bone in skeleton.bones for joint in bone}
    assert linked == set(skeleton.joints)
    permutation = skeleton.flip_permutation
    np.testing.assert_array_equal(permutation[permutation], np.arange(joints))
    for i, j in enumerate(permutation):
        mirrored = skeleton.joints[i].replace("left", "?").replace("right", "left").replace("?", "right")
        assert skeleton.joints[j] == mirrored


def test_hand_groups_are_those_of_the_published_tables() -> None:
    groups = HAND21.group_indices
    for i, name in enumerate(("MCP", "PIP", "DIP", "fingertip")):
        np.testing.assert_array_equal(groups[name], np.arange(1 + i, 21, 4))


def test_restricted_and_renamed_skeletons_keep_their_structure() -> None:
    both = MPII16.restrict([joint for joint in MPII16.joints if joint in LSP14.joints])
    assert set(both.joints) == set(LSP14.joints)
    assert "pelvis" not in {joint for bone in both.bones for joint in bone}
    assert all(both.groups.values())
    renamed = both.rename({"neck": "left_knee", "left_knee": "neck"})
    assert renamed.joints[both.joints.index("neck")] == "left_knee"
    assert ("neck", "right_knee") in renamed.flips
    assert renamed.groups["knee"] == ("neck", "right_knee")


def test_wrong_skeletons_are_refused() -> None:
    with pytest.raises(ValueError, match="not unique"):
        Skeleton(name="x", joints=("a", "a"))
    with pytest.raises(ValueError, match=r"unknown joints \['c'\]"):
        Skeleton(name="x", joints=("a", "b"), bones=(("a", "c"),))
    with pytest.raises(ValueError, match="1 sigmas for 2 joints"):
        Skeleton(name="x", joints=("a", "b"), sigmas=(0.1,))
