"""SURREAL: rendered people, from the owners' files and from tllib's cropped copy."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.records import Record
from jaxpose.datasets import _bodies, _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_SPLITS = {"train": "train", "validation": "val", "test": "test"}  # theirs by ours
_SIZE = (320, 240)
_CLIPS_PER_SHARD = 20  # of at most 100 frames
_TOLERANCE = 2.0  # pixels between the owners' 2D joints, which are whole, and the projection

# Blender counts from the corner of the image, where its centre is at (160, 120).
INTRINSICS = np.array([[600.0, 0.0, 159.5], [0.0, 600.0, 119.5], [0.0, 0.0, 1.0]])
# Source: the owners' datageneration/misc/3Dto2D. Its determinant is -1: the renderings are mirror images.
ROTATION = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

SURREAL24 = _bodies.smpl("surreal24", "right", "left")


class Surreal(RecordBuilder):
    """Renderings of SMPL bodies that move like people in CMU's motion capture, before photographs of rooms.

    Images are 320x240, re-encoded from the owners' MP4 clips of at most 100 frames as JPEG of quality 95. Labels are
    the 24 joints of SMPL in 2D and 3D. The paper counts 55,001 training clips with 5,342,090 frames and 12,528 test
    clips with 1,194,662 (Varol et al. 2017, Table 1); `val` is a small part of `test`. The clips of run0, run1 and run2
    overlap by 50, 30 and 70 %, in other clothes and bodies.

    Traps that are handled:
      - The camera's matrix is a reflection, so images are mirrored and SMPL's left arm looks like a right one. Joints
        are named by what they look like: SMPL's L_Hip is `right_hip` here. Nothing is flipped.
      - 3D joints are moved from the world to the camera's frame, which makes bodies that are right for these names.
      - 2D joints are the projection of the 3D ones. The owners round theirs to whole pixels and count from the
        image's corner, half a pixel before the centre of the first pixel.
      - A clip of one frame lacks the last axis.
      - Frames whose joints are all zero, or whose 2D and 3D joints disagree by more than 2 pixels, are left out.

    SMPL's shoulders are the glenohumeral joints. Of MPII's joints tllib, and all results that build on it, takes the
    collars for shoulders (the option `shoulder=collar`), `head` for the head's top, `thorax` for the neck and `spine3`
    for the thorax. `thorax` is SMPL's neck: it is at the base of the neck, where MPII has its thorax and not its neck.

    Attributes:
      STRIDE: every how many-th frame of a clip is kept.
      DROPPED: CMU's sequences that are left out; by default subjects 18 and 19 and one sequence of 143, as in published
        code that trains on SURREAL. A name that ends in `_` means all sequences of a subject.
    """

    SKELETON = SURREAL24
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "sequence", "frame")
    COUNTS = {"train": None, "validation": None, "test": None}
    HOMEPAGE = "https://www.di.ens.fr/willow/research/surreal/data/"
    LICENCE = "for non-commercial research, after registration"
    CITATION = "Varol et al.: Learning from synthetic humans. CVPR 2017."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "download and unpack SURREAL_v1.tar.gz or some of its files, so that the folder holds "
        "cmu/{train,val,test}/run{0,1,2}/01_01/01_01_c0001.mp4 with 01_01_c0001_info.mat beside it"
    )
    STRIDE: ClassVar[int] = 1
    DROPPED: ClassVar[tuple[str, ...]] = ("18_", "19_", "143_21")

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The clips in the order of their paths."""
        cmu = _reading.require(root / "cmu", "cmu/train/run0 and so on")
        splits = {ours: self._listed(cmu / theirs) for ours, theirs in _SPLITS.items() if (cmu / theirs).is_dir()}
        if not any(splits.values()):
            raise FileNotFoundError(f"{cmu}: holds no {{train,val,test}}/run{{0,1,2}}/01_01/01_01_c0001_info.mat")
        size = _CLIPS_PER_SHARD * self.STRIDE
        return {
            split: [
                functools.partial(_clips, cmu / _SPLITS[split], part, self.STRIDE, self._with_parts)
                for part in _reading.in_parts(clips, size)
            ]
            for split, clips in splits.items()
        }

    @property
    def _with_parts(self) -> bool:
        return "segmentation" in self.FIELDS

    def _listed(self, folder: Path) -> list[str]:
        """The clips of a split: `run0/01_01/01_01_c0001`."""
        clips = []
        for info in sorted(folder.glob("run[0-2]/*/*_info.mat")):
            clip = info.relative_to(folder).as_posix().removesuffix("_info.mat")
            if not _dropped(info.parent.name, self.DROPPED):
                clips.append(clip)
        return clips


class SurrealEvery10(Surreal):
    """SURREAL, every tenth frame of a clip. See `Surreal`."""

    STRIDE = 10


class SurrealParts(Surreal):
    """SURREAL with segmentation. See `Surreal`.

    Number n in a segmentation is the part of the body that hangs on joint n - 1 of the skeleton. Sides are those of the
    joints' names, mirrored like them. The area is that of all parts. Needs the owners' `_segm.mat`.
    """

    FIELDS = (*Surreal.FIELDS, "segmentation", "area")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{Surreal.MANUAL_DOWNLOAD_INSTRUCTIONS}, and 01_01_c0001_segm.mat"


def _dropped(sequence: str, dropped: Sequence[str]) -> bool:
    return any(sequence == name or (name.endswith("_") and sequence.startswith(name)) for name in dropped)


def _clips(folder: Path, clips: Sequence[str], stride: int, with_parts: bool) -> Iterator[Record | Skipped]:
    for clip in clips:
        yield from _clip(folder, clip, stride, with_parts)


def _clip(folder: Path, clip: str, stride: int, with_parts: bool) -> Iterator[Record | Skipped]:
    try:
        points, owners = _joints(folder / f"{clip}_info.mat")
    except ValueError:
        yield Skipped(clip, "the clip's labels cannot be read")
        return
    video = folder / f"{clip}.mp4"
    if not video.is_file():
        yield Skipped(clip, "the clip's video is missing")
        return
    wanted = range(0, len(points), stride)
    parts = _segmentations(folder / f"{clip}_segm.mat", wanted) if with_parts else {}
    decoded = 0
    for t, image, size in _flat.video_frames(video, wanted):
        decoded += 1
        name = f"{clip}:{t}"
        if size != _SIZE:
            yield Skipped(name, f"the video is not {_SIZE[0]}x{_SIZE[1]}")
        elif with_parts and t not in parts:
            yield Skipped(name, "it has no segmentation")
        elif not (np.isfinite(points[t]).all() and np.abs(owners[t] - _owners_pixels(points[t])).max() <= _TOLERANCE):
            yield Skipped(name, "its 2D and 3D joints are zero or disagree")
        else:
            record = _bodies.record(
                image=image, points=points[t], intrinsics=INTRINSICS, size=_SIZE, name=name, sequence=clip, frame=t
            )
            if with_parts and not isinstance(record, Skipped):
                record["segmentation"] = cv2.imencode(".png", parts[t])[1].tobytes()
                record["area"] = float(np.count_nonzero(parts[t]))
            yield record
    for t in wanted[decoded:]:
        yield Skipped(f"{clip}:{t}", "the video ends before this frame")


def _joints(path: Path) -> tuple[Float[np.ndarray, "t 24 3"], Float[np.ndarray, "t 24 2"]]:
    """The joints of a clip in the camera's frame, and the owners' pixels, both float64; NaN where all are zero."""
    found = _reading.load_mat(path, ("joints3D", "joints2D", "camLoc"))
    arrays = {}
    for name, axes in (("joints3D", 3), ("joints2D", 2)):
        array = found[name]
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[:2] != (axes, 24):
            raise ValueError(f"{path}: {name} is {array.shape}, expected ({axes}, 24, frames)")
        arrays[name] = array.transpose(2, 1, 0).astype(np.float64)
    world, pixels = arrays["joints3D"], arrays["joints2D"]
    if len(world) != len(pixels) or found["camLoc"].size != 3:
        raise ValueError(f"{path}: {len(world)} and {len(pixels)} frames of joints, expected as many, and one camera")
    camera = (world - found["camLoc"].astype(np.float64).reshape(3)) @ ROTATION.T
    camera[~world.any(axis=(1, 2))] = np.nan
    return camera, pixels


def _owners_pixels(points: Float[np.ndarray, "24 3"]) -> Float[np.ndarray, "24 2"]:
    return _reading.project(points, INTRINSICS) + 0.5


def _segmentations(path: Path, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """The segmentations of frames, (240, 320) uint8; those that are absent or broken are not among them."""
    names = {t: f"segm_{t + 1}" for t in wanted}
    try:
        found = _reading.load_mat(path, tuple(names.values()), optional=True)
    except (ValueError, FileNotFoundError):
        return {}
    return {
        t: found[name].astype(np.uint8)
        for t, name in names.items()
        if name in found and found[name].shape == (_SIZE[1], _SIZE[0])
    }


def _tllib(lengths: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """tllib shuffles each split; 20 % but at most 3200 of `test` are the test set, the rest of `train` trains."""
    found = {}
    for split in (s for s in _SPLITS if s in lengths):
        division = _reading.tllib_division(lengths[split])
        kept = division.get(split, division["test"] + division["train"])
        found[split] = [(split, i) for i in kept]
    return found


class SurrealTllib(RecordBuilder):
    """tllib's copy of SURREAL: single frames, cropped to 1.5 times the person, with 24 joints in 2D.

    Images keep the bytes of the copy. Joints are named as in `Surreal`, whose docstring says how shoulders, head and
    thorax differ from what tllib takes for them. The copy's 3D joints are left out: cropping as tllib does keeps the
    principal point and computes x and y anew with it, which shears bodies.
    tllib's loader shuffles with a fixed seed before it divides, see `PRESETS`; they count on that no record is skipped.
    """

    SKELETON = SURREAL24
    FIELDS = ("bbox",)
    COUNTS = {"train": None, "validation": None, "test": None}
    HOMEPAGE = "https://github.com/thuml/Transfer-Learning-Library"
    LICENCE = Surreal.LICENCE
    CITATION = Surreal.CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack train0.tgz, train1.tgz, train2.tgz, val.tgz and test.tgz, so that the folder holds "
        "{train,val,test}/run{0,1,2}.json and {train,val,test}/run{0,1,2}/ with the images"
    )
    PRESETS = {"tllib": _tllib}

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The images in the order of run0.json, run1.json, run2.json."""
        found = {}
        for split, theirs in _SPLITS.items():
            samples = []
            for run in range(3):
                path = root / theirs / f"run{run}.json"
                folder = root / theirs / f"run{run}"
                for i, sample in enumerate(untrusted.read_json(path, list, "a list of frames")):
                    where = f"{path}: entry {i}"
                    name = _reading.field(sample, "name", where)
                    _bodies.below(folder, name, where)
                    pixels = _reading.numbers(_reading.field(sample, "keypoint2d", where), (24, 2))
                    samples.append((f"run{run}/{name}", pixels))
            found[split] = [functools.partial(_images, root / theirs, part) for part in _reading.in_parts(samples)]
        return found


def _images(folder: Path, samples: Sequence[tuple[str, np.ndarray | None]]) -> Iterator[Record | Skipped]:
    for name, pixels in samples:
        image = _reading.read_image(folder, name)
        if isinstance(image, Skipped):
            yield image
        elif pixels is None:
            yield Skipped(name, "it has no 24 joints")
        else:
            visible = np.full(24, records.VISIBLE, np.uint8)
            keypoints = pixels.astype(np.float32)
            box = _flat.tight_box(keypoints, visible)
            yield Record(image=image, keypoints=keypoints, visible=visible, name=name, bbox=box)
