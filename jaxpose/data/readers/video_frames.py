"""Exact access to the frames of a video."""

import os
import pathlib
import threading

import cv2
import numpy as np

from jaxpose import untrusted
from jaxpose.data import records


class VideoFrames:
    """The frames of a video by number: every frame that the file lists has one number, also if it is damaged.

    Turned upright as the file states. Frames are told apart by their timestamps, which are read from the packets
    without decoding them: frame counts in headers and the decoder's own seeking are wrong in variable-rate, cut or
    damaged files. Files whose packets do not say when they are shown are decoded once to count the frames, and what
    cannot be decoded there has no number.

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
        self._reset()
        capture = _open(self.path)
        stated, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        found = np.sort(_scan(_open(self.path, packets=True)))
        self._stamps, self.notes = _with_lost(found, stated, self.path)  # milliseconds; what identifies a frame
        self._exact = self._plausible()
        if not self._exact:
            self._stamps = _scan(_open(self.path))
            self._exact = self._plausible()
        self.count = len(self._stamps)
        self._close()
        if not self.count:
            raise ValueError(f"{path}: no frame of the video can be decoded")
        rate = rate if np.isfinite(rate) and rate > 0 else 1.0
        self.times = (self._stamps - self._stamps[0]) / 1000 if self._exact else np.arange(self.count) / rate
        # Some headers state the frames of a constant rate, so a variable rate alone is no loss.
        if stated - max(self.count, round(self.times[-1] * rate) + 1) >= 1:
            what = "frames that headers state, but that are not there, as the video is cut or damaged"
            example = f"{path}: {self.count} of {stated:.0f}"
            self.notes += (records.Note(what=what, count=int(stated) - self.count, example=example),)
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
        with self._lock:
            if self._process != os.getpid():  # a forked copy shares the file's position with its parent
                self._close()
            image = self._decode(index)
        if image is None:
            raise records.BrokenImageError(f"{self.path}: frame {index} cannot be decoded")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Frees the decoder; the next frame opens it again."""
        with self._lock:
            self._close()

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("path", "count", "rate", "times", "notes", "_stamps", "_exact")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._close()

    def _close(self) -> None:
        self._capture: cv2.VideoCapture | None = None
        self._position = -1  # the frame that was decoded last
        self._after = -1  # the one before it; what lies between cannot be decoded
        self._process = os.getpid()

    def _plausible(self) -> bool:
        """Whether the timestamps tell frames apart, and the decoder gives the first and the last one their own."""
        self._exact, self.count = True, len(self._stamps)
        self._close()
        if not self.count or not (np.diff(self._stamps) > 0).all() or self._decode(0) is None:
            return False
        last = self._decode(self.count - 1) is not None
        # Where a damaged AVI lost packets, timestamps from the start and after seeking disagree.
        return last and self._capture is not None and not _advance(self._capture)

    def _decode(self, index: int) -> np.ndarray | None:
        """BGR pixels, or None."""
        if self._after < index < self._position:
            return None
        if self._capture is None or index < self._position or (self._exact and index > self._position + _FORWARD):
            self._seek(index)
        while self._position < index and self._grab():
            pass
        if self._position != index or self._capture is None:
            return None
        try:
            read, image = self._capture.retrieve()
        except cv2.error:
            return None
        return image if read else None

    def _grab(self) -> bool:
        """Decodes the next frame and finds out which one it is; False at the end."""
        self._after = self._position
        if self._capture is None or not _advance(self._capture):
            self._position = self.count
            return False
        if not self._exact:
            self._position += 1
            return True
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        nearest = int(np.searchsorted(self._stamps, stamp - _TOLERANCE))
        if nearest < self.count and self._stamps[nearest] <= stamp + _TOLERANCE:
            self._position = nearest
        return True

    def _seek(self, index: int) -> None:
        """Puts the decoder before or at the frame, at worst before the first one."""
        if self._exact and index > _FORWARD:
            # The decoder converts frame numbers to times by the average rate.
            self._capture = self._capture or _open(self.path)
            rate = self._capture.get(cv2.CAP_PROP_FPS)
            number = int((self._stamps[index] - self._stamps[0]) / 1000 * rate)
            for back in (2, 40, 400):
                if number <= back:
                    break
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, number - back)
                self._position = -1
                if self._grab() and 0 <= self._position <= index:
                    self._after = self._position
                    return
        self._capture = _open(self.path)
        self._position = -1


def unusable(error: ValueError) -> records.Note:
    """The note on a video that `VideoFrames` cannot open."""
    return records.Note(what="left out videos that cannot be opened", count=1, example=str(error))


_FAILURES = 1000  # damaged frames in a row that are passed over
_FORWARD = 32  # so many frames are decoded on the way rather than sought
_TOLERANCE = 1e-3  # milliseconds


def _open(path: pathlib.Path, *, packets: bool = False) -> cv2.VideoCapture:
    """A decoder, or a reader of packets that does not decode them."""
    # Other backends would take a name with digits for a series of images.
    options = [cv2.CAP_PROP_FORMAT, -1] if packets else []
    try:
        capture = cv2.VideoCapture(untrusted.utf8(path), cv2.CAP_FFMPEG, options)
    except cv2.error:
        capture = None
    if capture is None or not capture.isOpened():
        raise ValueError(f"{path}: cannot be opened as a video, expected mp4, avi, mov, mkv or webm")
    return capture


def _advance(capture: cv2.VideoCapture) -> bool:
    """Goes to the next packet or frame; False at the end. A frame that cannot be decoded looks like the end."""
    return any(capture.grab() for _ in range(_FAILURES))


def _scan(capture: cv2.VideoCapture) -> np.ndarray:
    """When the packets or frames are shown, in milliseconds."""
    stamps = []
    while _advance(capture):
        stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    return np.array(stamps, dtype=np.float64)


def _with_lost(stamps: np.ndarray, stated: float, path: pathlib.Path) -> tuple[np.ndarray, tuple[records.Note, ...]]:
    """The timestamps with those of damaged packets, which the reader drops, where the header proves the loss; and a
    note on them.

    That is where it counts frames instead of estimating them, and the gaps in a constant rate make up the difference.
    """
    lost = stated - len(stamps)
    if lost > 10 * len(stamps) + 1000:  # the count is what is damaged
        return stamps, ()
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov") or len(stamps) < 2 or lost < 1 or stamps[-1] <= stamps[0]:
        return stamps, ()
    step = (stamps[-1] - stamps[0]) / (stated - 1)
    places = np.round((stamps - stamps[0]) / step).astype(np.int64)
    if len(set(places)) < len(places) or np.abs(stamps - stamps[0] - places * step).max() > step / 10:
        return stamps, ()
    whole = stamps[0] + step * np.arange(int(stated))
    whole[places] = stamps
    what, example = "damaged frames of videos", f"{path}: {lost:.0f} of {stated:.0f}"
    return whole, (records.Note(what=what, count=int(lost), example=example),)
