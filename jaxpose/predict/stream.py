"""Predictions of a recording, frame by frame: one thread decodes, others crop, and the devices do not wait for them.

Memory does not grow with the length of a recording: a few dozen frames are on their way, and a few batches.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jaxpose.data.formats import files
from jaxpose.data.readers.video import VideoSource
from jaxpose.data.records import BrokenImageError, Record
from jaxpose.model import Keypoints, Model, padded
from jaxpose.predict.recordings import Recording

_AHEAD = 32  # frames that are decoded and not yet cropped, or cropped and not yet in a batch
_IN_FLIGHT = 2  # batches whose results are not fetched yet


@dataclasses.dataclass
class Clock:
    """Where the time goes, in seconds.

    Attributes:
      decoding: of the thread that reads videos, or of all that read images.
      waiting: for frames, while the devices had nothing to do.
    """

    decoding: float = 0.0
    waiting: float = 0.0


def predictions(
    model: Model, recording: Recording, frames: Sequence[int], clock: Clock, *, rows: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Frames in their order, with x, y in pixels of the image and confidence, float32 (A, K, 3), of A boxes each.

    None stands for a frame that cannot be decoded. All batches have so many `rows`, so that what is found in a frame
    does not depend on which frames are beside it.
    """
    with contextlib.closing(_crops(model, recording, frames, clock)) as crops:
        found = _rows(model, crops, rows, clock)
        for frame, those in itertools.groupby(found, key=lambda row: row[0]):
            values = [value for _, value in those if value is not None]
            yield frame, np.stack(values) if values else None


def compile_for(model: Model, rows: int) -> None:
    """Compiles what predicts batches of so many rows, before anybody looks at the clock."""
    _applied(model, [_Crop(0, None, None)], rows).points.block_until_ready()


class _Crop(NamedTuple):
    """One of a frame's inputs to the network; None of a frame that cannot be decoded."""

    frame: int
    image: np.ndarray | None
    matrix: np.ndarray | None


def _rows(model: Model, crops: Iterable[_Crop], rows: int, clock: Clock) -> Iterator[tuple[int, np.ndarray | None]]:
    """Values (K, 3) of each crop, while the devices are at work on later ones."""
    in_flight: collections.deque = collections.deque()
    coming = iter(crops)
    while True:
        started = time.perf_counter()
        idle = not in_flight or in_flight[-1][1].points.is_ready()
        batch = list(itertools.islice(coming, rows))
        if idle:
            clock.waiting += time.perf_counter() - started
        if batch:
            in_flight.append((batch, _applied(model, batch, rows)))
        while len(in_flight) > (_IN_FLIGHT if batch else 0):
            done, found = in_flight.popleft()
            values = np.concatenate([found.points, np.asarray(found.confidence)[..., None]], axis=-1)
            for crop, value in zip(done, values, strict=False):
                yield crop.frame, None if crop.image is None else value
        if not batch:
            return


def _applied(model: Model, batch: Sequence[_Crop], rows: int) -> Keypoints:
    size = model.image_size
    nothing = np.zeros((size, size, 3), np.uint8), np.eye(2, 3, dtype=np.float32)
    images = np.stack([nothing[0] if crop.image is None else crop.image for crop in batch])
    matrices = np.stack([nothing[1] if crop.matrix is None else crop.matrix for crop in batch])
    return model.apply(
        model.state, model.to_devices(padded(images, rows)), model.to_devices(padded(matrices, rows)), None
    )


def _crops(model: Model, recording: Recording, frames: Sequence[int], clock: Clock) -> Generator[_Crop]:
    """The crops of all frames in their order.

    A video is decoded by one thread, one frame after the other; images by as many as there are processors.
    """
    ahead: queue.Queue[tuple[int, Future] | None] = queue.Queue(_AHEAD)
    one_by_one, over, lock = isinstance(recording.source, VideoSource), threading.Event(), threading.Lock()

    def read(frame: int) -> tuple[Record, np.ndarray | None]:
        started, image = time.perf_counter(), None
        record = recording.source[frame]
        with contextlib.suppress(BrokenImageError):
            image = files.decode_image(record["image"], record["name"])
        with lock:
            clock.decoding += time.perf_counter() - started
        return record, image

    def cut(frame: int, found: tuple[Record, np.ndarray | None] | None = None) -> list[_Crop]:
        record, image = read(frame) if found is None else found
        if image is None:
            return [_Crop(frame, None, None)]
        return [_Crop(frame, *model.crop(image, box)) for box in recording.boxes_of(frame, record)]

    def put(item: tuple[int, Future] | None) -> bool:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                ahead.put(item, timeout=0.1)
                return True
        return False

    def read_all() -> None:
        for frame in frames:
            future: Future = Future()
            try:
                future = pool.submit(cut, frame, read(frame)) if one_by_one else pool.submit(cut, frame)
            except Exception as error:
                future.set_exception(error)
            if not put((frame, future)):
                return
        put(None)

    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 8), "crop")
    reader = threading.Thread(target=read_all, name="decode", daemon=True)
    reader.start()
    try:
        while (item := ahead.get()) is not None:
            yield from item[1].result()
    finally:
        over.set()
        reader.join()
        pool.shutdown(cancel_futures=True)
