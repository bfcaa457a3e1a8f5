import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxpose.data.joints import matching
from jaxpose.data.joints.skeletons import COCO17, HAND21, LSP14, MPII16, Skeleton


def skeleton(*joints, name="s"):
    return Skeleton(name=name, joints=joints)


def pairs(source, target, aliases=None):
    return [(p.source, p.target, p.how) for p in matching.match(source, target, aliases).pairs]


def same(a, b):
    try:
        return pairs(skeleton(a), skeleton(b)) != []
    except ValueError:
        return False


LEFT_EAR = (
    *("left_ear", "L_ear", "earL", "left-ear", "LEar", "lEar", "ear_left", "leftear", "earleft", "Left.Ear"),
    *("LEFT EAR", "EarLeft", "ear_l", "l-ear", "leftEar", "EAR_L"),
)


@pytest.mark.parametrize("name", LEFT_EAR)
def test_spellings_of_a_side(name):
    for other in LEFT_EAR:
        assert same(name, other)
    for other in ("right_ear", "REar", "earR", "r-ear", "ear", "left_eye", "left_ear2", "tear", "lear"):
        assert not same(name, other)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("head_top", "headTop"),
        ("head top", "top_of_head"),
        ("tail_base", "Root of tail"),
        ("TailTip", "tail_end"),
        ("pinky_tip", "little_finger_tip"),
        ("INDEX_FINGER_TIP", "index_tip"),
        ("tip_of_index", "index_fingertip"),
        ("L_F_Paw", "front_left_paw"),
        ("left_hind_paw", "back_left_paw"),
        ("RForelimb", "right_front_limb"),
        ("tongue_centre", "tongue center"),
        ("LeftEar1", "ear1_L"),
        ("MCP3", "mcp_3"),
        ("Épaule_L", "left épaule"),
        ("LBigToe", "left_big_toe"),
    ],
)
def test_one_joint_under_two_names(a, b):
    assert same(a, b)
    assert same(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("L1", "R1"),  # a lumbar vertebra has no side
        ("L5", "5"),
        ("lip", "right_ip"),
        ("bright", "b_right"),
        ("upright_bar", "right_up_bar"),
        ("index1", "index2"),
        ("ear_1_2", "ear_12"),
        ("snout", "nose"),
        ("pelvis", "root"),
        ("pelvis", "hip"),
        ("neck", "thorax"),
        ("hand", "wrist"),
        ("left_hip", "hip"),
        ("forefoot", "front_foot"),
        ("+", "*"),
    ],
)
def test_different_joints_are_kept_apart(a, b):
    assert not same(a, b)
    assert not same(b, a)


def test_indices_and_leftovers():
    source = Skeleton(
        name="a",
        joints=("nose", "L_ear", "R_ear", "tail"),
        bones=(("nose", "L_ear"), ("nose", "tail")),
        flips=(("L_ear", "R_ear"),),
        sigmas=(0.1, 0.2, 0.3, 0.4),
    )
    target = skeleton("rightear", "paw", "leftear", "nose", name="b")
    match = matching.match(source, target)
    np.testing.assert_array_equal(match.source_indices, [0, 1, 2])
    np.testing.assert_array_equal(match.target_indices, [3, 2, 0])
    assert match.unmatched_source == ("tail",)
    assert match.unmatched_target == ("paw",)
    assert match.skeleton == source.restrict(("nose", "L_ear", "R_ear"))
    assert match.table() == [
        "source a  target b  matched by",
        "nose      nose      same name",
        "L_ear     leftear   spelling",
        "R_ear     rightear  spelling",
        "tail      -         only in the source",
        "-         paw       only in the target",
    ]


def test_aliases_come_first_in_either_direction():
    source, target = skeleton("snout", "nose", "root"), skeleton("nose", "pelvis")
    assert pairs(source, target) == [("nose", "nose", "same name")]
    assert pairs(source, target, {"snout": "nose"}) == [("snout", "nose", "alias")]
    assert pairs(source, target, {"pelvis": "root"}) == [("nose", "nose", "same name"), ("root", "pelvis", "alias")]


def test_wrong_aliases():
    source, target = skeleton("a", "b", name="one"), skeleton("a", "c", name="two")
    with pytest.raises(
        ValueError, match=r"alias x = c names no joint of both skeletons: source one has a, b; target two"
    ):
        matching.match(source, target, {"x": "c"})
    with pytest.raises(ValueError, match=r"aliases name the target's joint c more than once"):
        matching.match(source, target, {"a": "c", "b": "c"})


def test_two_candidates_are_listed():
    with pytest.raises(ValueError, match=r"in several ways by spelling: source L_ear, left_ear; target earL; .* alias"):
        matching.match(skeleton("L_ear", "left_ear"), skeleton("earL"))
    with pytest.raises(ValueError, match=r"by synonym: source tail_base; target base_of_tail, tailroot;"):
        matching.match(skeleton("tail_base"), skeleton("base_of_tail", "tailroot"))
    source = skeleton("L_ear", "left_ear")
    assert pairs(source, skeleton("earL"), {"L_ear": "earL"}) == [("L_ear", "earL", "alias")]
    assert pairs(source, skeleton("left_ear")) == [("left_ear", "left_ear", "same name")]
    # Names that only one side spells twice harm nobody.
    assert pairs(skeleton("L_ear", "left_ear", "nose"), skeleton("nose")) == [("nose", "nose", "same name")]


def test_no_shared_joint():
    message = r"skeletons share no joint: source hand21 has wrist, .*; target one has nose"
    with pytest.raises(ValueError, match=message):
        matching.match(HAND21, skeleton("nose", name="one"))


@pytest.mark.parametrize("known", [MPII16, LSP14, COCO17, HAND21])
def test_known_skeletons_match_their_other_spellings(known):
    assert [how for _, _, how in pairs(known, known)] == ["same name"] * len(known)
    spellings = {
        "camel": lambda name: "".join(word.capitalize() for word in name.split("_")),
        "screaming": str.upper,
        "letters": lambda name: name.replace("left_", "L_").replace("right_", "R_"),
        "glued": lambda name: name.replace("left_", "left").replace("right_", "right"),
        "behind": lambda name: "_".join(sorted(name.split("_"), key=("left", "right").__contains__)),
    }
    for respell in spellings.values():
        other = skeleton(*(respell(joint) for joint in reversed(known.joints)))
        match = matching.match(known, other)
        np.testing.assert_array_equal(match.source_indices, np.arange(len(known)))
        np.testing.assert_array_equal(match.target_indices, np.arange(len(known))[::-1])


def test_hands_of_other_sets():
    fingers = ("THUMB", "INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
    parts = {"THUMB": ("CMC", "MCP", "IP", "TIP")}
    joints = ("WRIST", *(f"{f}_{p}" for f in fingers for p in parts.get(f, ("MCP", "PIP", "DIP", "TIP"))))
    match = matching.match(HAND21, skeleton(*joints))
    np.testing.assert_array_equal(match.target_indices, np.arange(21))


@hypothesis.given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True))
def test_any_names_match_themselves(names):
    found = pairs(skeleton(*names), skeleton(*reversed(names)))
    assert found == [(name, name, "same name") for name in names]
