"""Hand-3D-Studio."""

import functools
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.data.records import Record
from jaxpose.datasets import _hands, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard, Skipped


def _tllib(lengths: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """tllib divides the images without objects at random. Frames of one video lie on both sides of the division."""
    divided = _reading.tllib_division(lengths.get("noobject", 0))
    return {split: [("noobject", i) for i in index] for split, index in divided.items()}


class H3d(RecordBuilder):
    """Photographs of one hand of 10 people from 15 cameras with 21 joints, cut out by the authors of tllib.

    The original, Hand-3D-Studio, is more than 20,000 4K images; its layout is described nowhere. What everybody uses
    is `H3D_crop`: squares 1.5 times as large as the hand with one `annotation.json`, which is read here. It divides
    the images into those without and those with an object in the hand; neither the owners nor it divide them into
    training and test images. The splits `noobject` and `object` are in the file's order. The preset `tllib` divides
    `noobject` as released, if no image is left out; frames of one video are then on both sides. `sequence` is the
    image's folder, the finest division by name.

    Two things are stated nowhere and so are taken from the labels. The unit of the 3D joints is the power of ten that
    makes the median distance of wrist and knuckle of the middle finger closest to 9.5 centimetres. Where the intrinsics
    do not map the 3D joints to the 2D joints, because they are of the whole photograph, they are scaled and moved so
    that they do; where no scale and shift can, the image is left out. No joint is marked as occluded. All hands count
    as right ones, as in tllib, which mirrors other sets to match this one.

    Source: Transfer-Learning-Library at c4aa59e, `Hand3DStudio`.
    """

    SKELETON = HAND21
    FIELDS = ("bbox", "keypoints3d", "intrinsics", "hand", "sequence")
    COUNTS = {"noobject": None, "object": None}
    HOMEPAGE = "https://www.yangangwang.com/papers/ZHAO-H3S-2020-02.html"
    LICENCE = "for research; none stated"
    CITATION = (
        "Zhao, Wang, Xia and Wang: Hand-3D-Studio: A new multi-view system for 3D hand reconstruction. ICASSP 2020."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack H3D_crop.tar (its link in Transfer-Learning-Library is dead since 2023; ask its authors), which holds "
        "H3D_crop/annotation.json and the folders H3D_crop/part1 to part5"
    )
    PRESETS = {"tllib": _tllib}

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The images without an object, then those with one."""
        path = root / "H3D_crop" / "annotation.json"
        labels = untrusted.read_json(path, list, "a list of images with their labels")
        if not all(isinstance(label, dict) for label in labels):
            raise ValueError(f"{path}: found other things than objects, expected a list of images with their labels")
        unit = _unit(labels)
        parts: dict[str, list[dict[str, Any]]] = {"noobject": [], "object": []}
        for label in labels:
            parts["noobject" if _without_object(label, path) else "object"].append(label)
        return {
            split: [functools.partial(_shard, path.parent, some, unit) for some in _reading.in_parts(part)]
            for split, part in parts.items()
        }


_PALM = 0.095  # metres from the wrist to the middle finger's knuckle
_TOLERANCE = 0.05  # of the hand's extent: how far projected joints may lie from the 2D joints


def _without_object(label: Mapping[str, Any], path: Path) -> bool:
    flag = label.get("without_object")
    if flag not in (0, 1, "0", "1"):
        raise ValueError(f"{path}: without_object of {label.get('name')!r} is {flag!r}, expected 0 or 1")
    return int(flag) == 1


def _unit(labels: Sequence[Mapping[str, Any]]) -> float:
    """Metres per unit of the 3D joints."""
    wrist, knuckle = _hands.BASE_TO_TIP.index("wrist"), _hands.BASE_TO_TIP.index("middle_mcp")
    lengths = []
    for label in labels[:: max(len(labels) // 1000, 1)]:
        joints = _joints(label, "keypoint3d", 3)
        if joints is not None:
            lengths.append(float(np.linalg.norm(joints[knuckle] - joints[wrist])))
    positive = [length for length in lengths if 0 < length < np.inf]
    return 10.0 ** np.round(np.log10(_PALM / np.median(positive))) if positive else 1.0


def _joints(label: Mapping[str, Any], field: str, axes: int) -> np.ndarray | None:
    try:
        return _reading.array(label.get(field), (len(_hands.BASE_TO_TIP), axes), field)
    except ValueError:
        return None


def _shard(root: Path, labels: Sequence[Mapping[str, Any]], unit: float) -> Iterator[Record | Skipped]:
    for label in labels:
        yield _record(root, label, unit)


def _record(root: Path, label: Mapping[str, Any], unit: float) -> Record | Skipped:
    name = label.get("name")
    if not isinstance(name, str):
        return Skipped(str(name), "the label names no image")
    keypoints, keypoints3d = _joints(label, "keypoint2d", 2), _joints(label, "keypoint3d", 3)
    if keypoints is None or keypoints3d is None:
        return Skipped(name, "the label lacks 21 joints in 2D or 3D")
    try:
        intrinsics = _reading.array(label.get("intrinsic_matrix"), (3, 3), name)
    except ValueError:
        return Skipped(name, "the label lacks 3x3 intrinsics")
    fitted = _fitted(intrinsics, keypoints3d, keypoints)
    if fitted is None:
        return Skipped(name, "the 3D joints do not project to the 2D joints")
    order = _hands.positions(_hands.BASE_TO_TIP)
    return _hands.hand_record(
        image=_reading.read_image(root, name),
        name=name,
        hand="right",
        keypoints=keypoints[order],
        keypoints3d=keypoints3d[order] * unit,
        intrinsics=fitted,
        sequence=posixpath.dirname(name),
    )


def _fitted(intrinsics: np.ndarray, keypoints3d: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
    """The intrinsics, followed by a scale and shift if they need it to project to the keypoints; None if nothing helps.

    Args:
      intrinsics: (3, 3).
      keypoints3d: (K, 3) in any unit.
      keypoints: (K, 2) pixels.
    """
    projected = _reading.project(keypoints3d, intrinsics)
    if not (np.isfinite(projected).all() and np.isfinite(keypoints).all()):
        return None
    allowed = max(_TOLERANCE * float(np.ptp(keypoints, axis=0).max()), 1.0)
    if np.abs(projected - keypoints).max() <= allowed:
        return intrinsics
    centred, target = projected - projected.mean(axis=0), keypoints - keypoints.mean(axis=0)
    scale = float((centred * target).sum()) / max(float((centred**2).sum()), 1e-12)
    shift = keypoints.mean(axis=0) - scale * projected.mean(axis=0)
    if scale <= 0 or np.abs(scale * projected + shift - keypoints).max() > allowed:
        return None
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]]) @ intrinsics
