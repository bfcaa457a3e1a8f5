"""Elements: one or several records as arrays of fixed shape, decoded and cropped."""

import dataclasses
import functools
import hashlib
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from jaxpose.data.formats import files
from jaxpose.data.host.cache import Cache, Element, labels_of
from jaxpose.data.host.windows import Window, Windows
from jaxpose.data.records import BrokenImageError, Record, Source, printable
from jaxpose.data.wrappers import name_of, people_of, sequences_of


@runtime_checkable
class Elements(Protocol):
    """What batches are made of: images, windows of frames, motions without images; pure, in any process.

    An element has arrays of fixed shape by field, `index` int32: which it is, and `broken` int32: which was asked for
    if that cannot be read and another one stands in for it, else -1.
    """

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of its elements."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of an element's images, or about that of all of it."""
        ...

    def clips(self) -> Sequence[str] | None:
        """The clip or motion that each element is of, if that is known."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Element: ...

    def name(self, index: int) -> str:
        """For messages."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """A source's records, or windows of them, as elements around the objects' boxes (`Elements`).

    Fields, which are made where they are asked for:

    - `image` uint8 (S, S, 3);
    - `keypoints` float32 (K, 2) in pixels of that image, `visible` uint8 (K,), 0 also outside it;
    - `annotated` uint8 (K,): as `visible`, also outside the crop: benchmarks count what a crop has cut off;
    - `scale` float32: its pixels per pixel of the stored image; `crop` float32 (2, 3): from that to it;
    - `keypoints3d` float32 (K, 3) metres, `intrinsics` float32 (3, 3) of the crop;
    - `area` and `head_size` float32: of the object's segment and head, in square pixels and pixels of the crop;
    - `box_size` float32: the longer side of the box, or of the whole image, in pixels of the crop;
    - `image_id` int32 (2,): the same for records of one image, whose names are the same but for a `#NUMBER` at the end;
    - `score` float32: of the box, 1 where it was not detected;
    - `hand` int32: -1 left, 1 right;
    - `mask` uint8 (S, S): 0 background, else the number of a part.

    Frames of a window share one crop, the square around all their boxes, so that what stands still in the clip stands
    still in the element; their fields have a leading axis of T frames. A broken frame breaks the whole element.

    Attributes:
      source: where the records come from.
      joints: which of the source's joints, in which order, (K,).
      size: side of the crop in pixels.
      margin: side of the square crop relative to the longer side of the record's box.
      memory: bytes of pixels that are kept once they are made, in each process that reads.
      cache: where `training_batches` keeps all of them on disk.
      fields: of the elements.
      windows: of T records, each an element; without, each record is one.
    """

    source: Source
    joints: np.ndarray
    size: int
    margin: float = 1.25
    memory: int = 0
    cache: Cache | None = None
    fields: tuple[str, ...] = ("image", "keypoints", "visible", "scale")
    windows: Windows | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", {})
        object.__setattr__(self, "_after", {})  # of an element known to be broken: one such that all between are too

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}, "_after": {}}

    def __len__(self) -> int:
        return len(self.source) if self.windows is None else len(self.windows)

    @property
    def labelled(self) -> bool:
        """Whether any record has labels."""
        return self.source.labelled

    @property
    def nbytes(self) -> int:
        """Bytes of an element's pixels."""
        frames = 1 if self.windows is None else self.windows.offsets.shape[1]
        return 3 * self.size**2 * frames if "image" in self.fields else 4 * 2 * len(self.joints) * frames

    @functools.cached_property  # a record is read for it, and every evaluation asks
    def known(self) -> tuple[str, ...]:
        """The fields there are, as far as the first record that can be read shows them."""
        for index in range(len(self.source)):
            try:
                record = self.source[index]
            except BrokenImageError:
                continue
            there = {*record, "scale", "crop", "box_size", "image_id", "score"} - (
                set() if self.labelled else {"keypoints", "visible"}
            )
            return tuple(field for field in _FIELDS if _MADE_OF.get(field, field) in there)
        return tuple(_FIELDS)

    @functools.cached_property  # by its first evaluation
    def people(self) -> dict[str, np.ndarray] | None:
        """Everyone who is annotated in the images; None if that is not known, see `wrappers.people_of`.

        By person `keypoints` (N, K, 2) in pixels of the images, `visible` (N, K), `bbox` (N, 4), `area` (N,), `crowd`
        (N,) bool and `image_id` (N, 2); and `images` (I, 2), the identifiers of all images in the order of their files.
        """
        found = people_of(self.source)
        if found is None or not len(found) or self.windows is not None:
            return None
        everyone: list[Any] = [found[i] for i in range(len(found))]  # Any: not every record has these fields
        names = [person["name"] for person in everyone]
        images = {*names, *(name_of(self.source, i) for i in range(len(self.source)))}
        # COCO's files are numbered as its images are: equally sure detections come in the same order as there.
        images = sorted(images, key=lambda name: (posixpath.basename(name), name))
        identifiers = {name: _image_id(name) for name in images}
        return {
            "keypoints": np.stack([person["keypoints"] for person in everyone])[:, self.joints],
            "visible": np.stack([person["visible"] for person in everyone])[:, self.joints],
            "bbox": np.stack([person["bbox"] for person in everyone]),
            "area": np.array([person["area"] for person in everyone]),
            "crowd": np.array([person["crowd"] for person in everyone]),
            "image_id": np.stack([identifiers[name] for name in names]),
            "images": np.stack(list(identifiers.values())),
        }

    def clips(self) -> tuple[str, ...] | None:
        """The clip of each element, if that is known."""
        names = sequences_of(self.source)
        if names is None or self.windows is None:
            return names
        return tuple(names[self.windows[index][0]] for index in range(len(self)))

    def read_as(self, fields: tuple[str, ...], window: Window | None, name: str) -> "Crops":
        """The same records with other fields, or windows of them; `name` is that of a cache of windows.

        Raises:
          ValueError: if there are no such windows.
        """
        if window is None:
            return dataclasses.replace(self, fields=fields)
        windows = Windows(self.source, window)
        if not len(windows):
            raise ValueError(f"found no frames of one clip at distances {window}, expected some")
        cache = None if self.cache is None else dataclasses.replace(self.cache, name=name)
        return dataclasses.replace(self, fields=fields, windows=windows, cache=cache)

    def __getitem__(self, index: int) -> Element:
        kept: dict[int, Element] = self.__dict__["_kept"]
        element = kept.get(index)
        if element is None:
            element = self._first_good(index)
            if (len(kept) + 1) * self.nbytes <= self.memory:
                kept[index] = element
        return element

    def read(self, index: int) -> list[Record]:
        """The records that an element is made of."""
        return [self.source[int(i)] for i in ([index] if self.windows is None else self.windows[index])]

    def cut(self, records: Sequence[Record], images: Sequence[np.ndarray | None]) -> Element:
        """The element of some records and, if it has any, their decoded images, without `index` and `broken`."""
        boxes = [record["bbox"] for record in records if "bbox" in record]
        box = _union(boxes) if len(boxes) == len(records) else None
        frames = [
            crop(r, image, size=self.size, margin=self.margin, box=box, fields=self.fields, joints=self.joints)
            for r, image in zip(records, images, strict=True)
        ]
        return frames[0] if self.windows is None else {f: np.stack([frame[f] for frame in frames]) for f in self.fields}

    def labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The keypoints (K, 2) and visibility (K,) of an element, without its pixels.

        Raises:
          BrokenImageError: if the size of an image is needed and cannot be found.
        """
        fields = ("keypoints", "visible")
        record = self.source[index]
        element = crop(record, None, size=self.size, margin=self.margin, fields=fields, joints=self.joints)
        return element["keypoints"], element["visible"]

    def described_cache(self) -> Cache:
        """The cache, with everything that its content depends on; there must be one."""
        assert self.cache is not None
        joints = self.source.skeleton.joints
        asked: dict[str, Any] = {
            "image_size": self.size,
            "margin": self.margin,
            "joints": [joints[i] for i in self.joints],
            "seed": getattr(self.source, "seed", None),  # of what is rendered
            "fields": sorted(self.fields),
        }
        if self.windows is not None:
            asked["windows"] = self.windows.offsets.tolist()
            if self.windows.rate is not None:
                asked["rate"] = self.windows.rate
        found = {"labels": labels_of(self.source)}
        return dataclasses.replace(self.cache, asked={**self.cache.asked, **asked}, found={**self.cache.found, **found})

    def name(self, index: int) -> str:
        """The name of a record or of a window's first, for messages; of a broken one, what is wrong with it."""
        try:
            return printable(name_of(self.source, index if self.windows is None else int(self.windows[index][0])))
        except BrokenImageError as error:
            return printable(str(error))

    def _first_good(self, index: int) -> Element:
        """The element, or the next good one. No broken one is read twice, and no way over them is gone twice."""
        after: dict[int, int] = self.__dict__["_after"]
        actual, passed, wrong = index, [], ""
        while len(after) < len(self):
            if actual not in after:
                try:
                    element = self._crop(actual)
                except BrokenImageError as error:
                    wrong = wrong or f"; {printable(str(error))}"
                    after[actual] = (actual + 1) % len(self)
                else:
                    after.update(dict.fromkeys(passed, actual))
                    return element | {
                        "index": np.array(actual, np.int32),
                        "broken": np.array(index if passed else -1, np.int32),
                    }
            passed.append(actual)
            actual = after[actual]
        raise ValueError(f"{self.source.skeleton.name}: none of {len(self)} images can be decoded{wrong}")

    def _crop(self, index: int) -> Element:
        records = self.read(index)
        if "image" not in self.fields:
            return self.cut(records, [None] * len(records))
        return self.cut(records, [files.decode_image(record["image"], record["name"]) for record in records])


def _union(boxes: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(boxes)
    low, high = stacked[:, :2].min(axis=0), (stacked[:, :2] + stacked[:, 2:]).max(axis=0)
    return np.concatenate([low, high - low])


def crop(
    record: Record,
    image: np.ndarray | None,
    *,
    size: int,
    margin: float,
    box: np.ndarray | None = None,
    fields: Sequence[str] = ("image", "keypoints", "visible", "scale"),
    joints: np.ndarray | slice = slice(None),
) -> Element:
    """The square around a box, by default the record's or else the whole image, resized to `size`.

    The aspect ratio is kept; what lies outside the image is black.

    Args:
      record: see there.
      image: decoded; needed for the field `image` only.
      size, margin, box, fields, joints: see `Crops`.

    Raises:
      ValueError: if the record has nothing to make a field of.
      BrokenImageError: if the size of an image is needed and cannot be found.
    """
    cut = _Cut(record, image, size=size, margin=margin, box=box, joints=joints)
    return {field: _FIELDS[field](cut) for field in fields}


class _Cut:
    """A record and the square of it that is its crop, from which each field is made."""

    def __init__(
        self,
        record: Record,
        image: np.ndarray | None,
        *,
        size: int,
        margin: float,
        box: np.ndarray | None,
        joints: np.ndarray | slice,
    ):
        self.record, self.pixels, self.size, self.joints = record, image, size, joints
        box = record.get("bbox") if box is None else box
        shape: Sequence[int] = ()
        if image is not None:
            shape = image.shape[:2]
        elif box is None:
            shape = files.image_shape(record["image"], record["name"])
        self.scale, self.offset = _square(box, shape, size=size, margin=margin)

    def image(self) -> np.ndarray:
        assert self.pixels is not None
        if self.scale == 1.0 and not self.offset.any() and self.pixels.shape[:2] == (self.size, self.size):
            return self.pixels
        sampled, ratios = _smoothed(self.pixels, self.scale)
        # A pixel of what is sampled stands for `ratios` pixels of the image.
        matrix = np.zeros((2, 3))
        matrix[(0, 1), (0, 1)] = self.scale * ratios
        matrix[:, 2] = self.offset + self.scale * (ratios - 1) / 2
        return cv2.warpAffine(sampled, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR)

    @functools.cached_property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        keypoints, visible = _labels(self.record, self.scale, self.offset, self.size)
        return keypoints[self.joints], visible[self.joints]

    def annotated(self) -> np.ndarray:
        there = np.isfinite(self.record["keypoints"]).all(axis=-1)
        return np.where(there, self.record["visible"], 0).astype(np.uint8)[self.joints]

    def crop(self) -> np.ndarray:
        return np.array([[self.scale, 0, self.offset[0]], [0, self.scale, self.offset[1]]])

    def intrinsics(self) -> np.ndarray:
        return np.vstack([self.crop(), (0, 0, 1)]) @ self.known("intrinsics")

    def box_size(self) -> np.ndarray:
        if "bbox" in self.record:
            sides = self.record["bbox"][2:]
        elif self.pixels is not None:
            sides = self.pixels.shape[:2]
        else:
            sides = files.image_shape(self.record["image"], self.record["name"])
        return np.array(max(sides) * self.scale, np.float32)

    def mask(self) -> np.ndarray:
        parts = files.decode_mask(self.known("segmentation"), self.record["name"])
        return cv2.warpAffine(parts, self.crop(), (self.size, self.size), flags=cv2.INTER_NEAREST)

    def known(self, name: str) -> Any:
        if name not in self.record:
            raise ValueError(f"{printable(self.record['name'])}: found no {name}, expected it as a field is made of it")
        return self.record[name]


def _image_id(name: str) -> np.ndarray:
    image = re.sub(r"#\d+$", "", name).encode(errors="backslashreplace")
    return np.frombuffer(hashlib.blake2b(image, digest_size=8).digest(), "<i4").astype(np.int32)


_FIELDS: dict[str, Callable[[_Cut], np.ndarray]] = {
    "image": _Cut.image,
    "keypoints": lambda cut: cut.labels[0],
    "visible": lambda cut: cut.labels[1],
    "annotated": lambda cut: cut.annotated(),
    "scale": lambda cut: np.array(cut.scale, np.float32),
    "crop": lambda cut: cut.crop().astype(np.float32),
    "keypoints3d": lambda cut: cut.known("keypoints3d").astype(np.float32)[cut.joints],
    "intrinsics": lambda cut: cut.intrinsics().astype(np.float32),
    "area": lambda cut: np.array(cut.known("area") * cut.scale**2, np.float32),
    "head_size": lambda cut: np.array(cut.known("head_size") * cut.scale, np.float32),
    "box_size": _Cut.box_size,
    "image_id": lambda cut: _image_id(cut.record["name"]),
    "score": lambda cut: np.array(cut.record.get("score", 1.0), np.float32),
    "hand": lambda cut: np.array({"left": -1, "right": 1}[cut.known("hand")], np.int32),
    "mask": _Cut.mask,
}
_MADE_OF = {"mask": "segmentation", "annotated": "visible"}  # what of a record a field of another name is made of


def shapes(
    fields: Sequence[str], *, size: int, joints: int, frames: int | None = None
) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of an element's fields, and of `index` and `position`.

    Args:
      fields: which.
      size: side of the crop in pixels.
      joints: K.
      frames: T of a window; None: single frames.
    """
    sides, found = {"S": size, "K": joints}, {}
    for field in fields:
        shape, kind = _SHAPES[field]
        leading = () if frames is None or field in _OF_ELEMENTS else (frames,)
        found[field] = ((*leading, *(sides.get(n, n) for n in shape)), kind)
    return found


_OF_ELEMENTS = ("index", "position")  # also where they are windows
_SHAPES: dict[str, tuple[tuple[Any, ...], type]] = {
    "image": (("S", "S", 3), np.uint8),
    "keypoints": (("K", 2), np.float32),
    "visible": (("K",), np.uint8),
    "annotated": (("K",), np.uint8),
    "scale": ((), np.float32),
    "crop": ((2, 3), np.float32),
    "keypoints3d": (("K", 3), np.float32),
    "intrinsics": ((3, 3), np.float32),
    "area": ((), np.float32),
    "head_size": ((), np.float32),
    "box_size": ((), np.float32),
    "image_id": ((2,), np.int32),
    "score": ((), np.float32),
    "hand": ((), np.int32),
    "mask": (("S", "S"), np.uint8),
    "positions": (("K", 3), np.float32),
    "pelvis": ((3,), np.float32),
    **dict.fromkeys(_OF_ELEMENTS, ((), np.int32)),
}


def _square(box: np.ndarray | None, shape: Sequence[int], *, size: int, margin: float) -> tuple[float, np.ndarray]:
    """Scale and offset (2,) from an image to its crop; the image's shape is only read where there is no box."""
    if box is not None:
        x, y, w, h = (float(v) for v in box)
        side = max(margin * max(w, h), 1.0)
    else:
        x, y, w, h = 0.0, 0.0, float(shape[1]), float(shape[0])
        side = max(w, h)
    scale = size / side
    # Pixel centres are at integers: a box from x of width w is centred on x + (w - 1) / 2.
    centre = np.array([x + (w - 1) / 2, y + (h - 1) / 2])
    return scale, (size - 1) / 2 - scale * centre


def _labels(record: Record, scale: float, offset: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (K, 2) in the crop, and visible (K,), 0 outside it."""
    keypoints = (record["keypoints"] * scale + offset).astype(np.float32)
    inside = ((keypoints > -0.5) & (keypoints < size - 0.5)).all(axis=-1)
    visible = np.where(inside, record["visible"], 0).astype(np.uint8)
    return np.where(np.isfinite(keypoints), keypoints, 0.0).astype(np.float32), visible


_WIDEST = 4.0  # pixels; standard deviation of the widest blur


def _smoothed(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image without what bilinear sampling at a scale would alias, and how many pixels (x, y) one of it stands for.

    A wide blur is slow, half a minute for a box of a thousand images' size: so the image is shrunk before by means over
    squares, and the blur does the rest.
    """
    ratios = np.ones(2)
    if scale >= 0.5:
        return image, ratios
    height, width = image.shape[:2]
    blur = 0.25 / scale
    if blur > _WIDEST:
        factor = min(blur / (_WIDEST / 2), max(height, width))
        small = tuple(max(1, round(side / factor)) for side in (width, height))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        ratios = np.array([width, height]) / small
        blur = _WIDEST / 2
    return cv2.GaussianBlur(image, (0, 0), blur), ratios
