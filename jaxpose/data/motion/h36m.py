"""Human3.6M: 3D motions, their 2D projections, and the photos of its simplified release.

The motions come as VideoPose3D packs them or as the data set's own files.
"""

import dataclasses
import os
import pathlib
import posixpath
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats import matlab, unpickle
from jaxpose.data.formats.files import Files, decode_image
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.motion import kinematics
from jaxpose.data.records import Motion

RATE = 50.0  # frames per second
CAMERAS = ("54138969", "55011271", "58860488", "60457274")

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

SKELETON32 = Skeleton(
    name="h36m32",
    joints=JOINTS32,
    bones=(
        *(("pelvis", "spine"), ("spine", "thorax"), ("thorax", "nose"), ("nose", "head_top")),
        *(
            (a.format(side), b.format(side))
            for side in ("left", "right")
            for a, b in (
                *(("pelvis", "{}_hip"), ("{}_hip", "{}_knee"), ("{}_knee", "{}_ankle"), ("{}_ankle", "{}_ball")),
                *(("thorax", "{}_shoulder"), ("{}_shoulder", "{}_elbow"), ("{}_elbow", "{}_wrist")),
            )
        ),
    ),
    flips=tuple((joint, joint.replace("left", "right")) for joint in JOINTS32 if joint.startswith("left")),
)

# The simplified release: KeypointGAN's subjects and actions.
SIMPLIFIED_TRAIN = ("S1", "S5", "S6", "S7", "S8", "S9")
SIMPLIFIED_TEST = ("S11",)
SIMPLIFIED_ACTIONS = ("Directions", "Discussion", "Greeting", "Posing", "Waiting", "Walking")


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


def read_2d(
    file: str | os.PathLike,
    *,
    subjects: Collection[str] | None = None,
) -> dict[tuple[str, str, str], np.ndarray]:
    """The points of `data_2d_h36m_gt.npz` or of detections in its layout: pixels by subject, action and camera.

    Every value is float32 (T, 17, 2) in the order of `JOINTS17`. Actions are named and left out as in `read`. T may
    differ by a few frames between cameras and from the 3D motion: cut to the shortest.

    Args:
      file: an `.npz` whose `positions_2d` is {subject: {action: [one float (T, 17, 2) per camera]}}.
      subjects: which ones, such as S1; None: all.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it has another content, or names anything but arrays.
    """
    tree = unpickle.load_npz(file, names=("positions_2d",))["positions_2d"]
    points = {}
    for subject, action, views in _clips(tree, subjects, f"{file}: positions_2d"):
        where = f"{file}: {subject}/{action}"
        if not isinstance(views, list | tuple | np.ndarray) or len(views) != len(CAMERAS):
            raise ValueError(f"{where}: found {_found(views)}, expected the views of {len(CAMERAS)} cameras")
        for camera, view in zip(CAMERAS, views, strict=True):
            shape = np.shape(view) if isinstance(view, np.ndarray) else ()
            if len(shape) != 3 or shape[1:] != (len(JOINTS17), 2) or view.dtype.kind not in "fiu":
                raise ValueError(f"{where}: camera {camera}: found {_found(view)}, expected (T, 17, 2)")
            points[subject, action, camera] = view.astype(np.float32)
    return points


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


def read_folder(
    folder: str | os.PathLike,
    *,
    subjects: Collection[str] | None = None,
    joints: Sequence[str] = JOINTS17,
) -> list[Motion]:
    """The motions of `S*/MyPoseFeatures/D3_Positions/*.cdf`, sorted by subject and action; see `read_cdf`.

    The damaged recording `S11/Directions` is left out.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it or one of `subjects` holds no motion, or a file has another content.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: no such folder, expected the subjects S1, S5, ...")
    files: dict[str, list[pathlib.Path]] = {}
    for file in sorted(pathlib.Path(folder).glob("S*/MyPoseFeatures/D3_Positions/*.cdf")):
        files.setdefault(file.relative_to(folder).parts[0], []).append(file)
    return [
        read_cdf(file, joints=joints, subject=subject)
        for subject in _chosen(files, subjects, str(folder))
        for file in files[subject]
        if (subject, file.stem) != _DAMAGED
    ]


def read_simplified(
    path: str | os.PathLike,
    *,
    subjects: Collection[str] = SIMPLIFIED_TRAIN,
    actions: Collection[str] = SIMPLIFIED_ACTIONS,
    part: tuple[float, float] = (0.0, 1.0),
) -> "SimplifiedSource":
    """The cropped photos of Simplified Human3.6M with 32 joints, one person each, sorted by clip and frame.

    Every joint counts as visible. The person's mask is the record's `segmentation`: published results multiply
    the image by it.

    Args:
      path: a folder or tar that holds, at any depth, `<subject>/WithBackground/<action>.<camera>/<frame>.jpg`, and
        in place of `WithBackground` a folder `BackgroudMask` (so spelt) of `.png` and `Landmarks` of `.mat` with
        `keypoints_2d` (32, 2): row and column from 0 to 1 over the image.
      subjects: which ones.
      actions: which ones; a number after the action, as in `Walking 1`, does not count.
      part: from which to which fraction of every clip. KeypointGAN takes images from (0, 0.5) and unpaired poses
        from (0.5, 1).

    Raises:
      FileNotFoundError: if there is no such folder or tar.
      ValueError: if none of the images exists, or a fraction lies outside of 0 to 1.

    Source: what readers of KeypointGAN's release expect; the order of row and column is inferred from two of them.
    """
    if not 0 <= part[0] < part[1] <= 1:
        raise ValueError(f"part {part}, expected two growing fractions from 0 to 1")
    files = Files(path)
    clips: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in files.names:
        subject, kind, clip, frame = ("", "", "", *name.split("/"))[-4:]
        stem, suffix = posixpath.splitext(frame)
        action = clip.split(".")[0].split(" ")[0]
        wanted = kind == "WithBackground" and subject in subjects and action in actions
        if wanted and suffix == ".jpg" and stem.isdigit():
            clips.setdefault((subject, clip), []).append((int(stem), name))
    chosen = []
    for key in sorted(clips, key=lambda key: (len(key[0]), key)):
        frames = sorted(clips[key])
        first, last = (int(len(frames) * fraction) for fraction in part)
        chosen += [("/".join(key), frame, name) for frame, name in frames[first:last]]
    if not chosen:
        found = f"subjects {', '.join(subjects)} and actions {', '.join(actions)}"
        raise ValueError(f"{path}: no image <subject>/WithBackground/<action>.<camera>/<frame>.jpg of {found}")
    return SimplifiedSource(files=files, items=tuple(chosen))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SimplifiedSource:
    """A source (`records.Source`) that reads each label with its image.

    Attributes:
      files: holds the images, masks and labels.
      items: clip, number of the frame and image of each record.
    """

    files: Files
    items: tuple[tuple[str, int, str], ...]

    @property
    def skeleton(self) -> Skeleton:
        """The 32 joints."""
        return SKELETON32

    @property
    def labelled(self) -> bool:
        """True."""
        return True

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> records.Record:
        sequence, frame, name = self.items[index]
        stem = posixpath.splitext(name)[0]
        mask, label = (
            stem.replace("WithBackground", folder) + suffix
            for folder, suffix in (("BackgroudMask", ".png"), ("Landmarks", ".mat"))
        )
        image = self.files.read(name)
        try:
            height, width = decode_image(image, name).shape[:2]
        except records.BrokenImageError:  # the pipeline, which decodes it again, skips and counts it
            height, width = 0, 0
        fractions = _landmarks(self.files.read(label), f"{self.files.path}: {label}")
        record = records.Record(
            image=image,
            keypoints=(fractions[:, ::-1] * (width, height) - 0.5).astype(np.float32),
            visible=np.full(len(JOINTS32), records.VISIBLE, dtype=np.uint8),
            name=name,
            sequence=sequence,
            frame=frame,
        )
        if mask in self.files:
            record["segmentation"] = self.files.read(mask)
        return record


def _landmarks(data: bytes, where: str) -> np.ndarray:
    """Row and column of the joints as fractions of the image, shape (32, 2)."""
    variables = matlab.load(data, names=["keypoints_2d"], where=where, expected="a .mat with keypoints_2d")
    found = np.asarray(variables.get("keypoints_2d"))
    if found.dtype.kind not in "fiu" or found.shape != (len(JOINTS32), 2) or not np.isfinite(found).all():
        raise ValueError(f"{where}: keypoints_2d has shape {found.shape}, expected finite numbers (32, 2)")
    return found.astype(np.float64)


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
