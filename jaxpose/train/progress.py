"""The progress of a run, and going on from it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from jaxpose.recipes.stage import Stage, State
from jaxpose.train.checkpoint import Checkpoints
from jaxpose.train.evaluate import Scores
from jaxpose.train.log import LogWindow
from jaxpose.train.run import Run


@dataclasses.dataclass(kw_only=True)
class Progress:
    """What a run knows besides its state; saved with every checkpoint.

    Attributes:
      stage: number of the stage that the state belongs to.
      evaluations: rows of `results.json`.
      floor: rows of the mean pose.
      pictures: captions of the pictures of finished stages.
      start: what `earlier.start` says of the run that this one started from, and its `step`.
      broken: names of skipped records by domain.
      wall_s, compile_s: seconds, over all parts of a resumed run.
      data_wait_s, device_wait_s: seconds of waiting for batches, see `next_batch`.
      step_s: of the stages finished so far: median seconds of an update.
      loop_s: seconds in the loop over updates, compilation and evaluation excluded.
      window: metrics of the updates that are not yet in the log, see `LateMetrics`.
    """

    stage: int = 0
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    floor: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    pictures: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    start: dict[str, Any] = dataclasses.field(default_factory=dict)
    broken: list[str] = dataclasses.field(default_factory=list)
    wall_s: float = 0.0
    compile_s: float = 0.0
    data_wait_s: float = 0.0
    device_wait_s: float = 0.0
    step_s: dict[str, float] = dataclasses.field(default_factory=dict)
    loop_s: float = 0.0
    window: LogWindow = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, checkpoints: Checkpoints, step: int) -> "Progress":
        """What was saved with a checkpoint; what other versions of this class have besides is left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in checkpoints.meta(step).items() if name in known})

    def note_broken(self, domain: str, name: str) -> None:
        """Adds a broken record to those that are known already."""
        entry = f"{domain}: {name}"
        if entry not in self._known:
            self._known.add(entry)
            self.broken.append(entry)

    @functools.cached_property
    def _known(self) -> set[str]:
        return set(self.broken)

    def add(self, stage: Stage, by_split: Mapping[tuple[str, str], Scores]) -> None:
        """Adds the scores by domain and split that a finished stage ended with."""
        step = self.start["step"] if self.start and self.stage == 0 else stage.steps
        for (domain, split), scores in by_split.items():
            for name in scores.broken:
                self.note_broken(domain, name)
            place = {"domain": domain, "split": split}
            self.evaluations += [{"stage": stage.name, "step": step} | place | row for row in scores.rows]
            if not any(place.items() <= row.items() for row in self.floor):
                self.floor += [place | row for row in scores.floor]


def restored(run: Run, checkpoints: Checkpoints, step: int) -> tuple[State, Progress]:
    """What was saved in a checkpoint of a run.

    Raises:
      ValueError: if it cannot be read.
    """
    progress = Progress.read(checkpoints, step)
    return checkpoints.restore(step, run.abstract_states()[progress.stage]), progress
