"""MVHand, the multi-view hand data set."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import Record
from jaxpose.datasets import _hands, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard, Skipped

JOINTS = ("wrist", *(joint for finger in _hands.FINGERS for joint in finger), *_hands.THUMB)

# Focal lengths and principal point (fx, fy, cx, cy) of the colour cameras at 640x480, by serial number. The number of
# a view is a camera's place in this order. Source: the owners' toolkit, which has them in its code.
CAMERAS = {
    "840412062035": (619.598, 619.116, 325.345, 245.441),
    "840412062037": (615.85, 615.477, 316.062, 247.156),
    "840412062038": (619.475, 619.189, 313.715, 223.921),
    "840412062076": (615.665, 615.09, 306.514, 240.344),
}


class Mvhand(RecordBuilder):
    """Four people moving one hand before four RealSense cameras, 640x480 pixels, with 21 joints in 3D.

    Every recording is a folder named after its date, with one person. The owners do not divide the set; here the first
    half of the recordings by date is for training and the rest for testing, so nobody is in both. (POST has 42,000
    images for either and does not say which.) `sequence` is a recording and a view, `frame` the number of the image.

    Joints are stored in millimetres in the frame of one camera, the thumb last; a camera's own joints follow from its
    inverted pose. The owners' toolkit cuts them to whole millimetres and pixels, which is not done here. No joint is
    marked as occluded. All hands are right ones: the owners fit MANO's right hand. Depth and MANO's parameters are not
    read. `calib.pkl` is a pickle; it is read without running anything that it names.

    Source: the owners' toolkit, github.com/ShichengChen/multiviewDataset.
    """

    SKELETON = HAND21
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "hand", "sequence", "frame")
    COUNTS = {"train": None, "test": None}
    HOMEPAGE = "https://github.com/ShichengChen/multiviewDataset"
    LICENCE = "none stated"
    CITATION = (
        "Yu, Yang, Chen and Yao: Local and global point cloud reconstruction for 3D hand pose estimation. BMVC 2021."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the recordings side by side; each folder, such as 7-14-1-2, holds rgb/00000_0.jpg ..., calib.pkl and "
        "mlresults/7-14-1-2-joints.npy"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Recording after recording, view after view."""
        recordings = sorted({path.parent for path in root.glob("*/calib.pkl")}, key=_date)
        if not recordings:
            raise FileNotFoundError(f"{root}: found no recording, expected folders with calib.pkl, such as 7-14-1-2")
        middle = (len(recordings) + 1) // 2
        parts = {"train": recordings[:middle], "test": recordings[middle:]}
        return {split: [s for path in part for s in _recording(path)] for split, part in parts.items() if part}


def _date(recording: Path) -> tuple[list[int], str]:
    """Sorts 9-25 before 10-1."""
    return [int(number) for number in re.findall(r"[0-9]+", recording.name)], recording.name


def _recording(path: Path) -> list[Shard]:
    """The shards of one recording."""
    _reading.require(path / "rgb", "the images rgb/00000_0.jpg ...")
    joints = _joints(path / "mlresults" / f"{path.name}-joints.npy")
    poses = _poses(path / "calib.pkl")
    found = []
    for view, (serial, camera) in enumerate(CAMERAS.items()):
        seen = (joints @ np.linalg.inv(poses[serial]).T)[..., :3] / 1000
        seen = seen[:, _hands.positions(JOINTS)]
        frames = _reading.in_parts(range(len(seen)))
        found += [functools.partial(_shard, path, view, part.start, seen[part], camera) for part in frames]
    return found


def _joints(path: Path) -> np.ndarray:
    """Homogeneous joints in millimetres, float64 (N, 21, 4)."""
    _reading.require(path, f"{len(JOINTS)} joints of each frame")
    found = unpickle.load_npy(untrusted.read_file(path, "an array of joints"), where=str(path))
    if found.dtype.kind not in "fiu" or found.shape[1:] not in ((len(JOINTS), 4), (len(JOINTS), 4, 1)):
        raise ValueError(f"{path}: found {found.dtype} {found.shape}, expected numbers of shape (N, 21, 4)")
    return found.reshape(len(found), len(JOINTS), 4).astype(np.float64)


def _poses(path: Path) -> dict[str, np.ndarray]:
    """From each camera's frame to that of the joints, (4, 4) in millimetres, by serial number."""
    found = unpickle.load(untrusted.read_file(path, "the cameras' poses"), where=str(path))
    if not isinstance(found, dict) or not set(CAMERAS) <= set(found):
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path}: found {keys}, expected poses of the cameras {', '.join(CAMERAS)}")
    poses = {serial: _reading.array(found[serial], (4, 4), f"{path}: {serial}") for serial in CAMERAS}
    for serial, pose in poses.items():
        rotation = pose[:3, :3]
        if not np.isfinite(pose).all() or not np.allclose(rotation @ rotation.T, np.eye(3), atol=0.01):
            raise ValueError(f"{path}: the pose of {serial} is no rotation and shift, expected a rigid 4x4 matrix")
    return poses


def _shard(
    path: Path, view: int, start: int, joints: np.ndarray, camera: tuple[float, float, float, float]
) -> Iterator[Record | Skipped]:
    fx, fy, cx, cy = camera
    intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    for frame, keypoints3d in enumerate(joints, start):
        name = f"{path.name}/rgb/{frame:05d}_{view}.jpg"
        yield _hands.hand_record(
            image=_reading.read_image(path.parent, name),
            name=name,
            hand="right",
            keypoints3d=keypoints3d,
            intrinsics=intrinsics,
            size=(640, 480),
            sequence=f"{path.name}_{view}",
            frame=frame,
        )
