"""Exact access to the frames of a video."""

import contextlib
import itertools
import os
import pathlib
import threading
from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats.files import MAX_PIXELS


class VideoFrames:
    """The frames of a video by number: every frame that the file lists has one number, also if it is damaged.

    Turned upright as the file states. Frames are told apart by their timestamps, which are read from the packets
    without decoding them: frame counts in headers and average rates are wrong in variable-rate, cut or damaged files.
    Files whose packets do not say when they are shown are decoded once to count the frames, and what cannot be decoded
    there has no number.

    Safe to share between threads (one lock; consecutive frames are fastest) and to pickle.

    Attributes:
      path: the file.
      count: number of frames.
      rate: frames per second, on average.
      times: float64 (count,) seconds since the first frame.
      notes: on frames that are lost.

    Raises:
      FileNotFoundError: if `path` does not exist.
      ValueError: if it is no video, or no frame of it can be decoded.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).resolve()
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file, expected a video")
        self._threads = "AUTO"
        self._reset()
        with _open(self.path) as container:
            stream = container.streams.video[0]
            unit, rate = float(stream.time_base or 1), float(stream.guessed_rate or 0) or 1.0
            stated = stream.frames or round((container.duration or 0) / av.time_base * rate)
            listed = ((_stamp(p), p.is_keyframe, p.is_discard) for p in _packets(container) if p.size)
            packets = np.sort(np.fromiter(listed, _PACKET), order="stamp")
        shown = packets[~packets["hidden"]]
        self._stamps, self._keys = shown["stamp"], np.flatnonzero(shown["key"])  # what identifies a frame
        if not self._plausible():
            self._threads, self._keys = "SLICE", self._keys[:0]
            with _open(self.path) as container:
                self._stamps = np.fromiter(map(_stamp, _decoded(container)), np.int64)
            self._plausible()
        self.count = len(self._stamps)
        self._close()
        if not self.count:
            raise ValueError(f"{path}: no frame of the video can be decoded")
        self.times = (self._stamps - self._stamps[0]) * unit if self._exact else np.arange(self.count) / rate
        # Some headers state the frames of a constant rate, so a variable rate alone is no loss.
        end = self._stamps[-1] * unit if self._exact else self.times[-1]
        lost = stated - max(len(packets) if self._exact else self.count, round(end * rate) + 1)
        self.notes: tuple[records.Note, ...] = ()
        if lost >= 1:
            what = "frames that headers state, but that are not there, as the video is cut or damaged"
            example = f"{path}: {self.count} of {stated}"
            self.notes = (records.Note(what=what, count=stated - self.count, example=example),)
        measured = (self.count - 1) / self.times[-1] if self.count > 1 else rate
        self.rate = float(rate if np.isclose(measured, rate, rtol=0.01) else measured)

    def __len__(self) -> int:
        return self.count

    def frame(self, index: int) -> np.ndarray:
        """The pixels of a frame, uint8 (H, W, 3) RGB.

        Raises:
          BrokenImageError: if it cannot be decoded.
          IndexError: if there is none of that number.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"{self.path}: has frames 0 to {self.count - 1}, found {index}")
        with self._lock, contextlib.suppress(FFmpegError, ValueError):
            if self._process != os.getpid():
                # A forked copy shares the file's position with its parent, and to free the decoder would wait for
                # threads that only the parent has.
                _LEFT.append((self._container, self._coming))
                self._container = None
                self._close()
            found = self._decode(index)
            if found is not None:
                image = found.to_ndarray(format="rgb24")
                return np.ascontiguousarray(np.rot90(image, round(found.rotation / 90)))
        raise records.BrokenImageError(f"{self.path}: frame {index} cannot be decoded")

    def close(self) -> None:
        """Frees the decoder; the next frame opens it again."""
        with self._lock:
            self._close()

    def __getstate__(self) -> dict:
        kept = ("path", "count", "rate", "times", "notes", "_stamps", "_keys", "_exact", "_threads")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._container: InputContainer | None = None
        self._close()

    def _close(self) -> None:
        self._coming: Iterator[av.VideoFrame] = iter(())
        if self._container is not None:  # which, its streams and their threads refer to each other
            self._container.close()
        self._container = None
        self._current: av.VideoFrame | None = None  # the frame that was decoded last
        self._position = -1  # its number
        self._after = -1  # the number before it; what lies between cannot be decoded
        self._process = os.getpid()

    def _plausible(self) -> bool:
        """Whether the timestamps tell frames apart, and the decoder gives the first and the last one their own."""
        self._exact, self.count = True, len(self._stamps)
        self._close()
        with _open(self.path) as container:
            first = [_stamp(frame) for frame in itertools.islice(_decoded(container), _ORDERED)]
        self._exact = bool(
            self.count
            and (np.diff(self._stamps) > 0).all()
            and first[:1] == [self._stamps[0]]
            and first == sorted(first)
            and self._decode(self.count - 1) is not None
            # Where a damaged AVI lost packets, timestamps from the start and after seeking disagree.
            and next(self._coming, None) is None
        )
        return self._exact

    def _decode(self, index: int) -> av.VideoFrame | None:
        """The frame, or None."""
        found = self._find(index)
        if found is None and self._threads == "AUTO":
            # Threads that decode several frames at once can lose others with a damaged one.
            self._threads = "SLICE"
            self._close()
            found = self._find(index)
        return found

    def _find(self, index: int) -> av.VideoFrame | None:
        if not self._after < index <= self._position or self._container is None:
            if index < self._position or self._container is None or self._key(index) > self._position:
                self._seek(index)
            while self._position < index:
                self._advance()
        return self._current if self._position == index else None

    def _key(self, index: int, back: int = 1) -> int:
        """The last number from which a frame can be decoded, or the one `back` before; -1 if there is none."""
        found = int(np.searchsorted(self._keys, index, side="right")) - back
        return int(self._keys[found]) if found >= 0 else -1

    def _advance(self) -> None:
        """Decodes the next frame and finds out which one it is; behind the last one, its number is the count."""
        self._after = self._position
        for frame in self._coming:
            number = int(np.searchsorted(self._stamps, _stamp(frame))) if self._exact else self._position + 1
            if not self._exact or (number < self.count and self._stamps[number] == _stamp(frame)):
                self._current, self._position = frame, number
                return
        self._current, self._position = None, self.count

    def _seek(self, index: int) -> None:
        """Puts the decoder before or at the frame, at worst before the first one."""
        for back in _BACK:
            key = self._key(index, back)
            if key < 0:
                break
            self._container = self._container or _open(self.path, self._threads)
            with contextlib.suppress(FFmpegError):
                self._container.seek(int(self._stamps[key]), stream=self._container.streams.video[0])
                self._coming, self._position = _decoded(self._container), -1
                self._advance()
                if self._position <= index and self._current is not None and self._current.key_frame:
                    self._after = self._position
                    return
        self._close()
        self._container = _open(self.path, self._threads)
        self._coming = _decoded(self._container)


def unusable(error: ValueError) -> records.Note:
    """The note on a video that `VideoFrames` cannot open."""
    return records.Note(what="left out videos that cannot be opened", count=1, example=str(error))


_LEFT: list[tuple] = []  # decoders of a parent process
_FAILURES = 1000  # places of a damaged file at which it is read on
_ORDERED = 8  # frames among which a wrong order shows
_BACK = (1, 2, 8, 32)  # key frames before the one that is wanted, where a container does not lead to the nearest ones
_PACKET = np.dtype([("stamp", np.int64), ("key", bool), ("hidden", bool)])
# Some formats of FFmpeg are lists of other files, or take any text or picture for a video.
_FORMATS = "asf,avi,flv,gif,h264,hevc,m4v,matroska,mov,mpeg,mpegts,mpegvideo,ogg"
_ONLY = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}


def _open(path: pathlib.Path, threads: str = "SLICE") -> InputContainer:
    """The open file, whose first stream of video is decoded by the kind of threads that is asked for."""
    try:
        container = av.open(untrusted.utf8(path), container_options=_ONLY, metadata_errors="replace")
        context = container.streams.video[0].codec_context
        context.thread_type = threads
        context.options = {"max_pixels": str(MAX_PIXELS)}
    except (FFmpegError, AttributeError, IndexError):  # no file that is known, no codec, no video
        raise ValueError(f"{path}: cannot be opened as a video, expected mp4, avi, mov, mkv or webm") from None
    return container


def _stamp(shown: av.Packet | av.VideoFrame) -> int:
    """When a packet or frame is shown, in the units of its stream; 0 where it does not say."""
    return shown.pts if shown.pts is not None else shown.dts or 0


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """The packets of the first stream of video."""
    for _ in range(_FAILURES):
        with contextlib.suppress(FFmpegError):
            yield from container.demux(container.streams.video[0])
            return


def _decoded(container: InputContainer) -> Iterator[av.VideoFrame]:
    """The frames, without those that cannot be decoded."""
    for packet in _packets(container):
        with contextlib.suppress(FFmpegError):
            yield from packet.decode()
