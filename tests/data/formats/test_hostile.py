"""Files that are damaged, mistaken or hostile, through every reader and builder.

Whatever is wrong with a file, what comes out is a ValueError or FileNotFoundError of one line, a record that is left
out, or a record whose numbers are good. Nothing is written or run.
"""

import dataclasses
import functools
import io
import json
import os
import pickle
import random
import re
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import small
import test_coco
import test_deeplabcut
import test_freihand
import test_ge_hands
import test_h3d
import test_human36m
import test_lightning
import test_lsp
import test_motions
import test_mvhand
import test_rhd
import test_threedpw

from jaxpose.data import records, schemes
from jaxpose.data.formats import files, shards
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints import skeletons
from jaxpose.datasets import catalogue, motions


def use_source(source):
    for i in range(len(source)):
        record = source[i]
        check(record, len(source.skeleton))
        try:
            files.decode_image(record["image"], record["name"])
        except records.BrokenImageError as error:
            in_one_line(error)


def in_one_line(error):
    assert "\n" not in str(error)


def check(record, joints):
    assert record["keypoints"].shape == (joints, 2)
    labelled = np.asarray(record["visible"]) > 0
    assert np.isfinite(record["keypoints"][labelled]).all()
    for field in ("bbox", "keypoints3d", "intrinsics"):
        assert np.isfinite(record.get(field, np.zeros(1))).all(), field


def use_spec(spec, root):
    opened = schemes.open_data(spec, root=str(root), skeleton=skeletons.LSP14)
    for source in opened.splits.values():
        use_source(source)


def use_builder(kind, root):
    with tempfile.TemporaryDirectory() as unused:
        builder = kind(data_dir=unused, file_format="array_record")
    for parts in builder.shards(root).values():
        for item in (item for shard in parts for item in shard()):
            if isinstance(item, Skipped):
                assert "\n" not in item.name + item.reason
            elif isinstance(item, records.Motion):
                assert np.isfinite(item.positions).all()
                shards.example(item, builder.features())
            else:
                shards.example(item, builder.features())
                check(item, len(builder.SKELETON))


@dataclasses.dataclass(frozen=True)
class Target:
    """A tree as its own tests write it, and what reads it."""

    write: Callable[[Path], object]
    use: Callable[[Path], None]


def spec(text):
    return functools.partial(use_spec, text)


def build(name):
    return functools.partial(use_builder, catalogue.BUILDERS.get(name) or getattr(motions, name))


def write_deeplabcut(root):
    test_deeplabcut.write(root, test_deeplabcut.project(test_deeplabcut.table(test_deeplabcut.ROWS)))


def write_skeleton(root):
    write_deeplabcut(root)
    text = 'joints = ["snout", "a", "b"]\nbones = [["snout", "a"]]\n[sigmas]\nsnout = 0.1\na = 0.1\nb = 0.1\n'
    (root / "s.toml").write_text(text)


def write_lsp(root, *, npz=False):
    joints = test_lsp.with_flags(np.ones((4, 14)))
    test_lsp.write(root, joints if npz else joints.transpose(1, 2, 0), digits=5, npz=npz)


def write_tar(root):
    with tempfile.TemporaryDirectory() as folder, tarfile.open(root / "d.tar", "w") as archive:
        write_deeplabcut(Path(folder))
        archive.add(folder, "project")


def write_cmu(root):
    folder = root / "subjects" / "07"
    folder.mkdir(parents=True)
    (folder / "07.asf").write_text(test_motions.asf())
    (folder / "07_01.amc").write_text(test_motions.AMC)


def write_amass(root):
    test_motions.write_amass(root / "CMU" / "07" / "a_poses.npz")
    (root / "body_models" / "female").mkdir(parents=True)
    arrays = {"v_template": np.ones((52, 3)), "shapedirs": np.zeros((52, 3, 16)), "J_regressor": np.eye(52)}
    np.savez(root / "body_models" / "female" / "model.npz", **arrays)


def write_threedpw(root):
    for split in ("train", "validation", "test"):
        test_threedpw.write(root, split, f"{split}_00", [test_threedpw.bodies(2)])


TARGETS = {
    "coco": Target(lambda root: test_coco.dataset(root), spec("coco:.?train=*")),
    "deeplabcut": Target(write_deeplabcut, spec("deeplabcut:.?train=*")),
    "skeleton": Target(write_skeleton, spec("deeplabcut:.?train=*&skeleton=s.toml")),
    "tar": Target(write_tar, spec("deeplabcut:d.tar?train=*")),
    "lightning": Target(
        lambda root: test_lightning.folder(root, {"CollectedData.csv": test_lightning.TRAIN}),
        spec("lightning:.?train=*"),
    ),
    "lsp": Target(write_lsp, spec("lsp:lsp?train=*")),
    "lsp npz": Target(functools.partial(write_lsp, npz=True), spec("lsp:lsp?train=*")),
    "freihand": Target(lambda root: test_freihand.write(root, 1), build("freihand")),
    "ge_hands": Target(lambda root: test_ge_hands.write(root, 1), build("ge_hands")),
    "h3d": Target(lambda root: test_h3d.write(root, [test_h3d.label(i) for i in range(2)]), build("h3d")),
    "human36m": Target(lambda root: test_human36m.write(root, entries=1), build("human36m")),
    "mvhand": Target(lambda root: test_mvhand.write(root, "a", 1), build("mvhand")),
    "rhd": Target(lambda root: test_rhd.both(root, {3: test_rhd.label(1)}), build("rhd")),
    "threedpw": Target(write_threedpw, build("three_dpw")),
    "cmu": Target(write_cmu, build("Cmu")),
    "cmu_bvh": Target(lambda root: (root / "07_01.bvh").write_text(small.bvh([(0, 17, 0)] * 2)), build("CmuBvh")),
    "amass": Target(write_amass, build("Amass")),
    "human36m_poses": Target(
        lambda root: np.savez(root / "data_3d_h36m.npz", positions_3d=test_motions.H36M), build("Human36mPoses")
    ),
}


@functools.cache
def tree(name):
    """Names and bytes of the undamaged files."""
    with tempfile.TemporaryDirectory() as folder:
        TARGETS[name].write(Path(folder))
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def attempt(name, content):
    """Whether the files are read; if not, the error is one of those promised."""
    with tempfile.TemporaryDirectory() as folder:
        for file, data in content.items():
            path = Path(folder) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            TARGETS[name].use(Path(folder))
        except (ValueError, FileNotFoundError) as error:
            in_one_line(error)
            return False
    return True


def labels_of(name):
    return [file for file in tree(name) if Path(file).suffix not in files.IMAGE_SUFFIXES]


STRANGE = ["0", "-1", "nan", "NaN", "Infinity", "1e39", "1e999", "9" * 20]
STRANGE += ["true", "null", "[]", "[1]", "{}", "x", '"a"', "../../x", ""]


def damage(data, rng):
    """The bytes with one kind of damage."""
    if not data:
        return b"x"
    start = rng.randrange(len(data))
    stop = start + rng.randrange(1, 40)
    kind = rng.randrange(6)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + bytes([rng.randrange(256)]) + data[start + 1 :]
    if kind == 2:
        return data[:start] + data[stop:]
    if kind == 3:
        return data[:stop] + data[start:]
    if kind == 4:
        return data[:start] + rng.choice([b"\0", b"\n", b"\xff\xfe", b"{", b'"', b","]) + data[start:]
    numbers = [match.span() for match in re.finditer(rb"-?\d+(\.\d+)?", data)] or [(start, stop)]
    first, last = rng.choice(numbers)
    return data[:first] + rng.choice(STRANGE).encode() + data[last:]


@pytest.mark.parametrize("name", TARGETS)
def test_the_undamaged_files_are_read(name):
    assert attempt(name, tree(name))


@pytest.mark.parametrize("name", TARGETS)
@hypothesis.given(seed=st.integers(0, 2**32))
@hypothesis.settings(max_examples=20)
def test_damaged_labels(name, seed):
    rng = random.Random(seed)
    file = rng.choice(labels_of(name))
    attempt(name, tree(name) | {file: damage(tree(name)[file], rng)})


@pytest.mark.parametrize("name", TARGETS)
def test_missing_and_empty_files(name):
    for file in labels_of(name)[:4]:
        attempt(name, tree(name) | {file: b""})
        attempt(name, {other: data for other, data in tree(name).items() if other != file})


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", TARGETS)
def test_pickles_are_not_run(name, tmp_path):
    objects = np.array([Hostile(tmp_path / "run")], dtype=object)
    arrays = dict.fromkeys(("ids", "joints", "poses", "trans", "positions_3d", "v_template"), objects)
    archive, array = io.BytesIO(), io.BytesIO()
    np.savez(archive, **arrays)
    np.save(array, objects)
    for payload in (pickle.dumps(objects), archive.getvalue(), array.getvalue()):
        for file in labels_of(name)[:4]:
            attempt(name, tree(name) | {file: payload})
    assert not (tmp_path / "run").exists()


NAN_TABLE = test_deeplabcut.table({"img007.png": ["nan", 2, "inf", 40, 50.25, 6]})


def test_coordinates_that_are_not_numbers_are_missing(tmp_path):
    test_deeplabcut.write(tmp_path / "a", test_deeplabcut.project(NAN_TABLE, images=("img007.png",)))
    opened = schemes.open_data("deeplabcut:a?train=*", root=str(tmp_path))
    np.testing.assert_array_equal(opened.splits["train"][0]["visible"], [0, 0, 2])

    def spoil(content):
        content["annotations"][0]["keypoints"] = [float("nan"), 2, 2, 30, 1e300, 2, 20, 5, 2]

    test_coco.dataset(tmp_path / "b", spoil)
    opened = schemes.open_data("coco:b?train=*", root=str(tmp_path))
    (record,) = [r for r in map(opened.splits["train"].__getitem__, range(2)) if r["name"] == "a.png"]
    np.testing.assert_array_equal(record["visible"], [0, 0, 2])


def test_swapped_columns_are_refused(tmp_path):
    text = test_deeplabcut.table(test_deeplabcut.ROWS)
    head, parts, coords, *rows = text.splitlines()
    for changed in (
        [head, parts, coords.replace("x,y", "y", 1), *rows],
        [head, coords, parts.replace("snout", "leftear"), *rows],
        [head, parts, coords.replace("y", "x"), *rows],
    ):
        test_deeplabcut.write(tmp_path, test_deeplabcut.project("\n".join(changed)))
        with pytest.raises(ValueError, match=r"^deeplabcut:\.\?train=\*: [^\n]*CollectedData"):
            use_spec("deeplabcut:.?train=*", tmp_path)


def test_wrong_counts_are_refused(tmp_path):
    def spoil(content):
        content["annotations"][0]["keypoints"].pop()

    test_coco.dataset(tmp_path, spoil)
    with pytest.raises(ValueError, match="annotation 11 are 8 numbers, expected 9"):
        use_spec("coco:.?train=*", tmp_path)


OUTSIDE = "../secret.png"


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(test_coco.IMAGE)
    root = tmp_path / "root"

    def spoil(content):
        for image in content["images"]:
            image["file_name"] = OUTSIDE

    test_coco.dataset(root, spoil)
    with pytest.raises(ValueError, match="image does not exist"):
        use_spec("coco:.?train=*", root)
    table = test_deeplabcut.table({f"../../{OUTSIDE}": [1, 2, 3, 4, 5, 6]})
    test_deeplabcut.write(tmp_path / "dlc", test_deeplabcut.project(table, images=("other.png",)))
    with pytest.raises(ValueError, match="none of 1 labelled images exists"):
        use_spec("deeplabcut:.?train=*", tmp_path / "dlc")


def test_archives_write_nothing(tmp_path):
    """Members with `..`, absolute names, links and devices."""
    content = json.dumps(test_coco.CONTENT | {"images": [{"id": 3, "file_name": OUTSIDE}]}).encode()
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "d.tar", "w") as archive:
        for name, data in (("labels.json", content), (OUTSIDE, test_coco.IMAGE), ("/tmp/a.png", test_coco.IMAGE)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    found = files.Files(root / "d.tar")
    assert not {"link.png", "hard.png", "pipe.png"} & set(found.names)
    attempt_spec = functools.partial(use_spec, root=root)
    with pytest.raises(ValueError, match=r"^coco:d\.tar\?train=\*: [^\n]*left out"):
        attempt_spec("coco:d.tar?train=*")
    attempt_spec("images:d.tar")
    assert sorted(tmp_path.rglob("*")) == before


def test_broken_images_are_counted_where_they_are_decoded(tmp_path):
    good = test_coco.IMAGE
    broken = {
        "a.png": b"",
        "b.png": good[:40],
        "c.jpg": b"\xff\xd8\xff\xe0",
        "d.tif": b"II*\0" + bytes(40),
        "e.webp": good[::-1],
    }
    for name, data in (broken | {"f.png": good}).items():
        (tmp_path / name).write_bytes(data)
    source = schemes.open_data("images:.", root=str(tmp_path), skeleton=skeletons.LSP14).splits["train"]
    assert len(source) == 6
    outcomes = {}
    for i in range(6):
        record = source[i]
        try:
            outcomes[record["name"]] = files.decode_image(record["image"], record["name"]).shape
        except records.BrokenImageError as error:
            outcomes[record["name"]] = str(error).partition(":")[0]
    assert outcomes == {name: name for name in broken} | {"f.png": (60, 80, 3)}
