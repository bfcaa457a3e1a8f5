"""What the builders of hand data sets share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxpose.data import records
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import Record
from jaxpose.datasets import _reading

THUMB = ("thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip")
FINGERS = tuple(tuple(f"{f}_{j}" for j in ("mcp", "pip", "dip", "tip")) for f in ("index", "middle", "ring", "little"))
BASE_TO_TIP = ("wrist", *THUMB, *(joint for finger in FINGERS for joint in finger))  # the order of most data sets


_FAR = 1e9  # a number beyond is neither pixels nor metres


def hand_record(
    *,
    image: bytes | Skipped,
    name: str,
    hand: str,
    keypoints3d: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int] | None = None,
    keypoints: np.ndarray | None = None,
    seen: np.ndarray | None = None,
    **others: Any,
) -> Record | Skipped:
    """A record of one hand, or why there is none.

    A joint that is not finite, lies behind the camera or outside the image is missing; its 3D position is kept if it
    is finite. The box is the tight one of the other joints.

    Args:
      image: the encoded file, or why there is none.
      name: of the record.
      hand: "left" or "right".
      keypoints3d: (21, 3) metres in the camera frame, in the order of `HAND21`.
      intrinsics: (3, 3) of the image.
      size: width and height of the image; None where all joints are known to lie inside.
      keypoints: (21, 2) pixels; by default the projection.
      seen: (21,) whether a joint is visible and not only labelled; by default all are.
      others: fields of the record.
    """
    if isinstance(image, Skipped):
        return image
    points = _reading.project(keypoints3d, intrinsics) if keypoints is None else np.asarray(keypoints, np.float64)
    placed = (np.abs(keypoints3d) < _FAR).all(axis=-1)
    with np.errstate(invalid="ignore"):
        known = (np.abs(points) < _FAR).all(axis=-1) & placed & (keypoints3d[:, 2] > 0)
        if size is not None:
            known &= ((points > -0.5) & (points < np.array(size) - 0.5)).all(axis=-1)
    if not (np.abs(intrinsics) < _FAR).all():
        return Skipped(name, "the intrinsics are not finite")
    if not known.any():
        return Skipped(name, "no joint lies in the image")
    certain = np.where(True if seen is None else seen, records.VISIBLE, records.OCCLUDED)
    low, high = points[known].min(axis=0), points[known].max(axis=0)
    return Record(
        image=image,
        keypoints=np.where(known[:, None], points, 0.0).astype(np.float32),
        visible=np.where(known, certain, records.MISSING).astype(np.uint8),
        name=name,
        bbox=np.concatenate([low, high - low + 1]).astype(np.float32),
        keypoints3d=np.where(np.abs(keypoints3d) < _FAR, keypoints3d, 0.0).astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
        hand=hand,
        **others,
    )


def positions(joints: Sequence[str]) -> np.ndarray:
    """Where a data set with these joints keeps those of `HAND21`, (21,)."""
    return np.array([joints.index(joint) for joint in HAND21.joints])
