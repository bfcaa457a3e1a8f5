"""Records of clips with numbered frames."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxpose.data.host.windows import Window, Windows
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record
from jaxpose.data.wrappers import Wrapper


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clips(Wrapper):
    """A source that knows its clips and frames, and their rates and times unless they are None."""

    sequences: tuple[str, ...]
    frames: np.ndarray
    rates: np.ndarray | None = None
    times: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A source that is never read."""

    labelled: bool = False

    @property
    def skeleton(self) -> Skeleton:
        return Skeleton(name="none", joints=("a",))

    def __len__(self) -> int:
        raise AssertionError("read")

    def __getitem__(self, index: int) -> Record:
        raise AssertionError("read")


def clips_of(source: Any, names: str | Sequence[str], frames: Sequence[int] | None = None) -> Clips:
    """The source with a clip's name and a frame's number for each record, by default counted in each clip."""
    names = tuple(names)
    counted = [names[:i].count(name) for i, name in enumerate(names)]
    return Clips(source=source, sequences=names, frames=np.array(counted if frames is None else frames))


def windows(source: Any, *offsets: tuple[int, ...]) -> Windows:
    return Windows(source, Window(offsets))
