"""Keypoints in the JSON format of COCO, with the file's own joints."""

import dataclasses
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats.files import Files, FileSource
from jaxpose.data.joints.skeletons import COCO17, Skeleton
from jaxpose.data.readers import boxes, coco_people, sides
from jaxpose.data.readers.coco_people import People

BOX_FACTOR = 1.3  # side of the box of an object that has none, relative to the extent of its joints


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CocoSource(FileSource):
    """A `FileSource` whose records may have an area.

    Attributes:
      areas: float64 (N,) square pixels of the objects' segments, NaN where unknown.
      everyone: who is annotated in the images; None if that, or the area of someone, is not known.
      scores: float64 (N,) of the boxes, if they are detections, which have no labels.
    """

    areas: np.ndarray
    everyone: People | None = None
    scores: np.ndarray | None = None

    @property
    def labelled(self) -> bool:
        """Whether there are labels: of detections, those of the people."""
        return super().labelled or (self.scores is not None and self.everyone is not None and self.everyone.labelled)

    def people(self) -> People | None:
        """See `everyone`."""
        return self.everyone

    def __getitem__(self, index: int) -> records.Record:
        record = super().__getitem__(index)
        if self.scores is not None:
            record["score"] = float(self.scores[index])
        if np.isfinite(self.areas[index]) or self.scores is not None:
            record["area"] = float(self.areas[index])
        return record

    def subset(self, indices: Sequence[int] | np.ndarray) -> "CocoSource":
        """The records at `indices`, in that order."""
        part = cast(CocoSource, super().subset(indices))
        index = np.asarray(indices, dtype=np.int64)
        scores = None if self.scores is None else self.scores[index]
        return dataclasses.replace(part, areas=self.areas[index], scores=scores)


def read(
    path: str | os.PathLike,
    *,
    annotations: str | None = None,
    images: str | os.PathLike | None = None,
    category: str | None = None,
    detections: str | os.PathLike | None = None,
) -> CocoSource:
    """The objects of a COCO file that have keypoints, or boxes detected in its images, one record each.

    The categories name the joints and the bones: pairs that count from 1, or from 0 where the file holds a 0; bones
    that name no joint are left out. Left and right follow from the names; with the names of COCO's 17 joints the
    skeleton has COCO's groups and sigmas. Coordinates are taken as they are: COCO's keypoints are indices of pixels
    that count from 0. Boxes are x, y, width, height as stated, or a square of 1.3 times the joints' extent where none
    is. A joint without a finite coordinate is missing.

    Left out are crowds and objects without a labelled joint, which are still among `CocoSource.everyone`; left out and
    noted are objects whose category or image is unknown, whose image does not exist, or whose box is empty or unusable.

    Args:
      path: a JSON file, or a folder or tar that holds one at any depth.
      annotations: which JSON file, where there are several: its name, or the end of its path.
      images: where images are, from the folder of `path` or in the archive; or another folder or tar. Otherwise an
        image is looked for beside the JSON, in `images` there, and then by its name anywhere below `path`, or below
        the parent folder of a JSON in `annotations`.
      category: which category, where several have different joints.
      detections: a file of COCO's results: records are the boxes that it holds, with scores and without labels.

    Raises:
      FileNotFoundError: if a path does not exist.
      ValueError: if there is no JSON or several, it is malformed, no category names joints or several name different
        ones, an id occurs twice, keypoints are not three numbers per joint, a flag is not 0, 1 or 2, an image's
        name fits several files, or no object remains.
    """
    files, name, data = _find_json(Path(path), annotations)
    where = f"{path}: {name}" if Path(path).suffix.lower() != ".json" else str(path)
    with untrusted.reading(where, "keypoints in COCO's format"):
        content = _parse(data, where)
        return _source(content, files, name, where, images=images, category=category, detections=detections)


def _source(
    content: dict[str, list[dict[str, Any]]],
    files: Files,
    name: str,
    where: str,
    *,
    images: str | os.PathLike | None,
    category: str | None,
    detections: str | os.PathLike | None,
) -> CocoSource:
    notes: list[records.Note] = []
    skeleton, categories = _skeleton(content["categories"], category, where, notes)
    finder = _Finder(files, posixpath.dirname(name), images)
    stated = _image_names(content["images"], where)
    known = {_identifier(c, "id", where) for c in content["categories"]}
    unusable: dict[str, list[str]] = {}
    rows, parsed = [], {}
    places: dict[_Id, str | None] = {}
    for position, found in _labelled(content["annotations"], where):
        own = _identifier(found, "category_id", where) if "category_id" in found else None
        if own is not None and own not in categories:
            if own not in known:
                unusable.setdefault("category is unknown", []).append(f"category {own}")
            continue
        parsed[position] = points, visible = _keypoints(found, len(skeleton), where)
        if not visible.any():
            continue
        image_id = _identifier(found, "image_id", where)
        file_name = stated.get(image_id)
        image = places[image_id] = None if file_name is None else finder.find(file_name, where)
        box = _box(found, points, visible)
        if file_name is None:
            unusable.setdefault("image is unknown", []).append(f"image {image_id}")
        elif image is None:
            unusable.setdefault("image does not exist", []).append(file_name)
        elif box is None:
            unusable.setdefault("box is unusable", []).append(file_name)
        else:
            rows.append((image, points, visible, box, coco_people.area_of(found)))
    if not rows:
        summary = "; ".join(f"{len(those)} whose {what} ({those[0]})" for what, those in unusable.items()) or "none"
        raise ValueError(f"{where}: found no object with labelled joints to use, left out: {summary}")
    for what, those in unusable.items():
        notes.append(records.Note(what=f"left out objects whose {what}", count=len(those), example=those[0]))
    names, keypoints, visible, bboxes, areas = zip(*rows, strict=True)
    if detections is not None:
        places = {image_id: finder.find(file_name, where) for image_id, file_name in stated.items()}
    source = CocoSource(
        files=finder.files,
        skeleton=skeleton,
        names=names,
        keypoints=np.stack(keypoints),
        visible=np.stack(visible),
        bboxes=np.stack(bboxes),
        areas=np.array(areas, dtype=np.float64),
        everyone=coco_people.everyone(content["annotations"], parsed, places, categories, skeleton),
        notes=tuple(notes),
    )
    if detections is None:
        return source
    return _detected(source, coco_people.detections(detections, places, categories, where))


def _detected(source: CocoSource, found: coco_people.Detections) -> CocoSource:
    """The same people, with boxes that were detected as records."""
    joints = (len(found.names), len(source.skeleton))
    return dataclasses.replace(
        source,
        names=found.names,
        keypoints=np.zeros((*joints, 2), np.float32),
        visible=np.zeros(joints, np.uint8),
        bboxes=found.boxes,
        areas=np.full(len(found.names), np.nan),
        scores=found.scores,
        notes=(*source.notes, *found.notes),
    )


_Id = int | float | str


def _find_json(path: Path, annotations: str | None) -> tuple[Files, str, bytes]:
    """The files that may be images, the JSON's name among them, and its content."""
    if path.suffix.lower() == ".json":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file, expected a keypoints JSON")
        folder = path.absolute().parent
        root = folder.parent if folder.name == "annotations" else folder
        return Files(root), path.absolute().relative_to(root).as_posix(), untrusted.read_file(path, "a keypoints JSON")
    files = Files(path)
    names = [name for name in files.names if name.lower().endswith(".json")]
    if annotations is not None:
        wanted = "/" + annotations.lstrip("/")
        chosen = [name for name in names if f"/{name}".endswith((wanted, f"{wanted}.json"))]
    else:
        chosen = names
    if len(chosen) != 1:
        listed = ", ".join((chosen or names)[:20]) or "no .json file"
        asked = "one JSON file; choose with the option annotations" if annotations is None else annotations
        raise ValueError(f"{path}: found {listed}; expected {asked}")
    return files, chosen[0], files.read(chosen[0])


def _parse(data: bytes, where: str) -> dict[str, list[dict[str, Any]]]:
    with untrusted.reading(where, "JSON"):
        content = json.loads(data)
    parts = {}
    for field in ("images", "annotations", "categories"):
        items = content.get(field) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ValueError(f"{where}: found no list of objects {field!r}, expected images, annotations, categories")
        parts[field] = items
    return parts


def _skeleton(
    categories: list[dict[str, Any]], wanted: str | None, where: str, notes: list[records.Note]
) -> tuple[Skeleton, set[_Id]]:
    """The joints, and the ids of the categories that have them."""
    named = {}
    for category in categories:
        joints = category.get("keypoints")
        if isinstance(joints, list) and joints and all(isinstance(joint, str) for joint in joints):
            named.setdefault(str(category.get("name")), []).append(category)
    if not named:
        raise ValueError(f"{where}: no category names its keypoints, expected `keypoints` with a name per joint")
    if wanted is not None and wanted not in named:
        raise ValueError(f"{where}: found the categories {', '.join(named)}; expected {wanted}")
    chosen = [c for name, group in named.items() if wanted in (None, name) for c in group]
    if any(c["keypoints"] != chosen[0]["keypoints"] for c in chosen):
        lists = "; ".join(f"{c.get('name')} ({', '.join(c['keypoints'])})" for c in chosen)
        raise ValueError(f"{where}: categories differ in keypoints, choose one with the option category: {lists}")
    joints = tuple(chosen[0]["keypoints"])
    try:
        skeleton = Skeleton(name=Path(where).stem, joints=joints, flips=sides.left_right_pairs(joints))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    pairs = chosen[0].get("skeleton")
    bones = _bones(pairs, joints, notes) if pairs else ()
    if set(joints) == set(COCO17.joints):
        known = COCO17.restrict(joints)
        skeleton = dataclasses.replace(skeleton, groups=known.groups, sigmas=known.sigmas)
        bones = bones or known.bones
    return dataclasses.replace(skeleton, bones=bones), {_identifier(c, "id", where) for c in chosen}


def _bones(pairs: object, joints: tuple[str, ...], notes: list[records.Note]) -> tuple[tuple[str, str], ...]:
    pairs = pairs if isinstance(pairs, list) else [pairs]
    good = [p for p in pairs if isinstance(p, list) and len(p) == 2 and all(isinstance(j, int) and j >= 0 for j in p)]
    first = 0 if any(0 in pair for pair in good) else 1
    good = [(a - first, b - first) for a, b in good if a != b and max(a, b) - first < len(joints)]
    if len(good) < len(pairs):
        notes.append(records.Note(what="left out bones that are no pair of joints", count=len(pairs) - len(good)))
    return tuple((joints[a], joints[b]) for a, b in good)


def _image_names(images: list[dict[str, Any]], where: str) -> dict[_Id, str]:
    names = {}
    for image in images:
        identifier, name = _identifier(image, "id", where), image.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: file_name of image {identifier} is {name!r}, expected a path")
        if identifier in names:
            raise ValueError(f"{where}: image id {identifier} occurs twice, expected one image each")
        names[identifier] = name
    return names


def _labelled(annotations: list[dict[str, Any]], where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """What has keypoints and is no crowd, by its place in the list."""
    seen = set()
    for position, annotation in enumerate(annotations):
        identifier = annotation.get("id")
        if identifier is not None and _identifier(annotation, "id", where) in seen:
            raise ValueError(f"{where}: annotation id {identifier} occurs twice, expected one object each")
        seen.add(identifier)
        if annotation.get("keypoints") and not annotation.get("iscrowd"):
            yield position, annotation


def _identifier(item: Mapping[str, Any], field: str, where: str) -> _Id:
    value = item.get(field)
    if isinstance(value, bool) or not isinstance(value, _Id) or (isinstance(value, int) and abs(value) >= 2**64):
        raise ValueError(f"{where}: {field} is {untrusted.one_line(value)}, expected a number or a string")
    return value


def _keypoints(annotation: dict[str, Any], joints: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 2), 0 where missing, and flags (K,)."""
    label = f"{where}: keypoints of annotation {annotation.get('id')}"
    try:
        values = _floats(annotation["keypoints"]).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{label} are not numbers, expected x, y and a flag for {joints} joints") from None
    if len(values) != 3 * joints:
        raise ValueError(
            f"{label} are {len(values)} numbers, expected {3 * joints}: x, y and a flag for {joints} joints"
        )
    points, flags = values.reshape(joints, 3)[:, :2], values[2::3]
    if not np.isin(flags, (records.MISSING, records.OCCLUDED, records.VISIBLE)).all():
        raise ValueError(f"{label} have the flags {untrusted.one_line(np.unique(flags))}, expected 0, 1 or 2")
    return boxes.usable(points, flags)


def _box(annotation: dict[str, Any], points: np.ndarray, visible: np.ndarray) -> np.ndarray | None:
    """The box, float32 (4,); None if it is empty or unusable."""
    stated = annotation.get("bbox")
    if stated is None:
        box = boxes.square_boxes(points[None], visible[None], factor=BOX_FACTOR)[0]
    else:
        try:
            box = _floats(stated)
        except (TypeError, ValueError, OverflowError):
            return None
    return box if box.shape == (4,) and np.isfinite(box).all() and (box[2:] > 0).all() else None


def _floats(values: object) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what exceeds float32 is infinite, and no coordinate
        return np.asarray(values, dtype=np.float64).astype(np.float32)


class _Finder:
    """Finds images by the names that a JSON states."""

    def __init__(self, files: Files, folder: str, images: str | os.PathLike | None):
        self.files, self._folders = files, [folder, posixpath.join(folder, "images"), ""]
        within = ""
        if images is not None:
            place = posixpath.normpath(posixpath.join(folder, Path(images).as_posix()))
            places = [posixpath.normpath(Path(images).as_posix()), place]
            inside = [p for p in places if any(name.startswith(f"{p}/") for name in files.names)]
            if inside:
                self._folders, within = inside[:1], f"{inside[0]}/"
            else:
                base = files.path if files.path.is_dir() else files.path.parent
                beside = base / folder / images
                self.files, self._folders = Files(beside if beside.exists() else base / images), [""]
        self._by_basename: dict[str, list[str]] = {}
        for name in self.files.names:
            if name.startswith(within):
                self._by_basename.setdefault(posixpath.basename(name), []).append(name)

    def find(self, stated: str, where: str) -> str | None:
        """The image's name among the files; None if it does not exist."""
        stated = stated.replace("\\", "/")
        for folder in self._folders:
            name = posixpath.normpath(posixpath.join(folder, stated))
            if name in self.files:
                return name
        same = self._by_basename.get(posixpath.basename(stated), [])
        longer = [name for name in same if name.endswith(f"/{stated}")]
        found = longer or same
        if len(found) > 1:
            raise ValueError(f"{where}: {stated} may be {' or '.join(found[:5])}; choose with the option images")
        return found[0] if found else None
