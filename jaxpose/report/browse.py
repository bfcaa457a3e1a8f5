"""Contact sheets: whether the labels of data sets are right, at one look."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from jaxpose.data.formats import files
from jaxpose.data.host.elements import crop
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.motion.source import Motions
from jaxpose.data.records import OCCLUDED, VISIBLE, BrokenImageError, Note, Record, Source, printable
from jaxpose.report import draw, pages

_PICTURES = 24
_COUNTED = 1000  # records whose labels are counted
_SIZE = 256
_MARGIN = 1.25
_PAPER = 72  # grey behind stick figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Browsed:
    """A data set to look at: its specification, its splits and the notes on them."""

    spec: str
    splits: Mapping[str, Source]
    notes: Sequence[Note] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointMatches:
    """How two data sets were joined.

    Attributes:
      rows: joint of the source, joint of the target, how they were matched.
      left_out: joints that only one has, by domain.
    """

    rows: Sequence[tuple[str, str, str]]
    left_out: Mapping[str, Sequence[str]]


def write_page(folder: Path, title: str, browsed: Mapping[str, Browsed], joined: JointMatches | None = None) -> Path:
    """Writes `browse.html`: pictures, skeletons, joint names, visibility and coverage of data sets.

    Args:
      folder: of the page; made if it is absent.
      title: of the page.
      browsed: data sets by name, such as `source` and `target`.
      joined: how the two of a pair were joined.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = pages.render(
        "browse.html.jinja",
        title=title,
        sets=[_describe(name, found) for name, found in browsed.items()],
        joined=joined,
        sides={
            "left": pages.css_colour(draw.LEFT),
            "right": pages.css_colour(draw.RIGHT),
            "centre": pages.css_colour(draw.CENTRE),
        },
    )
    path = folder / "browse.html"
    path.write_text(page, encoding="utf-8")
    return path


def shown(found: Source | Motions) -> Source:
    """What pictures can be made of: motions as stick figures."""
    return _StickFigures(motions=found) if isinstance(found, Motions) else found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StickFigures:
    """The middle frame of each motion, seen from the front of the world, as a source (`records.Source`)."""

    motions: Motions

    @property
    def skeleton(self) -> Skeleton:
        return self.motions.skeleton

    @property
    def labelled(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.motions)

    def __getitem__(self, index: int) -> Record:
        places = self.motions.recorded[index].positions
        flat = places[len(places) // 2][:, [0, 2]] * (1, -1)  # x to the right, z up
        middle, extent = (flat.max(axis=0) + flat.min(axis=0)) / 2, max(float(np.ptp(flat, axis=0).max()), 1e-3)
        points = (flat - middle) * (_SIZE / _MARGIN / extent) + (_SIZE - 1) / 2
        return Record(
            image=np.full((_SIZE, _SIZE, 3), _PAPER, np.uint8),
            keypoints=points.astype(np.float32),
            visible=np.full(len(points), VISIBLE, np.uint8),
            name=self.motions.names[index],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Set:
    name: str
    spec: str
    sizes: str
    notes: list[str]
    legend: str
    pictures: list[tuple[str, str]]
    joints: list[tuple[int, str, str, str]]
    counted: int
    broken: list[str]


def _describe(name: str, data: Browsed) -> _Set:
    source = next(iter(data.splits.values()))
    spread = np.unique(np.linspace(0, len(source) - 1, min(len(source), _PICTURES)).astype(int))
    pictures, broken, best = [], [], (-1, np.zeros((_SIZE, _SIZE, 3), np.uint8), np.zeros((0, 2)), np.zeros(0))
    for index in spread:
        record = source[int(index)]
        try:
            image = files.decode_image(record["image"], record["name"])
        except BrokenImageError as error:
            broken.append(printable(str(error)))
            continue
        element = crop(record, image, size=_SIZE, margin=_MARGIN)
        points, visible = element["keypoints"], element["visible"]
        pictures.append(
            (printable(record["name"]), pages.picture_uri(element["image"], points, visible, source.skeleton))
        )
        if (visible > 0).sum() > best[0]:
            best = (int((visible > 0).sum()), element["image"], points, visible)
    counted = np.unique(np.linspace(0, len(source) - 1, min(len(source), _COUNTED)).astype(int))
    if source.labelled:
        states = np.stack([source[int(i)]["visible"] for i in counted])
    else:
        states = np.zeros((len(counted), len(source.skeleton)), np.uint8)
    return _Set(
        name=name,
        spec=data.spec,
        sizes=", ".join(f"{len(part):,} {split}" for split, part in data.splits.items()),
        notes=[str(note) for note in data.notes],
        legend=pages.image_uri(_numbered(*best[1:], source.skeleton)),
        pictures=pictures,
        joints=[
            (k, joint, f"{np.mean(states[:, k] == VISIBLE):.0%}", f"{np.mean(states[:, k] == OCCLUDED):.0%}")
            for k, joint in enumerate(source.skeleton.joints)
        ],
        counted=len(counted),
        broken=broken,
    )


def _numbered(image: np.ndarray, points: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """A large picture with the joints' numbers beside them."""
    factor = 3
    drawn = draw.draw_skeleton(image, points, visible, skeleton, size=factor * _SIZE)
    for k in np.flatnonzero(visible):
        x, y = ((points[k] + 0.5) * factor + (7, -5)).astype(int).tolist()
        for colour, width in (((20, 20, 24), 4), ((255, 255, 255), 1)):
            cv2.putText(drawn, str(k), (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width, cv2.LINE_AA)
    return drawn
