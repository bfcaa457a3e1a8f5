"""Frames sampled from videos, as images without labels."""

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

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers.video_frames import VideoFrames, unusable

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


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

    Without `every` and `frames`, all of them. What cannot be opened in a folder is left out.

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
    names, videos, notes = _open_all(pathlib.Path(path))
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
        notes=notes,
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
      notes: on videos that are left out, cut or damaged.
    """

    skeleton: Skeleton
    videos: tuple[VideoFrames, ...]
    names: tuple[str, ...]
    video: np.ndarray
    frames: np.ndarray
    notes: tuple[records.Note, ...] = ()

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

    @property
    def times(self) -> np.ndarray:
        """When each record is shown, in seconds since the first frame of its video."""
        found = np.zeros(len(self))
        for number, video in enumerate(self.videos):
            chosen = self.video == number
            found[chosen] = video.times[self.frames[chosen]]
        return found

    @property
    def rates(self) -> np.ndarray:
        """The frames per second of each record's video, on average."""
        return np.array([video.rate for video in self.videos])[self.video]

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
            name=self.name(index),
            sequence=self.names[video],
            frame=frame,
        )

    def name(self, index: int) -> str:
        """The name of a record, without reading its image."""
        return f"{self.names[self.video[index]]} frame {self.frames[index]}"

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
_THUMBNAIL = 30  # pixels of width
_CANDIDATES = 1000  # thumbnails per video, or ten per frame that is wanted


def _open_all(path: pathlib.Path) -> tuple[list[str], list[VideoFrames], tuple[records.Note, ...]]:
    if path.is_file():
        video = VideoFrames(path)
        return [path.name], [video], video.notes
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder, expected a video or a folder of videos")
    found = sorted(
        path / folder / name
        for folder, _, files in untrusted.walk(path)
        for name in files
        if pathlib.PurePath(name).suffix.lower() in VIDEO_SUFFIXES
    )
    if not found:
        raise ValueError(f"{path}: holds no video ({' '.join(sorted(VIDEO_SUFFIXES))})")
    names, videos, notes = [], [], []
    for file in found:
        try:
            videos.append(VideoFrames(file))
        except ValueError as error:
            notes.append(unusable(error))
            continue
        videos[-1].close()
        notes += videos[-1].notes
        names.append(file.relative_to(path).as_posix())
    if not videos:
        raise ValueError(f"{path}: none of {len(found)} videos can be decoded, the first is {found[0].name}")
    return names, videos, records.merged(notes)


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
