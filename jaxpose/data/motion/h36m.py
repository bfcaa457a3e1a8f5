"""Human3.6M: 3D motions, as VideoPose3D packs them or as the data set's own files."""

import os
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.data.motion import kinematics
from jaxpose.data.records import Motion

RATE = 50.0  # frames per second

# Names of the 32 joints. Some lie on each other: the data set repeats the pelvis, the thorax and the wrists.
JOINTS32 = (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "right_ball", "right_toe"),
    *("left_hip", "left_knee", "left_ankle", "left_ball", "left_toe"),
    *("pelvis_again", "spine", "thorax", "nose", "head_top"),
    *("left_collar", "left_shoulder", "left_elbow", "left_wrist"),
    *("left_wrist_again", "left_thumb", "left_hand", "left_hand_again"),
    *("right_collar", "right_shoulder", "right_elbow", "right_wrist"),
    *("right_wrist_again", "right_thumb", "right_hand", "right_hand_again"),
)
JOINTS17 = (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("spine", "thorax", "nose", "head_top"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
)


def read(
    file: str | os.PathLike,
    *,
    subjects: Collection[str] | None = None,
    joints: Sequence[str] = JOINTS17,
) -> list[Motion]:
    """The motions of `data_3d_h36m.npz`, in metres in the world's frame with z up, sorted by subject and action.

    Names are `<subject>/<action>`. The damaged recording `S11/Directions` is left out. The older names of
    actions, TakingPhoto and WalkingDog, become Photo and WalkDog.

    Args:
      file: an `.npz` whose `positions_3d` is {subject: {action: float (T, 32, 3)}}; 17 joints are also taken.
      subjects: which ones, such as S1; None: all.
      joints: which ones, see `JOINTS32`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it has another content, or names anything but arrays.
    """
    tree = unpickle.load_npz(file, names=("positions_3d",))["positions_3d"]
    motions = []
    for subject, action, positions in _clips(tree, subjects, f"{file}: positions_3d"):
        where = f"{file}: {subject}/{action}"
        if not isinstance(positions, np.ndarray) or positions.ndim != 3 or positions.shape[2] != 3:
            raise ValueError(f"{where}: found {_found(positions)}, expected (T, 32, 3)")
        motions.append(_motion(positions, joints, name=f"{subject}/{action}", subject=subject, where=where))
    return motions


def read_cdf(
    file: str | os.PathLike,
    *,
    joints: Sequence[str] = JOINTS17,
    subject: str = "",
) -> Motion:
    """One of the data set's own files, in metres; needs the package cdflib (`pip install jaxpose[h36m]`).

    Files below `D3_Positions` are in the world's frame with z up, those below `D3_Positions_mono` in their
    camera's frame. The name is `<subject>/<action>`, with actions named as in `read`.

    Args:
      file: a `.cdf` with the variable `Pose`, millimetres, shape (1, T, 96).
      joints: which ones, see `JOINTS32`.
      subject: who moves; empty: the folder `S<number>` that the file lies in.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if cdflib is not installed.
      ValueError: if the file has another content.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{file}: no such file, expected a .cdf")
    try:
        import cdflib
    except ImportError as error:
        raise ImportError(f"{file}: reading .cdf needs cdflib: pip install jaxpose[h36m]") from error
    with untrusted.reading(file, "a .cdf with the variable Pose"):
        pose = np.asarray(cdflib.CDF(path).varget("Pose"))
    if pose.ndim not in (2, 3) or pose.shape[-1] != 96 or (pose.ndim == 3 and len(pose) != 1):
        raise ValueError(f"{file}: Pose has shape {pose.shape}, expected (1, T, 96)")
    parts = [part for part in path.parts if part[:1] == "S" and part[1:].isdigit()]
    subject = subject or (parts[-1] if parts else "")
    name = "/".join(part for part in (subject, _action(path.stem)) if part)
    return _motion(pose.reshape(-1, 32, 3) / 1000, joints, name=name, subject=subject, where=str(file))


_DAMAGED = ("S11", "Directions")


def _clips(tree: Any, subjects: Collection[str] | None, where: str) -> list[tuple[str, str, Any]]:
    """Subject, action and content of every usable clip."""
    named = isinstance(tree, dict) and all(
        isinstance(subject, str) and isinstance(actions, dict) and all(isinstance(action, str) for action in actions)
        for subject, actions in tree.items()
    )
    if not named:
        raise ValueError(f"{where}: found {_found(tree)}, expected actions by subject")
    return [
        (subject, _action(action), content)
        for subject in _chosen(tree, subjects, where)
        for action, content in sorted(tree[subject].items())
        if (subject, action) != _DAMAGED
    ]


def _chosen(found: Collection[str], subjects: Collection[str] | None, where: str) -> list[str]:
    """The wanted subjects by number."""
    missing = sorted(set(subjects or ()) - set(found))
    if missing or not found:
        expected = ", ".join(missing) or "S1, S5, ..."
        raise ValueError(f"{where}: holds {', '.join(found) or 'no subject'}; expected {expected}")
    return sorted(found if subjects is None else set(subjects), key=lambda subject: (len(subject), subject))


def _action(name: str) -> str:
    """The action by its name in the later part of the data set; a camera after a dot stays."""
    return name.replace("TakingPhoto", "Photo").replace("WalkingDog", "WalkDog")


def _motion(positions: np.ndarray, joints: Sequence[str], *, name: str, subject: str, where: str) -> Motion:
    """The chosen joints of 17 or 32."""
    layouts = {len(layout): layout for layout in (JOINTS17, JOINTS32)}
    layout = layouts.get(positions.shape[1], ())
    numbers = positions.dtype.kind in "fiu"
    if not (numbers and layout and len(positions) and np.isfinite(positions).all()):
        raise ValueError(f"{where}: found {positions.shape}, expected finite numbers (T, 32, 3) or (T, 17, 3)")
    if missing := [joint for joint in joints if joint not in layout]:
        raise ValueError(f"{where}: has no joint {', '.join(missing)}; expected one of {', '.join(layout)}")
    chosen = positions[:, [layout.index(joint) for joint in joints]]
    return Motion(
        name=name, joints=tuple(joints), positions=kinematics.in_metres(chosen, where), rate=RATE, subject=subject
    )


def _found(value: Any) -> str:
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
