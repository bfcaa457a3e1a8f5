"""Folders and archives of BVH: conventions, splits, and what cannot be read."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small

from jaxpose.data import schemes
from jaxpose.data.host.windows import consecutive
from jaxpose.data.motion import bvh, bvh_files, rigs
from jaxpose.data.motion.source import MotionSource

PLACES = [(t, 17, 0) for t in range(9)]


def write(root: Path, *names: str, **options) -> None:
    for name in names:
        path = root / f"{name}.bvh"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(small.bvh(PLACES, **options))


def open_splits(root: Path, spec: str) -> dict[str, tuple[str, ...]]:
    return {split: part.names for split, part in schemes.open_data(spec, root=str(root)).motions.items()}


def test_conventions_are_those_of_the_rig(tmp_path: Path) -> None:
    write(tmp_path / "cmu", "07/07_01", "07/07_02", "35/35_01")
    (tmp_path / "cmu" / "broken.bvh").write_text("HIERARCHY")
    motions, notes = bvh_files.read(tmp_path / "cmu")
    found = [(motion.name, motion.subject, motion.rate) for motion in motions]
    assert found == [("07/07_01", "07", 120.0), ("07/07_02", "07", 120.0), ("35/35_01", "35", 120.0)]
    assert motions[0].joints == tuple(joint for joint in rigs.CANONICAL if joint in rigs.CMU_BVH)
    alone = rigs.to_canonical(bvh.read_cmu(tmp_path / "cmu" / "07" / "07_01.bvh"))
    np.testing.assert_allclose(motions[0].positions, alone.positions, atol=1e-6)
    assert [str(note) for note in notes] == [
        "left out motions that cannot be read: 1 (broken: no HIERARCHY and MOTION, expected a BVH)"
    ]
    write(tmp_path / "other", "walk", name=small.bandai_name)
    with pytest.raises(
        ValueError, match=r"walk: found legs of 0.15 m in the unit of bandai, expected 0.4 to 1.4: give"
    ):
        bvh_files.read(tmp_path / "other")
    (walk,), _ = bvh_files.read(tmp_path / "other", unit=0.05)
    assert walk.positions[0, walk.joints.index("left_hip"), 2] == pytest.approx(0.05 * 16)
    (walk,), _ = bvh_files.read(tmp_path / "other" / "walk.bvh", rig="cmu")
    assert walk.positions[0, walk.joints.index("left_hip"), 2] == pytest.approx(bvh.CMU_UNIT * 16)


def test_which_axis_is_up(tmp_path: Path) -> None:
    zeros = "0 " * 3 * len(small.CMU)
    lying = "0 0 90 " + zeros[6:]  # turned about x, so that what was along y is along z
    for name in "ab":
        (tmp_path / f"{name}.bvh").write_text(small.bvh(PLACES).replace(f"17 0 {zeros}", f"17 0 {lying}"))
    with pytest.raises(ValueError, match=r"found people who are not upright along y, expected \?up=z"):
        bvh_files.read(tmp_path)
    motions, _ = bvh_files.read(tmp_path, up="z")
    where = motions[0].joints.index
    assert (motions[0].positions[:, where("neck"), 2] > motions[0].positions[:, where("left_ankle"), 2] + 1).all()
    bvh_files.read(tmp_path, up="y")


def test_archives(tmp_path: Path) -> None:
    write(tmp_path / "set", "07_01", "07_02", ".hidden")
    for kind in ("", ":gz", ":xz"):
        path = tmp_path / f"set{kind[1:]}.tar"
        with tarfile.open(path, f"w{kind}") as archive:
            archive.add(tmp_path / "set", "set")
            for name, what in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
                member = tarfile.TarInfo(f"set/{name}.bvh")
                member.type, member.linkname = what, "/etc/hostname"
                archive.addfile(member)
        motions, notes = bvh_files.read(path)
        assert ([motion.name for motion in motions], notes) == (["set/07_01", "set/07_02"], ())
    data = (tmp_path / "setxz.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"^[^\n]*cut\.tar: [^\n]*expected a \.tar"):
        bvh_files.read(tmp_path / "cut.tar")


def test_an_archive_that_expands_to_more_than_data_do_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz", preset=0) as archive:
        member = tarfile.TarInfo("a.bvh")
        member.size = 2**27
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(ValueError, match=r"a\.tar\.xz: \d+ bytes expand to \d+, more than 200 times as many"):
        bvh_files.read(tmp_path / "a.tar.xz")


def test_splits(tmp_path: Path) -> None:
    write(tmp_path, *(f"{subject}_{trial:02d}" for subject in ("07", "08", "35") for trial in (1, 2)))
    assert open_splits(tmp_path, "bvh:.")["test"] == ("35_01",)
    found = open_splits(tmp_path, "bvh:.?test=35")
    assert found == {"train": ("07_01", "07_02", "08_01", "08_02"), "test": ("35_01", "35_02")}
    found = open_splits(tmp_path, "bvh:.?train=07_*&test=08_01,35")
    assert found == {"train": ("07_01", "07_02"), "test": ("08_01", "35_01", "35_02")}
    (note,) = schemes.open_data("bvh:.", root=str(tmp_path)).notes
    assert str(note).startswith("test motions of a subject that train motions are of too; name others with ?test=")
    (note,) = schemes.open_data("bvh:.?train=*", root=str(tmp_path)).notes
    assert str(note) == "motions, none of which is for testing; name some with ?test=: 6"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bvh:missing", "missing: no such file or folder, expected a folder or a tar of .bvh files"),
        ("bvh:empty", "empty: found no .bvh files"),
        ("bvh:broken", "none of 1 .bvh files can be read: broken: "),
        ("bvh:set?rig=dancer", "found rig=dancer, expected cmu or bandai"),
        ("bvh:set?unit=nan", "found unit=nan, expected 1e-06 to 1000 metres"),
        ("bvh:set?unit=inch", "found unit=inch, expected a number"),
        ("bvh:set?up=x", "found up=x, expected y or z"),
        ("bvh:set?test=99", "no clip, folder or file matches '99'"),
        ("bvh:set?fps=30", "found option 'fps', expected one of: "),
        ("bvh:mixed?unit=0.05", "b has joints right_ankle, "),
        ("bvh:unknown", "unknown rig with joints "),
    ],
)
def test_what_is_wrong_is_one_line(spec: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "set", "07_01")
    write(tmp_path / "mixed", "a", "c")
    write(tmp_path / "mixed", "b", name=small.bandai_name)
    for name, content in (("broken", "x"), ("unknown", small.bvh(PLACES).replace("LeftKnee", "Knie"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.bvh").write_text(content)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^bvh:") as caught:
        schemes.open_data(spec, root=str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Frames: 9", "Frames: 1000000000"), ("0 17 0", "nan 17 0"), ("0.0083333", "1e-30"), ("0.0083333", "1e30")],
)
def test_hostile_files_are_left_out(old: str, new: str, tmp_path: Path) -> None:
    write(tmp_path, "a", "b\u2028c")
    (path,) = tmp_path.glob("b*")
    path.write_text(path.read_text().replace(old, new, 1))
    opened = schemes.open_data("bvh:.?train=*", root=str(tmp_path))
    assert opened.motions["train"].names == ("a",)
    assert str(opened.notes[0]).startswith("left out motions that cannot be read: 1 (b\\u2028c")


def test_real_motions(pack: Callable[[str], Path]) -> None:
    opened = schemes.open_data(f"bvh:{pack('cmu_walk_bvh.tar.xz')}?test=07", root=".")
    assert opened.notes == ()
    assert min(map(len, opened.motions.values())) > 5
    found = MotionSource(source=opened.motions["test"], window=consecutive(30, rate=30.0))
    every = [found[i] for i in range(0, len(found), 50)]
    positions, going = (np.stack([element[name] for element in every]) for name in ("positions", "pelvis"))
    joint = {name: positions[:, :, i] for i, name in enumerate(found.source.skeleton.joints)}
    assert (joint["head_top"][..., 2] > 0.4).all()
    assert (joint["left_ankle"][..., 2] < -0.5).all()
    # One walks about 1.3 m per second, and the left side is on the left of where one goes.
    assert 0.8 < np.median(np.linalg.norm(going[:, -1], axis=-1)) < 1.8
    left = (joint["left_hip"] - joint["right_hip"]).mean(axis=1)
    assert (going[:, -1, 0] * left[:, 1] - going[:, -1, 1] * left[:, 0] > 0).all()


def test_real_motions_of_another_rig(pack: Callable[[str], Path]) -> None:
    opened = schemes.open_data(f"bvh:{pack('bandai1_bvh.tar.xz')}", root=".")
    train = opened.motions["train"]
    assert (len(train.skeleton), set(train.rates)) == (19, {30.0})
    assert len(opened.motions["test"]) == 174 // 5
