"""Mean absolute error of each coordinate."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE:
    """Sums per joint; adding them is the mean over any split into batches, hosts and devices.

    Attributes:
      total: float32 (K, 2), sums of |x| and |y| errors in units.
      count: int32 (K,), labelled joints.
    """

    total: Any  # Any: JAX also fills states with shardings, specs and placeholders
    count: Any

    @classmethod
    def zeros(cls, joints: int) -> "MAE":
        """The state of no example."""
        return cls(total=jnp.zeros((joints, 2), jnp.float32), count=jnp.zeros(joints, jnp.int32))

    def merge(self, other: "MAE") -> "MAE":
        """The state of both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    def group(self, indices: Int[np.ndarray, " G"]) -> tuple[dict[str, Float[Array, ""]], Int[Array, ""]]:
        """Errors over all labels of the joints `indices`, and how many these are.

        The errors are `x`, `y`, their `sum` and their `mean`; NaN where no label was counted. Published
        tables do not say which of sum and mean they print.
        """
        count = self.count[indices].sum()
        total = self.total[indices].sum(axis=0)
        x, y = jnp.where(count > 0, total / jnp.maximum(count, 1).astype(jnp.float32), jnp.nan)
        return {"x": x, "y": y, "sum": x + y, "mean": (x + y) / 2}, count


def mae(
    predicted: Float[Array, "B K 2"],
    keypoints: Float[Array, "B K 2"],
    mask: Bool[Array, "B K"],
    *,
    pixels_per_unit: float,
) -> MAE:
    """Sums absolute errors of points in pixels, in units of `pixels_per_unit` pixels.

    Where `mask` is False, both points may hold anything, NaN included.

    Source: RegDA's dSprites experiment, whose labels lie in [0, 1].
    """
    error = jnp.abs(predicted - keypoints) / pixels_per_unit
    return MAE(
        total=jnp.sum(jnp.where(mask[..., None], error, 0.0), axis=0),
        count=jnp.sum(mask, axis=0, dtype=jnp.int32),
    )
