"""Distances in pixels of the stored images."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from jaxpose.metrics.metric import Fields, Groups, PerRow, Predictions, Row, Scale, labelled
from jaxpose.metrics.pck import distances


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelError:
    """`error_px`: mean and median distance of points from their labels, in pixels of the stored image."""

    scale: ClassVar[Scale] = Scale(unit="pixels of the image", lower_is_better=True)
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible", "scale")

    def update(self, found: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Distances in the stored images, which have `1 / scale` pixels for one of the crop."""
        distance = distances(found.points, fields["keypoints"])
        return None, {"distance": distance, "scale": fields["scale"], "mask": labelled(fields)}

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Row]:
        """Mean and median over all labels."""
        errors = (per_row["distance"] / per_row["scale"][:, None])[per_row["mask"]]
        if len(errors):
            for group, value in (("mean", errors.mean(dtype=np.float64)), ("median", np.median(errors))):
                yield Row(metric="error_px", group=group, value=float(value), count=len(errors))
