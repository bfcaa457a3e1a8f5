"""What the builders of 2D data sets share: labels beside a folder of images, and video frames."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jaxpose.data.formats.shards import Shard, Skipped
from jaxpose.data.readers.video_frames import VideoFrames
from jaxpose.data.records import MISSING, Record
from jaxpose.datasets import _reading

JPEG_QUALITY = 95  # of video frames, which have no files of their own

# The image's file below a folder, and the other fields of its record.
FileLabels = tuple[str, Mapping[str, Any]]


def in_shards(folder: Path, rows: Sequence[FileLabels | Skipped], size: int = 1000) -> list[Shard]:
    """Records whose labels are known, `size` rows to a shard; images are read from `folder` and keep their bytes.

    A record without an image, or whose image lies outside of the folder, is skipped.
    """
    return [functools.partial(_read, folder, part) for part in _reading.in_parts(rows, size)]


def load_mat(path: Path, variable: str, *, squeeze: bool = True) -> Any:
    """A variable of a MATLAB file, structures as objects with attributes; see `_reading.load_mat`."""
    return _reading.load_mat(path, (variable,), squeeze_me=squeeze, struct_as_record=False)[variable]


def tight_box(keypoints: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The box around the labelled joints (K, 2), of which there is at least one, as x, y, width, height."""
    labelled = keypoints[visible > MISSING]
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    return np.concatenate([low, high - low]).astype(np.float32)


def video_frames(path: Path, numbers: Iterable[int]) -> Iterator[tuple[int, bytes, tuple[int, int]]]:
    """Frames of a video by increasing numbers from 0: number, JPEG, (width, height); none behind one that is absent."""
    with (
        contextlib.suppress(FileNotFoundError, IndexError, ValueError),
        contextlib.closing(VideoFrames(path)) as video,
    ):
        for number in numbers:
            pixels = video.frame(number)
            data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            yield number, data, (pixels.shape[1], pixels.shape[0])


def _read(folder: Path, rows: Sequence[FileLabels | Skipped]) -> Iterator[Record | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
            continue
        file, fields = row
        image = _reading.read_image(folder, file, fields["name"])
        yield image if isinstance(image, Skipped) else Record(image=image, **fields)
