"""Boxes of objects that have keypoints but no box."""

from collections.abc import Sequence

import numpy as np

from jaxpose.data.records import Note


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
    found = np.concatenate([(low + high - side) / 2, side, side], axis=1)
    return np.clip(found, *_RANGE).astype(np.float32)  # of joints at the end of the range


def without_extent(names: Sequence[str], visible: np.ndarray, bboxes: np.ndarray) -> tuple[Note, ...]:
    """A note on the objects that have a labelled joint, but no box: those are left out.

    Args:
      names: N records.
      visible: (N, K), labelled where > 0.
      bboxes: (N, 4) of `square_boxes`.
    """
    lost = np.flatnonzero((visible > 0).any(axis=1) & (bboxes[:, 2] == 0))
    what = "left out objects without two distinct labelled joints"
    return (Note(what=what, count=len(lost), example=names[int(lost[0])]),) if len(lost) else ()


_RANGE = (np.finfo(np.float32).min, np.finfo(np.float32).max)
