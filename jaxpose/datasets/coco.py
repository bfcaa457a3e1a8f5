"""COCO's people with keypoints."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import COCO17
from jaxpose.datasets import _flat, _reading
from jaxpose.datasets.builder import RecordBuilder, Shard

_YEAR = 2017


class CocoKeypoints(RecordBuilder):
    """People in photographs of everyday scenes with 17 keypoints, the 2017 release.

    Images are up to 640x640. A record is a person with at least one labelled keypoint; crowds, and people without any
    (most of them, small or far away) are skipped. The box is the owners', `area` that of the segment, which object
    keypoint similarity needs; segments themselves are not kept. Keypoints count from 0. A record's name is
    `val2017/000000000785.jpg#442619`: the image, whose number is its identifier, and the identifier of the annotation.
    """

    SKELETON = COCO17
    FIELDS = ("bbox", "area")
    COUNTS = {"train": 149_813, "validation": 6_352}
    HOMEPAGE = "https://cocodataset.org/#keypoints-2017"
    LICENCE = "annotations CC BY 4.0; images as their photographers state"
    CITATION = "Lin et al.: Microsoft COCO: Common objects in context. ECCV 2014."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack annotations_trainval2017.zip, train2017.zip and val2017.zip, so that the folder holds "
        "annotations/person_keypoints_{train,val}2017.json, train2017/ and val2017/"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """The people in the order of the annotations."""
        parts = {"train": f"train{_YEAR}", "validation": f"val{_YEAR}"}
        for part in parts.values():
            _reading.require(root / part, "a folder of COCO's images")
            _reading.require(root / "annotations" / f"person_keypoints_{part}.json", "COCO's annotations of people")
        return {split: _flat.in_shards(root, list(_people(root, part))) for split, part in parts.items()}


def _people(root: Path, part: str) -> Iterator[_flat.FileLabels | Skipped]:
    path = root / "annotations" / f"person_keypoints_{part}.json"
    found = untrusted.read_json(path, dict, "COCO's annotations of people")
    for field in ("images", "annotations"):
        if not isinstance(found.get(field), list):
            raise ValueError(f"{path}: holds {untrusted.one_line(', '.join(found))}; expected a list of {field}")
    _check_joints(found.get("categories"), path)
    files = {
        image.get("id"): image["file_name"]
        for image in found["images"]
        if isinstance(image, dict) and isinstance(image.get("id"), int) and isinstance(image.get("file_name"), str)
    }
    for person in found["annotations"]:
        yield _person(person, files, part)


def _check_joints(categories: Any, path: Path) -> None:
    """That the file's joints are the 17 in their order, if it names them."""
    for category in categories if isinstance(categories, list) else ():
        joints = category.get("keypoints") if isinstance(category, dict) else None
        if joints is not None and joints != list(COCO17.joints):
            raise ValueError(f"{path}: keypoints are {joints}, expected {', '.join(COCO17.joints)}")


def _person(person: Any, files: Mapping[Any, str], part: str) -> _flat.FileLabels | Skipped:
    image = person.get("image_id") if isinstance(person, dict) else None
    if not isinstance(image, int) or image not in files:
        return Skipped(f"{part}: {str(person)[:60]}", "it names no image")
    file = f"{part}/{files[image]}"
    name = f"{file}#{person.get('id')}"
    if person.get("iscrowd"):
        return Skipped(name, "it is a crowd")
    flat = _reading.numbers(person.get("keypoints"), (3 * len(COCO17),))
    box, area = _reading.numbers(person.get("bbox"), (4,)), _reading.numbers(person.get("area"), ())
    if flat is None or not np.isin(flat[2::3], (0, 1, 2)).all():
        return Skipped(name, "it has no 17 keypoints of x, y and 0, 1 or 2")
    if not flat[2::3].any():
        return Skipped(name, "no keypoint is labelled")
    if box is None or area is None or min(box[2:]) <= 0:
        return Skipped(name, "it has no box and area")
    points = flat.reshape(-1, 3)
    return file, {
        "name": name,
        "keypoints": np.where(points[:, 2:] > 0, points[:, :2], 0).astype(np.float32),
        "visible": points[:, 2].astype(np.uint8),
        "bbox": box.astype(np.float32),
        "area": float(area),
    }
