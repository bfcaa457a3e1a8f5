"""Wider Facial Landmarks in the Wild."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import VISIBLE
from jaxpose.datasets import _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

# The landmark of WFLW at the place of each of the 68 of 300-W.
_OF_FACE68 = (
    *range(0, 33, 2),
    *(*range(33, 38), *range(42, 47)),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75),
    *range(76, 96),
)
_NAMES = tuple(f"face_{_OF_FACE68.index(i):02d}" if i in _OF_FACE68 else f"wflw_{i:02d}" for i in range(98))


def _line(first: int, last: int, *, closed: bool = False) -> tuple[tuple[str, str], ...]:
    names = _NAMES[first : last + 1]
    return (*itertools.pairwise(names), *(((names[-1], names[0]),) if closed else ()))


# The right of the person is on the left of the image.
_FLIPS = (
    *((32 - i, i) for i in range(16)),
    *((46 - i, 33 + i) for i in range(5)),
    *((50 - i, 38 + i) for i in range(4)),
    *((59, 55), (58, 56)),
    *((72 - i, 60 + i) for i in range(5)),
    *((75, 65), (74, 66), (73, 67)),
    *((82, 76), (81, 77), (80, 78), (83, 87), (84, 86), (92, 88), (91, 89), (93, 95)),
    (97, 96),
)

WFLW98 = Skeleton(
    name="wflw98",
    joints=_NAMES,
    bones=(
        *(*_line(0, 32), *_line(33, 41, closed=True), *_line(42, 50, closed=True)),
        *(*_line(51, 54), *_line(55, 59), *_line(60, 67, closed=True), *_line(68, 75, closed=True)),
        *(*_line(76, 87, closed=True), *_line(88, 95, closed=True)),
    ),
    flips=tuple((_NAMES[left], _NAMES[right]) for left, right in _FLIPS),
    groups={
        "jaw": _NAMES[:33],
        "brows": _NAMES[33:51],
        "nose": _NAMES[51:60],
        "eyes": (*_NAMES[60:76], *_NAMES[96:]),
        "mouth": _NAMES[76:96],
    },
)


class Wflw(RecordBuilder):
    """10,000 faces in photographs of events with 98 landmarks.

    Images have many sizes, mostly 1024 pixels wide; a record is a face. The 68 landmarks that 300-W has too are
    `face_00` to `face_67` in the order of 300-W (`joint_sets.face68` takes them); the others, `wflw_01` and so on,
    carry WFLW's own numbers. All landmarks count as visible: the owners mark occlusion per face only. The box is the
    owners'. Whether the owners count pixels from 0 or 1 is not published; coordinates are as in the files. The six
    attributes (pose, expression, illumination, make-up, occlusion, blur) are not kept.
    """

    SKELETON = WFLW98
    FIELDS = ("bbox",)
    COUNTS = {"train": 7_500, "test": 2_500}
    HOMEPAGE = "https://wywu.github.io/projects/LAB/WFLW.html"
    LICENCE = "for research; none stated"
    CITATION = "Wu et al.: Look at boundary: A boundary-aware face alignment algorithm. CVPR 2018."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack WFLW_images.tar.gz and WFLW_annotations.tar.gz, so that the folder holds WFLW_images/ and "
        "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The faces in the order of the lists."""
        images = _reading.require(root / "WFLW_images", "the folder of WFLW's images")
        lists = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
        files = {split: lists / f"list_98pt_rect_attr_{split}.txt" for split in ("train", "test")}
        for file in files.values():
            _reading.require(file, "WFLW's list of faces")
        return {split: _flat.in_shards(images, list(_faces(file))) for split, file in files.items()}


def _faces(path: Path) -> Iterator[_flat.FileLabels | Skipped]:
    """One face per line: 98 x and y, the rectangle's corners, 6 attributes, the image."""
    text = untrusted.read_file(path, "WFLW's list of faces").decode(errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.strip().split(maxsplit=206)
        if not cells:
            continue
        values = _reading.numbers(cells[:200], (200,))
        if len(cells) != 207 or values is None:
            yield Skipped(f"{path.name}:{number}", "the line is not 206 numbers and an image")
            continue
        name = f"{cells[206]}#{number}"
        low, high = values[196:198], values[198:200]
        if (high <= low).any():
            yield Skipped(name, "its rectangle is empty")
            continue
        yield (
            cells[206],
            {
                "name": name,
                "keypoints": values[:196].reshape(98, 2).astype(np.float32),
                "visible": np.full(98, VISIBLE, np.uint8),
                "bbox": np.concatenate([low, high - low]).astype(np.float32),
            },
        )
