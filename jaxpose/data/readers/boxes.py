"""Keypoints as readers keep them, and boxes of objects that have none."""

import dataclasses
from typing import Any, TypeVar

import numpy as np

from jaxpose.data.records import MISSING, Note

_Source = TypeVar("_Source", bound=Any)  # of label arrays


def usable(points: np.ndarray, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints float32 (..., K, 2), 0 where missing, and visible uint8 (..., K); what is beyond float32 is missing."""
    with np.errstate(over="ignore", invalid="ignore"):
        points = points.astype(np.float32)
    visible = np.where(np.isfinite(points).all(axis=-1), flags, MISSING).astype(np.uint8)
    return np.where(visible[..., None] > 0, points, np.float32(0)), visible


def square_boxes(keypoints: np.ndarray, visible: np.ndarray, *, factor: float) -> np.ndarray:
    """Squares about the labelled joints, float32 (N, 4) x, y, width, height in pixels.

    A square shares the centre of the joints' bounding box and has `factor` times its longer side. It may
    leave the image, because crops are padded; its side is 0 with fewer than two distinct labelled joints.

    Args:
      keypoints: (N, K, 2) pixels, any value where not labelled.
      visible: (N, K), labelled where > 0.
      factor: the square's side relative to the joints' extent.
    """
    labelled, keypoints = (visible > 0)[..., None], keypoints.astype(np.float64)
    low = np.where(labelled, keypoints, np.inf).min(axis=1)
    high = np.where(labelled, keypoints, -np.inf).max(axis=1)
    low, high = (np.where(labelled.any(axis=1), bound, 0.0) for bound in (low, high))
    side = factor * (high - low).max(axis=1, keepdims=True)
    squares = np.concatenate([(low + high - side) / 2, side, side], axis=1)
    return np.clip(squares, *_RANGE).astype(np.float32)  # of joints at the end of the range


def with_squares(source: _Source, *, factor: float) -> _Source:
    """A source of label arrays with `square_boxes`; objects with a labelled joint but no extent are left out.

    Args:
      source: with `keypoints`, `visible`, `bboxes` and `notes`.
      factor: see `square_boxes`.
    """
    bboxes = square_boxes(source.keypoints, source.visible, factor=factor)
    lost = np.flatnonzero((source.visible > 0).any(axis=1) & (bboxes[:, 2] == 0))
    notes = source.notes
    if len(lost):
        what = "left out objects without two distinct labelled joints"
        notes += (Note(what=what, count=len(lost), example=source.name(int(lost[0]))),)
    return dataclasses.replace(source, bboxes=bboxes, notes=notes).subset(np.flatnonzero(bboxes[:, 2] > 0))


_RANGE = (np.finfo(np.float32).min, np.finfo(np.float32).max)
