"""The real hands of Ge et al."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpose.data.formats import unpickle
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import BrokenImageError, Record
from jaxpose.datasets import _hands, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard, Skipped


class GeHands(RecordBuilder):
    """583 photographs of a left hand with 21 joints in 3D, squares cut out of 1280x720 and resized to 256x256.

    The owners' set of real images, which is for testing only (their rendered images are another set and not read).
    Joints are stored in centimetres in the camera frame; 2D joints are their projection with the camera of the
    photograph moved into the cut. The owners scale the principal point as if pixels' corners lay at whole numbers; here
    their centres do, which moves the joints by a quarter of a pixel. No joint is marked as occluded. Nothing states the
    side of the hand: all poses of the first 400 images bend the way a left hand does, and the owners' hand model is a
    left one. `frame` is the image's number; the first 400 images show one person in one scene.

    Source: the owners' code, github.com/3d-hand-shape/hand-graph-cnn.
    """

    SKELETON = HAND21
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "hand", "sequence", "frame")
    COUNTS = {"test": 583}
    HOMEPAGE = "https://github.com/3d-hand-shape/hand-graph-cnn"
    LICENCE = "for research, not commercial"
    CITATION = (
        "Ge, Ren, Li, Xue, Wang, Cai and Yuan: 3D hand shape and pose estimation from a single RGB image. CVPR 2019."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "take data/real_world_testset of the repository, which holds images/00000.jpg ..., params.mat and pose_gt.mat; "
        "or a folder with images/00000.jpg ... and labels.npz: ids (N,), pose_cm (N, 21, 3), bbox (N, 4), cam (N, 4)"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """All images."""
        _reading.require(root / "images", "the images 00000.jpg ...")
        labels = _read_npz(root / "labels.npz") if (root / "labels.npz").exists() else _read_mat(root)
        return {"test": [functools.partial(_shard, root, labels)]}


class _Labels(NamedTuple):
    names: Sequence[str]  # of the N images below the root
    joints: np.ndarray  # (N, 21, 3) centimetres
    boxes: np.ndarray  # (N, 4) x, y, width, height of the cut in the photograph
    cameras: np.ndarray  # (N, 4) fx, fy, u0, v0 of the photograph


def _read_npz(path: Path) -> _Labels:
    expected = "arrays of labels"
    arrays = unpickle.load_npz(path, names=(), optional=("ids", "pose_cm", "bbox", "cam"), expected=expected)
    if wrong := [name for name, value in arrays.items() if getattr(value, "dtype", np.dtype(object)).kind not in "fiu"]:
        raise ValueError(f"{path}: {wrong[0]} does not hold numbers, expected {expected}")
    ids = _array(path, arrays, "ids", ())
    return _Labels(
        [f"images/{int(i):05d}.jpg" for i in ids],
        _array(path, arrays, "pose_cm", (len(_hands.BASE_TO_TIP), 3), len(ids)),
        _array(path, arrays, "bbox", (4,), len(ids)),
        _array(path, arrays, "cam", (4,), len(ids)),
    )


def _read_mat(root: Path) -> _Labels:
    params, poses = root / "params.mat", root / "pose_gt.mat"
    found = _reading.load_mat(params, ("image_path", "bbox", "cam_param"))
    names = [str(np.ravel(name)[0]).strip() for name in np.ravel(found["image_path"])]
    return _Labels(
        names,
        _array(poses, _reading.load_mat(poses, ("pose_gt",)), "pose_gt", (len(_hands.BASE_TO_TIP), 3), len(names)),
        _array(params, found, "bbox", (4,), len(names)),
        _array(params, found, "cam_param", (4,), len(names)),
    )


def _array(
    path: Path, found: Mapping[str, Any], name: str, shape: tuple[int, ...], length: int | None = None
) -> np.ndarray:
    return _reading.array(_reading.field(found, name, str(path)), (length, *shape), f"{path}: {name}")


def _shard(root: Path, labels: _Labels) -> Iterator[Record | Skipped]:
    order = _hands.positions(_hands.BASE_TO_TIP)
    for name, joints, box, camera in zip(*labels, strict=True):
        image = _reading.read_image(root, name)
        if isinstance(image, Skipped):
            yield image
            continue
        try:
            width, height = _reading.image_size(image, name)
        except BrokenImageError:
            yield Skipped(name, "the image cannot be decoded")
            continue
        digits = Path(name).stem
        if not (digits.isascii() and digits.isdigit() and box[2] > 0):
            yield Skipped(name, "the image has no number or its box no width")
            continue
        yield _hands.hand_record(
            image=image,
            name=name,
            hand="left",
            keypoints3d=joints[order] / 100,
            intrinsics=_cut(camera, box, width),
            size=(width, height),
            sequence="real_world_testset",
            frame=int(digits),
        )


def _cut(camera: np.ndarray, box: np.ndarray, width: int) -> np.ndarray:
    """Intrinsics of the square `box` of the photograph when it is resized to `width` pixels, (3, 3)."""
    fx, fy, u0, v0 = camera
    factor = width / box[2]
    # Resizing keeps corners in place: pixels' centres lie half a pixel inside.
    centre = factor * (np.array([u0, v0]) - box[:2] + 0.5) - 0.5
    return np.array([[factor * fx, 0, centre[0]], [0, factor * fy, centre[1]], [0, 0, 1]])
