"""What the builders of bodies with 3D joints share: SMPL's skeleton, and records."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxpose.data import records
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record
from jaxpose.datasets import _reading

MIN_JOINTS = 6  # people with fewer joints in the image are left out

LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def sides(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(left, right) pairs of joint names."""
    return tuple((f"left_{name}", f"right_{name}") for name in names)


def body_groups(head: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The report groups of bodies: the six joints of the limbs, and the head."""
    return {name: (f"left_{name}", f"right_{name}") for name in LIMBS} | {"head": head}


# "left" and "right" change places in SURREAL, hence the order by sides. `shoulder` is the glenohumeral joint, `collar`
# the sternoclavicular one; `thorax` is SMPL's neck, which is at the base of the neck, as MPII's thorax; `head` is the
# pivot of the head at the base of the skull, neither its top nor the nose.
_SMPL = (
    *("pelvis", "A_hip", "B_hip", "spine1", "A_knee", "B_knee", "spine2", "A_ankle", "B_ankle", "spine3"),
    *("A_foot", "B_foot", "thorax", "A_collar", "B_collar", "head", "A_shoulder", "B_shoulder"),
    *("A_elbow", "B_elbow", "A_wrist", "B_wrist", "A_hand", "B_hand"),
)
_SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def smpl(name: str, first: str, second: str) -> Skeleton:
    """SMPL's 24 joints in SMPL's order.

    Args:
      name: of the skeleton.
      first: the side, "left" or "right", of the odd one in each pair; in SMPL itself this is the left one.
      second: the other side.
    """
    joints = tuple(joint.replace("A_", f"{first}_").replace("B_", f"{second}_") for joint in _SMPL)
    return Skeleton(
        name=name,
        joints=joints,
        bones=tuple(
            (joints[parent], joint) for joint, parent in zip(joints, _SMPL_PARENTS, strict=True) if parent >= 0
        ),
        flips=sides((*LIMBS, "collar", "foot", "hand")),
        groups=body_groups(("head",)),
    )


def inside(
    keypoints: Float[np.ndarray, "... k 2"], points: Float[np.ndarray, "... k 3"], size: tuple[int, int]
) -> np.ndarray:
    """Which joints are in front of the camera and in an image of this width and height, (..., K)."""
    limits = np.array(size, np.float64) - 0.5
    return (points[..., 2] > 0) & ((keypoints >= -0.5) & (keypoints < limits)).all(axis=-1)


_FAR = 1e9  # a number beyond is neither pixels nor metres


def record(
    *,
    image: bytes | Skipped,
    points: Float[np.ndarray, "k 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    name: str,
    sequence: str,
    frame: int,
    keypoints: Float[np.ndarray, "k 2"] | None = None,
) -> Record | Skipped:
    """The record of a body, or why it is left out.

    Joints in the image count as visible, since these data sets do not say what is hidden; those outside of it as
    occluded, those behind the camera as missing. The box is that of the labelled joints.

    Args:
      image: an encoded image, or why there is none.
      points: metres in the camera's frame.
      intrinsics: of the image.
      size: the image's width and height.
      name: for messages.
      sequence: the clip.
      frame: its number in the clip.
      keypoints: pixels; the projection of the points if None.
    """
    if isinstance(image, Skipped):
        return image
    if not (np.abs(points) < _FAR).all() or not points.any():
        return Skipped(name, "it has no 3D joints")
    keypoints = _reading.project(points, intrinsics) if keypoints is None else keypoints
    labelled = (points[:, 2] > 0) & (np.abs(keypoints) < _FAR).all(axis=1)
    seen = inside(keypoints, points, size) & labelled
    if seen.sum() < MIN_JOINTS:
        return Skipped(name, f"fewer than {MIN_JOINTS} joints are in the image")
    low, high = keypoints[labelled].min(axis=0), keypoints[labelled].max(axis=0)
    visible = np.where(seen, records.VISIBLE, records.OCCLUDED)
    return Record(
        image=image,
        keypoints=np.where(labelled[:, None], keypoints, 0).astype(np.float32),
        visible=np.where(labelled, visible, records.MISSING).astype(np.uint8),
        name=name,
        bbox=np.concatenate([low, high - low]).astype(np.float32),
        keypoints3d=points.astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
        sequence=sequence,
        frame=frame,
    )


def below(folder: Path, name: Any, where: str) -> Path:
    """The path of a file that an annotation names.

    Raises:
      ValueError: if the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\0" in name:
        raise ValueError(f"{where}: names the file {name!r}, expected one below {folder.name}/")
    return folder.joinpath(*parts)
