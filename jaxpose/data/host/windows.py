"""Windows: several frames of a clip that are one element, found by their numbers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxpose.data.records import Source
from jaxpose.data.views import frames_of, sequences_of


@dataclasses.dataclass(frozen=True)
class Window:
    """Which frames a recipe reads together.

    Attributes:
      offsets: T distances each from the window's first frame; of several, each makes windows of its own.
    """

    offsets: tuple[tuple[int, ...], ...]

    @property
    def frames(self) -> int:
        """T."""
        return len(self.offsets[0])


def consecutive(frames: int, *, every: int = 1) -> Window:
    """So many frames, `every` apart."""
    return Window((tuple(range(0, frames * every, every)),))


def pairs(low: int, high: int) -> Window:
    """Two frames that are `low` to `high` apart."""
    return Window(tuple((0, distance) for distance in range(low, high + 1)))


class Windows(Sequence[np.ndarray]):
    """The records (T,) of every window of a source, in the order of their first frames and then of the offsets.

    Frames belong together by their numbers, in whatever order their records are. A clip in which a number comes twice,
    as where two animals share images, does not say which records are of one of them, and has no windows. What is kept
    in memory is one bit for each record and offset.
    """

    def __init__(self, source: Source, window: Window):
        clips, frames = sequences_of(source), frames_of(source)
        if clips is None or frames is None:
            raise ValueError("found no clips with numbered frames, expected some")
        _, clip = np.unique(np.asarray(clips), return_inverse=True)
        frames = np.asarray(frames, np.int64) - np.min(frames, initial=0)
        self._reach = int(np.max(frames, initial=0)) + max(map(max, window.offsets)) + 1
        keys = clip * self._reach + frames  # of other clips, even with an offset
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        twice = np.unique(clip[self._order[1:][np.diff(self._sorted) == 0]])
        self._keys = keys
        self.offsets = np.asarray(window.offsets, np.int64)  # (M, T)
        there = np.stack([self._find(keys[:, None] + row)[1].all(axis=1) for row in self.offsets], axis=1)
        self._there = there & ~np.isin(clip, twice)[:, None]
        self._ends = np.cumsum(self._there.sum(axis=1))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        first = int(np.searchsorted(self._ends, index, side="right"))
        which = index - int(self._ends[first - 1] if first else 0)
        row = self.offsets[np.flatnonzero(self._there[first])[which]]
        return self._find(self._keys[first] + row)[0]

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The records of some frames, and whether there are any."""
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return self._order[place], self._sorted[place] == keys
