"""MPI-INF-3DHP: the training set in a green studio, and the test set in the studio and outdoors."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import BrokenImageError, Record
from jaxpose.datasets import _bodies, _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_SEQUENCES = tuple(f"S{subject}/Seq{sequence}" for subject in range(1, 9) for sequence in (1, 2))
_TESTS = tuple(f"TS{i}" for i in range(1, 7))
_TOLERANCE = 5.0  # pixels between 2D joints and the projection of 3D joints, in the median
# Rows from, up to, whose left and right change places, by all that is known; Source: code of Véges and Lőrincz.
_SWAPPED = {"S4/Seq2": (3759, 5853)}

# `head` is the base of the skull, `thorax` what the owners call neck, at its base, `spine` the joint that Human3.6M has
# too; the other joints of the spine are not SMPL's and are spelled otherwise.
THREEDHP28 = Skeleton(
    name="mpi_inf_3dhp28",
    joints=(
        *("spine_3", "spine_4", "spine_2", "spine", "pelvis", "thorax", "head", "head_top"),
        *("left_clavicle", "left_shoulder", "left_elbow", "left_wrist", "left_hand"),
        *("right_clavicle", "right_shoulder", "right_elbow", "right_wrist", "right_hand"),
        *("left_hip", "left_knee", "left_ankle", "left_foot", "left_toe"),
        *("right_hip", "right_knee", "right_ankle", "right_foot", "right_toe"),
    ),
    bones=(
        *(("pelvis", "spine"), ("spine", "spine_2"), ("spine_2", "spine_3"), ("spine_3", "spine_4")),
        *(("spine_4", "thorax"), ("thorax", "head"), ("head", "head_top")),
        *(
            (f"{side}_{a}" if a not in ("thorax", "pelvis") else a, f"{side}_{b}")
            for side in ("left", "right")
            for a, b in (
                *(("thorax", "clavicle"), ("clavicle", "shoulder"), ("shoulder", "elbow"), ("elbow", "wrist")),
                *(("wrist", "hand"), ("pelvis", "hip"), ("hip", "knee"), ("knee", "ankle")),
                *(("ankle", "foot"), ("foot", "toe")),
            )
        ),
    ),
    flips=_bodies.sides((*_bodies.LIMBS, "clavicle", "hand", "foot", "toe")),
    groups=_bodies.body_groups(("head_top",)),
)

_LIMB_BONES = tuple(
    (a if a in ("thorax", "pelvis") else f"{side}_{a}", f"{side}_{b}")
    for side in ("right", "left")
    for a, b in (
        *(("thorax", "shoulder"), ("shoulder", "elbow"), ("elbow", "wrist")),
        *(("pelvis", "hip"), ("hip", "knee"), ("knee", "ankle")),
    )
)
THREEDHP17 = Skeleton(
    name="mpi_inf_3dhp17",
    joints=(
        *("head_top", "thorax", "right_shoulder", "right_elbow", "right_wrist"),
        *("left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle"),
        *("left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head"),
    ),
    bones=(*_LIMB_BONES, ("pelvis", "spine"), ("spine", "thorax"), ("thorax", "head"), ("head", "head_top")),
    flips=_bodies.sides(_bodies.LIMBS),
    groups=_bodies.body_groups(("head_top",)),
)


class MpiInf3dhp(RecordBuilder):
    """Eight actors in a green studio, in 16 recordings of about 6,000 to 13,000 frames by 14 cameras, with 28 joints.

    Images are 2048x2048, at 25 or 50 Hz. Frames that lie as JPEG files keep their bytes; those of the owners' AVI files
    are re-encoded as JPEG of quality 95. Everything is for training: the test set is `MpiInf3dhpTest`, and
    validation on a subject or a recording is chosen at read time by `sequence`, which begins with `S1/Seq1/`.

    3D joints are `annot3`: millimetres in the frame of each camera already, here metres; the calibration's
    extrinsics do not apply. `univ_annot3`, scaled to one size of skeleton, is not used, since it does not project
    to the 2D joints. Intrinsics are those of `camera.calibration`, whose projection of the 3D joints is checked.
    Traps that are handled:
      - Annotations count frames from 0, files of extracted frames from 1.
      - The last frames of some videos are missing (S6/Seq2 camera 2, S3/Seq1): those are left out and counted.
      - In S4/Seq2, frames 3759 to 5852 have left and right swapped, according to published code; they are left out.

    Attributes:
      CAMERAS: the cameras that are read; by default the eight of VNect, which are not on the ceiling. Those without
        a video or images are passed over.
      STRIDE: every how many-th frame is kept.
    """

    SKELETON = THREEDHP28
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "sequence", "frame")
    COUNTS = {"train": None}
    HOMEPAGE = "https://vcai.mpi-inf.mpg.de/3dhp-dataset/"
    LICENCE = "for non-commercial research"
    CITATION = "Mehta et al.: Monocular 3D human pose estimation in the wild using improved CNN supervision. 3DV 2017."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run the owners' get_dataset.sh, so that the folder holds S1/Seq1/annot.mat, S1/Seq1/camera.calibration and "
        "S1/Seq1/imageSequence/video_0.avi and so on for S1 to S8, Seq1 and Seq2; instead of a video, its frames may "
        "lie at imageSequence/img_0_000001.jpg or imageFrames/video_0/frame_000001.jpg"
    )
    CAMERAS: ClassVar[tuple[int, ...]] = (0, 1, 2, 4, 5, 6, 7, 8)
    STRIDE: ClassVar[int] = 10

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """A shard is a recording by one camera; recordings in order, then cameras."""
        present = [sequence for sequence in _SEQUENCES if (root / sequence).is_dir()]
        if not present:
            raise FileNotFoundError(f"{root}: holds no S1/Seq1 to S8/Seq2")
        found = [shard for sequence in present for shard in self._recording(root, sequence)]
        if not found:
            raise FileNotFoundError(
                f"{root / present[0]}: holds no imageSequence/video_{self.CAMERAS[0]}.avi or images"
            )
        return {"train": found}

    def _recording(self, root: Path, sequence: str) -> Iterator[Shard]:
        folder = root / sequence
        pixels, points = _annotations(folder / "annot.mat", self.CAMERAS, self.STRIDE)
        cameras = _calibration(folder / "camera.calibration")
        for camera in self.CAMERAS:
            if not (images := _camera_images(folder, camera)):
                continue
            if camera not in cameras:
                raise ValueError(f"{folder / 'camera.calibration'}: holds no camera {camera}")
            intrinsics = cameras[camera]
            _check(pixels[camera], points[camera], intrinsics, f"{folder}: camera {camera}")
            clip = f"{sequence}/{camera}"
            yield functools.partial(
                _recorded, images, clip, self.STRIDE, pixels[camera], points[camera], intrinsics, _SWAPPED.get(sequence)
            )


class MpiInf3dhpTest(RecordBuilder):
    """Six actors, in two recordings each in the studio with and without its green screen and outdoors, 17 joints.

    Images are 2048x2048 (TS1 to TS4) or 1920x1080 (TS5, TS6) and keep their bytes. Only the owners' valid frames
    are there. 3D joints are `annot3`, in metres instead of millimetres, which project to the 2D joints. The
    owners' scores are computed with `univ_annot3`, see `MpiInf3dhpTestUniversal`. The labels come without
    intrinsics: they are fitted to the 2D and 3D joints of each recording. Reading needs `h5py`.
    """

    SKELETON = THREEDHP17
    FIELDS = MpiInf3dhp.FIELDS
    COUNTS = {"test": 2929}
    HOMEPAGE = MpiInf3dhp.HOMEPAGE
    LICENCE = MpiInf3dhp.LICENCE
    CITATION = MpiInf3dhp.CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run the owners' get_testset.sh, so that the folder holds mpi_inf_3dhp_test_set/TS1/annot_data.mat and "
        "mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg and so on for TS1 to TS6"
    )
    JOINTS3D: ClassVar[str] = "annot3"

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """A shard is a recording, TS1 to TS6."""
        base = _reading.require(root / "mpi_inf_3dhp_test_set", "TS1 to TS6")
        found = []
        for test in _TESTS:
            images = _reading.require(base / test / "imageSequence", "img_000001.jpg and so on")
            labels = _test_annotations(base / test / "annot_data.mat")
            rows = np.flatnonzero(labels["valid_frame"])
            where = f"{base / test}: annot2 and annot3"
            intrinsics = _fit_intrinsics(labels["annot2"][rows], labels["annot3"][rows], where)
            found.append(
                functools.partial(
                    _tested, images, test, rows, labels["annot2"][rows], labels[self.JOINTS3D][rows], intrinsics
                )
            )
        return {"test": found}


class MpiInf3dhpTestUniversal(MpiInf3dhpTest):
    """The test set with 3D joints scaled to one size of skeleton, on which scores are published. See `MpiInf3dhpTest`.

    2D joints and intrinsics are the same as there, so the 3D joints do not project to the 2D joints.
    """

    JOINTS3D = "univ_annot3"


def _annotations(
    path: Path, cameras: Sequence[int], stride: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Pixels (T, 28, 2) and metres (T, 28, 3) of every `stride`-th frame by camera."""
    found = _reading.load_mat(path, ("annot2", "annot3"))
    results = []
    for name, axes, unit in (("annot2", 2, 1), ("annot3", 3, 1000)):
        cells = found[name].ravel()
        by_camera = {}
        for camera in cameras:
            cell = cells[camera] if found[name].dtype == object and camera < len(cells) else None
            if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "fiu" or cell.shape[1:] != (28 * axes,):
                raise ValueError(f"{path}: {name} holds no (frames, {28 * axes}) for camera {camera}")
            with np.errstate(over="ignore"):  # what exceeds float32 is no joint
                by_camera[camera] = (cell[::stride].reshape(-1, 28, axes) / unit).astype(np.float32)  # type: ignore[index]
        results.append(by_camera)
    pixels, points = results
    if any(len(pixels[camera]) != len(points[camera]) for camera in cameras):
        raise ValueError(f"{path}: annot2 and annot3 differ in their numbers of frames")
    return pixels, points


def _calibration(path: Path) -> dict[int, np.ndarray]:
    """Intrinsics (3, 3) by camera, of a text of lines `name 0` ... `intrinsic` + 16 numbers, row by row."""
    text = untrusted.read_file(path, "the cameras' calibration").decode(errors="replace")
    found, camera = {}, None
    for number, line in enumerate(text.splitlines(), start=1):
        key, *values = line.split() or [""]
        where = f"{path}: line {number}"
        if key == "name":
            camera = int(_reading.finite(values, (1,), where)[0])
        elif key == "intrinsic" and camera is not None:
            found[camera] = _reading.finite(values, (16,), where).reshape(4, 4)[:3, :3]
    return found


def _camera_images(folder: Path, camera: int) -> Path | str | None:
    """The camera's video, or the pattern of its images' paths."""
    video = folder / "imageSequence" / f"video_{camera}.avi"
    if video.is_file():
        return video
    for images in (
        folder / "imageSequence" / f"img_{camera}_%06d.jpg",
        folder / "imageFrames" / f"video_{camera}" / "frame_%06d.jpg",
    ):
        if images.with_name(images.name % 1).is_file():
            return str(images)
    return None


def _check(pixels: np.ndarray, points: np.ndarray, intrinsics: np.ndarray, where: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # damaged numbers are told by the median
        distance = np.linalg.norm(_reading.project(points.astype(np.float64), intrinsics) - pixels, axis=-1)
    distance = distance[np.isfinite(distance)]
    median = float(np.median(distance)) if distance.size else np.inf
    if median > _TOLERANCE:
        raise ValueError(f"{where}: 3D joints project {median:.1f} pixels beside the 2D joints, expected less than 5")


def _recorded(
    images: Path | str,
    clip: str,
    stride: int,
    pixels: np.ndarray,
    points: np.ndarray,
    intrinsics: np.ndarray,
    swapped: tuple[int, int] | None,
) -> Iterator[Record | Skipped]:
    wanted = range(0, len(points) * stride, stride)
    decoded = 0
    for frame, image, size in (
        _flat.video_frames(images, wanted) if isinstance(images, Path) else _stored(images, wanted)
    ):
        decoded += 1
        name = f"{clip}:{frame}"
        if swapped and swapped[0] <= frame < swapped[1]:
            yield Skipped(name, "left and right are swapped in the owners' labels")
        elif isinstance(size, str):
            yield Skipped(name, size)
        else:
            yield _record(image, points[frame // stride], pixels[frame // stride], intrinsics, size, name, clip, frame)
    for frame in wanted[decoded:]:
        yield Skipped(f"{clip}:{frame}", "the video ends before this frame")


def _stored(pattern: str, wanted: Sequence[int]) -> Iterator[tuple[int, bytes, tuple[int, int] | str]]:
    """Frames as files: number, content, and size or what is wrong."""
    size = None
    for frame in wanted:
        path = Path(pattern % (frame + 1))
        if not path.is_file():
            yield frame, b"", "the image is missing"
            continue
        image = untrusted.read_file(path, "an image")
        try:
            size = size or _reading.image_size(image, path.name)  # all images of a camera have one size
        except BrokenImageError:
            yield frame, b"", "the image cannot be decoded"
            continue
        yield frame, image, size


def _record(
    image: bytes,
    points: np.ndarray,
    pixels: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    name: str,
    clip: str,
    frame: int,
) -> Record | Skipped:
    return _bodies.record(
        image=image,
        points=points.astype(np.float64),
        intrinsics=intrinsics,
        size=size,
        name=name,
        sequence=clip,
        frame=frame,
        keypoints=pixels.astype(np.float64),
    )


def _test_annotations(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a recording: annot2 (T, 17, 2) pixels, the 3D joints (T, 17, 3) metres, valid_frame (T,)."""
    _reading.require(path, "the labels of a recording")
    try:
        import h5py
    except ImportError:
        raise ImportError("MPI-INF-3DHP's test set is stored as HDF5, which needs h5py: pip install h5py") from None
    shapes = {"annot2": (1, 17, 2), "annot3": (1, 17, 3), "univ_annot3": (1, 17, 3), "valid_frame": (1,)}
    found = {}
    with untrusted.reading(path, "MATLAB 7.3 (HDF5)"), h5py.File(path, "r") as file:
        for name, shape in shapes.items():
            # Links and external storage could lead to other files.
            link = file.get(name, getlink=True)
            dataset = file[name] if isinstance(link, h5py.HardLink) else None
            if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
                raise ValueError(f"{path}: holds no {name}")
            if dataset.shape[1:] != shape:
                raise ValueError(f"{path}: {name} is {dataset.shape}, expected {('frames', *shape)}")
            untrusted.check_expansion(dataset.nbytes, path.stat().st_size)
            found[name] = np.asarray(dataset, np.float64)[:, 0]
    if len({len(array) for array in found.values()}) > 1:
        raise ValueError(f"{path}: {', '.join(shapes)} differ in their numbers of frames")
    return found | {name: found[name] / 1000 for name in ("annot3", "univ_annot3")}


def _fit_intrinsics(pixels: np.ndarray, points: np.ndarray, where: str) -> np.ndarray:
    """Focal lengths and principal point by least squares from (T, 17, 2) pixels and (T, 17, 3) points."""
    good = (points[..., 2] > 0) & np.isfinite(points).all(axis=-1) & np.isfinite(pixels).all(axis=-1)
    if good.sum() < 4:
        raise ValueError(f"{where}: {int(good.sum())} joints are before the camera, expected at least 4")
    intrinsics = np.eye(3)
    for axis in range(2):
        with np.errstate(over="ignore"):
            slopes = points[good][:, axis] / points[good][:, 2]
        if not np.isfinite(slopes).all():
            raise ValueError(f"{where}: found joints at no place, expected metres")
        design = np.stack([slopes, np.ones_like(slopes)], axis=1)
        (focal, centre), *_ = np.linalg.lstsq(design, pixels[good][:, axis], rcond=None)
        intrinsics[axis, axis], intrinsics[axis, 2] = focal, centre
    _check(pixels[good], points[good], intrinsics, where)
    return intrinsics


def _tested(
    images: Path, test: str, rows: np.ndarray, pixels: np.ndarray, points: np.ndarray, intrinsics: np.ndarray
) -> Iterator[Record | Skipped]:
    stored = _stored(str(images / "img_%06d.jpg"), [int(row) for row in rows])
    for i, (frame, image, size) in enumerate(stored):
        name = f"{test}:{frame}"
        if isinstance(size, str):
            yield Skipped(name, size)
        else:
            yield _record(image, points[i], pixels[i], intrinsics, size, name, test, frame)
