"""Videos: exact access to their frames, and frames sampled from them as images without labels."""

import dataclasses
import os
import pathlib
import threading
import warnings
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import scipy.cluster.vq
from absl import logging

from jaxpose.data import records
from jaxpose.data.skeletons import Skeleton

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


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
        self._stamps = _with_lost(found, stated, self.path)  # milliseconds; what identifies a frame
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
            logging.warning(
                "%s: the header states %d frames, found %d: the video is cut or damaged", path, stated, self.count
            )
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
        return {name: self.__dict__[name] for name in ("path", "count", "rate", "times", "_stamps", "_exact")}

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


def read(
    path: str | os.PathLike,
    *,
    skeleton: Skeleton,
    every: float | None = None,
    frames: int | None = None,
    method: Literal["time", "kmeans"] = "time",
    seed: int = 0,
) -> "VideoSource":
    """Frames of a video, or of all videos below a folder, without labels.

    Without `every` and `frames`, all of them. What cannot be opened in a folder is left out and logged.

    Args:
      path: a video or a folder, searched recursively.
      skeleton: the joints that are to be found: those of the other domain.
      every: seconds from one frame to the next.
      frames: how many per video; a shorter one gives all.
      method: how `frames` are chosen: `time` spreads them evenly; `kmeans` takes the most typical one of each cluster
        of grey thumbnails, so that rare views are not lost among common ones.
      seed: of the clusters.

    Raises:
      FileNotFoundError: if `path` does not exist.
      ValueError: if there is no video, none can be decoded, or the options contradict each other.

    Source: the thumbnails and their use are those of DeepLabCut's frame extraction.
    """
    if every is not None and (frames is not None or method != "time" or not 0 < every < float("inf")):
        raise ValueError(f"found every={every} with frames={frames}, method={method}; expected seconds > 0 alone")
    if frames is not None and frames < 1:
        raise ValueError(f"found frames={frames}, expected at least 1")
    if method not in ("time", "kmeans") or (method == "kmeans" and frames is None):
        raise ValueError(f"found method={method} with frames={frames}; expected time, or kmeans with frames")
    names, videos = _open_all(pathlib.Path(path))
    chosen = []
    for video in videos:
        if every is not None:
            numbers = _at_intervals(video.times, every)
        elif frames is None or frames >= video.count:
            numbers = np.arange(video.count)
        elif method == "time":
            numbers = _spread(video.count, frames)
        else:
            numbers = _typical(video, frames, np.random.default_rng(seed))
        chosen.append(numbers)
        video.close()
    return VideoSource(
        skeleton=skeleton,
        videos=tuple(videos),
        names=tuple(names),
        video=np.repeat(np.arange(len(videos)), [len(numbers) for numbers in chosen]),
        frames=np.concatenate(chosen).astype(np.int64),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VideoSource:
    """A source (`records.Source`) of frames without labels.

    The image of a frame that cannot be decoded is empty bytes, which `files.decode_image` refuses: broken frames are
    met, skipped and counted where broken files are.

    Attributes:
      skeleton: names the K joints.
      videos: V of them.
      names: their sequences' names.
      video: int (N,), which video a record is of.
      frames: int (N,), its number in it.
    """

    skeleton: Skeleton
    videos: tuple[VideoFrames, ...]
    names: tuple[str, ...]
    video: np.ndarray
    frames: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "_opened", {})  # videos with an open decoder, the latest last
        object.__setattr__(self, "_lock", threading.Lock())

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def labelled(self) -> bool:
        """False."""
        return False

    @property
    def sequences(self) -> tuple[str, ...]:
        """The video of each record."""
        return tuple(self.names[video] for video in self.video)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> records.Record:
        video, frame = int(self.video[index]), int(self.frames[index])
        self._limit_open(video)
        try:
            image: bytes | np.ndarray = self.videos[video].frame(frame)
        except records.BrokenImageError:
            image = b""
        return records.Record(
            image=image,
            keypoints=np.zeros((len(self.skeleton), 2), np.float32),
            visible=np.full(len(self.skeleton), records.MISSING, np.uint8),
            name=f"{self.names[video]} frame {frame}",
            sequence=self.names[video],
            frame=frame,
        )

    def subset(self, indices: Sequence[int] | np.ndarray) -> "VideoSource":
        """The records at `indices`, in that order."""
        index = np.asarray(indices, dtype=np.int64)
        return dataclasses.replace(self, video=self.video[index], frames=self.frames[index])

    def _limit_open(self, video: int) -> None:
        """Closes the decoder that was not used for longest: each holds a file and threads."""
        opened: dict[int, None] = self.__dict__["_opened"]
        with self.__dict__["_lock"]:
            opened.pop(video, None)
            opened[video] = None
            oldest = next(iter(opened))
            if len(opened) > _OPEN:
                del opened[oldest]
                self.videos[oldest].close()


_OPEN = 16  # decoders per source
_FAILURES = 1000  # damaged frames in a row that are passed over
_FORWARD = 32  # so many frames are decoded on the way rather than sought
_TOLERANCE = 1e-3  # milliseconds
_THUMBNAIL = 30  # pixels of width
_CANDIDATES = 1000  # thumbnails per video, or ten per frame that is wanted


def _open(path: pathlib.Path, *, packets: bool = False) -> cv2.VideoCapture:
    """A decoder, or a reader of packets that does not decode them."""
    # Other backends would take a name with digits for a series of images.
    options = [cv2.CAP_PROP_FORMAT, -1] if packets else []
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
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


def _with_lost(stamps: np.ndarray, stated: float, path: pathlib.Path) -> np.ndarray:
    """The timestamps with those of damaged packets, which the reader drops, where the header proves the loss.

    That is where it counts frames instead of estimating them, and the gaps in a constant rate make up the difference.
    """
    lost = stated - len(stamps)
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov") or len(stamps) < 2 or lost < 1 or stamps[-1] <= stamps[0]:
        return stamps
    step = (stamps[-1] - stamps[0]) / (stated - 1)
    places = np.round((stamps - stamps[0]) / step).astype(np.int64)
    if len(set(places)) < len(places) or np.abs(stamps - stamps[0] - places * step).max() > step / 10:
        return stamps
    logging.warning("%s: %d of %d frames are damaged", path, lost, stated)
    whole = stamps[0] + step * np.arange(int(stated))
    whole[places] = stamps
    return whole


def _open_all(path: pathlib.Path) -> tuple[list[str], list[VideoFrames]]:
    if path.is_file():
        return [path.name], [VideoFrames(path)]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder, expected a video or a folder of videos")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise ValueError(f"{path}: holds no video ({' '.join(sorted(VIDEO_SUFFIXES))})")
    names, videos = [], []
    for file in found:
        try:
            videos.append(VideoFrames(file))
        except ValueError as error:
            logging.warning("%s; left out", error)
            continue
        videos[-1].close()
        names.append(file.relative_to(path).as_posix())
    if not videos:
        raise ValueError(f"{path}: none of {len(found)} videos can be decoded, the first is {found[0].name}")
    return names, videos


def _at_intervals(times: np.ndarray, every: float) -> np.ndarray:
    """Numbers of the frames nearest to each multiple of `every`."""
    if len(times) < 2 or every <= np.diff(times).min():
        return np.arange(len(times))
    # The last multiple counts in spite of rounded timestamps.
    wanted = np.arange(int(times[-1] / every + 1e-3) + 1) * every
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    before = after - 1
    return np.unique(np.where(wanted - times[before] <= times[after] - wanted, before, after))


def _spread(count: int, wanted: int) -> np.ndarray:
    """The middles of equal parts of `count` frames."""
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.int64)


def _typical(video: VideoFrames, wanted: int, random: np.random.Generator) -> np.ndarray:
    """Numbers of the frames nearest to the centres of `wanted` clusters, in ascending order."""
    numbers, thumbnails = [], []
    for number in _spread(video.count, min(video.count, max(_CANDIDATES, 10 * wanted))):
        try:
            image = video.frame(int(number))
        except records.BrokenImageError:
            continue
        height = max(1, round(image.shape[0] * _THUMBNAIL / image.shape[1]))
        small = cv2.resize(image, (_THUMBNAIL, height), interpolation=cv2.INTER_AREA)
        numbers.append(int(number))
        thumbnails.append(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).ravel())
    if len(numbers) <= wanted:
        return np.array(numbers, dtype=np.int64)
    points = np.stack(thumbnails).astype(np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, labels = scipy.cluster.vq.kmeans2(points, _first_centres(points, wanted, random), minit="matrix")
    distances = np.linalg.norm(points - centres[labels], axis=1)
    chosen = {min(np.flatnonzero(labels == label), key=lambda i: distances[i]) for label in np.unique(labels)}
    if missing := wanted - len(chosen):  # where frames repeat, there are fewer clusters
        rest = [i for i in range(len(points)) if i not in chosen]
        chosen.update(rest[i] for i in _spread(len(rest), missing))
    return np.array(sorted(numbers[i] for i in chosen), dtype=np.int64)


def _first_centres(points: np.ndarray, wanted: int, random: np.random.Generator) -> np.ndarray:
    """Points far from each other (k-means++), fewer than wanted where they repeat."""
    centres = [points[random.integers(len(points))]]
    squares = np.sum((points - centres[0]) ** 2, axis=1)
    while len(centres) < wanted and squares.any():
        centres.append(points[random.choice(len(points), p=squares / squares.sum())])
        squares = np.minimum(squares, np.sum((points - centres[-1]) ** 2, axis=1))
    return np.stack(centres)
