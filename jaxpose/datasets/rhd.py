"""The Rendered Handpose Dataset (RHD)."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import Record
from jaxpose.datasets import _hands, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard, Skipped

JOINTS = ("wrist", *reversed(_hands.THUMB), *(joint for finger in _hands.FINGERS for joint in reversed(finger)))
MIN_VISIBLE = 6  # hands with fewer visible joints are left out

_SIZE = 320  # pixels, width and height of the images
_HANDS = {"left": (0, range(2, 18)), "right": (len(JOINTS), range(18, 34))}  # first joint, numbers in the masks


class _Hand(NamedTuple):
    """One hand of an image, joints in the owners' order."""

    keypoints: np.ndarray  # (21, 2) pixels
    visible: np.ndarray  # (21,) 0 or 1
    other: np.ndarray  # (21, 2) pixels, of the other hand


# Why a hand is left out; None: it is kept.
_Filter = Callable[[_Hand], str | None]


def _enough(hand: _Hand) -> str | None:
    return None if np.sum(hand.visible > 0) >= MIN_VISIBLE else f"fewer than {MIN_VISIBLE} joints are visible"


class Rhd(RecordBuilder):
    """Both hands of rendered people with 21 joints each: 41,258 images to train and 2,728 to test, 320x320 pixels.

    Every image gives two records, the left hand's first, less the hands of which fewer than 6 joints are visible. A
    joint that the owners flag as not visible is occluded or, outside the image, missing. 3D joints are in metres; the
    2D joints are the owners' and agree with the projection. `segmentation` numbers the parts of the whole image: 1 the
    person, 2 to 17 the left hand, 18 to 33 the right one (thumb to little finger, tip to palm, then the palm); `area`
    is that of the record's hand. The joints lie from tip to base in the files, the left hand before the right one.
    The annotations are pickles; they are read without running anything that they name. Depth is not read.

    Source: the owners' reader, github.com/lmb-freiburg/hand3d.
    """

    SKELETON = HAND21
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "hand", "area", "segmentation")
    COUNTS: Mapping[str, int | None] = {"train": None, "test": None}
    HOMEPAGE = "https://lmb.informatik.uni-freiburg.de/resources/datasets/RenderedHandposeDataset.en.html"
    LICENCE = "for research, not commercial"
    CITATION = "Zimmermann and Brox: Learning to estimate 3D hand pose from single RGB images. ICCV 2017."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack RHD_v1-1.zip, which holds RHD_published_v2/training and RHD_published_v2/evaluation, each with "
        "color/00000.png ..., mask/00000.png ... and anno_training.pickle or anno_evaluation.pickle"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The owners' training and evaluation images."""
        return _splits(root, _enough)


class RhdTllib(Rhd):
    """The hands of RHD (see `Rhd`) that Transfer-Learning-Library keeps, in its order.

    A hand is kept if its crop, a square 1.5 times as large as its joints but not larger than the image and moved into
    it, has a side of more than 65 pixels, more than 16 of its 21 joints are visible, and less than 30 % of the crop is
    covered by the box of the other hand. (tllib also mirrors the right hands, so that it trains on left ones only; its
    comment says the opposite. Here hands are as they were rendered.)

    Source: Transfer-Learning-Library at c4aa59e, `RenderedHandPose`.
    """

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The owners' training and evaluation images."""
        return _splits(root, _kept_by_tllib)


def _kept_by_tllib(hand: _Hand) -> str | None:
    if not (np.isfinite(hand.keypoints).all() and np.isfinite(hand.other).all()):
        return "a joint has no finite position"
    # In the precision of the files: boxes are rounded.
    low, high = hand.keypoints.min(axis=0), hand.keypoints.max(axis=0)
    side = min(round(1.5 * max(high - low)), _SIZE)
    corner = np.array([min(max(round(centre - side / 2), 0), _SIZE - side) for centre in (low + high) / 2])
    if side - 1 <= 64:
        return "the crop is not larger than 65 pixels"
    if np.sum(hand.visible) <= 16:
        return "fewer than 17 joints are visible"
    # Boxes include their last pixel.
    covered = np.minimum(corner + side - 1, hand.other.max(axis=0)) - np.maximum(corner, hand.other.min(axis=0)) + 1
    if np.prod(np.maximum(covered, 0)) / side**2 >= 0.3:
        return "the other hand covers 30 % of the crop"
    return None


def _splits(root: Path, reason: _Filter) -> dict[str, list[Shard]]:
    parts = {"train": "training", "test": "evaluation"}
    return {split: _split(root / "RHD_published_v2" / part, reason) for split, part in parts.items()}


def _split(folder: Path, reason: _Filter) -> list[Shard]:
    """The shards of one of the owners' sets."""
    path = _reading.require(folder / f"anno_{folder.name}.pickle", "the joints and cameras of all images")
    for kind in ("color", "mask"):
        _reading.require(folder / kind, f"the images {kind}/00000.png ...")
    labels = unpickle.load(untrusted.read_file(path, "labels"), where=str(path))
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"{path}: found {type(labels).__name__}, expected labels by the number of the image")
    if bad := [key for key in labels if not isinstance(key, int | np.integer) or key < 0]:
        raise ValueError(f"{path}: found an image {bad[0]!r}, expected a number from 0 on")
    items = list(labels.items())
    parts = _reading.in_parts(items, _reading.SHARD_SIZE // len(_HANDS))
    return [functools.partial(_shard, folder, part, reason) for part in parts]


def _shard(folder: Path, labels: Sequence[tuple[int, Any]], reason: _Filter) -> Iterator[Record | Skipped]:
    for number, label in labels:
        yield from _image(folder, int(number), label, reason)


def _image(folder: Path, number: int, label: Any, reason: _Filter) -> Iterator[Record | Skipped]:
    """The records of one image, or why there are none."""
    name = f"{folder.name}/color/{number:05d}.png"
    try:
        uv = _numbers(label["uv_vis"], (2 * len(JOINTS), 3))
        xyz = _numbers(label["xyz"], (2 * len(JOINTS), 3))
        intrinsics = _numbers(label["K"], (3, 3))
    except (KeyError, TypeError, ValueError):
        yield Skipped(name, "the label is not 42 joints in 2D and 3D and 3x3 intrinsics")
        return
    kept = {}
    for side, (first, _) in _HANDS.items():
        own, other = uv[first : first + len(JOINTS)], uv[len(JOINTS) - first : 2 * len(JOINTS) - first]
        why = reason(_Hand(keypoints=own[:, :2], visible=own[:, 2], other=other[:, :2]))
        if why is None:
            kept[side] = own
        else:
            yield Skipped(f"{name} {side}", why)
    if not kept:
        return
    image = _reading.read_image(folder.parent, name)
    if isinstance(image, Skipped):
        yield image
        return
    mask = _reading.read_image(folder.parent, f"{folder.name}/mask/{number:05d}.png")
    parts = None if isinstance(mask, Skipped) else _parts(mask)
    if isinstance(mask, Skipped) or parts is None:
        yield Skipped(name, "the mask is missing or not one channel of bytes")
        return
    order = _hands.positions(JOINTS)
    for side, own in kept.items():
        first, numbers = _HANDS[side]
        yield _hands.hand_record(
            image=image,
            name=f"{name} {side}",
            hand=side,
            keypoints=own[order, :2],
            seen=own[order, 2] > 0,
            keypoints3d=xyz[first + order],
            intrinsics=intrinsics,
            size=(_SIZE, _SIZE),
            area=float(np.count_nonzero((parts >= numbers.start) & (parts < numbers.stop))),
            segmentation=mask,
        )


def _numbers(value: Any, shape: tuple[int, int]) -> np.ndarray:
    """A floating array of the shape, in its own precision."""
    found = np.asarray(value)
    if found.shape != shape or found.dtype.kind not in "fiu":
        raise ValueError(f"found {found.dtype} {found.shape}, expected numbers of shape {shape}")
    return found if found.dtype.kind == "f" else found.astype(np.float64)


def _parts(mask: bytes) -> np.ndarray | None:
    """The numbers of a mask's parts, uint8 (320, 320)."""
    if not mask:
        return None
    try:
        parts = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return parts if parts is not None and parts.dtype == np.uint8 and parts.shape == (_SIZE, _SIZE) else None
