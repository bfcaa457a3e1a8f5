"""Forward kinematics of recorded motions, over all frames at once."""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxpose import untrusted

Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # turns points by 90 degrees about x


def forward(
    parents: Sequence[int],
    offsets: Float[np.ndarray, "#T K 3"],
    rotations: Float[np.ndarray, "T K 3 3"],
) -> Float[np.ndarray, "T K 3"]:
    """Where the joints of a tree are, in the units of the offsets.

    Args:
      parents: of each joint, before it in the order; -1 for a root.
      offsets: of each joint from its parent, in the parent's frame; of a root in the world.
      rotations: of each joint relative to its parent.

    Raises:
      ValueError: if a parent comes after its child.
    """
    frames, joints = rotations.shape[:2]
    positions = np.empty((frames, joints, 3))
    turned = np.empty((frames, joints, 3, 3))
    for joint, parent in enumerate(parents):
        if parent >= joint:
            raise ValueError(f"joint {joint} has parent {parent}, expected parents before children")
        if parent < 0:
            positions[:, joint] = offsets[:, joint]
            turned[:, joint] = rotations[:, joint]
        else:
            positions[:, joint] = positions[:, parent] + np.einsum(
                "tij,tj->ti", turned[:, parent], np.broadcast_to(offsets[:, joint], (frames, 3))
            )
            turned[:, joint] = turned[:, parent] @ rotations[:, joint]
    return positions


def in_metres(positions: Float[np.ndarray, "T K 3"], name: str) -> Float[np.ndarray, "T K 3"]:
    """The positions as float32.

    Raises:
      ValueError: if one is not finite.
    """
    with np.errstate(over="ignore"):  # what exceeds float32 is no position
        found = positions.astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: found joints at places that are not finite, expected metres")
    return found


def jumps_first(positions: Float[np.ndarray, "T K 3"]) -> bool:
    """Whether frame 0 is a pose of its own, such as a T-pose in front of a recording.

    That is so if the pose relative to the first joint changes after it by more than five times as much as between
    any two of the ten frames that follow, and by a centimetre per joint at least; positions are in metres.
    """
    pose = positions[:12] - positions[:12, :1]
    steps = np.linalg.norm(np.diff(pose, axis=0), axis=-1).mean(axis=-1)
    return len(steps) > 2 and bool(steps[0] > max(0.01, 5 * steps[1:].max()))


def content(file: str | os.PathLike | bytes, name: str) -> tuple[bytes, str]:
    """The bytes of a file or of a value that already holds them, and a name for messages.

    Raises:
      FileNotFoundError: if there is no such file.
    """
    if isinstance(file, bytes):
        return file, name or "motion"
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file}: no such file, expected a motion")
    return untrusted.read_file(file, "a motion"), name or os.path.splitext(os.path.basename(file))[0]


def check_size(frames: int, joints: int, characters: int) -> None:
    """That a motion is not far larger than the text that states it, by joints that do not move or empty frames.

    Raises:
      ValueError: if it is.
    """
    if frames * joints > max(characters, 2**20):
        raise ValueError(f"{frames} frames of {joints} joints in {characters} characters")
