"""Percentage of correct keypoints: pooled, relative to heads, and as the Transfer-Learning-Library evaluates it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxpose.metrics.metric import (
    FRACTION,
    Fields,
    Groups,
    Measurement,
    PerRow,
    Predictions,
    Scale,
    by_clip,
    label_mask,
    means,
    without,
)
from jaxpose.ops import heatmaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCK:
    """`pck@T`: the fraction of labels whose point is closer than T times the side of the input, pooled.

    Attributes:
      size: side of the input in pixels.
      thresholds: as fractions of it.
    """

    size: int
    thresholds: tuple[float, ...] = (0.05, 0.1)
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[dict[str, "Counts"], PerRow]:
        """Counts by the metric's name, and the distances."""
        points, keypoints, mask = predictions.points, fields["keypoints"], label_mask(fields)
        counts = {name: pck(points, keypoints, mask, threshold=pixels) for name, pixels in self._pixels().items()}
        return counts, {"distance": distances(points, keypoints), "mask": mask}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups, then all clips."""
        yield from _of_groups(sums, groups)
        for name, pixels in self._pixels().items():
            yield from by_clip(name, per_row["distance"] < np.float32(pixels), per_row["mask"], clips)

    def _pixels(self) -> dict[str, float]:
        return {f"pck@{threshold:g}": threshold * self.size for threshold in self.thresholds}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurePCK:
    """`sure_pck@T`: as `pck@T`, of the points alone that the detector is surest of.

    It is the share of right ones among pseudo-labels that are chosen by their confidence.

    Attributes:
      size, thresholds: as of `PCK`.
      share: of the labels of all joints and images together, those whose points have the highest scores; of equal ones
        all that are as high as the last.
    """

    size: int
    thresholds: tuple[float, ...] = (0.05, 0.1)
    share: float = 0.5
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "scores"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances and scores."""
        distance = distances(predictions.points, fields["keypoints"])
        return None, {"distance": distance, "score": predictions.scores, "mask": label_mask(fields)}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups, then all clips."""
        score, mask = per_row["score"], per_row["mask"]
        if not mask.any():
            return
        sure = mask & (score >= np.quantile(score[mask], 1 - self.share, method="higher"))
        for threshold in self.thresholds:
            near = per_row["distance"] < np.float32(threshold * self.size)
            yield from means(f"sure_pck@{threshold:g}", near, sure, groups, clips)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCKh:
    """`pckh@T`: the fraction of labels whose point is at most T times the size of the head away, pooled.

    MPII's mean weighs joints by their numbers of labels, and so the mean over all labels is the same. Its table counts
    neither pelvis nor thorax, its head is the joint at the top of the head, and its rows of left and right are the mean
    of both rates, here that of both's labels. Rows without a size of the head do not count; labels outside the crop do.
    Labels and predictions both count pixels from 0, so that nothing is added to either.

    Source: Andriluka et al., CVPR 2014, whose size of the head is 0.6 times the diagonal of its box; SimpleBaselines'
    evaluation, which compares with `<=`.

    Attributes:
      thresholds: as fractions of the size of the head.
      left_out: joints that do not count.
      suffix: of the metric's names.
    """

    thresholds: tuple[float, ...] = (0.5,)
    left_out: tuple[int, ...] = ()
    suffix: str = ""
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "annotated", "head_size")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances relative to the size of the head."""
        per_row = relative(predictions.points, fields, fields["head_size"], "annotated")
        return None, per_row | {"mask": without(per_row["mask"], self.left_out)}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups, then all clips."""
        for threshold in self.thresholds:
            near = per_row["distance"] <= np.float32(threshold)
            yield from means(f"pckh@{threshold:g}{self.suffix}", near, per_row["mask"], groups, clips)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TllibPCK:
    """`tllib_pck@0.05`: the evaluation behind the published numbers, see `tllib_pck`.

    Attributes:
      stride: pixels of the input per pixel of the label maps.
      label_maps: (keypoints, visible) -> maps (B, H, W, K), as the released code draws them.
    """

    stride: float
    label_maps: Callable[[jax.Array, jax.Array], jax.Array]
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "peaks"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[dict[str, "Accuracies"], PerRow]:
        """One batch of the released evaluation."""
        maps = self.label_maps(fields["keypoints"], fields["visible"])
        return {"tllib_pck@0.05": tllib_pck(predictions.peaks / self.stride, maps, fields["row"])}, {}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups."""
        return _of_groups(sums, groups)


def _of_groups(sums: dict[str, Any], groups: Groups) -> Iterator[Measurement]:
    for metric, counts in sums.items():
        for group, indices in groups.items():
            value, count = counts.group(indices)
            if count:
                yield Measurement(metric=metric, group=group, value=value, count=count)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts per joint; adding them is exact over any split into batches, hosts and devices.

    Attributes:
      correct: int32 (K,), joints closer to their label than the threshold.
      count: int32 (K,), labelled joints.
    """

    correct: Any  # Any: JAX also fills states with shardings, specs and placeholders
    count: Any

    @classmethod
    def zeros(cls, joints: int) -> "Counts":
        """The state of no example."""
        return cls(correct=jnp.zeros(joints, jnp.int32), count=jnp.zeros(joints, jnp.int32))

    def merge(self, other: "Counts") -> "Counts":
        """The state of both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    def rates(self) -> Float[Array, " K"]:
        """Correct fraction per joint; NaN where no label was counted."""
        return _ratio(self.correct, self.count)

    def group(self, indices: Int[np.ndarray, " G"]) -> tuple[float, int]:
        """Correct fraction of all labels of the joints `indices`, and how many they are; on the host."""
        correct, count = (int(np.asarray(x)[indices].sum()) for x in (self.correct, self.count))
        return float(np.float32(correct) / np.float32(count)) if count else float("nan"), count


def pck(
    predicted: Float[Array, "B K 2"],
    keypoints: Float[Array, "B K 2"],
    mask: Bool[Array, "B K"],
    *,
    threshold: float,
) -> Counts:
    """Counts predictions strictly closer to their label than `threshold`.

    Points and threshold are in pixels of the network's input: PCK@0.05 of a 256 pixel input is 12.8. Where
    `mask` is False, both points may hold anything, NaN included.
    """
    return Counts(
        correct=jnp.sum(mask & (distances(predicted, keypoints) < threshold), axis=0, dtype=jnp.int32),
        count=jnp.sum(mask, axis=0, dtype=jnp.int32),
    )


def distances(predicted: Float[Array, "B K 2"], keypoints: Float[Array, "B K 2"]) -> Float[Array, "B K"]:
    """Distances between predictions and labels."""
    return jnp.linalg.norm(predicted - keypoints, axis=-1)


def relative(
    points: Float[Array, "B K 2"], fields: Fields, size: Float[Array, " B"], labels: str = "visible"
) -> PerRow:
    """`distance` (B, K) of points from their labels in units of each row's size, and the `mask` (B, K) of labels.

    Rows whose size is not finite and more than 0 do not count.
    """
    known = jnp.isfinite(size) & (size > 0)
    distance = distances(points, fields["keypoints"]) / jnp.where(known, size, 1.0)[:, None]
    return {"distance": distance, "mask": label_mask(fields, labels) & known[:, None]}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracies:
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
    def zeros(cls, joints: int) -> "Accuracies":
        """The state of no batch."""
        return cls(
            total=jnp.zeros(joints, jnp.float32),
            weight=jnp.zeros(joints, jnp.float32),
            count=jnp.zeros(joints, jnp.int32),
        )

    def merge(self, other: "Accuracies") -> "Accuracies":
        """The state of both sets of batches."""
        return jax.tree.map(jnp.add, self, other)

    def rates(self) -> Float[Array, " K"]:
        """Weighted mean accuracy per joint, in [-1, 1]; NaN where no batch was counted."""
        return _ratio(self.total, self.weight)

    def group(self, indices: Int[np.ndarray, " G"]) -> tuple[float, int]:
        """Mean of the joints' rates (not of their labels), and how many joints were compared; on the host."""
        rates = np.asarray(self.rates())[indices]
        mean = rates[~np.isnan(rates)].mean() if not np.isnan(rates).all() else np.nan
        return float(mean), int(np.asarray(self.count)[indices].sum())


def tllib_pck(
    predicted: Float[Array, "B K 2"],
    labels: Float[Array, "B H W K"],
    rows: Bool[Array, " B"],
    *,
    threshold: float = 0.5,
    ignore_absent: bool = False,
) -> Accuracies:
    """One batch of the evaluation behind the published PCK@0.05 numbers, on heatmaps.

    Points `predicted`, in pixels of the label maps, and peaks of `labels` agree at a distance below
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
    distance = jnp.linalg.norm((predicted - true) / scale[None, None], axis=-1)
    valid = rows[:, None] & jnp.all(true > 1, axis=-1)
    count = jnp.sum(valid, axis=0, dtype=jnp.int32)
    correct = jnp.sum(valid & (distance < threshold), axis=0, dtype=jnp.int32)
    present = count > 0
    accuracy = jnp.where(present, _ratio(correct, count), -1.0)
    size = jnp.sum(rows, dtype=jnp.float32)
    weight = jnp.where(present, size, 0.0) if ignore_absent else jnp.full_like(accuracy, size)
    return Accuracies(total=accuracy * weight, weight=weight, count=count)


def _ratio(total: Array, count: Array) -> Array:
    total, count = total.astype(jnp.float32), count.astype(jnp.float32)
    return jnp.where(count > 0, total / jnp.maximum(count, 1.0), jnp.nan)
