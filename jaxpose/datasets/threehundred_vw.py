"""300 Videos in the Wild."""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.joint_sets import FACE68
from jaxpose.data.records import VISIBLE, Record
from jaxpose.datasets import _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

# Source: the challenge's division into training and three scenarios of testing, from well lit to unconstrained.
_VIDEOS = {
    "train": (
        *(1, 2, 3, 4, 7, 9, 10, 11, 13, 15, 16, 17, 18, 19, 20, 22, 25, 27, 28, 29, 31, 33, 34, 35, 37, 39, 41),
        *(43, 44, 46, 47, 48, 49, 53, 57, 59, 112, 113, 115, 119, 120, 123, 138, 143, 144, 160, 204, 205, 223, 225),
    ),
    "test_1": (
        *(114, 124, 125, 126, 150, 158, 401, 402, 505, 506, 507, 508, 509, 510, 511, 514, 515, 518, 519, 520, 521),
        *(522, 524, 525, 537, 538, 540, 541, 546, 547, 548),
    ),
    "test_2": (203, 208, 211, 212, 213, 214, 218, 224, 403, 404, 405, 406, 407, 408, 409, 412, 550, 551, 553),
    "test_3": (410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562),
}


class ThreehundredVw(RecordBuilder):
    """114 videos of one face each, with 68 landmarks in every frame.

    50 videos are for training; the challenge tests on three scenarios, `test_1` (31 videos) to `test_3` (14), from well
    lit to unconstrained. Frames are decoded from `vid.avi` one after the other and encoded again as JPEG of quality 95,
    unless `imgs/` holds extracted ones, which keep their bytes. `annot/000001.pts` is the first frame; coordinates
    count from 1 in the files and from 0 here. Landmarks of hidden parts are guessed and count as visible, as the owners
    mark none. The box is that of the landmarks; they leave the image at times. Some frames of the published videos
    cannot be decoded; their labels are skipped.
    """

    SKELETON = FACE68
    FIELDS = ("bbox", "sequence", "frame")
    COUNTS = {"train": 95_192, "test_1": None, "test_2": None, "test_3": None}
    HOMEPAGE = "https://ibug.doc.ic.ac.uk/resources/300-VW/"
    LICENCE = "for research"
    CITATION = "Shen et al.: The first facial landmark tracking in-the-wild challenge. ICCV workshops 2015."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack 300VW_Dataset_2015_12_14.zip, so that the folder holds 001/vid.avi, 001/annot/000001.pts and so on"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """A video per shard, by number; those that are not there are skipped with the first that is."""
        named = {split: [root / f"{number:03d}" for number in videos] for split, videos in _VIDEOS.items()}
        found = {split: [folder for folder in folders if folder.is_dir()] for split, folders in named.items()}
        if not any(found.values()):
            raise FileNotFoundError(f"{root}: found no folder 001, 002 ..., expected the videos of 300-VW")
        for folder in (folder for folders in found.values() for folder in folders):
            _reading.require(folder / "annot", "a folder of .pts")
            if not (folder / "imgs").is_dir():
                _reading.require(folder / "vid.avi", "the video, or extracted frames in imgs/")
        shards: dict[str, list[Shard]] = {}
        for split, (first, *others) in ((split, folders) for split, folders in found.items() if folders):
            absent = [f"{split} {folder.name}" for folder in named[split] if folder not in found[split]]
            shards[split] = [functools.partial(_clip, first, absent)]
            shards[split] += [functools.partial(_clip, folder, []) for folder in others]
        return shards


def _clip(folder: Path, absent: Sequence[str]) -> Iterator[Record | Skipped]:
    """The labelled frames of one video, in order, and videos that are not there."""
    yield from (Skipped(name, "the video is missing") for name in absent)
    labels = {int(path.stem): path for path in sorted((folder / "annot").glob("*.pts")) if path.stem.isdecimal()}
    frames = _extracted(folder / "imgs") if (folder / "imgs").is_dir() else _decoded(folder / "vid.avi")
    for number, image in frames:
        if path := labels.pop(number, None):
            yield _record(path, image, folder.name, number)
    for path in labels.values():
        yield Skipped(_name(path), "the video has no such frame")


def _extracted(folder: Path) -> Iterator[tuple[int, bytes]]:
    for path in sorted(folder.iterdir()):
        if path.stem.isdecimal():
            yield int(path.stem), untrusted.read_file(path, "an image")


def _decoded(path: Path) -> Iterator[tuple[int, bytes]]:
    return ((number + 1, image) for number, image, _ in _flat.video_frames(path, itertools.count()))


def _record(path: Path, image: bytes, video: str, number: int) -> Record | Skipped:
    points = read_pts(path)
    if points is None:
        return Skipped(_name(path), "its file does not hold 68 points")
    visible = np.full(len(FACE68), VISIBLE, np.uint8)
    return Record(
        image=image,
        name=_name(path),
        keypoints=points,
        visible=visible,
        bbox=_flat.tight_box(points, visible),
        sequence=video,
        frame=number,
    )


def _name(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.stem}"


def read_pts(path: Path) -> np.ndarray | None:
    """The 68 landmarks of a `.pts`, float32 (68, 2) counted from 0, or None if it holds something else."""
    braces = re.search(r"\{([^{}]*)\}", untrusted.read_file(path, "points").decode(errors="replace"))
    rows = [line.split() for line in braces[1].strip().splitlines()] if braces else []
    points = _reading.numbers(rows, (len(FACE68), 2))
    return None if points is None else (points - 1).astype(np.float32)
