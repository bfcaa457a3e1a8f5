"""The run's log: metrics.jsonl is the source of truth, TensorBoard files stand beside it."""

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import jax
import tensorboardX


class MetricLog:
    """Appends a JSON line per call to `metrics.jsonl`; on process 0 only.

    Opening it for a run that resumes drops the lines that the resumed run will write again.
    """

    def __init__(self, workdir: Path, *, resume_at: int, write: bool = True):
        self._write = write
        self._path = workdir / "metrics.jsonl"
        if not write:
            return
        kept = [line for line in read_metrics(workdir) if line["total_step"] <= resume_at]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_at + 1)

    def write(self, stage: str, step: int, total_step: int, values: Mapping[str, float]) -> None:
        """Logs scalars of a step: `step` counts in the stage, `total_step` over all of them."""
        if not self._write:
            return
        self._file.write(json.dumps({"stage": stage, "step": step, "total_step": total_step} | dict(values)) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{stage}/{name}", value, total_step)

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._write:
            self._file.close()
            self._board.close()


class LateMetrics:
    """A stage's metrics, fetched one step late so that the device never waits for the log."""

    def __init__(self, log: MetricLog, stage: str, steps_before: int):
        self._log, self._stage, self._before = log, stage, steps_before
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._window: list[dict[str, float]] = []
        self._step = 0
        self.summary = ""

    def take(self, step: int, metrics: Mapping[str, jax.Array]) -> tuple[int, str, float] | None:
        """Keeps a step's metrics and fetches those of the step before; the first loss among them that is not finite."""
        bad = self._fetch()
        self._pending = (step, metrics)
        return bad

    def flush(self) -> tuple[int, str, float] | None:
        """Fetches what is left and writes the mean since the last time."""
        bad = self._fetch()
        if bad is None and self._window:
            mean = {name: statistics.fmean(values[name] for values in self._window) for name in self._window[0]}
            self._log.write(self._stage, self._step, self._before + self._step, mean)
            self._window = []
        return bad

    def _fetch(self) -> tuple[int, str, float] | None:
        if self._pending is None:
            return None
        self._step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if name.startswith("loss") and not math.isfinite(value):
                return self._step, name, value
        self._window.append(values)
        self.summary = " ".join(f"{name} {value:.3g}" for name, value in values.items() if name.startswith("loss"))
        return None


def read_metrics(workdir: Path) -> list[dict]:
    """The lines of `metrics.jsonl`; a last line that was cut off by a kill is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    parsed = []
    for line in lines:
        try:
            parsed.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return parsed
