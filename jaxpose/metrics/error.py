"""Distances of points from their labels: in pixels of the stored images, and relative to a size."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxpose.metrics.metric import Fields, Groups, Measurement, PerRow, Predictions, Scale, label_mask, means
from jaxpose.metrics.pck import distances, relative


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelError:
    """`error_px`: mean and median distance of points from their labels, in pixels of the stored image."""

    scale: ClassVar[Scale] = Scale(unit="pixels of the image", lower_is_better=True)
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible", "scale")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances in the stored images, which have `1 / scale` pixels for one of the crop."""
        distance = distances(predictions.points, fields["keypoints"])
        return None, {"distance": distance, "scale": fields["scale"], "mask": label_mask(fields)}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """Mean and median over all labels."""
        errors = (per_row["distance"] / per_row["scale"][:, None])[per_row["mask"]]
        if len(errors):
            for group, value in (("mean", errors.mean(dtype=np.float64)), ("median", np.median(errors))):
                yield Measurement(metric="error_px", group=group, value=float(value), count=len(errors))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EPE:
    """`epe`: the mean end-point error, which is that of `PixelError`, by group and by clip."""

    scale: ClassVar[Scale] = PixelError.scale
    needs: ClassVar[str] = PixelError.needs
    fields: ClassVar[tuple[str, ...]] = PixelError.fields

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """As of `PixelError`."""
        return PixelError().update(predictions, fields)

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups, then all clips."""
        return means("epe", per_row["distance"] / per_row["scale"][:, None], per_row["mask"], groups, clips)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NME:
    """`nme`: the normalised mean error, a fraction that tables show in percent, by group and by clip.

    Every distance is divided by a size of its own row: the longer side of the box, or the distance between two labels.
    The mean over labels is that over images where all joints are labelled. Rows whose size is unknown or nothing do not
    count.

    Attributes:
      joints: the two, such as the outer corners of the eyes; None for the box.
    """

    joints: tuple[int, int] | None = None
    scale: ClassVar[Scale] = Scale(unit="fraction", lower_is_better=True, digits=2)
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible", "box_size")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances relative to the size."""
        if self.joints is None:
            return None, relative(predictions.points, fields, fields["box_size"])
        ends = jnp.array(self.joints)
        first, second = jnp.moveaxis(fields["keypoints"][:, ends], 1, 0)
        per_row = relative(predictions.points, fields, jnp.linalg.norm(first - second, axis=-1))
        both = jnp.all(label_mask(fields)[:, ends], axis=1, keepdims=True)
        return None, per_row | {"mask": per_row["mask"] & both}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """All groups, then all clips."""
        return means("nme", per_row["distance"], per_row["mask"], groups, clips)
