"""Windows: several frames of a clip that are one element, found by their numbers or by the times they are shown at."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxpose.data.records import Source
from jaxpose.data.wrappers import frames_of, rates_of, sequences_of, times_of


@dataclasses.dataclass(frozen=True)
class Window:
    """Which frames a recipe reads together.

    Attributes:
      offsets: T distances each from the window's first frame; of several, each makes windows of its own.
      rate: distances are numbers of 1 / `rate` seconds, whatever the clips' own rates; None: frames of the clips.
    """

    offsets: tuple[tuple[int, ...], ...]
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"found a window of {self.rate} frames per second, expected more than 0")

    @property
    def frames(self) -> int:
        """T."""
        return len(self.offsets[0])

    def __str__(self) -> str:
        some = " or ".join(", ".join(map(str, row[:4])) + (", ..." if len(row) > 4 else "") for row in self.offsets[:3])
        return some if self.rate is None else f"{some} of 1/{self.rate:g} s"


def consecutive(frames: int, *, every: int = 1, rate: float | None = None) -> Window:
    """So many frames, `every` apart, see `Window`."""
    return Window((tuple(range(0, frames * every, every)),), rate)


def frame_pairs(low: int, high: int, *, rate: float | None = None) -> Window:
    """Two frames that are `low` to `high` apart, see `Window`."""
    return Window(tuple((0, distance) for distance in range(low, high + 1)), rate)


class Windows(Sequence[np.ndarray]):
    """The records (T,) of every window of a source, in the order of their first frames and then of the offsets.

    Frames belong together by their numbers or times, in whatever order their records are. By time a frame is the one
    that is shown nearest to the moment, the earlier of two; where none is within half a frame of the recording, there
    is no window. A clip in which a number comes twice, as where two animals share images, does not say which records
    are of one of them, and has no windows. What is kept in memory is one bit for each record and offset.

    Raises:
      ValueError: if the source does not know the clips and numbers of its records, or the times that are asked for.
    """

    def __init__(self, source: Source, window: Window):
        clips, frames = sequences_of(source), frames_of(source)
        if clips is None or frames is None:
            raise ValueError("found no clips with numbered frames, expected some")
        # Places in a clip and distances are whole numbers: of frames, or of microseconds.
        if window.rate is None:
            places, apart, reach = np.asarray(frames, np.int64), np.asarray(window.offsets, np.int64), 0
        else:
            times, rates = times_of(source), rates_of(source)
            if times is None or rates is None or not (rates > 0).all():
                raise ValueError("found clips whose frames per second are not known, expected ?fps=NUMBER for them")
            places = np.rint(_TICKS * times).astype(np.int64)
            apart = np.rint(np.asarray(window.offsets) * (_TICKS / window.rate)).astype(np.int64)
            reach = np.ceil(_TICKS / 2 / rates).astype(np.int64)[:, None]
        _, clip = np.unique(np.asarray(clips), return_inverse=True)
        places = places - np.min(places, initial=0)
        # Other clips are out of reach, even with an offset.
        length = int(np.max(places, initial=0)) + 2 * int(np.abs(apart).max()) + 2 * int(np.max(reach, initial=0)) + 1
        if length * (len(clips) + 1) > np.iinfo(np.int64).max:
            raise ValueError(f"found frame numbers up to {int(np.max(frames))}, expected smaller ones")
        keys = clip * length + places
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        twice = np.unique(clip[self._order[1:][np.diff(self._sorted) == 0]])
        self._keys, self._apart = keys, apart
        self.offsets, self.rate = np.asarray(window.offsets, np.int64), window.rate  # (M, T)
        there = np.stack([(self._find(keys[:, None] + row)[1] <= reach).all(axis=1) for row in apart], axis=1)
        self._there = there & ~np.isin(clip, twice)[:, None]
        self._ends = np.cumsum(self._there.sum(axis=1))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        first = int(np.searchsorted(self._ends, index, side="right"))
        which = index - int(self._ends[first - 1] if first else 0)
        row = self._apart[np.flatnonzero(self._there[first])[which]]
        return self._find(self._keys[first] + row)[0]

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The records nearest to some places, and how far they are from there."""
        after = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        before = np.maximum(after - 1, 0)
        near = np.where(np.abs(keys - self._sorted[before]) <= np.abs(self._sorted[after] - keys), before, after)
        return self._order[near], np.abs(self._sorted[near] - keys)


_TICKS = 1e6  # per second
