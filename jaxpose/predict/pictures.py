"""Predictions drawn over their frames: a video or pictures, and a contact sheet."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import OCCLUDED, VISIBLE, BrokenImageError
from jaxpose.predict.formats import Predicted
from jaxpose.report.draw import draw_skeleton

UNSURE = 0.5  # confidence below which a joint is a ring
_COLUMNS, _ROWS, _TILE = 4, 4, 320  # of the contact sheet, pixels
_CODECS = ("libx264", "mpeg4", "mjpeg")  # the first that this build of FFmpeg has


def overlay(predicted: Predicted, stem: Path) -> list[Path]:
    """Every frame with what was found: `STEM.overlay.mp4` of a video, a folder `STEM.overlay` of JPEGs of images.

    And a contact sheet of frames from beginning to end, `STEM.sheet.jpg`. Joints of low confidence are rings.
    """
    count, recording = len(predicted.recording), predicted.recording
    shown = set(np.unique(np.linspace(0, count - 1, min(count, _COLUMNS * _ROWS)).astype(int)).tolist())
    tiles: list[np.ndarray] = []
    if recording.rate is None:
        written = stem.with_name(f"{stem.name}.overlay")
        written.mkdir(parents=True, exist_ok=True)
        digits = len(str(count))
        for frame, canvas in _drawn(predicted):
            name = Path(recording.image(frame)).stem
            _save(written / f"{frame:0{digits}d}_{name}.jpg", canvas)
            if frame in shown:
                tiles.append(_tile(canvas, recording.image(frame)))
    else:
        written = stem.with_name(f"{stem.name}.overlay.mp4")
        video = _Video(written, recording.rate)
        for frame, canvas in _drawn(predicted):
            video.add(canvas)
            if frame in shown:
                tiles.append(_tile(canvas, f"{recording.number(frame)}"))
        video.close()
    sheet = stem.with_name(f"{stem.name}.sheet.jpg")
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)]
    _save(sheet, np.concatenate(rows))
    return [written, sheet]


def drawn(
    image: UInt8[np.ndarray, "h w 3"], values: Float[np.ndarray, "a k 3"], skeleton: Skeleton
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image with the joints and bones of A animals, at least 256 pixels high and wide."""
    height, width = image.shape[:2]
    canvas = draw_skeleton(image, np.zeros((len(skeleton), 2)), np.zeros(len(skeleton), bool), skeleton)
    ratio = np.array([canvas.shape[1] / width, canvas.shape[0] / height])
    for found in values:
        visible = np.where(found[:, 2] >= UNSURE, VISIBLE, OCCLUDED) * np.isfinite(found[:, 0])
        canvas = draw_skeleton(canvas, (found[:, :2] + 0.5) * ratio - 0.5, visible, skeleton, size=1)
    return canvas


def _drawn(predicted: Predicted) -> Iterator[tuple[int, np.ndarray]]:
    size: tuple[int, int] | None = None  # of the canvas before, which stands in for frames that cannot be decoded
    for frame, values in predicted.frames():
        record = predicted.recording.source[frame]
        try:
            canvas = drawn(files.decode_image(record["image"], record["name"]), values, predicted.skeleton)
        except BrokenImageError:
            canvas = np.zeros((*(size or (256, 256)), 3), np.uint8)
        size = canvas.shape[:2]
        yield frame, canvas


def _tile(canvas: np.ndarray, caption: str) -> np.ndarray:
    height, width = canvas.shape[:2]
    factor = _TILE / max(height, width)
    small = cv2.resize(canvas, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    tile = np.zeros((_TILE, _TILE, 3), np.uint8)
    top, left = (_TILE - small.shape[0]) // 2, (_TILE - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    for colour, stroke in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, caption[-36:], (6, _TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, stroke, cv2.LINE_AA)
    return tile


def _save(path: Path, image: np.ndarray) -> None:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    path.write_bytes(data.tobytes())


class _Video:
    """Frames of one size, which gets its name when it is closed."""

    def __init__(self, path: Path, rate: float):
        self._path, self._temporary = path, path.with_name(f".{path.name}.tmp.mp4")
        self._container = av.open(str(self._temporary), "w")
        codec = next(name for name in _CODECS if name in av.codecs_available)
        self._stream: Any = self._container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        self._stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        self._size: tuple[int, int] | None = None

    def add(self, canvas: np.ndarray) -> None:
        """Appends a frame; one of another size is scaled to that of the first."""
        even = canvas.shape[1] // 2 * 2, canvas.shape[0] // 2 * 2
        if self._size is None:
            self._size = self._stream.width, self._stream.height = even
        if even != self._size:
            canvas = cv2.resize(canvas, self._size, interpolation=cv2.INTER_AREA)
        width, height = self._size
        pixels: Any = np.ascontiguousarray(canvas[:height, :width])
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))

    def close(self) -> None:
        """Writes what is left."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._temporary.replace(self._path)
