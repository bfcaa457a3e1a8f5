"""Boxes that a user gives by the names of images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from jaxpose.data.readers import boxes
from jaxpose.data.records import Note, Source
from jaxpose.data.wrappers import Subset, name_of

_EXTENT = 1.3  # side of a square relative to the extent of its joints


def boxes_of(source: Source, given: Mapping[str, np.ndarray], file: str) -> tuple[np.ndarray, tuple[Note, ...]]:
    """The box of each record, float32 (N, 4), NaN where none is given, and a note on those.

    Of several boxes of an image each record has one of its own, those that overlap the records most in all: their own
    boxes, or squares about their labelled joints.

    Args:
      source: N records; several may have one name.
      given: boxes (M, 4) x, y, width, height by name.
      file: where they are from, for messages.

    Raises:
      ValueError: if no record has a box, records of one image have fewer boxes than they are, or one overlaps none of
        those that are left for it.
    """
    rows: dict[str, list[int]] = {}
    for i in range(len(source)):
        rows.setdefault(name_of(source, i), []).append(i)
    absent = [name for name in rows if name not in given]
    if rows and len(absent) == len(rows):
        raise ValueError(f"{file}: found boxes of {next(iter(given), 'nothing')}, ..., expected of {absent[0]}, ...")
    matched = np.full((len(source), 4), np.nan, np.float32)
    for name, those in rows.items():
        if name in given:
            matched[those] = _matched(source, those, given[name], f"{file}: {name}")
    what = f"images taken whole, as they have no box in {file}"
    return matched, (Note(what=what, count=len(absent), example=absent[0]),) if absent else ()


def _matched(source: Source, rows: Sequence[int], given: np.ndarray, where: str) -> np.ndarray:
    """One of the boxes (M, 4) for each of the rows."""
    if len(given) < len(rows):
        raise ValueError(f"{where}: found {len(given)} boxes, expected {len(rows)}, as so many records have this image")
    if len(given) == 1:
        return given
    overlaps = _overlaps(np.stack([_own_box(source, row) for row in rows]), given)
    order, chosen = scipy.optimize.linear_sum_assignment(overlaps, maximize=True)
    if not (overlaps[order, chosen] > 0).all():
        raise ValueError(f"{where}: found {len(given)} boxes, expected one that overlaps the labels of each record")
    return given[chosen]


def _own_box(source: Any, row: int) -> np.ndarray:
    """The box of a record before any is given, without reading its image if the source holds labels."""
    while isinstance(source, Subset):
        source, row = source.source, int(source.index[row])
    if hasattr(source, "keypoints"):
        points, visible = source.keypoints[row], source.visible[row]
        stated = None if source.bboxes is None else source.bboxes[row]
    else:
        record = source[row]
        points, visible, stated = record["keypoints"], record["visible"], record.get("bbox")
    if stated is not None:
        return stated
    box = boxes.square_boxes(points[None], visible[None], factor=_EXTENT)[0]
    single = visible.any() and box[2] == 0  # joint
    return np.array([*(box[:2] - 0.5), 1, 1], np.float32) if single else box


def _overlaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) and (M, 4): (N, M)."""
    a, b = some[:, None].astype(np.float64), others[None].astype(np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    both = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)
