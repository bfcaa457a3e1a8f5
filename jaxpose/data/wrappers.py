"""Sources seen differently: a part of one, other boxes, another skeleton."""

import dataclasses
from typing import Any

import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import boxes
from jaxpose.data.records import Note, Record, Source

_EXTENT = 1.3  # side of a box relative to the extent of its joints


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Wrapper:
    """A source (`records.Source`) over another one, which it shows as it is; subclasses change something."""

    source: Source

    @property
    def skeleton(self) -> Skeleton:
        """Names the joints."""
        return self.source.skeleton

    @property
    def labelled(self) -> bool:
        """Whether any record has labels."""
        return self.source.labelled

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        return self.source[index]

    def name(self, index: int) -> str:
        """The name of a record."""
        return name_of(self.source, index)

    def people(self) -> Source | None:
        """Everyone who is annotated in the records' images, see `people_of`."""
        return people_of(self.source)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subset(Wrapper):
    """Some records, in the order of `index`; `notes` are on the choice."""

    index: np.ndarray
    notes: tuple[Note, ...] = ()

    @property
    def sequences(self) -> tuple[str, ...] | None:
        """The clip of each record, if that is known."""
        names = sequences_of(self.source)
        return None if names is None else tuple(names[i] for i in self.index)

    @property
    def frames(self) -> np.ndarray | None:
        """The number of each record in its clip, if that is known."""
        numbers = frames_of(self.source)
        return None if numbers is None else numbers[self.index]

    @property
    def times(self) -> np.ndarray | None:
        """When each record is shown, if that is known."""
        seconds = times_of(self.source)
        return None if seconds is None else seconds[self.index]

    @property
    def rates(self) -> np.ndarray | None:
        """The frames per second of each record's clip, if they are known."""
        known = rates_of(self.source)
        return None if known is None else known[self.index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.index[index])]

    def name(self, index: int) -> str:
        """The name of a record."""
        return name_of(self.source, int(self.index[index]))

    def people(self) -> Source | None:
        """Those in the chosen records' images."""
        found = people_of(self.source)
        if found is None:
            return None
        names = {self.name(i) for i in range(len(self))}
        index = np.array([i for i in range(len(found)) if name_of(found, i) in names], np.int64)
        return Subset(source=found, index=index)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Renamed(Wrapper):
    """The same joints with another structure or other names, in the same order."""

    renamed: Skeleton

    def __post_init__(self) -> None:
        if len(self.renamed) != len(self.source.skeleton):
            raise ValueError(
                f"skeleton {self.renamed.name}: found {len(self.renamed)} joints, expected {len(self.source.skeleton)}"
            )

    @property
    def skeleton(self) -> Skeleton:
        """The given one."""
        return self.renamed

    def people(self) -> Source | None:
        """With the same names of joints."""
        found = people_of(self.source)
        return None if found is None else dataclasses.replace(self, source=found)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Boxed(Wrapper):
    """Boxes other than the data's own.

    Attributes:
      boxes: `labels`: around the labelled joints; `whole`: the whole image; or x, y, width, height of each record,
        float32 (N, 4), the whole image where they are NaN.
      notes: on the boxes.
    """

    boxes: str | np.ndarray
    notes: tuple[Note, ...] = ()

    def __getitem__(self, index: int) -> Record:
        fields: dict[str, Any] = dict(self.source[index])
        fields.pop("bbox", None)
        if isinstance(self.boxes, str):
            box = None if self.boxes == "whole" else _around(fields["keypoints"], fields["visible"])
        else:
            box = self.boxes[index] if np.isfinite(self.boxes[index]).all() else None
        if box is not None:
            fields["bbox"] = np.asarray(box, np.float32)
        return Record(**fields)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Timed(Wrapper):
    """Clips whose frames per second are stated."""

    fps: float

    @property
    def times(self) -> np.ndarray | None:
        """When each record is shown, by its number."""
        numbers = frames_of(self.source)
        return None if numbers is None else numbers / self.fps

    @property
    def rates(self) -> np.ndarray:
        """The same for all."""
        return np.full(len(self.source), self.fps)


def people_of(source: Any) -> Source | None:
    """Everyone who is annotated in the images of a source, as records without pixels; None if that is not known.

    Among them are those who are no records: crowds, people without a labelled joint or without a crop.
    """
    find = getattr(source, "people", None)
    return None if find is None else find()


def sequences_of(source: Source) -> tuple[str, ...] | None:
    """The clip of each record, if the source knows it without reading images."""
    clips = _known(source, "sequences")
    return None if clips is None else tuple(clips)


def frames_of(source: Source) -> np.ndarray | None:
    """The number of each record in its clip, int64 (N,), if the source knows it without reading images."""
    numbers = _known(source, "frames")
    return None if numbers is None else np.asarray(numbers, np.int64)


def rates_of(source: Source) -> np.ndarray | None:
    """The frames per second of each record's clip, float64 (N,), NaN where unknown; None if the source knows none."""
    found = _known(source, "rates")
    return None if found is None else np.asarray(found, np.float64)


def times_of(source: Source) -> np.ndarray | None:
    """When each record is shown, in seconds of its clip, float64 (N,), if the source knows it without reading images.

    Where it only knows how many frames per second there are, their numbers say when.
    """
    found = _known(source, "times")
    if found is not None:
        return np.asarray(found, np.float64)
    numbers, rates = frames_of(source), rates_of(source)
    return None if numbers is None or rates is None else numbers / rates


def _known(source: Any, what: str) -> Any:
    """An attribute of a source, or of the one whose records it shows one by one."""
    while isinstance(source, Wrapper) and not hasattr(source, what):
        source = source.source
    return getattr(source, what, None)


def name_of(source: Source, index: int) -> str:
    """The name of a record, without reading its image if the source can tell."""
    known = getattr(source, "name", None)
    return source[index]["name"] if known is None else known(index)


def notes_of(*sources: Any) -> tuple[Note, ...]:
    """The notes on sources or motions and, before them, on those that they show, each once."""
    notes: dict[Note, None] = {}
    for source in sources:
        below = getattr(source, "source", None)
        notes |= dict.fromkeys(() if below is None else notes_of(below))
        notes |= dict.fromkeys(getattr(source, "notes", ()))
    return tuple(notes)


def _around(keypoints: np.ndarray, visible: np.ndarray) -> np.ndarray | None:
    box = boxes.square_boxes(keypoints[None], visible[None], factor=_EXTENT)[0]
    return box if box[2] > 0 else None
