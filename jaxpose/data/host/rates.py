"""How fast each stage of the host pipeline is by itself, which says what a slow pipeline waits for."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from jaxpose.data.formats import files
from jaxpose.data.host.elements import Crops, Elements
from jaxpose.data.host.pipeline import Element, stack
from jaxpose.data.records import BrokenImageError, Record


def measure_stages(
    elements: Elements, *, fields: Sequence[str], batch_size: int, seconds: float = 1.0
) -> dict[str, float]:
    """Images per second of one thread in each stage alone, on the same records, which are a batch from all over.

    `read` is the source: encoded bytes from a file, or the rendering; `decode` their pixels; `crop` the crop with its
    labels; `batch` the stacking. Neither what the crops keep in memory nor their cache is used. A frame of a clip is
    an image. Of what has no images only `read` is measured, which makes all of an element.

    Args:
      elements: what is read.
      fields: of the batch.
      batch_size: elements of the batch; there may be fewer in all.
      seconds: how long each stage is measured.

    Raises:
      ValueError: if no image can be decoded.
    """
    if not isinstance(elements, Crops):
        indices = _spread(elements, batch_size)
        return {"read": _calls_per_second(lambda i: elements[indices[i]], len(indices), seconds)}
    # The crop's filters would use all cores.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return _measure(elements, fields, batch_size, seconds)
    finally:
        cv2.setNumThreads(threads)


def _measure(crops: Crops, fields: Sequence[str], batch_size: int, seconds: float) -> dict[str, float]:
    indices, records, images = _good(crops, batch_size)
    elements = [
        crops.cut(read, decoded) | {"index": np.array(index, np.int32), "broken": np.array(-1, np.int32)}
        for index, read, decoded in zip(indices, records, images, strict=True)
    ]
    frames = len(records[0])

    def batch() -> Element:
        return stack(list(itertools.islice(itertools.cycle(elements), batch_size)), fields)

    stages: dict[str, tuple[Callable[[int], Any], int]] = {
        "read": (lambda i: crops.read(indices[i]), frames),
        "decode": (lambda i: _decode(records[i]), frames),
        "crop": (lambda i: crops.cut(records[i], images[i]), frames),
        "batch": (lambda _: batch(), frames * batch_size),
    }
    return {name: count * _calls_per_second(call, len(indices), seconds) for name, (call, count) in stages.items()}


def _good(crops: Crops, count: int) -> tuple[list[int], list[list[Record]], list[list[np.ndarray]]]:
    """Elements spread over the data whose images can be decoded: indices, records and images."""
    indices, records, images = [], [], []
    for index in _spread(crops, count):
        try:
            read = crops.read(index)
            decoded = _decode(read)
        except BrokenImageError:
            continue
        indices.append(index)
        records.append(read)
        images.append(decoded)
    if not indices:
        raise ValueError(f"{crops.source.skeleton.name}: none of {min(count, len(crops))} images can be decoded")
    return indices, records, images


def _spread(elements: Elements, count: int) -> list[int]:
    """Up to so many of them, from all over."""
    return np.unique(np.linspace(0, len(elements) - 1, min(count, len(elements))).astype(int)).tolist()


def _decode(records: Sequence[Record]) -> list[np.ndarray]:
    return [files.decode_image(record["image"], record["name"]) for record in records]


def _calls_per_second(call: Callable[[int], Any], items: int, seconds: float) -> float:
    calls, start = 0, time.perf_counter()
    while True:
        call(calls % items)
        calls += 1
        spent = time.perf_counter() - start
        if spent >= seconds:
            return calls / spent
