"""Mean absolute error of each coordinate."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxpose.metrics.metric import Fields, Groups, Measurement, PerRow, Predictions, Scale, label_mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE:
    """`mae`: the mean absolute error of x, of y, their sum and their mean, in the data's own units.

    Attributes:
      pixels_per_unit: crop pixels per unit.
    """

    pixels_per_unit: float = 1.0
    scale: ClassVar[Scale] = Scale(unit="units of the data", lower_is_better=True, digits=3)
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible")

    def update(self, predictions: Predictions, fields: Fields) -> tuple["Errors", PerRow]:
        """Sums of a batch."""
        sums = mae(predictions.points, fields["keypoints"], label_mask(fields), pixels_per_unit=self.pixels_per_unit)
        return sums, {}

    def rows(self, sums: "Errors", per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """Over all joints."""
        values, count = sums.group(groups["all"])
        if count:
            for group, value in values.items():
                yield Measurement(metric="mae", group=group, value=value, count=count)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Errors:
    """Sums per joint; adding them is the mean over any split into batches, hosts and devices.

    Attributes:
      total: float32 (K, 2), sums of |x| and |y| errors in units.
      count: int32 (K,), labelled joints.
    """

    total: Any  # Any: JAX also fills states with shardings, specs and placeholders
    count: Any

    @classmethod
    def zeros(cls, joints: int) -> "Errors":
        """The state of no example."""
        return cls(total=jnp.zeros((joints, 2), jnp.float32), count=jnp.zeros(joints, jnp.int32))

    def merge(self, other: "Errors") -> "Errors":
        """The state of both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    def group(self, indices: Int[np.ndarray, " G"]) -> tuple[dict[str, float], int]:
        """Errors over all labels of the joints `indices`, and how many these are; on the host.

        The errors are `x`, `y`, their `sum` and their `mean`; NaN where no label was counted. Published
        tables do not say which of sum and mean they print.
        """
        total, count = (np.asarray(x)[indices].sum(axis=0) for x in (self.total, self.count))
        x, y = total / np.float32(count) if count else np.full(2, np.nan, np.float32)
        errors = {"x": x, "y": y, "sum": x + y, "mean": (x + y) / np.float32(2)}
        return {name: float(error) for name, error in errors.items()}, int(count)


def mae(
    predicted: Float[Array, "B K 2"],
    keypoints: Float[Array, "B K 2"],
    mask: Bool[Array, "B K"],
    *,
    pixels_per_unit: float,
) -> Errors:
    """Sums absolute errors of points in pixels, in units of `pixels_per_unit` pixels.

    Where `mask` is False, both points may hold anything, NaN included.

    Source: RegDA's dSprites experiment, whose labels lie in [0, 1].
    """
    error = jnp.abs(predicted - keypoints) / pixels_per_unit
    return Errors(
        total=jnp.sum(jnp.where(mask[..., None], error, 0.0), axis=0),
        count=jnp.sum(mask, axis=0, dtype=jnp.int32),
    )
