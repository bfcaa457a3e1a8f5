"""AMASS: motions of the SMPL family of body models."""

import os
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from jaxpose.data.formats import unpickle
from jaxpose.data.motion import kinematics
from jaxpose.data.records import Motion

JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)


def read(
    file: str | os.PathLike,
    *,
    model: str | os.PathLike | None = None,
    subject: str = "",
) -> Motion:
    """The 22 body joints of a motion, in metres with z up.

    A body's bone lengths follow from its shape and a body model, which its makers do not let others distribute.
    With `model` they are the subject's own. Without, they are `APPROXIMATE_REST`, one adult body of 1.70 m for
    everyone: then directions of bones are right up to the difference between the two resting poses, lengths
    are not the subject's, and feet may sink into or float above the ground by some centimetres.

    Args:
      file: an `.npz` with `poses` (T, 66 or more), axis and angle of each joint in radians, `trans` (T, 3) metres,
        and `mocap_framerate` or `mocap_frame_rate`; with a model also `betas` and `gender`.
      model: a body model as an `.npz` with `v_template` (V, 3), `shapedirs` (V, 3, S) and `J_regressor` (J, V), or a
        folder with `<gender>/model.npz`.
      subject: who moves.

    Raises:
      FileNotFoundError: if there is no such file or model.
      ValueError: if an array is missing or has another shape. Body models as pickles must be converted.
    """
    poses, trans, rate, body = _motion(file)
    rest = APPROXIMATE_REST if model is None else rest_joints(_model(model, body), body.get("betas"))
    with np.errstate(all="ignore"):  # checked in the end
        positions = kinematics.in_metres(joint_positions(poses, rest, trans), str(file))
    return Motion(
        name=os.path.splitext(os.path.basename(file))[0],
        joints=JOINTS,
        positions=positions,
        rate=rate,
        subject=subject,
    )


def joint_positions(poses: np.ndarray, rest: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """The body joints of SMPL, in the frame of `trans`, shape (T, 22, 3).

    Args:
      poses: axis times angle of each joint relative to its parent, radians, shape (T, 66 or more).
      rest: the joints where all angles are zero, metres, shape (22, 3).
      trans: moves the body, whose root rests at `rest[0]`, shape (T, 3).
    """
    count = len(JOINTS)
    turns = poses[:, : 3 * count].reshape(-1, 3)
    rotations = Rotation.from_rotvec(turns).as_matrix().reshape(-1, count, 3, 3)
    offsets = np.concatenate([rest[:1], rest[1:] - rest[list(PARENTS[1:])]])
    moved = np.tile(offsets, (len(poses), 1, 1))
    moved[:, 0] += trans
    return kinematics.forward(PARENTS, moved, rotations)


def rest_joints(model: str | os.PathLike, betas: np.ndarray | None) -> np.ndarray:
    """The 22 body joints of a shape in the model's resting pose, metres with y up, shape (22, 3).

    Args:
      model: a body model, see `read`.
      betas: shape coefficients; those beyond the model's are ignored. None: the mean shape.

    Raises:
      FileNotFoundError: if there is no such model.
      ValueError: if it lacks an array.
    """
    arrays = _load(model, ("v_template", "shapedirs", "J_regressor"))
    template, regressor = arrays["v_template"], arrays["J_regressor"]
    directions = arrays["shapedirs"]
    fits = template.ndim == 2 and template.shape[1] == 3 and directions.ndim == 3
    if not fits or directions.shape[:2] != template.shape or regressor.shape[1:] != template.shape[:1]:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{model}: found {found}; expected (V, 3), (V, 3, S) and (J, V)")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{model}: holds numbers that are not finite")
    if len(regressor) < len(JOINTS):
        raise ValueError(f"{model}: J_regressor has {len(regressor)} joints, expected at least {len(JOINTS)}")
    count = 0 if betas is None else min(len(betas), directions.shape[2])
    vertices = template + (directions[:, :, :count] @ betas[:count] if betas is not None else 0)
    return (regressor @ vertices)[: len(JOINTS)]


def _motion(file: str | os.PathLike) -> tuple[np.ndarray, np.ndarray, float, Mapping[str, np.ndarray]]:
    """Poses, trans, frames per second, and what describes the body."""
    arrays = _load(file, ("poses", "trans"), ("mocap_framerate", "mocap_frame_rate", "betas", "gender"))
    poses, trans = arrays["poses"], arrays["trans"]
    if poses.ndim != 2 or poses.shape[1] < 3 * len(JOINTS) or trans.shape != (len(poses), 3) or not len(poses):
        raise ValueError(
            f"{file}: poses {poses.shape}, trans {trans.shape}; expected (T, {3 * len(JOINTS)} or more) and (T, 3)"
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise ValueError(f"{file}: poses or trans hold numbers that are not finite")
    rate = arrays.get("mocap_framerate", arrays.get("mocap_frame_rate"))
    if rate is None or rate.size != 1 or not 0 < rate.item() < np.inf:
        raise ValueError(f"{file}: frame rate {rate}, expected mocap_framerate or mocap_frame_rate above 0")
    betas = arrays.get("betas", np.empty(0))
    if betas.ndim != 1 or not np.isfinite(betas).all():
        raise ValueError(f"{file}: betas {betas.shape}, expected finite numbers (S,)")
    return poses.astype(np.float64), trans.astype(np.float64), float(rate.item()), arrays


_GENDERS = ("female", "male", "neutral")


def _model(model: str | os.PathLike, body: Mapping[str, np.ndarray]) -> str | os.PathLike:
    if not os.path.isdir(model):
        return model
    found = body.get("gender", np.array("neutral"))
    gender = found.item() if found.size == 1 else ""
    gender = gender.decode(errors="replace") if isinstance(gender, bytes) else gender
    if gender not in _GENDERS:  # it becomes part of a path
        raise ValueError(f"{model}: gender {gender!r}, expected one of {', '.join(_GENDERS)}")
    return os.path.join(model, gender, "model.npz")


def _load(file: str | os.PathLike, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Arrays of an `.npz`, never of objects."""
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file}: no such file, expected an .npz")
    expected = f"an .npz with {', '.join(names)}"
    found = unpickle.load_npz(file, names=names, optional=optional, expected=expected)
    wrong = [
        name
        for name, array in found.items()
        if not isinstance(array, np.ndarray) or (name != "gender" and array.dtype.kind not in "fiu")
    ]
    if wrong:
        raise ValueError(f"{file}: {wrong[0]} does not hold numbers, expected {expected}")
    return found


def _approximate_rest() -> np.ndarray:
    """An adult of 1.70 m in a T-pose, y up and x to the left, by round proportions of the human body."""
    offsets = {
        "left_hip": (0.07, -0.09, 0),
        "left_knee": (0.02, -0.40, 0),
        "left_ankle": (0, -0.40, -0.03),
        "left_foot": (0.03, -0.06, 0.13),
        "spine1": (0, 0.11, -0.02),
        "spine2": (0, 0.13, 0.01),
        "spine3": (0, 0.06, 0.02),
        "neck": (0, 0.21, -0.04),
        "left_collar": (0.08, 0.12, -0.02),
        "head": (0, 0.09, 0.04),
        "left_shoulder": (0.10, 0.04, -0.01),
        "left_elbow": (0.27, -0.01, -0.02),
        "left_wrist": (0.26, 0.01, 0),
    }
    offsets |= {name.replace("left", "right"): (-x, y, z) for name, (x, y, z) in offsets.items() if "left" in name}
    rest = np.zeros((len(JOINTS), 3))
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            rest[joint] = rest[parent] + offsets[JOINTS[joint]]
    return rest


APPROXIMATE_REST = _approximate_rest()  # metres, shape (22, 3); made up from proportions, not from a body model
