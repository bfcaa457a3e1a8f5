"""Simplified Human3.6M: small crops of six upright activities."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import files
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import VISIBLE, BrokenImageError, Record
from jaxpose.datasets import _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_SUBJECTS = {"train": (1, 5, 6, 7, 8, 9), "test": (11,)}
_ACTIVITIES = ("directions", "discussion", "greeting", "posing", "waiting", "walking")
_IMAGES, _MASKS, _LABELS = "WithBackground", "BackgroudMask", "Landmarks"  # the second is spelt like this
_SHARD = 2000
_FAR = 1e6  # shares of the image; a joint beyond is damaged

_LEG = ("hip", "knee", "ankle", "foot", "toes")
_ARM = ("shoulder", "elbow", "wrist")
_HAND = ("wrist_copy", "thumb", "hand_end", "hand_end_copy")
_PAIRS = tuple((f"left_{joint}", f"right_{joint}") for joint in ("neck_copy", *_LEG, *_ARM, *_HAND))


def _side(side: str, joints: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{side}_{joint}" for joint in joints)


HUMAN36M32 = Skeleton(
    name="human36m32",
    joints=(
        *("pelvis", *_side("right", _LEG), *_side("left", _LEG)),
        *("pelvis_copy", "spine", "neck", "jaw", "head_top"),
        *(joint for side in ("left", "right") for joint in _side(side, ("neck_copy", *_ARM, *_HAND))),
    ),
    bones=(
        *(("pelvis", "spine"), ("spine", "neck"), ("neck", "jaw"), ("jaw", "head_top")),
        *(
            (f"{side}_{a}" if a in (*_LEG, *_ARM) else a, f"{side}_{b}")
            for side in ("right", "left")
            for root, limb in (("pelvis", _LEG), ("neck", (*_ARM, "hand_end")))
            for a, b in zip((root, *limb[:-1]), limb, strict=True)
        ),
    ),
    flips=_PAIRS,
    groups={joint: (f"left_{joint}", f"right_{joint}") for joint in ("shoulder", "elbow", "wrist", "hip", "knee")}
    | {"ankle": ("left_ankle", "right_ankle"), "head": ("neck", "jaw", "head_top")},
)


class SimplifiedHuman36m(RecordBuilder):
    """Seven actors of Human3.6M in six upright activities, crops of 128x128 with masks and 32 joints in 2D.

    About 800,000 images for training (subjects 1, 5, 6, 7, 8 and 9) and 90,000 for testing (subject 11). As in
    KeypointGAN, whose images and poses must not come from the same moments, the training clips are halved: `train` is
    the first half of each clip and `poses` the second; `train=train+poses` reads all.

    The 32 joints are those of Human3.6M, some of which are copies of others, as their names say. All count as
    visible. KeypointGAN measures its error over all 32. Files hold x and y (KeypointGAN changes them when it reads
    them) as shares of the image's sides from edge to edge. The box is the image, which the owners cropped around the
    person. `segmentation` is 1 where the person is. A clip, `sequence`, is one subject, activity, repetition and
    camera.
    """

    SKELETON = HUMAN36M32
    FIELDS = ("bbox", "sequence", "frame", "segmentation")
    COUNTS = {"train": None, "poses": None, "test": None}
    HOMEPAGE = "https://github.com/YutingZhang/lmdis-rep"
    LICENCE = "that of Human3.6M: for academic use, after registration"
    CITATION = (
        "Zhang et al.: Unsupervised discovery of object landmarks as structural representations. CVPR 2018; Ionescu et "
        "al.: Human3.6M: Large scale datasets and predictive methods for 3D human sensing in natural environments. "
        "TPAMI 2014."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"unpack human_images.tar.gz, so that the folder holds S1/{_IMAGES}/CLIP/1.jpg, S1/{_MASKS}/CLIP/1.png, "
        f"S1/{_LABELS}/CLIP/1.mat and so on for subjects 1, 5, 6, 7, 8, 9 and 11"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Subject after subject, their clips by name, the frames by number."""
        for subject in (s for subjects in _SUBJECTS.values() for s in subjects):
            for kind in (_IMAGES, _MASKS, _LABELS):
                _reading.require(root / f"S{subject}" / kind, "a folder of clips of Simplified Human3.6M")
        found: dict[str, list[Shard]] = {"train": [], "poses": [], "test": []}
        for subject in _SUBJECTS["train"]:
            for clip, frames in _clips(root / f"S{subject}"):
                half = len(frames) // 2
                found["train"] += _in_shards(clip, frames[:half])
                found["poses"] += _in_shards(clip, frames[half:])
        for subject in _SUBJECTS["test"]:
            for clip, frames in _clips(root / f"S{subject}"):
                found["test"] += _in_shards(clip, frames)
        return found


# A clip is its subject's folder and its name.
_Clip = tuple[Path, str]


def _clips(subject: Path) -> Iterator[tuple[_Clip, list[int]]]:
    """The clips of the six activities with the numbers of their frames."""
    for folder in sorted((subject / _IMAGES).iterdir()):
        if folder.name.lower().startswith(_ACTIVITIES):
            frames = (path.stem for path in folder.glob("*.jpg"))
            yield (subject, folder.name), sorted(int(frame) for frame in frames if frame.isdecimal())


def _in_shards(clip: _Clip, frames: list[int]) -> list[Shard]:
    return [functools.partial(_frames, clip, part) for part in _reading.in_parts(frames, _SHARD)]


def _frames(clip: _Clip, frames: Sequence[int]) -> Iterator[Record | Skipped]:
    for frame in frames:
        yield _record(clip, frame)


def _record(clip: _Clip, frame: int) -> Record | Skipped:
    subject, name = clip
    sequence = f"{subject.name}/{name}"
    title = f"{sequence}/{frame}"
    image = untrusted.read_file(subject / _IMAGES / name / f"{frame}.jpg", "an image")
    try:
        width, height = _reading.image_size(image, title)
        mask = (
            files.decode_image(untrusted.read_file(subject / _MASKS / name / f"{frame}.png", "a mask"), title)[..., 0]
            > 127
        )
    except BrokenImageError:
        return Skipped(title, "the image or its mask cannot be decoded")
    except FileNotFoundError:
        return Skipped(title, "the mask is missing")
    if mask.shape != (height, width):
        return Skipped(title, "the mask is not of the image's size")
    try:
        shares = _reading.numbers(_flat.load_mat(subject / _LABELS / name / f"{frame}.mat", "keypoints_2d"), (32, 2))
    except (FileNotFoundError, ValueError):
        shares = None
    if shares is None or np.abs(shares).max() > _FAR:
        return Skipped(title, "there is no file with keypoints_2d of 32 joints")
    return Record(
        image=image,
        name=title,
        keypoints=(shares * (width, height) - 0.5).astype(np.float32),
        visible=np.full(len(HUMAN36M32), VISIBLE, np.uint8),
        bbox=np.array([0, 0, width, height], np.float32),
        sequence=sequence,
        frame=frame,
        segmentation=cv2.imencode(".png", mask.astype(np.uint8))[1].tobytes(),
    )
