"""Everyone who is annotated in the images of a COCO file, and detections of people in its images."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Note, Record

_DETECTIONS = "a list of detections with image_id, bbox and score"
_FAR = 1e9  # pixels
_Id = int | float | str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class People:
    """All annotated people, crowds and those without labelled joints too: a source (`records.Source`) without pixels.

    An evaluation needs them: who is ignored must not count as found by mistake, and who has no crop is missed.

    Attributes:
      skeleton: names the K joints.
      names: the image of each of N people.
      keypoints: float32 (N, K, 2) pixels.
      visible: uint8 (N, K).
      bboxes: float64 (N, 4) x, y, width, height.
      areas: float64 (N,) square pixels of the segments.
      crowds: bool (N,), which are several people at once.
    """

    skeleton: Skeleton
    names: tuple[str, ...]
    keypoints: np.ndarray
    visible: np.ndarray
    bboxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray

    @property
    def labelled(self) -> bool:
        """Whether any joint of anyone has a label."""
        return bool(self.visible.any())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        return Record(
            image=b"",
            keypoints=self.keypoints[index],
            visible=self.visible[index],
            name=self.names[index],
            bbox=self.bboxes[index],
            area=float(self.areas[index]),
            crowd=bool(self.crowds[index]),
        )

    def name(self, index: int) -> str:
        """The name of a person's image."""
        return self.names[index]


def everyone(
    annotations: Sequence[Mapping[str, Any]],
    parsed: Mapping[int, tuple[np.ndarray, np.ndarray]],
    places: Mapping[Any, str | None],
    categories: set[Any],
    skeleton: Skeleton,
) -> People | None:
    """All people in images that have a file; None if someone with a label has no area, without which nobody is found.

    Args:
      annotations: as the file has them.
      parsed: keypoints (K, 2) and flags (K,) of those that are labelled and no crowd, by their places in the list.
      places: the names of images by identifier, None if there is no such file.
      categories: identifiers of those that count.
      skeleton: names the joints.
    """
    nobody = np.zeros((len(skeleton), 2), np.float32), np.zeros(len(skeleton), np.uint8)
    rows = []
    for position, annotation in enumerate(annotations):
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        name = places.get(image_id) if isinstance(image_id, _Id) else None
        if name is None or not (category is None or (isinstance(category, _Id) and category in categories)):
            continue
        points, visible = parsed.get(position, nobody)
        area = area_of(annotation)
        if np.isfinite(area):
            crowd = bool(annotation.get("iscrowd"))
            rows.append((name, points, visible, _stated_box(annotation), area, crowd))
        elif visible.any():
            return None
    if not rows:
        return None
    names, keypoints, flags, bboxes, areas, crowds = zip(*rows, strict=True)
    return People(
        skeleton=skeleton,
        names=names,
        keypoints=np.stack(keypoints),
        visible=np.stack(flags),
        bboxes=np.array(bboxes, np.float64),
        areas=np.array(areas, np.float64),
        crowds=np.array(crowds, bool),
    )


def area_of(annotation: Mapping[str, Any]) -> float:
    """In square pixels; NaN if it is not known."""
    area = annotation.get("area")
    return float(area) if isinstance(area, int | float) and 0 < area < 1e30 else np.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detections:
    """Boxes that a detector of people found.

    Attributes:
      names: the image of each of N boxes.
      boxes: float32 (N, 4) x, y, width, height.
      scores: float64 (N,).
      notes: what was left out.
    """

    names: tuple[str, ...]
    boxes: np.ndarray
    scores: np.ndarray
    notes: tuple[Note, ...]


def detections(
    path: str | os.PathLike, images: Mapping[Any, str | None], categories: set[Any], annotations: str
) -> Detections:
    """The detections of some images and categories in a file of COCO's results.

    Left out are other categories and empty boxes; left out and noted are images that are not among these, or that do
    not exist.

    Args:
      path: of the file.
      images: identifier -> name, None if there is no such file.
      categories: identifiers of those that count.
      annotations: what states the images, for messages.

    Raises:
      ValueError: naming the file, if it is no such list, a detection has no box or score, or all are of other images.
    """
    found = untrusted.read_json(path, list, _DETECTIONS)
    names, boxes, scores, other, absent = [], [], [], [], []
    for number, one in enumerate(found):
        where = f"{path}: detection {number}"
        if not isinstance(one, dict) or "image_id" not in one:
            raise ValueError(f"{where}: found {untrusted.one_line(one)}, expected {_DETECTIONS}")
        if "category_id" in one and not (isinstance(one["category_id"], _Id) and one["category_id"] in categories):
            continue
        score: Any = one.get("score")
        box: Any = one.get("bbox")
        if not _number(score):
            raise ValueError(f"{where}: found the score {untrusted.one_line(score)}, expected a number: {_DETECTIONS}")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
            raise ValueError(f"{where}: found the bbox {untrusted.one_line(box)}, expected x, y, width, height")
        image = one["image_id"] if isinstance(one["image_id"], int | str) else None
        if image not in images:
            other.append(one["image_id"])
        elif images[image] is None:
            absent.append(image)
        elif min(box[2:]) > 0:
            names.append(images[image])
            boxes.append(box)
            scores.append(score)
    if not names:
        some = untrusted.one_line(other[0]) if other else "nothing"
        raise ValueError(f"{path}: found detections of image {some}, ..., expected of images of {annotations}")
    notes = tuple(
        Note(what=f"left out detections {what}", count=len(those), example=untrusted.one_line(f"image {those[0]}"))
        for what, those in (("of images that are not annotated", other), ("whose image does not exist", absent))
        if those
    )
    return Detections(
        names=tuple(names), boxes=np.array(boxes, np.float32), scores=np.array(scores, np.float64), notes=notes
    )


def _stated_box(annotation: Mapping[str, Any]) -> list[float]:
    """The box as it is stated, which may be empty; around nothing if none is."""
    box: Any = annotation.get("bbox")
    good = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) < 1e30 for v in box)
    return [float(v) for v in box] if good else [0.0] * 4


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _FAR
