import dataclasses

import pytest

from jaxpose.data.joints import matching, skeleton_file
from jaxpose.data.joints.skeletons import Skeleton

WHOLE = """
name = "mouse"
joints = ["nose", "left_ear", "right_ear", "tail_base"]
bones = [["nose", "left_ear"], ["nose", "right_ear"]]
flips = [["left_ear", "right_ear"]]

[groups]
head = ["nose", "left_ear", "right_ear"]

[sigmas]
nose = 0.026
left_ear = 0.03
right_ear = 0.03
tail_base = 1

[aliases]
tail_base = "rump"
"""

DATA = Skeleton(
    name="data",
    joints=("bodypart1", "bodypart2", "bodypart3"),
    bones=(("bodypart1", "bodypart2"),),
    flips=(("bodypart2", "bodypart3"),),
    groups={"pair": ("bodypart2", "bodypart3")},
    sigmas=(0.1, 0.2, 0.3),
)


def read(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return skeleton_file.read_skeleton(path)


def test_whole_file(tmp_path):
    file = read(tmp_path, WHOLE)
    bare = Skeleton(name="?", joints=("nose", "left_ear", "right_ear", "tail_base"))
    assert skeleton_file.apply(bare, file) == Skeleton(
        name="mouse",
        joints=bare.joints,
        bones=(("nose", "left_ear"), ("nose", "right_ear")),
        flips=(("left_ear", "right_ear"),),
        groups={"head": ("nose", "left_ear", "right_ear")},
        sigmas=(0.026, 0.03, 0.03, 1.0),
    )
    match = matching.match(bare, Skeleton(name="t", joints=("rump",)), file.aliases)
    assert match.source_indices.tolist() == [3]


@pytest.mark.parametrize("text", ["", "# nothing\n", b"\xef\xbb\xbf# a mark of byte order\n"])
def test_empty_file_changes_nothing(tmp_path, text):
    assert skeleton_file.apply(DATA, read(tmp_path, text)) == DATA


def test_partial_files_are_completed_from_the_data(tmp_path):
    file = read(tmp_path, '[groups]\nfirst = ["bodypart1"]')
    assert skeleton_file.apply(DATA, file) == dataclasses.replace(DATA, groups={"first": ("bodypart1",)})
    file = read(tmp_path, "bones = []\n[sigmas]\nbodypart2 = 0.5")
    assert skeleton_file.apply(DATA, file) == dataclasses.replace(DATA, bones=(), sigmas=(0.1, 0.5, 0.3))


def test_joints_rename_those_of_the_data(tmp_path):
    file = read(tmp_path, 'joints = ["nose", "ear_l", "ear_r"]')
    assert skeleton_file.apply(DATA, file) == Skeleton(
        name="data",
        joints=("nose", "ear_l", "ear_r"),
        bones=(("nose", "ear_l"),),
        flips=(("ear_l", "ear_r"),),
        groups={"pair": ("ear_l", "ear_r")},
        sigmas=(0.1, 0.2, 0.3),
    )
    file = read(tmp_path, 'joints = ["nose", "bodypart2", "bodypart3"]')
    assert skeleton_file.apply(DATA, file).joints == ("nose", "bodypart2", "bodypart3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joints = [", r"s\.toml: .*, expected TOML"),
        (b"name = '\xff'", r"s\.toml: .*utf-8.*, expected TOML"),
        ("jionts = []", r"s\.toml: found key 'jionts', expected one of: name, joints, bones, flips, groups, sigmas"),
        ("name = 3", r"s\.toml: name: found 3, expected a name"),
        ("joints = 'nose'", r"s\.toml: joints: found 'nose', expected a list of names"),
        ("joints = []", r"s\.toml: joints: found \[\], expected a list of names"),
        ("joints = ['a', 'a']", r"s\.toml: joints: found 'a' more than once"),
        ("joints = ['a', ' ']", r"s\.toml: joints: found ' ', expected a name"),
        ("joints = ['a']\nbones = [['a', 'b']]", r"s\.toml: bones: found 'b', expected one of: a"),
        ("bones = ['a', 'b']", r"s\.toml: bones: found 'a', expected a pair of joints"),
        ("bones = [['a', 'b', 'c']]", r"s\.toml: bones: found \['a', 'b', 'c'\], expected a pair of joints"),
        ("bones = [['a', 'a']]", r"s\.toml: bones: found 'a' more than once"),
        ("bones = {a = 'b'}", r"s\.toml: bones: found \{'a': 'b'\}, expected a list of pairs"),
        ("flips = [['a', 'b'], ['b', 'c']]", r"s\.toml: flips: found 'b' in more than one pair"),
        ("groups = ['a']", r"s\.toml: groups: found \['a'\], expected a table"),
        ("[groups]\nall = ['a']", r"s\.toml: groups: found the group all, expected other names"),
        ("[groups]\nhead = []", r"s\.toml: groups: head: found \[\], expected a list of names"),
        ("joints = ['a']\n[groups]\nhead = ['b']", r"s\.toml: groups\.head: found 'b', expected one of: a"),
        ("[sigmas]\na = 0", r"s\.toml: sigmas: a: found 0, expected a number above 0"),
        ("[sigmas]\na = true", r"s\.toml: sigmas: a: found True, expected a number"),
        ("[sigmas]\na = nan", r"s\.toml: sigmas: a: found nan, expected a number"),
        ("sigmas = [0.1]", r"s\.toml: sigmas: found \[0\.1\], expected a table"),
        ("[aliases]\na = 1", r"s\.toml: aliases: a: found 1, expected a name"),
        ("joints = ['a']\n[aliases]\nb = 'x'", r"s\.toml: aliases: found 'b', expected one of: a"),
    ],
)
def test_wrong_files_are_refused_when_read(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joints = ['a', 'b']", r"s\.toml: joints: found 2, expected 3, one for each of bodypart1, bodypart2"),
        (
            "joints = ['bodypart2', 'bodypart1', 'bodypart3']",
            r"s\.toml: joints: bodypart2 stands for bodypart1, expected the order of the data's labels",
        ),
        ("flips = [['bodypart1', 'tail']]", r"s\.toml: flips: found 'tail', expected one of: bodypart1, bodypart2"),
        ("[groups]\nhead = ['nose']", r"s\.toml: groups\.head: found 'nose', expected one of: bodypart1"),
    ],
)
def test_files_that_do_not_fit_the_data(tmp_path, text, message):
    file = read(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        skeleton_file.apply(DATA, file)


def test_sigmas_of_every_joint_or_none(tmp_path):
    file = read(tmp_path, "[sigmas]\nbodypart2 = 0.5")
    with pytest.raises(ValueError, match=r"s\.toml: sigmas: found none of bodypart1, bodypart3, expected one of every"):
        skeleton_file.apply(dataclasses.replace(DATA, sigmas=()), file)


def test_absent_file(tmp_path):
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file, expected a skeleton in TOML"):
            skeleton_file.read_skeleton(path)
