"""The run's log: metrics.jsonl is the source of truth, TensorBoard files stand beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

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
