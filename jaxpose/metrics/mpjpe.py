"""Mean per-joint position error of 3D joints."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from jaxpose.metrics.metric import Fields, Groups, PerRow, Predictions, Row, Scale, by_clip
from jaxpose.ops import procrustes


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPJPE:
    """`mpjpe`, `n_mpjpe` or `pa_mpjpe`: mean distance in millimetres, of all labels, by group and by clip.

    Attributes:
      align: before distances are taken, the prediction's `root` is moved to the label's; it is moved and scaled best
        (`scale`, N-MPJPE); or also rotated best (`similarity`, PA-MPJPE).
      root: the joint.
    """

    align: Literal["root", "scale", "similarity"] = "root"
    root: int = 0
    scale: ClassVar[Scale] = Scale(unit="mm", lower_is_better=True)
    needs: ClassVar[str] = "points3d"
    fields: ClassVar[tuple[str, ...]] = ("keypoints3d",)

    @property
    def name(self) -> str:
        """As in the results."""
        return {"root": "mpjpe", "scale": "n_mpjpe", "similarity": "pa_mpjpe"}[self.align]

    def update(self, found: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances of a batch; labels that are not finite do not count."""
        points, labels = found.points3d, fields["keypoints3d"]
        mask = jnp.all(jnp.isfinite(labels), axis=-1) & fields["row"][:, None]
        if self.align == "root":
            root = slice(self.root, self.root + 1)
            moved = points - points[:, root] + labels[:, root]
            mask &= mask[:, root]
        else:
            moved = procrustes.aligned(points, labels, mask, rotate=self.align == "similarity")
        return None, {"distance": 1000 * jnp.linalg.norm(moved - labels, axis=-1), "mask": mask}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Row]:
        """Means over the labels of all groups, then of all clips."""
        distance, mask = per_row["distance"], per_row["mask"]
        for group, indices in groups.items():
            chosen = distance[:, indices][mask[:, indices]]
            if len(chosen):
                value = float(chosen.mean(dtype=np.float64))
                yield Row(metric=self.name, group=group, value=value, count=len(chosen))
        yield from by_clip(self.name, distance, mask, clips)
