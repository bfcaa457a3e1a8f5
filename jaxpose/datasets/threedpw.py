"""3D Poses in the Wild (3DPW)."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.records import BrokenImageError, Record
from jaxpose.datasets import _bodies, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_SPLITS = ("train", "validation", "test")
_SEVERAL = 2  # people at most

SMPL24 = _bodies.smpl("smpl24", "left", "right")


class ThreeDpw(RecordBuilder):
    """60 videos of one or two people outdoors, by a hand-held camera, with SMPL's 24 joints in 2D and 3D.

    Images are 1920x1080 or 1080x1920 at 30 Hz and keep their bytes. There is one record per person and frame; frames
    with two people are stored twice. The splits are the owners': 24, 12 and 24 videos.

    Joints come from SMPL bodies that were fitted to inertial sensors: `jointPositions`, moved from the world to the
    camera's frame by `cam_poses`. 2D joints are their projection, not the owners' `poses2d`: those are
    detections of 18 other joints (OpenPose) that are zero where nothing was found. Published 3D errors
    are over 14 joints that are regressed from SMPL's surface; those need SMPL itself and are not here.
    Traps that are handled:
      - Frames whose camera was not aligned with the image (`campose_valid`) are left out, and people of whom
        fewer than 6 joints are in the image.
      - As in `Surreal`, shoulders are the glenohumeral joints, `thorax` is SMPL's neck, `head` the base of the skull.
      - The files are pickles of Python 2; they are read without running what they name.
    """

    SKELETON = SMPL24
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "sequence", "frame")
    COUNTS = {"train": None, "validation": None, "test": None}
    HOMEPAGE = "https://virtualhumans.mpi-inf.mpg.de/3DPW/"
    LICENCE = "for non-commercial research"
    CITATION = (
        "von Marcard et al.: Recovering accurate 3D human pose in the wild using IMUs and a moving camera. ECCV 2018."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack sequenceFiles.zip and imageFiles.zip, so that the folder holds "
        "sequenceFiles/{train,validation,test}/*.pkl and imageFiles/downtown_arguing_00/image_00000.jpg and so on"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """A shard is a person in a video; videos in the order of their names."""
        sequences = _reading.require(root / "sequenceFiles", "train, validation and test with *.pkl")
        images = _reading.require(root / "imageFiles", "a folder per video")
        found = {}
        for split in _SPLITS:
            paths = sorted(_reading.require(sequences / split, "*.pkl").glob("*.pkl"))
            if not paths:
                raise FileNotFoundError(f"{sequences / split}: holds no *.pkl")
            found[split] = [
                functools.partial(_person, _reading.require(images / path.stem, "its images"), person, *labels)
                for path in paths
                for person, labels in enumerate(_people(path))
            ]
        return found


def _people(path: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per person: points (T, 24, 3) in metres in the camera's frame, which frames are valid (T,), intrinsics."""
    found = unpickle.load(untrusted.read_file(path, "labels"), encoding="latin1", where=str(path))
    names = ("jointPositions", "campose_valid", "cam_poses", "cam_intrinsics")
    positions, valid, poses, matrix = (_reading.field(found, name, str(path)) for name in names)
    intrinsics = _reading.finite(matrix, (3, 3), f"{path}: cam_intrinsics")
    cameras = _reading.array(poses, (None, 4, 4), f"{path}: cam_poses")
    if not _several(positions) or not _several(valid) or len(positions) != len(valid):
        raise ValueError(f"{path}: jointPositions and campose_valid are not lists of 1 or {_SEVERAL} people")
    people = []
    for person, (joints, flags) in enumerate(zip(positions, valid, strict=True)):
        world = _reading.array(joints, (None, 72), f"{path}: jointPositions[{person}]").reshape(-1, 24, 3)
        good = _reading.array(flags, (None,), f"{path}: campose_valid[{person}]") > 0
        if not len(world) == len(good) == len(cameras):
            raise ValueError(
                f"{path}: {len(world)} frames of joints, {len(good)} of campose_valid, {len(cameras)} of cam_poses; "
                "expected as many"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # such bodies are left out
            points = np.einsum("tij,tkj->tki", cameras[:, :3, :3], world) + cameras[:, None, :3, 3]
            people.append((points.astype(np.float32), good, intrinsics))
    return people


def _several(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and 1 <= len(value) <= _SEVERAL


def _person(
    folder: Path, person: int, points: np.ndarray, valid: np.ndarray, intrinsics: np.ndarray
) -> Iterator[Record | Skipped]:
    sequence, size = f"{folder.name}:{person}", None
    for frame in range(len(points)):
        path = folder / f"image_{frame:05d}.jpg"
        name = f"{folder.name}/{path.name}:{person}"
        if not valid[frame]:
            yield Skipped(name, "the camera's pose is not valid")
            continue
        if not path.is_file():
            yield Skipped(name, "the image is missing")
            continue
        image = untrusted.read_file(path, "an image")
        try:
            size = size or _reading.image_size(image, name)  # all images of a video have one size
        except BrokenImageError:
            yield Skipped(name, "the image cannot be decoded")
            continue
        yield _bodies.record(
            image=image,
            points=points[frame].astype(np.float64),
            intrinsics=intrinsics,
            size=size,
            name=name,
            sequence=sequence,
            frame=frame,
        )
