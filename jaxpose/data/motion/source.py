"""Recorded motions with random access, one by one and in windows: what pose and motion priors learn from."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from jaxpose.data.host.windows import Window
from jaxpose.data.joints.skeletons import MPII16, Skeleton
from jaxpose.data.motion import rigs
from jaxpose.data.readers import tfds_source
from jaxpose.data.records import Motion, Note, printable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Motions:
    """The motions of a split of a data set.

    Attributes:
      skeleton: names their K joints, of which one is the pelvis.
      recorded: the M motions.
      names: of each.
      lengths: frames of each, int64 (M,).
      rates: frames per second of each, float64 (M,).
      notes: on what was left out.
    """

    skeleton: Skeleton
    recorded: Sequence[Motion]
    names: tuple[str, ...]
    lengths: np.ndarray
    rates: np.ndarray
    notes: tuple[Note, ...] = ()

    @property
    def labelled(self) -> bool:
        """Motions are joints."""
        return True

    def __len__(self) -> int:
        return len(self.names)


def listed(recorded: Sequence[Motion], skeleton: Skeleton, notes: tuple[Note, ...] = ()) -> Motions:
    """Motions with what is known of each, for which every one is read once.

    Raises:
      ValueError: as `checked`, or if there is no pelvis.
    """
    if "pelvis" not in skeleton.joints:
        raise ValueError(f"found joints {', '.join(skeleton.joints)}, expected a pelvis among them")
    known = [(printable(motion.name), len(motion.positions), motion.rate) for motion in map(checked, recorded)]
    return Motions(
        skeleton=skeleton,
        recorded=recorded,
        names=tuple(name for name, _, _ in known),
        lengths=np.array([length for _, length, _ in known], np.int64),
        rates=np.array([rate for _, _, rate in known], np.float64),
        notes=notes,
    )


def checked(motion: Motion) -> Motion:
    """The motion.

    Raises:
      ValueError: if it has no frames, joints at no place, or a rate that nothing is recorded at.
    """
    if not len(motion.positions) or not _SLOWEST <= motion.rate <= _FASTEST:
        found = f"{len(motion.positions)} frames at {motion.rate:g} per second"
        raise ValueError(f"{motion.name}: found {found}, expected some at {_SLOWEST} to {_FASTEST}")
    if not np.isfinite(motion.positions).all():
        raise ValueError(f"{motion.name}: found joints at places that are not finite, expected metres")
    return motion


_SLOWEST, _FASTEST = 0.1, 10_000  # frames per second


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MotionSource:
    """All frames of some motions, or windows of T of them (`elements.Elements`).

    Fields, which have a leading axis of T frames in windows:

    - `positions` float32 (K, 3): the joints relative to the pelvis of the same frame, metres, z up;
    - `pelvis` float32 (3,): where that is relative to the window's first frame;
    - `keypoints3d`: the positions, by the name by which metrics read labels.

    Between two recorded frames positions are interpolated, so that windows have any rate. They start about as far
    apart as their frames are, at recorded frames. Motions that are too short have none.

    Attributes:
      source: where the motions come from.
      window: which frames are an element; None: each one.
      fields: of the elements.

    Raises:
      ValueError: if there is no window.
    """

    source: Motions
    window: Window | None = None
    fields: tuple[str, ...] = ("positions", "pelvis")
    _rows: np.ndarray = dataclasses.field(init=False, repr=False)  # offsets (R, T), none below 0
    _steps: np.ndarray = dataclasses.field(init=False, repr=False)  # recorded frames in one of the window's (M,)
    _strides: np.ndarray = dataclasses.field(init=False, repr=False)  # recorded frames between two windows (M,)
    _ends: np.ndarray = dataclasses.field(init=False, repr=False)  # windows up to and including each motion and row

    def __post_init__(self) -> None:
        rows = np.zeros((1, 1), np.int64) if self.window is None else np.asarray(self.window.offsets, np.int64)
        rows = rows - rows.min(axis=1, keepdims=True)
        rate = None if self.window is None else self.window.rate
        steps = np.ones(len(self.source)) if rate is None else self.source.rates / rate
        strides = np.maximum(1, np.rint(steps).astype(np.int64))
        spans = np.ceil(steps[:, None] * rows.max(axis=1) - _EXACT).astype(np.int64) + 1
        counts = np.maximum(0, (self.source.lengths[:, None] - spans) // strides[:, None] + 1)
        if not counts.sum():
            raise ValueError(f"none of {len(self.source)} motions has frames at distances {self.window}, expected some")
        known = {"_rows": rows, "_steps": steps, "_strides": strides, "_ends": np.cumsum(counts)}
        for name, value in known.items():
            object.__setattr__(self, name, value)

    @property
    def labelled(self) -> bool:
        """Motions are joints."""
        return True

    @property
    def known(self) -> tuple[str, ...]:
        """The fields there are."""
        return ("positions", "pelvis", "keypoints3d")

    @property
    def nbytes(self) -> int:
        """Bytes of an element's positions."""
        return 4 * 3 * len(self.source.skeleton) * (1 if self.window is None else self.window.frames)

    def clips(self) -> tuple[str, ...]:
        """The name of each element's motion."""
        counts = np.diff(self._ends, prepend=0).reshape(len(self.source), -1).sum(axis=1)
        return tuple(name for name, count in zip(self.source.names, counts, strict=True) for _ in range(count))

    def read_as(self, fields: tuple[str, ...], window: Window | None, name: str) -> "MotionSource":
        """The same motions with other fields and in windows; they are not cached."""
        return dataclasses.replace(self, fields=fields, window=window)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        which, row, number = self._place(index)
        moments = number * self._strides[which] + self._rows[row] * self._steps[which]
        places = rigs.at(self.source.recorded[which].positions, moments)
        pelvis = places[:, self.source.skeleton.joints.index("pelvis")]
        positions = places - pelvis[:, None]
        found = {"positions": positions, "pelvis": pelvis - pelvis[:1], "keypoints3d": positions}
        return {name: found[name] if self.window is not None else found[name][0] for name in self.fields} | {
            "index": np.array(index, np.int32),
            "broken": np.array(-1, np.int32),
        }

    def name(self, index: int) -> str:
        """The name of the motion that an element is from, for messages."""
        return self.source.names[self._place(index)[0]]

    def _place(self, index: int) -> tuple[int, int, int]:
        """An element's motion, row of offsets, and number among those of both."""
        place = int(np.searchsorted(self._ends, index, side="right"))
        return *divmod(place, len(self._rows)), index - int(self._ends[place - 1] if place else 0)


_EXACT = 1e-6  # frames: what lies so near to a recorded one is there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared(Sequence[Motion]):
    """The motions of a split of a prepared folder, read at random.

    Attributes:
      folder: with `dataset_info.json`.
      split: a split's name or a slice of it such as `train[:90%]`.
      memory: bytes of motions that are kept once they are read, in each process.

    Raises:
      FileNotFoundError: if there is no prepared data.
      ValueError: if the folder holds no motions, or no such split.
    """

    folder: Path
    split: str
    memory: int = 2**28

    def __post_init__(self) -> None:
        if not (self.folder / "dataset_info.json").is_file():
            raise FileNotFoundError(f"{self.folder}: found no dataset_info.json, expected prepared motions")
        if not holds_motions(self.folder):
            raise ValueError(f"{self.folder}: holds records of images, expected motions")
        len(self)

    @property
    def skeleton(self) -> Skeleton:
        """Names the joints."""
        return tfds_source.open_folder(self.folder)[1]

    @functools.cached_property
    def _records(self) -> Any:
        return tfds_source.records_of(self.folder, self.split)

    @functools.cached_property
    def _joints(self) -> tuple[str, ...]:
        return self.skeleton.joints

    @functools.cached_property
    def _kept(self) -> dict[int, Motion]:
        return {}

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Motion: ...

    @overload
    def __getitem__(self, index: slice) -> list[Motion]: ...

    def __getitem__(self, index: int | slice) -> Motion | list[Motion]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"motion {index} of {len(self)}")
        motion = self._kept.get(index)
        if motion is None:
            motion = self._read(index)
            if sum(other.positions.nbytes for other in list(self._kept.values())) < self.memory:
                self._kept[index] = motion
        return motion

    def _read(self, index: int) -> Motion:
        found = tfds_source.read_record(self._records, self.folder, index)
        return Motion(
            name=found["name"].decode(errors="replace"),
            joints=self._joints,
            positions=found["positions"],
            rate=float(found["rate"]),
            subject=found["subject"].decode(errors="replace"),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "memory": self.memory}


def holds_motions(folder: Path) -> bool:
    """Whether a prepared folder holds motions, not records of images."""
    return "positions" in tfds_source.open_folder(folder)[0].info.features


def canonical_skeleton(name: str, joints: Sequence[str]) -> Skeleton:
    """The skeleton of a motion in canonical joints (`rigs.to_canonical`).

    Where there are collars, the bones from the thorax to the shoulders lead over them.

    Raises:
      ValueError: if a joint is not canonical.
    """
    if unknown := [joint for joint in joints if joint not in rigs.CANONICAL]:
        raise ValueError(f"{name}: found joints {', '.join(unknown)}; expected some of {', '.join(rigs.CANONICAL)}")
    bones = [*MPII16.bones, *((f"{side}_ankle", f"{side}_foot") for side in ("left", "right"))]
    if "neck" not in joints:
        bones.append(("thorax", "head_top"))
    for side in ("left", "right"):
        if f"{side}_collar" in joints:
            bones.remove(("thorax", f"{side}_shoulder"))
            bones += [("thorax", f"{side}_collar"), (f"{side}_collar", f"{side}_shoulder")]
    whole = Skeleton(
        name=name,
        joints=rigs.CANONICAL,
        bones=tuple(bones),
        flips=(*MPII16.flips, ("left_collar", "right_collar"), rigs.FEET),
        groups=MPII16.groups,
    )
    return whole.restrict(joints)
