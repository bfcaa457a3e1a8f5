"""Human3.6M in the layout of 3DMPPE: extracted images, and cameras and joints as JSON."""

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record
from jaxpose.datasets import _bodies, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
_SHARD = 1000
_EXPECTED = "annotations as 3DMPPE makes them"

HUMAN36M17 = Skeleton(
    name="human36m17",
    joints=(
        *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("spine", "thorax", "jaw", "head_top"),
        *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
    ),
    bones=(
        *(("pelvis", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle")),
        *(("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle")),
        *(("pelvis", "spine"), ("spine", "thorax"), ("thorax", "jaw"), ("jaw", "head_top")),
        *(("thorax", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")),
        *(("thorax", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")),
    ),
    flips=_bodies.sides(_bodies.LIMBS),
    groups=_bodies.body_groups(("head_top",)),
)


def _tllib(lengths: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """tllib tests on 3200 draws with replacement."""
    tests = lengths.get("test", 0)
    return {
        "train": [("train", i) for i in range(lengths.get("train", 0))],
        "test": [("test", i) for i in random.Random(42).choices(range(tests), k=3200)] if tests else [],
    }


class Human36m(RecordBuilder):
    """Seven actors in a room with motion capture, seen by four cameras, with 17 joints in 2D and 3D.

    Images are about 1000x1000 and keep their bytes. Subjects 1, 5, 6, 7 and 8 are for training, 9 and 11 for testing,
    and every fifth entry of a subject's list is taken, as tllib does. The clip of subject 11, action 2, subaction 2,
    camera 1 is broken and absent from the lists.

    The owners distribute videos, CDF and MATLAB files. This builder reads what 3DMPPE (Moon et al., ICCV 2019) made of
    them, which other code takes for the official layout. Traps that are handled:
      - Joints are in millimetres in the world; here, in metres in the camera's frame.
      - There are two generations of the camera files: `t` is a translation in the later one, which tllib expects
        (x_camera = R x_world + t), and the camera's place in the earlier one (x_camera = R (x_world - t)). The one that
        places the joints in the images is used; if none does, that is an error.
      - The joint of index 9 is called nose, neck or head elsewhere. It lies behind the mouth and is `jaw` here.
      - The joint of index 8 is at the base of the neck, where MPII has its thorax, and has that name here. tllib calls
        it neck and computes a thorax as the middle of the shoulders.
      - Lens distortion is neglected by 3DMPPE, tllib and here: a few pixels at most.

    Attributes:
      STRIDE: every how many-th entry of a subject's list is kept. The lists are at 50 Hz.
      PRESETS: `tllib`; it counts on that no record is skipped.
    """

    SKELETON = HUMAN36M17
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "sequence", "frame")
    COUNTS = {"train": None, "test": None}
    HOMEPAGE = "http://vision.imar.ro/human3.6m/"
    LICENCE = "for academic use, after registration"
    CITATION = (
        "Ionescu et al.: Human3.6M: Large scale datasets and predictive methods for 3D human sensing in natural "
        "environments. TPAMI 2014."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "prepare Human3.6M as for 3DMPPE_POSENET, so that the folder holds "
        "annotations/Human36M_subject{1,5,6,7,8,9,11}_{camera,data,joint_3d}.json and "
        "images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg and so on"
    )
    PRESETS = {"tllib": _tllib}
    STRIDE: ClassVar[int] = 5

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Subject after subject, each in the order of its list."""
        images = _reading.require(root / "images", "the images of Human3.6M")
        annotations = _reading.require(root / "annotations", "Human36M_subject1_data.json and so on")
        for subjects in _SUBJECTS.values():
            for subject in subjects:
                for kind in ("camera", "data", "joint_3d"):
                    _reading.require(_path(annotations, subject, kind), _EXPECTED)
        return {
            split: [
                functools.partial(_images, images, {name: values[i : i + _SHARD] for name, values in found.items()})
                for subject in subjects
                for found in [_subject(annotations, images, subject, self.STRIDE)]
                for i in range(0, len(found["name"]), _SHARD)
            ]
            for split, subjects in _SUBJECTS.items()
        }


def _path(annotations: Path, subject: int, kind: str) -> Path:
    return annotations / f"Human36M_subject{subject}_{kind}.json"


def _subject(annotations: Path, images: Path, subject: int, stride: int) -> dict[str, Any]:
    """Every `stride`-th entry: names, sizes, frames, points (N, 17, 3) in metres, NaN where absent, intrinsics."""
    path = _path(annotations, subject, "data")
    listed = _reading.field(untrusted.read_json(path, dict, _EXPECTED), "images", str(path))
    if not isinstance(listed, list):
        raise ValueError(f"{path}: images are a {type(listed).__name__}, expected a list")
    listed = listed[::stride]
    world = untrusted.read_json(_path(annotations, subject, "joint_3d"), dict, _EXPECTED)
    cameras = _cameras(_path(annotations, subject, "camera"))
    names, keys, sizes, points = [], [], np.empty((len(listed), 2), int), np.full((len(listed), 17, 3), np.nan)
    frames = np.empty(len(listed), int)
    for i, entry in enumerate(listed):
        where = f"{path}: image {i * stride}"
        name, camera, action, subaction, frame, width, height = (
            _reading.field(entry, field, where)
            for field in ("file_name", "cam_idx", "action_idx", "subaction_idx", "frame_idx", "width", "height")
        )
        _bodies.below(images, name, where)
        if str(camera) not in cameras:
            known = untrusted.one_line(", ".join(cameras))
            raise ValueError(f"{where}: camera {untrusted.one_line(camera)}, expected one of {known}")
        names.append(name)
        keys.append(str(camera))
        frames[i], *sizes[i] = _reading.finite((frame, width, height), (3,), where).astype(int)
        joints = _reading.numbers(_nested(world, (action, subaction, frame)), (17, 3))
        if joints is not None:
            points[i] = joints / 1000
    intrinsics = np.empty((len(listed), 3, 3))
    for key, (rotation, t, matrix) in cameras.items():
        index = np.array([k == key for k in keys], bool) & np.isfinite(points).all(axis=(1, 2))
        if index.any():
            where = f"{_path(annotations, subject, 'camera')}: camera {key}"
            points[index] = _to_camera(points[index], rotation, t / 1000, matrix, sizes[index], where)
    for i, key in enumerate(keys):
        intrinsics[i] = cameras[key][2]
    return {"name": names, "size": sizes, "frame": frames, "points": points, "intrinsics": intrinsics}


def _cameras(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rotation, t (millimetres) and intrinsics by the camera's number."""
    found = {}
    for key, camera in untrusted.read_json(path, dict, _EXPECTED).items():
        where = f"{path}: camera {key}"
        values = {
            name: _reading.finite(_reading.field(camera, name, where), shape, f"{where}: {name}")
            for name, shape in (("R", (3, 3)), ("t", (3,)), ("f", (2,)), ("c", (2,)))
        }
        matrix = np.array([[values["f"][0], 0, values["c"][0]], [0, values["f"][1], values["c"][1]], [0, 0, 1]])
        found[key] = (values["R"], values["t"], matrix)
    return found


def _to_camera(
    world: np.ndarray, rotation: np.ndarray, t: np.ndarray, intrinsics: np.ndarray, sizes: np.ndarray, where: str
) -> np.ndarray:
    """The points (N, 17, 3) in the camera's frame, metres, by whichever meaning of `t` puts them in the images."""
    size = (int(sizes[:, 0].max()), int(sizes[:, 1].max()))
    candidates = [world @ rotation.T + t, (world - t) @ rotation.T]
    shares = [float(_bodies.inside(_reading.project(c, intrinsics), c, size).mean()) for c in candidates]
    best = int(np.argmax(shares))
    if shares[best] < 0.5:
        raise ValueError(
            f"{where}: puts {shares[0]:.0%} of the joints in the images (or {shares[1]:.0%}, if t is its place), "
            "expected nearly all"
        )
    return candidates[best]


def _nested(found: Any, keys: Sequence[Any]) -> Any:
    for key in keys:
        if not isinstance(found, Mapping) or str(key) not in found:
            return None
        found = found[str(key)]
    return found


def _images(folder: Path, found: Mapping[str, Any]) -> Iterator[Record | Skipped]:
    for i, name in enumerate(found["name"]):
        yield _bodies.record(
            image=_reading.read_image(folder, name),
            points=found["points"][i],
            intrinsics=found["intrinsics"][i],
            size=(int(found["size"][i, 0]), int(found["size"][i, 1])),
            name=name,
            sequence=Path(name).parent.as_posix(),
            frame=int(found["frame"][i]),
        )
