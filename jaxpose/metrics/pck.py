"""Percentage of correct keypoints, pooled, and as the Transfer-Learning-Library evaluates it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxpose.ops import heatmaps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PCK:
    """Counts per joint; adding them is exact over any split into batches, hosts and devices.

    Attributes:
      correct: int32 (K,), joints closer to their label than the threshold.
      count: int32 (K,), labelled joints.
    """

    correct: Any  # Any: JAX also fills states with shardings, specs and placeholders
    count: Any

    @classmethod
    def zeros(cls, joints: int) -> "PCK":
        """The state of no example."""
        return cls(correct=jnp.zeros(joints, jnp.int32), count=jnp.zeros(joints, jnp.int32))

    def merge(self, other: "PCK") -> "PCK":
        """The state of both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    def rates(self) -> Float[Array, " K"]:
        """Correct fraction per joint; NaN where no label was counted."""
        return _ratio(self.correct, self.count)

    def group(self, indices: Int[np.ndarray, " G"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Correct fraction of all labels of the joints `indices`, and how many they are."""
        count = self.count[indices].sum()
        return _ratio(self.correct[indices].sum(), count), count


def pck(
    predicted: Float[Array, "B K 2"],
    keypoints: Float[Array, "B K 2"],
    mask: Bool[Array, "B K"],
    *,
    threshold: float,
) -> PCK:
    """Counts predictions strictly closer to their label than `threshold`.

    Points and threshold are in pixels of the network's input: PCK@0.05 of a 256 pixel input is 12.8. Where
    `mask` is False, both points may hold anything, NaN included.
    """
    return PCK(
        correct=jnp.sum(mask & (distances(predicted, keypoints) < threshold), axis=0, dtype=jnp.int32),
        count=jnp.sum(mask, axis=0, dtype=jnp.int32),
    )


def distances(predicted: Float[Array, "B K 2"], keypoints: Float[Array, "B K 2"]) -> Float[Array, "B K"]:
    """Distances between predictions and labels."""
    return jnp.linalg.norm(predicted - keypoints, axis=-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TllibPCK:
    """Weighted sums of per-batch accuracies. The result depends on where batches begin and end.

    Attributes:
      total: float32 (K,), sum over batches of accuracy times batch size.
      weight: float32 (K,), sum of the batch sizes.
      count: int32 (K,), joints compared.
    """

    total: Any
    weight: Any
    count: Any

    @classmethod
    def zeros(cls, joints: int) -> "TllibPCK":
        """The state of no batch."""
        return cls(
            total=jnp.zeros(joints, jnp.float32),
            weight=jnp.zeros(joints, jnp.float32),
            count=jnp.zeros(joints, jnp.int32),
        )

    def merge(self, other: "TllibPCK") -> "TllibPCK":
        """The state of both sets of batches."""
        return jax.tree.map(jnp.add, self, other)

    def rates(self) -> Float[Array, " K"]:
        """Weighted mean accuracy per joint, in [-1, 1]; NaN where no batch was counted."""
        return _ratio(self.total, self.weight)

    def group(self, indices: Int[np.ndarray, " G"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Mean of the joints' rates (not of their labels), and how many joints were compared."""
        return jnp.nanmean(self.rates()[indices]), self.count[indices].sum()


def tllib_pck(
    found: Float[Array, "B K 2"],
    labels: Float[Array, "B H W K"],
    rows: Bool[Array, " B"],
    *,
    threshold: float = 0.5,
    ignore_absent: bool = False,
) -> TllibPCK:
    """One batch of the evaluation behind the published PCK@0.05 numbers, on heatmaps.

    Points `found`, in pixels of the label maps, and peaks of `labels` agree at a distance below
    `threshold` once x is divided by W/10 and y by H/10. Peaks of maps without a positive value lie in
    the corner (0, 0); labels with x <= 1 or y <= 1 are left out, maps of zeros therefore too. A joint
    without a label in the batch scores -1, and that enters the mean; `ignore_absent` leaves it out
    instead. Rows of padding (`rows` False) do not exist.

    Source: the released evaluation of RegDA, which divides x by H/10 (its maps are square).
    `ignore_absent` is the evaluation of Kim et al., ECCV 2022, where a joint absent from all batches
    enters its groups as 0; here it is NaN and left out of them.
    """
    height, width = labels.shape[1:3]
    true = heatmaps.argmax_points_released(labels)
    scale = jnp.array([width / 10, height / 10], jnp.float32)
    distance = jnp.linalg.norm((found - true) / scale[None, None], axis=-1)
    valid = rows[:, None] & jnp.all(true > 1, axis=-1)
    count = jnp.sum(valid, axis=0, dtype=jnp.int32)
    correct = jnp.sum(valid & (distance < threshold), axis=0, dtype=jnp.int32)
    present = count > 0
    accuracy = jnp.where(present, _ratio(correct, count), -1.0)
    size = jnp.sum(rows, dtype=jnp.float32)
    weight = jnp.where(present, size, 0.0) if ignore_absent else jnp.full_like(accuracy, size)
    return TllibPCK(total=accuracy * weight, weight=weight, count=count)


def _ratio(total: Array, count: Array) -> Array:
    total, count = total.astype(jnp.float32), count.astype(jnp.float32)
    return jnp.where(count > 0, total / jnp.maximum(count, 1.0), jnp.nan)
