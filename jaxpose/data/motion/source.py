"""Windows of recorded motions at one frame rate, with random access: what pose and motion priors learn from."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from absl import logging

from jaxpose.data.joints.skeletons import MPII16, Skeleton
from jaxpose.data.motion import rigs
from jaxpose.data.readers import tfds_source
from jaxpose.data.records import Motion

Window = dict[str, np.ndarray]


def from_prepared(
    folder: str | os.PathLike, *, split: str = "train", frames: int, rate: float, step: int = 1
) -> "MotionSource":
    """The windows of a prepared data set of motions, which are read when they are asked for.

    Args:
      folder: with `dataset_info.json`.
      split: a split's name or a slice of it such as `train[:90%]`.
      frames, rate, step: see `MotionSource`.

    Raises:
      FileNotFoundError: if there is no prepared data.
      ValueError: if the folder holds no motions, no such split, or no motion that is long enough.
    """
    motions = Prepared(folder=Path(folder), split=split)
    return MotionSource(motions=motions, skeleton=motions.skeleton, frames=frames, rate=rate, step=step)


def from_bvh(
    folder: str | os.PathLike,
    *,
    read: Callable[[Path], Motion],
    rig: rigs.Rig | None = None,
    frames: int,
    rate: float,
    step: int = 1,
) -> "MotionSource":
    """The windows of all `.bvh` files below a folder, which are read now and kept in memory.

    Files that cannot be read are left out with a warning.

    Args:
      folder: searched with its subfolders.
      read: reads one file, such as `bvh.read_cmu` or `functools.partial(bvh.read, unit=0.01)`.
      rig: see `rigs.to_canonical`.
      frames, rate, step: see `MotionSource`.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no motion that can be read or is long enough, or motions of different joints.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: no such folder, expected one with .bvh files")
    motions, broken = [], []
    for path in sorted(Path(folder).rglob("*.bvh")):
        try:
            motions.append(rigs.to_canonical(read(path), rig))
        except ValueError as error:
            broken.append(str(error))
    if broken:
        logging.warning("%s: left out %d motions: %s", folder, len(broken), broken[0])
    if not motions:
        raise ValueError(f"{folder}: found {len(broken)} broken .bvh files and no others, expected motions")
    for motion in motions:
        if motion.joints != motions[0].joints:
            raise ValueError(
                f"{folder}: {motion.name} has joints {', '.join(motion.joints)}; expected those of {motions[0].name}, "
                f"{', '.join(motions[0].joints)}"
            )
    skeleton = canonical_skeleton("bvh", motions[0].joints)
    return MotionSource(motions=tuple(motions), skeleton=skeleton, frames=frames, rate=rate, step=step)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MotionSource:
    """All windows of T frames of some motions (`elements.Elements`).

    A window has `positions` float32 (T, K, 3): the joints relative to the pelvis of the same frame, metres;
    `pelvis` float32 (T, 3): where that is relative to the first frame's; `index` int32: the window; and `broken`
    int32: -1, as in `elements.Crops`. Motions that are too short have no window.

    Attributes:
      motions: with the joints of `skeleton`.
      skeleton: one of its K joints is the pelvis.
      frames: T.
      rate: frames per second of the windows; motions are resampled to it (`rigs.resample`).
      step: frames at `rate` from one window to the next.

    Raises:
      ValueError: if there is no pelvis, no window, or T, `rate` or `step` is not above 0.
    """

    motions: Sequence[Motion]
    skeleton: Skeleton
    frames: int
    rate: float
    step: int = 1
    _ends: np.ndarray = dataclasses.field(init=False, repr=False)  # windows up to and including each motion

    def __post_init__(self) -> None:
        if self.frames < 1 or self.step < 1 or not self.rate > 0:
            found = f"{self.frames} frames at {self.rate} per second in steps of {self.step}"
            raise ValueError(f"{self.skeleton.name}: found {found}, expected more than 0")
        if "pelvis" not in self.skeleton.joints:
            raise ValueError(f"{self.skeleton.name}: found no joint pelvis, expected one")
        counts = [self._windows(motion) for motion in self.motions]
        if not sum(counts):
            raise ValueError(
                f"{self.skeleton.name}: none of {len(counts)} motions has {self.frames} frames at {self.rate} per "
                "second, expected at least one"
            )
        object.__setattr__(self, "_ends", np.cumsum(counts))

    @property
    def labelled(self) -> bool:
        """Motions are joints."""
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of a window's positions."""
        return 4 * 3 * len(self.skeleton) * self.frames

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        which = int(np.searchsorted(self._ends, index, side="right"))
        motion = self.motions[which]
        first = (index - int(self._ends[which - 1] if which else 0)) * self._stride(motion)
        recorded = dataclasses.replace(motion, positions=motion.positions[first : first + self._span(motion)])
        positions = rigs.resample(recorded, self.rate).positions[: self.frames]
        pelvis = positions[:, self.skeleton.joints.index("pelvis")]
        return {
            "positions": positions - pelvis[:, None],
            "pelvis": pelvis - pelvis[:1],
            "index": np.array(index, np.int32),
            "broken": np.array(-1, np.int32),
        }

    def name(self, index: int) -> str:
        """The name of the motion that a window is from, for messages."""
        return self.motions[int(np.searchsorted(self._ends, index, side="right"))].name

    def _windows(self, motion: Motion) -> int:
        return max(0, (len(motion.positions) - self._span(motion)) // self._stride(motion) + 1)

    def _span(self, motion: Motion) -> int:
        """How many recorded frames a window reaches over."""
        return math.ceil((self.frames - 1) * motion.rate / self.rate - 1e-6) + 1

    def _stride(self, motion: Motion) -> int:
        """Recorded frames from one window to the next: windows start at recorded frames."""
        return max(1, round(self.step * motion.rate / self.rate))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared(Sequence[Motion]):
    """The motions of a split of a prepared folder, read at random.

    Attributes:
      folder: with `dataset_info.json`.
      split: a split's name or a slice of it.
    """

    folder: Path
    split: str

    def __post_init__(self) -> None:
        if not (self.folder / "dataset_info.json").is_file():
            raise FileNotFoundError(f"{self.folder}: found no dataset_info.json, expected prepared motions")
        if "positions" not in tfds_source.open_folder(self.folder)[0].info.features:
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
        found = tfds_source.read_record(self._records, self.folder, index)
        return Motion(
            name=found["name"].decode(errors="replace"),
            joints=self._joints,
            positions=found["positions"],
            rate=float(found["rate"]),
            subject=found["subject"].decode(errors="replace"),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split}


def canonical_skeleton(name: str, joints: Sequence[str]) -> Skeleton:
    """The skeleton of a motion in canonical joints (`rigs.to_canonical`).

    Where there are collars, the bones from the thorax to the shoulders lead over them.

    Raises:
      ValueError: if a joint is not canonical.
    """
    if unknown := [joint for joint in joints if joint not in rigs.CANONICAL]:
        raise ValueError(f"{name}: found joints {', '.join(unknown)}; expected some of {', '.join(rigs.CANONICAL)}")
    bones = list(MPII16.bones)
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
        flips=(*MPII16.flips, ("left_collar", "right_collar")),
        groups=MPII16.groups,
    )
    return whole.restrict(joints)
