"""Predictions of a recording on disk, in parts: what lets a long prediction be resumed, or shared among jobs."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.train.checkpoint import naming, write_json

LONGEST = 4096  # frames of a part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """Files of float32 (n, A, K, 3): x, y and confidence of n frames of F, up to A animals and K joints.

    x and y of an unreadable frame are NaN and its confidence 0; of an animal that is not there all are NaN.

    Attributes:
      folder: holds them, and what they were made by.
      made_by: model and input, as JSON.
      shape: (F, A, K).
    """

    folder: Path
    made_by: Mapping[str, Any]
    shape: tuple[int, int, int]

    def prepare(self) -> None:
        """Makes the folder, or finds it as an earlier part of the same prediction left it.

        Raises:
          ValueError: if its parts are of another model or input.
        """
        path, stated = self.folder / "made_by.json", {**self.made_by, "shape": list(self.shape)}
        if path.exists():
            found = untrusted.read_json(path, dict, "what parts of predictions were made by")
            if other := [name for name in stated if found.get(name) != stated[name]]:
                raise ValueError(
                    f"{self.folder}: found parts with {other[0]} {untrusted.one_line(found.get(other[0]))}, expected "
                    f"{untrusted.one_line(stated[other[0]])}; delete it or choose another --output"
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, json.loads(json.dumps(stated)))

    def missing(self, start: int, stop: int) -> list[range]:
        """The frames from `start` to `stop` that are in no part, as ranges."""
        gaps, position = [], start
        for begin, end, _ in self._files():
            if begin >= stop:
                break
            if begin > position:
                gaps.append(range(position, begin))
            position = max(position, end)
        return gaps + ([range(position, stop)] if position < stop else [])

    def save(self, start: int, values: np.ndarray) -> None:
        """Adds a part that begins with the frame `start`, at once or not at all."""
        path = self.folder / f"{start:010d}-{start + len(values):010d}.npy"
        temporary = path.with_suffix(".tmp")
        with naming(path), temporary.open("wb") as file:
            np.save(file, values)
        temporary.replace(path)

    def read(self) -> Iterator[tuple[int, np.ndarray]]:
        """First frame and values of consecutive parts, which must be complete.

        Raises:
          ValueError: naming a part that is damaged.
        """
        position = 0
        for begin, end, path in self._files():
            if end <= position:
                continue
            expected = f"float32 ({end - begin}, {', '.join(map(str, self.shape[1:]))}, 3)"
            values = unpickle.load_npy(untrusted.read_file(path, expected), where=str(path))
            if values.dtype != np.float32 or values.shape != (end - begin, *self.shape[1:], 3):
                raise ValueError(f"{path}: found {values.dtype} {values.shape}, expected {expected}; delete it")
            yield position, values[position - begin :]
            position = end

    def delete(self) -> None:
        """Removes all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[tuple[int, int, Path]]:
        files = ((*path.stem.split("-"), path) for path in self.folder.glob("*-*.npy"))
        return sorted((int(begin), int(end), path) for begin, end, path in files)
