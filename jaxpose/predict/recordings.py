"""What is predicted on: videos, folders and tars of images, each of which becomes one set of files."""

import dataclasses
import functools
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data import schemes
from jaxpose.data.formats.files import IMAGE_SUFFIXES
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import images, video
from jaxpose.data.readers.video import VIDEO_SUFFIXES, VideoSource
from jaxpose.data.records import Record, Source
from jaxpose.data.wrappers import Subset, name_of, notes_of
from jaxpose.spelling import did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A video, or images that belong together.

    Attributes:
      name: of what is written of it, without an ending; may have folders.
      path: the file or folder.
      source: a record per frame.
      boxes: of frames by number, float32 (A, 4) each; of other frames the record's own box, else the whole image.
      rate: frames per second of a video; None of images.
    """

    name: str
    path: Path
    source: Source
    boxes: Mapping[int, np.ndarray]
    rate: float | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def animals(self) -> int:
        """The most boxes that a frame has: A."""
        return max((len(boxes) for boxes in self.boxes.values()), default=1)

    def boxes_of(self, frame: int, record: Record) -> Sequence[np.ndarray | None]:
        """The boxes of a frame, of which None is the whole image."""
        given = self.boxes.get(frame)
        return [record.get("bbox")] if given is None else list(given)

    def number(self, frame: int) -> int:
        """The number that a frame has in its video, or an image in its order."""
        return int(self.source.frames[frame]) if isinstance(self.source, VideoSource) else frame

    def image(self, frame: int) -> str:
        """The name of an image; of a frame, its video and number."""
        return name_of(self.source, frame)

    def notes(self) -> list[str]:
        """What its reader had to say."""
        return [str(note) for note in notes_of(self.source)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """One recording that is not opened yet."""

    name: str
    path: Path
    open: Callable[[], Recording]


def find(spec: str, *, root: str, skeleton: Skeleton) -> list[Input]:
    """The recordings that a specification names, none of them opened.

    Args:
      spec: the path of an image, a folder or tar of images, a video or a folder of videos, with `?boxes=FILE` where
        there are boxes; or `SCHEME:PATH?OPTIONS` as of data that are trained on, see `data.schemes`. Videos take
        `every`, `frames` and `method`, as there; else every frame is predicted.
      root: where relative paths start.
      skeleton: the joints that are to be found.

    Raises:
      FileNotFoundError, ValueError: naming the path and what was expected.
    """
    scheme, colon, rest = spec.partition(":")
    if not colon or scheme not in schemes.names():  # a folder may be called `images`
        if rest and scheme.isidentifier() and not (Path(root) / spec.partition("?")[0]).exists():
            hint = did_you_mean(scheme, schemes.names())
            raise ValueError(f"{spec}: found scheme {scheme!r}, expected one of {', '.join(schemes.names())}{hint}")
        scheme, rest = "", spec
    path_text, options = schemes.options_of(rest)
    path = Path(root).expanduser() / Path(path_text).expanduser()
    if not scheme:
        scheme = _kind(path, spec)
    if scheme not in ("images", "video"):
        return _labelled(spec, root, skeleton)
    boxes = options.take("boxes")
    given = {} if boxes is None else _boxes(Path(root).expanduser() / boxes)
    if scheme == "images":
        options.reject_rest()
        name = path.stem if path.is_file() else path.resolve().name
        return [Input(name=name, path=path, open=functools.partial(_open_images, path, name, skeleton, given))]
    chosen = schemes.chosen_frames(options)
    options.reject_rest()
    if path.is_dir():
        below = {posixpath.join(*PurePath(place, file).parts): path / place / file for place, file in _videos(path)}
        if not below:
            raise ValueError(f"{path}: holds no video ({' '.join(sorted(VIDEO_SUFFIXES))})")
    elif path.is_file():
        below = {path.name: path}
    else:
        raise _absent(path)
    stems = [str(PurePath(name).with_suffix("")) for name in below]
    names = {name: stem if stems.count(stem) == 1 else name for name, stem in zip(below, stems, strict=True)}
    return [
        Input(
            name=names[name], path=file, open=functools.partial(_open_video, file, names[name], skeleton, given, chosen)
        )
        for name, file in sorted(below.items())
    ]


def _kind(path: Path, spec: str) -> str:
    """What a path without a scheme is taken for."""
    if path.is_dir():
        suffixes = {PurePath(file).suffix.lower() for _, _, files in untrusted.walk(path) for file in files}
        kinds = [
            kind for kind, of in (("images", IMAGE_SUFFIXES), ("video", VIDEO_SUFFIXES)) if not suffixes.isdisjoint(of)
        ]
        if len(kinds) == 1:
            return kinds[0]
        found = "both images and videos" if kinds else "neither images nor videos"
        raise ValueError(f"{path}: found {found}, expected one kind; name it by images:PATH or video:PATH")
    if not path.exists():
        raise _absent(path)
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix == ".tar" or suffix in IMAGE_SUFFIXES:
        return "images"
    if suffix in (".slp", ".json"):
        raise ValueError(f"{spec}: found a {suffix}, expected sleap:PATH or coco:PATH")
    raise ValueError(
        f"{spec}: found a {suffix or 'file without an ending'}, expected an image, a tar, a video or a folder"
    )


def _absent(path: Path) -> FileNotFoundError:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings)
    return FileNotFoundError(f"{path}: no such file or folder, expected images or videos{hint}")


def _videos(folder: Path) -> list[tuple[PurePath, str]]:
    return [
        (place, file)
        for place, _, files in untrusted.walk(folder)
        for file in files
        if PurePath(file).suffix.lower() in VIDEO_SUFFIXES
    ]


def _open_images(path: Path, name: str, skeleton: Skeleton, given: "_Boxes") -> Recording:
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        source: Source = images.read(path.parent, skeleton=skeleton)
        names = [name_of(source, i) for i in range(len(source))]
        source = Subset(source=source, index=np.array([names.index(path.name)]))
    else:
        source = images.read(path, skeleton=skeleton)
    return Recording(name=name, path=path, source=source, boxes=_by_frame(source, given, path))


def _open_video(path: Path, name: str, skeleton: Skeleton, given: "_Boxes", chosen: Mapping[str, Any]) -> Recording:
    source = video.read(path, skeleton=skeleton, **chosen)
    boxes = _by_frame(source, given, path)
    return Recording(name=name, path=path, source=source, boxes=boxes, rate=source.videos[0].rate)


def _labelled(spec: str, root: str, skeleton: Skeleton) -> list[Input]:
    """Data as they are trained on, a recording per split; their boxes are those of training."""
    opened = schemes.open_data(spec, root=root, skeleton=skeleton)
    if not opened.splits:
        raise ValueError(f"{spec}: found motions without images, expected images")
    stem = Path(spec.partition(":")[2].partition("?")[0]).stem or "data"
    return [
        Input(
            name=f"{stem}_{split}",
            path=Path(stem),
            open=functools.partial(Recording, name=f"{stem}_{split}", path=Path(stem), source=source, boxes={}),
        )
        for split, source in opened.splits.items()
    ]


_Boxes = Mapping[str, np.ndarray]  # (A, 4) by name


def _by_frame(source: Source, given: _Boxes, path: Path) -> dict[int, np.ndarray]:
    """The boxes of each frame: those by its name, its file's name or, for all frames alike, its video's."""
    found = {}
    for frame in range(len(source) if given else 0):
        name = name_of(source, frame)
        for known in (name, posixpath.basename(name), path.name):
            if known in given:
                found[frame] = given[known]
                break
    if given and not found:
        raise ValueError(f"{path}: found boxes of {next(iter(given))}, ..., expected of {name_of(source, 0)}, ...")
    return found


def _boxes(path: Path) -> _Boxes:
    """Boxes by name, from a JSON object of them or COCO's annotations."""
    found = untrusted.read_json(path, dict, "boxes by image name, or COCO's annotations")
    if not {"images", "annotations"} <= found.keys():
        return schemes.read_boxes(path)
    with untrusted.reading(path, "COCO's annotations with a bbox each"):
        names = {image["id"]: str(image["file_name"]) for image in found["images"]}
        by_name: dict[str, list[list[float]]] = {}
        for annotation in found["annotations"]:
            by_name.setdefault(names[annotation["image_id"]], []).append([float(v) for v in annotation["bbox"]])
        boxes = {name: np.array(those, np.float32).reshape(-1, 4) for name, those in by_name.items()}
        for name, those in boxes.items():
            if not np.isfinite(those).all() or not (those[:, 2:] > 0).all():
                raise ValueError(f"found {those.tolist()} of {untrusted.one_line(name)}")
    return boxes
