"""Elements: one or several records as arrays of fixed shape, decoded and cropped."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from jaxpose.data.formats import files
from jaxpose.data.host.cache import Cache, Element
from jaxpose.data.records import BrokenImageError, Record, Source, printable
from jaxpose.data.views import name_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """A source's records as fixed-shape elements.

    An element has `image` uint8 (S, S, 3), `keypoints` float32 (K, 2) in pixels of that image, `visible` uint8 (K,),
    `index` int32: the record, and `broken` int32: the record that was asked for if its image cannot be decoded and
    the next good one stands in for it, else -1; and `scale` float32: its pixels per pixel of the stored image. Where
    the records have them, also `keypoints3d` float32 (K, 3) and `intrinsics` float32 (3, 3) of the crop.

    Attributes:
      source: where the records come from.
      joints: which of the source's joints, in which order, (K,).
      size: side of the crop in pixels.
      margin: side of the square crop relative to the longer side of the record's box.
      memory: bytes of pixels that are kept once they are made, in each process that reads.
      cache: where `training_batches` keeps all of them on disk.
    """

    source: Source
    joints: np.ndarray
    size: int
    margin: float = 1.25
    memory: int = 0
    cache: Cache | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", {})
        object.__setattr__(self, "_after", {})  # of an element known to be broken: one such that all between are too

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}, "_after": {}}

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_bytes(self) -> int:
        """Bytes of an element's pixels."""
        return 3 * self.size**2

    def __getitem__(self, index: int) -> Element:
        kept: dict[int, Element] = self.__dict__["_kept"]
        element = kept.get(index)
        if element is None:
            element = self._first_good(index)
            if (len(kept) + 1) * self.image_bytes <= self.memory:
                kept[index] = element
        return element

    def read(self, index: int) -> list[Record]:
        """The records that an element is made of."""
        return [self.source[index]]

    def cut(self, records: Sequence[Record], images: Sequence[np.ndarray]) -> Element:
        """The element of some records and their decoded images, without `index` and `broken`."""
        (record,), (image,) = records, images
        return _cut(record, image, self.joints, size=self.size, margin=self.margin, box=record.get("bbox"))

    def labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The keypoints (K, 2) and visibility (K,) of an element, without its pixels.

        Raises:
          BrokenImageError: if the size of an image is needed and cannot be found.
        """
        record = self.source[index]
        shape = () if "bbox" in record else files.image_shape(record["image"], record["name"])
        keypoints, visible = _labels(record, *_square(record, shape, size=self.size, margin=self.margin), self.size)
        return keypoints[self.joints], visible[self.joints]

    def name(self, index: int) -> str:
        """The name of a record, for messages; of a broken one, what is wrong with it."""
        try:
            return printable(name_of(self.source, index))
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
        return self.cut(records, [files.decode_image(record["image"], record["name"]) for record in records])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clips(Crops):
    """Several frames of a clip as one element: the fields of `Crops` with a leading axis of T frames.

    The frames share one crop, the square around all their boxes, so that what stands still in the clip stands still
    in the element. A broken frame breaks the whole element.

    Attributes:
      windows: records of each element, (N, T), see `windows_of`.
    """

    windows: np.ndarray

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def image_bytes(self) -> int:
        """Bytes of all frames."""
        return super().image_bytes * self.windows.shape[1]

    def read(self, index: int) -> list[Record]:
        """The frames of a clip."""
        return [self.source[int(i)] for i in self.windows[index]]

    def cut(self, records: Sequence[Record], images: Sequence[np.ndarray]) -> Element:
        """The element of some frames and their decoded images, without `index` and `broken`."""
        boxes = [frame["bbox"] for frame in records if "bbox" in frame]
        box = _union(boxes) if len(boxes) == len(records) else None
        cut = [
            _cut(frame, image, self.joints, size=self.size, margin=self.margin, box=box)
            for frame, image in zip(records, images, strict=True)
        ]
        return {field: np.stack([element[field] for element in cut]) for field in cut[0]}

    def name(self, index: int) -> str:
        """The name of the first frame."""
        return super().name(int(self.windows[index, 0]))


def windows_of(sequences: Sequence[str], offsets: Sequence[Sequence[int]]) -> np.ndarray:
    """The records of every window of T frames that lies within one sequence, (N, T).

    Args:
      sequences: the clip of each record; a clip's records follow one another in time.
      offsets: T frame distances each, from the window's first record; `[(0, n) for n in range(5, 16)]` makes pairs
        that are 5 to 15 records apart.
    """
    _, clip = np.unique(np.asarray(sequences), return_inverse=True)
    found = []
    for window in offsets:
        index = np.arange(len(clip))[:, None] + np.asarray(window)
        index = index[(index >= 0).all(axis=1) & (index < len(clip)).all(axis=1)]
        same = (clip[index] == clip[index[:, :1]]).all(axis=1)
        found.append(index[same])
    return np.concatenate(found)


def _union(boxes: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(boxes)
    low, high = stacked[:, :2].min(axis=0), (stacked[:, :2] + stacked[:, 2:]).max(axis=0)
    return np.concatenate([low, high - low])


def _cut(
    record: Record, image: np.ndarray, joints: np.ndarray, *, size: int, margin: float, box: np.ndarray | None
) -> Element:
    """The crop around a box with the chosen joints."""
    element = crop(record, image, size=size, margin=margin, box=box)
    return {k: v[joints] if k in ("keypoints", "visible", "keypoints3d") else v for k, v in element.items()}


def crop(record: Record, image: np.ndarray, *, size: int, margin: float, box: np.ndarray | None = None) -> Element:
    """Cuts the square around a box, by default the record's or else the whole image, and resizes it to `size`.

    The aspect ratio is kept; what lies outside the image is black. The intrinsics become those of the crop.
    """
    height, width = image.shape[:2]
    scale, offset = _square(record, (height, width), size=size, margin=margin, box=box)
    if scale == 1.0 and not offset.any() and image.shape[:2] == (size, size):
        pixels = image
    else:
        sampled, ratios = _smoothed(image, scale)
        # A pixel of what is sampled stands for `ratios` pixels of the image.
        matrix = np.zeros((2, 3))
        matrix[(0, 1), (0, 1)] = scale * ratios
        matrix[:, 2] = offset + scale * (ratios - 1) / 2
        pixels = cv2.warpAffine(sampled, matrix, (size, size), flags=cv2.INTER_LINEAR)
    keypoints, visible = _labels(record, scale, offset, size)
    element = {
        "image": pixels,
        "keypoints": keypoints,
        "visible": visible,
        "scale": np.array(scale, np.float32),
    }
    if "keypoints3d" in record:
        element["keypoints3d"] = record["keypoints3d"].astype(np.float32)
    if "intrinsics" in record:
        to_crop = np.array([[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1]])
        element["intrinsics"] = (to_crop @ record["intrinsics"]).astype(np.float32)
    return element


def _square(
    record: Record, shape: Sequence[int], *, size: int, margin: float, box: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Scale and offset (2,) from an image to its crop; the image's shape is only read where there is no box."""
    box = record.get("bbox") if box is None else box
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
