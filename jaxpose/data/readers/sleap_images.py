"""Where the images of a SLEAP file are: in it, in another HDF5 file, or in videos and image files."""

import contextlib
import dataclasses
import math
import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxpose.data import records
from jaxpose.data.formats.files import MAX_PIXELS, decode_image
from jaxpose.data.readers import sleap_hdf5 as hdf5
from jaxpose.data.readers.video_frames import VideoFrames, unusable

_FIRST_WITH_ORDER = 1.4  # format that states the order of embedded images' channels


@runtime_checkable
class Images(Protocol):
    """The frames of one recording."""

    def __contains__(self, frame: int) -> bool: ...

    def image(self, frame: int) -> bytes | np.ndarray:
        """An encoded file, or uint8 (H, W, 3) RGB; bytes that are no image where it is broken."""
        ...


def recordings(
    file: Any, path: Path, video: str | os.PathLike | None, version: float, notes: list[records.Note]
) -> Iterator[tuple[str, Images]]:
    """Names and images of the recordings of a project, in its order.

    Args:
      file, path: the project, open.
      video: where videos and images may be besides what the file states.
      version: of the project's format.
      notes: is added to.
    """
    for number, text in enumerate(hdf5.vector(file, path, "videos_json")):
        stated = hdf5.parsed(text, path, f"video {number}")
        backend = stated.get("backend") if isinstance(stated, dict) else None
        if not isinstance(backend, dict):
            raise ValueError(f"{path}: video {number} has no backend, expected one that names its file")
        name, dataset = backend.get("filename") or stated.get("filename"), backend.get("dataset")
        several = backend.get("filenames")
        if isinstance(several, list) and several:
            found = [_find(str(each), path, video) for each in several]
            yield posixpath.dirname(_posix(several[0])) or f"video{number}", _ImageFiles(tuple(found))
        elif not isinstance(name, str):
            raise ValueError(f"{path}: video {number} is {name!r}, expected the name of a file")
        elif isinstance(dataset, str) and dataset:
            holder = path if name == "." else _find(name, path, video)
            if holder is None:
                yield basename(name), _Absent()
                continue
            with contextlib.nullcontext(file) if name == "." else hdf5.open_file(holder) as other:
                yield _embedded(other, holder, dataset, number, version, str(backend.get("input_format")))
        else:
            yield basename(name), external(name, path, video, notes)


@dataclasses.dataclass(frozen=True)
class _Absent:
    """A recording that does not exist."""

    def __contains__(self, frame: int) -> bool:
        return False

    def image(self, frame: int) -> bytes:
        return b""


@dataclasses.dataclass(frozen=True)
class _Video:
    """A video file."""

    frames: VideoFrames

    def __contains__(self, frame: int) -> bool:
        return 0 <= frame < len(self.frames)

    def image(self, frame: int) -> bytes | np.ndarray:
        try:
            return self.frames.frame(frame)
        except records.BrokenImageError:
            return b""


@dataclasses.dataclass(frozen=True)
class _ImageFiles:
    """One file per frame, None where it is absent."""

    files: tuple[Path | None, ...]

    def __contains__(self, frame: int) -> bool:
        return 0 <= frame < len(self.files) and self.files[frame] is not None

    def image(self, frame: int) -> bytes:
        file = self.files[frame]
        return b"" if file is None else file.read_bytes()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Embedded:
    """Images in an HDF5 file, which is opened for each: handles cross neither threads nor processes well."""

    path: Path
    dataset: str
    rows: Mapping[int, int]  # of the frames
    encoded: bool  # as image files
    swapped: bool  # red is where blue should be
    channels_first: bool  # (C, W, H)

    def __contains__(self, frame: int) -> bool:
        return frame in self.rows

    def image(self, frame: int) -> bytes | np.ndarray:
        try:
            with hdf5.open_file(self.path) as file:
                values = np.asarray(hdf5.find(file, self.path, self.dataset)[self.rows[frame]])
        except ValueError:
            return b""
        if not self.encoded:
            values = values.T if self.channels_first else values
            return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
        data = values.astype(values.dtype.newbyteorder("="), copy=False).view(np.uint8).tobytes().rstrip(b"\0")
        if not self.swapped:
            return data
        try:
            return np.ascontiguousarray(decode_image(data, self.dataset)[..., ::-1])
        except records.BrokenImageError:
            return data


def _embedded(
    file: Any, path: Path, dataset: str, number: int, version: float, input_format: str
) -> tuple[str, Images]:
    images = hdf5.find(file, path, dataset)
    if images is not None and not hasattr(images, "dtype"):  # a group
        dataset = f"{dataset}/video"
        images = hdf5.find(file, path, dataset)
    if images is None or not getattr(images, "shape", ()):
        raise ValueError(f"{path}: holds no images {dataset} of video {number}")
    if math.prod(images.shape[1:]) > 3 * MAX_PIXELS:
        raise ValueError(f"{path}: {dataset} has images {images.shape[1:]}, expected at most {MAX_PIXELS} pixels")
    name, group = f"video{number}", posixpath.dirname(dataset)
    original = hdf5.find(file, path, posixpath.join(group, "source_video"))
    if original is not None and "json" in original.attrs:
        source = hdf5.parsed(original.attrs["json"], path, "source_video")
        backend = source.get("backend", source) if isinstance(source, dict) else {}
        name = basename(str(backend.get("filename") or name)) if isinstance(backend, dict) else name
    frames = np.arange(len(images))
    if hdf5.find(file, path, posixpath.join(group, "frame_numbers")) is not None:
        frames = hdf5.array(file, path, posixpath.join(group, "frame_numbers"))
    if frames.shape != (len(images),) or frames.dtype.kind not in "iu":
        raise ValueError(f"{path}: {dataset} has {len(images)} images, found frame_numbers {frames.shape}")
    encoded = "format" in images.attrs and hdf5.text(images.attrs["format"]) != "hdf5"
    pixels = images.ndim == 4 and images.dtype == np.uint8 and images.shape[1 if _first(input_format) else 3] in (1, 3)
    one_byte = images.dtype.kind == "O" or images.dtype.itemsize == 1
    if not (one_byte if encoded else pixels):
        raise ValueError(f"{path}: {dataset} is {images.dtype} {images.shape}, expected encoded images or uint8 pixels")
    # OpenCV wrote the channels in the order in which it was given them, the other way round than it expects.
    order = images.attrs.get("channel_order", "BGR" if version < _FIRST_WITH_ORDER else "RGB")
    return name, _Embedded(
        path=path,
        dataset=dataset,
        rows={int(frame): row for row, frame in enumerate(frames)},
        encoded=encoded,
        swapped=hdf5.text(order) == "BGR",
        channels_first=_first(input_format),
    )


def _first(input_format: str) -> bool:
    return input_format == "channels_first"


def external(name: str, path: Path, video: str | os.PathLike | None, notes: list[records.Note]) -> Images:
    """A video that a file at `path` names; what is wrong with it is added to the notes."""
    found = _find(name, path, video)
    if found is None:
        return _Absent()
    try:
        frames = VideoFrames(found)
    except ValueError as error:
        notes.append(unusable(error))
        return _Absent()
    notes += frames.notes
    return _Video(frames)


def _find(stated: str, path: Path, given: str | os.PathLike | None) -> Path | None:
    """Where a file may be that SLEAP names; projects get moved."""
    stated = _posix(stated)
    places = [] if given is None else [Path(given), Path(given) / stated, Path(given) / basename(stated)]
    places += [path.parent / stated, path.parent / basename(stated)]
    return next((place for place in places if os.path.isfile(place)), None)


def _posix(name: Any) -> str:
    return str(name).replace("\\", "/")


def basename(name: str) -> str:
    """The last part of a path of any system."""
    return posixpath.basename(_posix(name).rstrip("/"))
