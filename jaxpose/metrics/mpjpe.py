"""Errors of 3D joints: their mean, and how many are small."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from jaxpose.metrics.metric import (
    FRACTION,
    Fields,
    Groups,
    Measurement,
    PerRow,
    Predictions,
    Scale,
    by_action,
    means,
    without,
)
from jaxpose.ops import procrustes, trees

Align = Literal["root", "scale", "similarity"]

_PREFIXES = {"root": "", "scale": "n_", "similarity": "pa_"}
_AREA = range(0, 151, 5)  # millimetres; thresholds of the area under the curve


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPJPE:
    """`mpjpe`, `n_mpjpe` or `pa_mpjpe`: mean distance in millimetres, of all labels, by group, clip and action.

    Attributes:
      align: before distances are taken, the prediction's `root` is moved to the label's; it is moved and scaled best
        (`scale`, N-MPJPE); or also rotated best (`similarity`, PA-MPJPE).
      root: the joint.
      actions: a regular expression that finds the action in a clip's name: `action:NAME` is its mean, and `actions` the
        mean over the actions, which Human3.6M's protocol prints beside that over all frames. None: no actions.
    """

    align: Align = "root"
    root: int = 0
    actions: str | None = None
    scale: ClassVar[Scale] = Scale(unit="mm", lower_is_better=True)
    needs: ClassVar[str] = "points3d"
    fields: ClassVar[tuple[str, ...]] = ("keypoints3d",)

    @property
    def name(self) -> str:
        """As in the results."""
        return f"{_PREFIXES[self.align]}mpjpe"

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances of a batch; labels that are not finite do not count."""
        return None, distances3d(predictions, fields, align=self.align, root=self.root)

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """Means over the labels of all groups, then of all clips and actions."""
        return _means(self.name, per_row, groups, clips, self.actions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasedPAMPJPE:
    """`released_pa_mpjpe`: PA-MPJPE of predictions that are given the bone lengths of the label before.

    Only directions of bones count, so that it is smaller than `pa_mpjpe` nearly always: compare it with numbers of the
    same evaluation only. A bone with an end that has no label keeps its length.

    Source: the evaluation released with Kundu et al. 2021 (relation distillation), which prints no other error.

    Attributes:
      tree: all bones by (parent, child), see `trees.spanning_tree`.
      actions: as that of `MPJPE`.
    """

    tree: tuple[tuple[int, int], ...]
    actions: str | None = None
    scale: ClassVar[Scale] = MPJPE.scale
    needs: ClassVar[str] = "points3d"
    fields: ClassVar[tuple[str, ...]] = ("keypoints3d",)

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances of a batch, as those of `MPJPE`."""
        tree, points, labels = np.array(self.tree, np.int32), predictions.points3d, fields["keypoints3d"]
        known = jnp.all(jnp.isfinite(labels), axis=-1)
        lengths = trees.bone_lengths(jnp.where(known[..., None], labels, 0), tree=tree)
        lengths = jnp.where(known[:, tree[:, 0]] & known[:, tree[:, 1]], lengths, trees.bone_lengths(points, tree=tree))
        fitted = dataclasses.replace(predictions, points3d=trees.given_lengths(points, lengths, tree=tree))
        return None, distances3d(fitted, fields, align="similarity", root=0)

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """As those of `MPJPE`."""
        return _means("released_pa_mpjpe", per_row, groups, clips, self.actions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCK3D:
    """`3dpck@150`: the fraction of labels whose joint is closer than 150 mm; `3dauc`: its mean over 0, 5, ..., 150 mm.

    Both are pooled over the labels of a group or clip. After other alignments they are `n_3dpck@150`, `pa_3dpck@150`
    and so on.

    Source: Mehta et al., 3DV 2017, and the evaluation that comes with MPI-INF-3DHP, which compares with `<` and counts
    neither pelvis, spine nor the middle of the head.

    Attributes:
      align, root: as those of `MPJPE`.
      thresholds: in millimetres.
      left_out: joints that do not count.
    """

    align: Align = "root"
    root: int = 0
    thresholds: tuple[float, ...] = (150.0,)
    left_out: tuple[int, ...] = ()
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "points3d"
    fields: ClassVar[tuple[str, ...]] = ("keypoints3d",)

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances of a batch, as those of `MPJPE`."""
        per_row = distances3d(predictions, fields, align=self.align, root=self.root)
        return None, per_row | {"mask": without(per_row["mask"], self.left_out)}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups, then all clips."""
        distance, mask, prefix = per_row["distance"], per_row["mask"], _PREFIXES[self.align]
        for threshold in self.thresholds:
            yield from means(f"{prefix}3dpck@{threshold:g}", distance < np.float32(threshold), mask, groups, clips)
        area = np.mean([distance < np.float32(threshold) for threshold in _AREA], axis=0)
        yield from means(f"{prefix}3dauc", area, mask, groups, clips)


def distances3d(predictions: Predictions, fields: Fields, *, align: Align, root: int) -> PerRow:
    """`distance` (B, K) in millimetres of aligned joints from their labels, and the `mask` (B, K) of those that count.

    Labels that are not finite do not count; nor does, where roots are aligned, a pose without one.
    """
    points, labels = predictions.points3d, fields["keypoints3d"]
    mask = jnp.all(jnp.isfinite(labels), axis=-1) & fields["row"][:, None]
    if align == "root":
        joint = slice(root, root + 1)
        moved = points - points[:, joint] + labels[:, joint]
        mask &= mask[:, joint]
    else:
        moved = procrustes.aligned(points, labels, mask, rotate=align == "similarity")
    return {"distance": 1000 * jnp.linalg.norm(moved - labels, axis=-1), "mask": mask}


def _means(
    name: str, per_row: PerRow, groups: Groups, clips: Sequence[str], actions: str | None
) -> Iterator[Measurement]:
    distance, mask = per_row["distance"], per_row["mask"]
    yield from means(name, distance, mask, groups, clips)
    if actions is not None:
        yield from by_action(name, distance, mask, clips, actions)
