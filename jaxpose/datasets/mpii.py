"""MPII Human Pose, as its owners distribute it and as HRNet divides it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import MPII16
from jaxpose.data.records import MISSING, OCCLUDED, VISIBLE
from jaxpose.datasets import _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_HOMEPAGE = "http://human-pose.mpi-inf.mpg.de"
_LICENCE = "BSD for the annotations; images for research"
_CITATION = "Andriluka et al.: 2D human pose estimation: New benchmark and state of the art analysis. CVPR 2014."
_REFERENCE = 200  # pixels of a person's height at scale 1
_HEAD = 0.6  # of the diagonal of its rectangle is the size of a head
_SHIFT = 15  # pixels at scale 1 by which released code lowers a person's centre, so that no ankle is cut off


class Mpii(RecordBuilder):
    """People in everyday activities with 16 joints, from frames of videos; HRNet's division of the labelled part.

    Images have many sizes, mostly 1280x720. A record is a person. HRNet's files tell whether a joint is labelled but
    not whether it is occluded: labelled ones count as visible. Coordinates count from 1 in the files and from 0 here.

    The box is a square of 200 scale pixels around the owners' rough centre, which is lowered by 15 scale pixels as in
    all released code (its side is about a person's height; HRNet's further factor of 1.25 is the margin of the crop).
    `head_size`, by which PCKh divides, is 0.6 times the diagonal of the head's rectangle; for training, where there
    are no rectangles, it is NaN.
    """

    SKELETON = MPII16
    FIELDS = ("bbox", "head_size")
    COUNTS = {"train": 22_246, "validation": 2_958}
    HOMEPAGE = _HOMEPAGE
    LICENCE = _LICENCE
    CITATION = _CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack mpii_human_pose_v1.tar.gz, which holds images/, and put HRNet's annot/ with train.json, valid.json and "
        "gt_valid.mat beside it"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The lists of HRNet in their order."""
        images = _reading.require(root / "images", "the folder of MPII's images")
        files = {"train": root / "annot" / "train.json", "validation": root / "annot" / "valid.json"}
        people = {s: untrusted.read_json(file, list, "HRNet's list of people") for s, file in files.items()}
        heads = {
            "train": np.full(len(people["train"]), np.nan),
            "validation": _validation_heads(root / "annot" / "gt_valid.mat", len(people["validation"])),
        }
        return {
            split: _flat.in_shards(
                images,
                [_from_json(person, i, head) for i, (person, head) in enumerate(zip(found, heads[split], strict=True))],
            )
            for split, found in people.items()
        }


class MpiiOriginal(RecordBuilder):
    """All people with joints in the training images of MPII Human Pose, with 16 joints.

    The owners have no validation split and keep the labels of the test images. Unlike in `Mpii`, occluded joints are
    marked, and `sequence` names the video that an image comes from, so that a division need not put neighbouring frames
    of one video on both sides. The neck and the top of the head have no flag of visibility and count as visible.
    Coordinates count from 1 in the file and from 0 here. Boxes and `head_size` are those of `Mpii`; where there is no
    rectangle of the head, its size is NaN.
    """

    SKELETON = MPII16
    FIELDS = ("bbox", "head_size", "sequence")
    COUNTS = {"train": None}
    HOMEPAGE = _HOMEPAGE
    LICENCE = _LICENCE
    CITATION = _CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack mpii_human_pose_v1.tar.gz and mpii_human_pose_v1_u12_2.zip, so that the folder holds images/ and "
        "mpii_human_pose_v1_u12_1.mat"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The training images in the order of the file."""
        images = _reading.require(root / "images", "the folder of MPII's images")
        path = root / "mpii_human_pose_v1_u12_1.mat"
        release = _flat.load_mat(path, "RELEASE")
        if not hasattr(release, "annolist") or not hasattr(release, "img_train"):
            raise ValueError(f"{path}: RELEASE holds no annolist and img_train, expected both")
        listed, training = np.atleast_1d(release.annolist), np.atleast_1d(release.img_train)
        if len(listed) != len(training):
            raise ValueError(f"{path}: img_train has {len(training)} values, expected {len(listed)} as in annolist")
        rows = [
            row for i in np.flatnonzero(training == 1) for row in _from_mat(listed[i], f"image {i + 1} of {path.name}")
        ]
        return {"train": _flat.in_shards(images, rows)}


def _validation_heads(path: Path, people: int) -> np.ndarray:
    """The sizes of heads in the file that released evaluations read, in the order of the validation list."""
    boxes = _reading.load_mat(path, ("headboxes_src",))["headboxes_src"]
    corners = _reading.finite(boxes, (2, 2, people), f"{path}: headboxes_src")  # corner, axis, person
    return np.array([_head_size(corners[:, :, i].ravel()) for i in range(people)])


def _head_size(corners: Any) -> float:
    """Of a rectangle's x1, y1, x2, y2; NaN of none."""
    found = _reading.numbers(corners, (4,))
    return np.nan if found is None else _HEAD * float(np.hypot(*(found[2:] - found[:2])))


def _from_json(person: Any, number: int, head: float) -> _flat.FileLabels | Skipped:
    """A person of HRNet's lists."""
    if not isinstance(person, dict) or not isinstance(person.get("image"), str):
        return Skipped(f"person {number}", "it names no image")
    name = f"{person['image']}#{number}"
    points = _reading.numbers(person.get("joints"), (16, 2))
    labelled = _reading.numbers(person.get("joints_vis"), (16,))
    if points is None or labelled is None:
        return Skipped(name, "it has no 16 joints with flags")
    visible = np.where(labelled > 0, VISIBLE, MISSING).astype(np.uint8)
    return _row(person["image"], name, points, visible, person.get("center"), person.get("scale"), head)


def _from_mat(image: Any, place: str) -> list[_flat.FileLabels | Skipped]:
    """The people of one image who have joints."""
    file = getattr(getattr(image, "image", None), "name", None)
    if not isinstance(file, str):
        return [Skipped(place, "it names no image")]
    video = np.atleast_1d(getattr(image, "vididx", ()))
    sequence = f"video{int(video[0]):05d}" if video.size == 1 and video.dtype.kind in "iuf" else ""
    rows: list[_flat.FileLabels | Skipped] = []
    for number, person in enumerate(np.atleast_1d(getattr(image, "annorect", ()))):
        listed = np.atleast_1d(getattr(getattr(person, "annopoints", None), "point", ()))
        if not listed.size:
            continue  # a person of whom only the place is known
        name = f"{file}#{number}"
        points, visible = np.zeros((16, 2)), np.full(16, MISSING, np.uint8)
        for point in listed:
            joint = getattr(point, "id", None)
            xy = _reading.numbers((getattr(point, "x", None), getattr(point, "y", None)), (2,))
            if xy is None or not isinstance(joint, int | np.integer) or not 0 <= joint < 16:
                rows.append(Skipped(name, "a joint has no number of 0 to 15 or no place"))
                break
            points[joint], visible[joint] = xy, _visible(getattr(point, "is_visible", ()))
        else:
            rough = getattr(person, "objpos", None)
            centre = (getattr(rough, "x", None), getattr(rough, "y", None))
            head = _head_size([getattr(person, corner, None) for corner in ("x1", "y1", "x2", "y2")])
            row = _row(file, name, points, visible, centre, getattr(person, "scale", None), head)
            rows.append(row if isinstance(row, Skipped) else (row[0], {**row[1], "sequence": sequence}))
    return rows


def _visible(flag: Any) -> int:
    """The flag is a number, a text of one, or empty."""
    return OCCLUDED if str(np.squeeze(flag)) == "0" else VISIBLE


def _row(
    file: str, name: str, points: np.ndarray, visible: np.ndarray, centre: Any, scale: Any, head: float
) -> _flat.FileLabels | Skipped:
    """From coordinates that count from 1."""
    place, size = _reading.numbers(centre, (2,)), _reading.numbers(scale, ())
    if place is None or size is None or size <= 0:
        return Skipped(name, "it has no centre and scale")
    if not visible.any():
        return Skipped(name, "no joint is labelled")
    side = _REFERENCE * float(size)
    corner = place - 1 + (0, _SHIFT * float(size)) - side / 2
    return file, {
        "name": name,
        "keypoints": np.where(visible[:, None] > 0, points - 1, 0).astype(np.float32),
        "visible": visible,
        "bbox": np.array([*corner, side, side], np.float32),
        "head_size": float(head),
    }
