"""Small valid inputs of every reader, as their own tests write them, and what reads them as a run does."""

import argparse
import collections
import functools
import io
import json
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import damage
import h5py
import numpy as np
import pandas as pd
import safetensors.numpy
import small
import test_animals
import test_coco
import test_coco_keypoints
import test_deeplabcut
import test_hostile
import test_mpi_inf_3dhp
import test_mpii
import test_simplified_human36m
import test_sleap
import test_surreal
import test_tfds_source
import test_threehundred_vw
import test_torch_import
import test_video
import test_wflw
import test_written
from test_hostile import Target

from jaxpose import config as configs
from jaxpose.data import schemes, wrappers
from jaxpose.data.formats import files
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.host.elements import Crops
from jaxpose.data.host.windows import consecutive
from jaxpose.data.joints import skeletons
from jaxpose.data.motion import source as motion_source
from jaxpose.data.records import BrokenImageError
from jaxpose.datasets import catalogue, motions, prepare
from jaxpose.models import torch_import
from jaxpose.report import text
from jaxpose.train import written


def read_spec(spec: str, root: Path) -> None:
    """Opens a data set and makes the crops of all its records."""
    opened = schemes.open_data(spec, root=str(root), skeleton=skeletons.LSP14)
    for source in opened.splits.values():
        wrappers.sequences_of(source)
        crops = Crops(source=source, joints=np.arange(len(source.skeleton)), size=16)
        for index in range(len(source)):
            record = source[index]
            test_hostile.check(record, len(source.skeleton))
            try:
                image = files.decode_image(record["image"], record["name"])
            except BrokenImageError as error:
                test_hostile.in_one_line(error)
                continue
            element = crops.cut([record], [image])
            assert element["image"].shape == (16, 16, 3)
            assert np.isfinite(element["keypoints"]).all()


def spec(found: str) -> Callable[[Path], None]:
    return functools.partial(read_spec, found)


@functools.cache
def builder(name: str) -> Any:
    """Made once: what it makes on the disk is not the reader's."""
    kind = catalogue.BUILDERS.get(name) or getattr(motions, name)
    return kind(data_dir=tempfile.mkdtemp(prefix="fuzz-builder-"), file_format="array_record")


def whole(fixture: Any, root: Path) -> None:
    """What a fixture of another test writes."""
    with tempfile.TemporaryDirectory() as folder:
        found = fixture.__wrapped__(Path(folder))
        shutil.copytree(found if isinstance(found, Path) else folder, root, dirs_exist_ok=True)


def read_builder(name: str, root: Path) -> None:
    """Reads a published data set as --mode=prepare does, up to what it would write."""
    made = builder(name)
    for parts in made.shards(root).values():
        for item in (item for shard in parts for item in shard()):
            if not isinstance(item, Skipped):
                prepare.shards.example(item, made.features())
                if isinstance(item, dict):
                    test_hostile.check(item, len(made.SKELETON))


def read_weights(root: Path) -> None:
    for path in sorted(root.iterdir()):
        torch_import.load_torch_weights(path)


def read_workdir(root: Path) -> None:
    configs.fixed_part(written.read_config(root / "config.json"))
    text.summary_table(written.read_results(root / "results.json"))
    written.read_predictions(root / "p.npy", (5, 3, 2))


def read_motions_of(spec: str, root: Path) -> None:
    """Opens motions and makes all their windows of two frames."""
    for part in schemes.open_data(spec, root=str(root)).motions.values():
        windows = motion_source.MotionSource(source=part, window=consecutive(2, rate=120.0))
        for index in range(len(windows)):
            assert np.isfinite(windows[index]["positions"]).all()


def motions_of(found: str) -> Callable[[Path], None]:
    return functools.partial(read_motions_of, found)


def write_bvh(root: Path) -> None:
    for name in ("07_01", "07_02"):
        (root / f"{name}.bvh").write_text(small.bvh([(0, 17, 0), (1, 17, 0), (2, 17, 0)]))


def write_tar_of_bvh(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, tarfile.open(root / "d.tar", "w") as archive:
        write_bvh(Path(folder))
        archive.add(folder, "x")


def write_simplified(root: Path) -> None:
    whole(test_simplified_human36m.root, root)
    for folder in root.glob("*/*"):
        (folder / "note.txt").touch()  # a tree has no empty folders


def write_tllib(root: Path) -> None:
    args = argparse.Namespace(lr=0.1, milestones=collections.Counter([45]))
    storage = np.arange(4, dtype=np.float32)
    test_torch_import._archive(root / "w.pth", test_torch_import._training(args), **{"0": storage})


def write_safetensors(root: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones((3, 2), np.float32), "b": np.ones(3)}, root / "w.safetensors")


def write_workdir(root: Path) -> None:
    test_written.workdir(root)
    np.save(root / "p.npy", np.ones((5, 3, 2), np.float32))
    (root / "report.html").unlink()


def write_prepared(root: Path) -> None:
    test_tfds_source.prepare(root / "set")
    np.savez_compressed(root / "set" / "preset_some.npz", train=np.array([0, 4]), test=np.array([1]))


def write_prepared_motions(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        test_hostile.write_cmu(Path(folder))
        asf = Path(folder) / "subjects" / "07"
        shutil.copy(asf / "07_01.amc", asf / "07_02.amc")
        found = prepare.prepare(motions.Cmu, Path(folder), Path(folder) / "out")
        shutil.copytree(found, root / "07")


def write_images(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for name in ("a.png", "b.jpg", "c.bmp", "d.tif", "e.webp", "f.ppm"):
        (root / name).write_bytes(cv2.imencode(name[1:], pixels)[1].tobytes())


def write_tar_of_images(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, tarfile.open(root / "d.tar", "w") as archive:
        write_images(Path(folder))
        archive.add(folder, "x")


def write_deeplabcut_h5(root: Path) -> None:
    levels = [["AB"], test_deeplabcut.PARTS, ["x", "y"]]
    columns = pd.MultiIndex.from_product(levels, names=["scorer", "bodyparts", "coords"])
    frame = pd.DataFrame(np.arange(6.0)[None], columns=columns, index=["labeled-data/vid1/img007.png"])
    test_deeplabcut.write(root, {"labeled-data/vid1/img007.png": test_deeplabcut.IMAGE})
    frame.to_hdf(root / "labeled-data/vid1/CollectedData_AB.h5", key="df_with_missing")


def write_configuration(root: Path) -> None:
    test_hostile.write_deeplabcut(root)
    text = "Task: x\nskeleton:\n- - snout\n  - leftear\n- [snout, rightear]\nbodyparts:\n- snout\n"
    (root / "config.yaml").write_text(text)


def write_boxes(root: Path) -> None:
    test_coco.dataset(root)
    (root / "boxes.json").write_text(json.dumps({"a.png": [1, 2, 30, 40], "b.png": [0.5, 0, 79.5, 60]}))


def write_videos(root: Path) -> None:
    for name in ("a.mp4", "b.mkv", "c.mpg", "d.avi"):
        test_video.encode(root / name, "mpeg2video" if name == "c.mpg" else "libx264", bf="2", g="12")


def write_package(root: Path) -> None:
    test_sleap.embed(test_sleap.project(root / "a.pkg.slp", videos=(test_sleap.packed(),)))


def write_project(root: Path) -> None:
    test_sleap.project(root / "a.slp")
    test_sleap.clip(root / "clip.avi")


def write_analysis(root: Path) -> None:
    test_sleap.analysis(root / "a.h5")
    test_sleap.clip(root / "clip.avi")


TARGETS: dict[str, Target] = {
    **{name: Target(target.write, target.use) for name, target in test_hostile.TARGETS.items()},
    "coco": Target(test_hostile.TARGETS["coco"].write, spec("coco:.?train=*")),
    "deeplabcut": Target(test_hostile.write_deeplabcut, spec("deeplabcut:.?train=*")),
    "skeleton": Target(test_hostile.write_skeleton, spec("deeplabcut:.?train=*&skeleton=s.toml")),
    "tar": Target(test_hostile.write_tar, spec("deeplabcut:d.tar?train=*")),
    "lightning": Target(test_hostile.TARGETS["lightning"].write, spec("lightning:.?train=*")),
    "lsp": Target(test_hostile.write_lsp, spec("lsp:lsp?train=*")),
    "lsp npz": Target(test_hostile.TARGETS["lsp npz"].write, spec("lsp:lsp?train=*")),
    "boxes": Target(write_boxes, spec("coco:labels.json?train=*&boxes=boxes.json")),
    "configuration": Target(write_configuration, spec("deeplabcut:.?train=*")),
    "deeplabcut h5": Target(write_deeplabcut_h5, spec("deeplabcut:.?train=*")),
    "sleap project": Target(write_project, spec("sleap:a.slp?train=*")),
    "sleap package": Target(write_package, spec("sleap:a.pkg.slp?train=*")),
    "sleap analysis": Target(write_analysis, spec("sleap:a.h5?train=*")),
    "images": Target(write_images, spec("images:.")),
    "tar of images": Target(write_tar_of_images, spec("images:d.tar")),
    "video": Target(lambda root: test_video.write(root / "v.mp4", 12), spec("video:v.mp4")),
    "videos": Target(
        lambda root: test_video.write(root / "v.avi", 8, code="MJPG"), spec("video:.?frames=3&method=kmeans")
    ),
    "videos in another order": Target(write_videos, spec("video:.?frames=9")),
    "tfds": Target(write_prepared, spec("tfds:set")),
    "tfds preset": Target(write_prepared, spec("tfds:set?preset=some")),
    "tfds motions": Target(write_prepared_motions, motions_of("tfds:07?train=train")),
    "bvh": Target(write_bvh, motions_of("bvh:.?train=*")),
    "tar of bvh": Target(write_tar_of_bvh, motions_of("bvh:d.tar?train=*")),
    "torch": Target(lambda root: shutil.copy(test_torch_import.GOLDENS / "tiny.pth", root / "w.pth"), read_weights),
    "tllib": Target(write_tllib, read_weights),
    "safetensors": Target(write_safetensors, read_weights),
    "work directory": Target(write_workdir, read_workdir),
}
for _name in ("freihand", "ge_hands", "h3d", "human36m", "mvhand", "rhd"):
    TARGETS[_name] = Target(test_hostile.TARGETS[_name].write, functools.partial(read_builder, _name))
for _name, _builder in {
    "threedpw": "three_dpw",
    "cmu": "Cmu",
    "cmu_bvh": "CmuBvh",
    "amass": "Amass",
    "human36m_poses": "Human36mPoses",
}.items():
    TARGETS[_name] = Target(test_hostile.TARGETS[_name].write, functools.partial(read_builder, _builder))

for _name, _fixture in {
    "animal_pose": test_animals.photographs,
    "tig_dog": test_animals.videos,
    "synthetic_animals": test_animals.renderings,
    "coco_keypoints": test_coco_keypoints.root,
    "mpii": test_mpii.hrnet,
    "mpii_original": test_mpii.original,
    "threehundred_vw": test_threehundred_vw.root,
    "wflw": test_wflw.root,
}.items():
    TARGETS[_name] = Target(functools.partial(whole, _fixture), functools.partial(read_builder, _name))

TARGETS |= {
    "simplified_human36m": Target(write_simplified, functools.partial(read_builder, "simplified_human36m")),
    "surreal": Target(
        lambda root: test_surreal.write_clip(root, test_surreal.bodies(2)), functools.partial(read_builder, "surreal")
    ),
    "surreal_tllib": Target(test_surreal.write_tllib, functools.partial(read_builder, "surreal_tllib")),
    "mpi_inf3dhp": Target(
        lambda root: test_mpi_inf_3dhp.write_recording(root, frames=2, cameras=(0,)),
        functools.partial(read_builder, "mpi_inf3dhp"),
    ),
    "mpi_inf3dhp_test": Target(
        lambda root: test_mpi_inf_3dhp.write_test(root, frames=2, valid=(1, 1)),
        functools.partial(read_builder, "mpi_inf3dhp_test"),
    ),
}


@functools.cache
def tree(name: str) -> dict[str, bytes]:
    """Names and bytes of the undamaged files."""
    with tempfile.TemporaryDirectory() as folder:
        TARGETS[name].write(Path(folder))
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def edit_hdf5(data: bytes, rng: random.Random) -> bytes:
    """A data set of an HDF5 file replaced, left out, or made a link; damage to its bytes meets checksums or nothing."""
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        test_sleap.damage_at_random(file, rng)
    return stream.getvalue()


def damaged(name: str, rng: random.Random) -> dict[str, bytes]:
    """A damaged tree of a target; labels are damaged more often than pictures, which come in numbers."""
    found = tree(name)
    labels = [file for file in found if Path(file).suffix not in files.IMAGE_SUFFIXES]
    chosen = labels if labels and rng.random() < 0.9 else sorted(found)
    hdf5 = [file for file in found if found[file].startswith(b"\x89HDF")]
    if hdf5 and rng.random() < 0.5:
        file = rng.choice(hdf5)
        return {**found, file: edit_hdf5(found[file], rng)}
    return damage.damaged(found, rng, chosen)
