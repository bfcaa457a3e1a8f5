"""What the builders of hand data sets share."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import Record

SHARD_SIZE = 1000  # records

THUMB = ("thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip")
FINGERS = tuple(tuple(f"{f}_{j}" for j in ("mcp", "pip", "dip", "tip")) for f in ("index", "middle", "ring", "little"))
BASE_TO_TIP = ("wrist", *THUMB, *(joint for finger in FINGERS for joint in finger))  # the order of most data sets


_FAR = 1e9  # a number beyond is neither pixels nor metres


def hand_record(
    *,
    image: bytes,
    name: str,
    hand: str,
    keypoints3d: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int] | None = None,
    keypoints: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> Record | Skipped:
    """A record of one hand, or why there is none.

    A joint that is not finite, lies behind the camera or outside the image is missing; its 3D position is kept if it
    is finite. The box is the tight one of the other joints.

    Args:
      image: the encoded file.
      name: of the record.
      hand: "left" or "right".
      keypoints3d: (21, 3) metres in the camera frame, in the order of `HAND21`.
      intrinsics: (3, 3) of the image.
      size: width and height of the image; None where all joints are known to lie inside.
      keypoints: (21, 2) pixels; by default the projection.
      seen: (21,) whether a joint is visible and not only labelled; by default all are.
    """
    points = project(keypoints3d, intrinsics) if keypoints is None else np.asarray(keypoints, np.float64)
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
    )


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of points (..., 3) in the camera frame; not finite at zero depth."""
    with np.errstate(all="ignore"):
        homogeneous = points @ np.swapaxes(intrinsics, -1, -2)
        return homogeneous[..., :2] / homogeneous[..., 2:]


def positions(joints: Sequence[str]) -> np.ndarray:
    """Where a data set with these joints keeps those of `HAND21`, (21,)."""
    return np.array([joints.index(joint) for joint in HAND21.joints])


def read_image(root: Path, name: str) -> bytes | Skipped:
    """The bytes of an image below `root`, which a name from a label file cannot leave."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return Skipped(name, "the image's name leaves the data set's folder")
    try:
        return untrusted.read_file(root / name, "an image")
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return Skipped(name, "the image is missing")


def require(path: Path, what: str) -> Path:
    """The path, or FileNotFoundError that says what was expected there."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder, expected {what}")
    return path


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file.

    Raises:
      FileNotFoundError: saying what was expected there.
      ValueError: if it is no JSON.
    """
    data = untrusted.read_file(require(path, what), what)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error}), expected {what}") from None


def array(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """Numbers as float64 of the shape, in which None stands for any length.

    Raises:
      ValueError: naming `where`.
    """
    try:
        found = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where}: {error}, expected numbers of shape {shape}") from None
    if found.ndim != len(shape) or any(e not in (None, f) for f, e in zip(found.shape, shape, strict=True)):
        raise ValueError(f"{where}: found shape {found.shape}, expected {shape}")
    return found


def tllib_division(length: int) -> dict[str, list[int]]:
    """tllib's random division of a list: shuffled with seed 42, then the first fifth, at most 3,200, is for testing.

    Python's generator keeps its sequence between versions, so the division is the released one bit for bit.
    Source: Transfer-Learning-Library at c4aa59e, `Hand3DStudio` and `FreiHand`.
    """
    shuffled = list(range(length))
    random.Random(42).shuffle(shuffled)
    tests = min(int(length * 0.2), 3200)
    return {"train": shuffled[tests:], "test": shuffled[:tests]}


def spans(length: int, size: int = SHARD_SIZE) -> list[tuple[int, int]]:
    """Starts and stops of the shards of a list."""
    return [(start, min(start + size, length)) for start in range(0, length, size)]
