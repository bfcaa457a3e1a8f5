"""What the builders of 2D data sets share: labels beside a folder of images, video frames, and careful reading."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import matlab
from jaxpose.data.formats.shards import Shard, Skipped
from jaxpose.data.readers.video_frames import VideoFrames
from jaxpose.data.records import MISSING, Record

JPEG_QUALITY = 95  # of video frames, which have no files of their own

# The image's file below a folder, and the other fields of its record.
Row = tuple[str, Mapping[str, Any]]


def in_shards(folder: Path, rows: Sequence[Row | Skipped], size: int = 1000) -> list[Shard]:
    """Records whose labels are known, `size` rows to a shard; images are read from `folder` and keep their bytes.

    A record without an image, or whose image lies outside of the folder, is skipped.
    """
    return [functools.partial(_read, folder, rows[start : start + size]) for start in range(0, len(rows), size)]


def require(path: Path, expected: str) -> Path:
    """The path of a file or folder that has to be there.

    Raises:
      FileNotFoundError: naming it and what it should be.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: found no such file or folder, expected {expected}")
    return path


def load_json(path: Path, kind: type, expected: str) -> Any:
    """A JSON file whose outermost value is a `kind`.

    Raises:
      FileNotFoundError, ValueError: naming the file.
    """
    return untrusted.read_json(require(path, expected), kind, expected)


def load_mat(path: Path, variable: str, *, squeeze: bool = True) -> Any:
    """A variable of a MATLAB file, structures as objects with attributes.

    Raises:
      FileNotFoundError, ValueError: naming the file.
    """
    expected = f"a MATLAB file with {variable}"
    found = matlab.load(
        require(path, expected), names=[variable], expected=expected, squeeze_me=squeeze, struct_as_record=False
    )
    if variable not in found:
        raise ValueError(f"{path}: holds no {variable}, expected it")
    return found[variable]


def numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Finite float64 numbers of a shape, or None if the value is something else."""
    try:
        found = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.shape == shape and (np.abs(found) < LARGEST).all() else None


LARGEST = 1e30  # what is larger is no coordinate, and its sums exceed float32


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


def _read(folder: Path, rows: Sequence[Row | Skipped]) -> Iterator[Record | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
            continue
        file, fields = row
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            yield Skipped(fields["name"], "its image lies outside of the folder of images")
        elif not (folder / path).is_file():
            yield Skipped(fields["name"], "the image is missing")
        else:
            yield Record(image=untrusted.read_file(folder / path, "an image"), **fields)
