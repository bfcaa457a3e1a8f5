"""What is found from the distance of every single point, on the host: errors in the images' own pixels, and clips."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

JOINT, CLIP = "joint:", "clip:"  # how groups of one joint and of one clip begin
MOST_CLIPS = 256  # of a split of more, single ones are not told apart


def pixel_errors(
    distance: Float[np.ndarray, "N K"], scale: Float[np.ndarray, " N"], mask: Bool[np.ndarray, "N K"]
) -> Iterator[dict[str, Any]]:
    """Rows of `error_px`: mean and median distance in pixels of the stored image.

    Args:
      distance: of points from their labels, in pixels of the crop.
      scale: pixels of the crop per pixel of the stored image.
      mask: which labels count.
    """
    errors = (distance / scale[:, None])[mask]
    if len(errors):
        for group, value in (("mean", errors.mean(dtype=np.float64)), ("median", np.median(errors))):
            yield {"metric": "error_px", "group": group, "value": float(value), "count": len(errors)}


def by_clip(
    metric: str, correct: Bool[np.ndarray, "N K"], mask: Bool[np.ndarray, "N K"], clips: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows of the correct fraction of every clip that has labels, in the order in which they come.

    Args:
      metric: its name.
      correct: which points are.
      mask: which labels count.
      clips: the clip of each row; nothing is said of one clip alone, or of more than `MOST_CLIPS`.
    """
    names = list(dict.fromkeys(clips))
    if not 1 < len(names) <= MOST_CLIPS:
        return
    numbers = {name: i for i, name in enumerate(names)}
    index = np.array([numbers[name] for name in clips])
    right = np.bincount(index, weights=(correct & mask).sum(axis=1), minlength=len(names))
    count = np.bincount(index, weights=mask.sum(axis=1), minlength=len(names))
    for name, r, n in zip(names, right, count, strict=True):
        if n:
            yield {"metric": metric, "group": CLIP + name, "value": float(r / n), "count": int(n)}
