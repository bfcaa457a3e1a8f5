"""The run's log: metrics.jsonl is the source of truth, TensorBoard files stand beside it."""

import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX import event_file_writer, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from jaxpose.train.checkpoint import naming

_BOARD_SECONDS = 30.0  # for which TensorBoard files may lag behind

LogWindow = list[dict[str, float]]  # metrics of the updates since a mean was last written


class MetricLog:
    """Appends a JSON line per call to `metrics.jsonl`; on process 0 only.

    Opening it for a run that resumes drops the lines that the resumed run will write again, and those that are damaged.
    """

    def __init__(self, workdir: Path, *, resume_at: int, write: bool = True):
        self._write = write
        self._path = workdir / "metrics.jsonl"
        if not write:
            return
        kept = b"".join(raw + b"\n" for raw, line in _lines(self._path) if line["total_step"] <= resume_at)
        if not self._path.exists() or self._path.read_bytes() != kept:
            temporary = self._path.with_suffix(".jsonl.tmp")
            with naming(self._path):
                temporary.write_bytes(kept)
            temporary.replace(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._board = _Board(workdir / "tensorboard", resume_at=resume_at)

    def write(self, stage: str, step: int, total_step: int, values: Mapping[str, float]) -> None:
        """Logs scalars of a step: `step` counts in the stage, `total_step` over all of them.

        Raises:
          OSError: if there is no room.
        """
        if not self._write:
            return
        line = json.dumps({"stage": stage, "step": step, "total_step": total_step} | dict(values)) + "\n"
        _append(self._file, line.encode(), self._path)
        self._board.write({f"{stage}/{name}": value for name, value in values.items()}, total_step)

    def close(self) -> None:
        """Closes the files."""
        if self._write:
            os.close(self._file)
            self._board.close()


class NonFiniteError(RuntimeError):
    """A loss became infinite or not a number; `found` is JSON: `stage`, `step` in it, `term` and `value`."""

    def __init__(self, stage: str, step: int, term: str, value: float):
        super().__init__(f"{stage} step {step}: found {term} = {value}, expected a finite loss")
        self.found = {"stage": stage, "step": step, "term": term, "value": str(value)}


class LateMetrics:
    """A stage's metrics, fetched one step late so that the device never waits for the log.

    A loss among them that is not finite is a `NonFiniteError`.

    Args:
      log: where means over updates go.
      stage: its name.
      steps_before: updates of the stages before it.
      window: what was fetched since a mean was last written; kept up to date, so that whoever saves it with the state
        goes on with the same means.
    """

    def __init__(self, log: MetricLog, stage: str, steps_before: int, window: LogWindow):
        self._log, self._stage, self._before, self._window = log, stage, steps_before, window
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._step = 0
        self.summary = ""

    def take(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Keeps a step's metrics and fetches those of the step before."""
        self.fetch()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Fetches what is left and writes the mean since the last time."""
        self.fetch()
        if self._window:
            names = dict.fromkeys(name for values in self._window for name in values)  # updates in turn have their own
            mean = {name: statistics.fmean(v[name] for v in self._window if name in v) for name in names}
            self._log.write(self._stage, self._step, self._before + self._step, mean)
            self._window.clear()

    def fetch(self) -> None:
        """Waits for the metrics that were last taken and adds them to the window."""
        if self._pending is None:
            return
        self._step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if name.startswith("loss") and not math.isfinite(value):
                raise NonFiniteError(self._stage, self._step, name, value)
        self._window.append(values)
        self.summary = " ".join(f"{name} {value:.3g}" for name, value in values.items() if name.startswith("loss"))


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; those that a kill has cut off, or that are damaged otherwise, are left out."""
    return [line for _, line in _lines(workdir / "metrics.jsonl")]


class _Board:
    """A TensorBoard file, written by the caller's own thread: one of its own would keep a full disk to itself."""

    def __init__(self, folder: Path, *, resume_at: int):
        folder.mkdir(exist_ok=True)
        self._folder, self._flushed = folder, time.monotonic()
        self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        # What an earlier part of the run wrote after this step does not count.
        self._add(Event(step=resume_at + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._add(Event(step=step, summary=summary.scalar(name, value)))
        if time.monotonic() - self._flushed > _BOARD_SECONDS:
            with naming(self._folder):
                self._writer.flush()
            self._flushed = time.monotonic()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        with naming(self._folder):
            self._writer.write_event(event)

    def close(self) -> None:
        with naming(self._folder):
            self._writer.close()


def _append(file: int, data: bytes, path: Path) -> None:
    """Appends in one call, so that a kill leaves all of it or nothing."""
    with naming(path):
        written = os.write(file, data)
        if written < len(data):  # there was room for a part; what is missing raises
            os.write(file, data[written:])


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines that are what `MetricLog.write` wrote, as bytes and parsed."""
    for raw in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            line = json.loads(raw.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and line.keys() >= _WORDS.keys() and all(map(_sound, line.keys(), line.values())):
            yield raw, line


_WORDS = {"stage": str, "step": int, "total_step": int}


def _sound(name: str, value: Any) -> bool:
    return isinstance(value, _WORDS.get(name, int | float)) and not isinstance(value, bool)
