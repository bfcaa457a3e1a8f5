"""Means of what a stage measures by itself."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from jaxpose.metrics.metric import Fields, Groups, Measurement, PerRow, Predictions, Scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Means:
    """Means over rows of the scalars `METRIC/GROUP` of predictions, for one metric or several.

    Attributes:
      metrics: their names; `metrics.scale_of` knows the units.
    """

    metrics: tuple[str, ...]
    scale: ClassVar[Scale] = Scale(unit="", lower_is_better=True)
    needs: ClassVar[str] = "scalars"
    fields: ClassVar[tuple[str, ...]] = ()

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """The scalars of each row, and which rows count."""
        chosen = {name: x for name, x in predictions.scalars.items() if name.partition("/")[0] in self.metrics}
        return None, {"row": fields["row"], "value": chosen}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """One row for each scalar."""
        for name, value in per_row["value"].items():
            metric, _, group = name.partition("/")
            known = value[per_row["row"]]
            if len(known):
                mean = float(known.mean(dtype=np.float64))
                yield Measurement(metric=metric, group=group, value=mean, count=len(known))
