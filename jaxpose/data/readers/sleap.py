"""Labels of SLEAP: projects, packages with embedded images, and exported analysis files.

Without sleap-io, which (0.9) reads the files that links name, makes room for 288 GiB that a small file states, names no
file in its errors, takes four times as long, and brings 220 MB of packages.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import boxes, sides, sleap_images
from jaxpose.data.readers import sleap_hdf5 as hdf5
from jaxpose.data.readers.sleap_images import Images

BOX_FACTOR = 1.3  # side of an animal's box relative to the extent of its joints


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SleapSource:
    """A source (`records.Source`) of instances, one record each.

    Attributes:
      skeleton: names the K joints.
      recordings: where the images are, by name.
      sequences: the recording of each of N records.
      frames: int64 (N,), its number in there.
      keypoints: float32 (N, K, 2) pixels.
      visible: uint8 (N, K).
      bboxes: float32 (N, 4) x, y, width, height; None with a single joint.
      notes: what was left out.
    """

    skeleton: Skeleton
    recordings: Mapping[str, Images]
    sequences: tuple[str, ...]
    frames: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    bboxes: np.ndarray | None
    notes: tuple[records.Note, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether any joint of any record has a label."""
        return bool(self.visible.any())

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> records.Record:
        sequence, frame = self.sequences[index], int(self.frames[index])
        record = records.Record(
            image=self.recordings[sequence].image(frame),
            keypoints=self.keypoints[index],
            visible=self.visible[index],
            name=self.name(index),
            sequence=sequence,
            frame=frame,
        )
        if self.bboxes is not None:
            record["bbox"] = self.bboxes[index]
        return record

    def name(self, index: int) -> str:
        """The name of a record, without reading its image."""
        return f"{self.sequences[index]} frame {self.frames[index]}"

    def subset(self, indices: Sequence[int] | np.ndarray) -> "SleapSource":
        """The records at `indices`, in that order."""
        index = np.asarray(indices, dtype=np.int64)
        return dataclasses.replace(
            self,
            sequences=tuple(self.sequences[i] for i in index),
            frames=self.frames[index],
            keypoints=self.keypoints[index],
            visible=self.visible[index],
            bboxes=None if self.bboxes is None else self.bboxes[index],
        )


def read(path: str | os.PathLike, *, video: str | os.PathLike | None = None) -> SleapSource:
    """The instances that users labelled in a SLEAP file, or the tracks of an exported analysis file.

    Coordinates of projects since format 1.1 and of analysis files have pixel centres at integers; older projects count
    from the corner of the first pixel and are shifted by half a pixel. Joints that are not visible are missing; an
    instance needs two distinct ones (one if the skeleton has only one) and gets a square box about them. Predicted
    instances of projects are left out; analysis files do not tell labels from predictions. Symmetries of the skeleton
    are its left/right pairs, else they follow from the joints' names.

    Images come from the file itself (`.pkg.slp`), from another HDF5 file, or from the videos and images that it names.
    These are looked for at `video`, where the file states, and beside the file. Instances without an image are left
    out. `sequence` is the video's name, `frame` the number in the video.

    Args:
      path: a `.slp`, `.pkg.slp` or analysis `.h5` file; needs the extra `jaxpose[sleap]`.
      video: a video, if the file has only one, or the folder of its videos or images.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: without the extra.
      ValueError: if it is damaged, of format 3 or newer, no file of SLEAP, its instances have different joints, or no
        instance or no image remains.

    Source: format versions and the order of channels as described in sleap-io's documentation of `.slp`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected .slp or .h5 of SLEAP")
    if video is not None and not Path(video).exists():
        raise FileNotFoundError(f"{video}: no such file or folder, expected the videos of {path.name}")
    if path.stat().st_size <= hdf5.LARGEST_CHECKED:
        hdf5.check_heaps(path.read_bytes(), path)
    notes: list[records.Note] = []
    with hdf5.open_file(path) as file:
        if _holds(file, path, "metadata", "instances"):
            labels = _read_project(file, path, video, notes)
        elif _holds(file, path, "tracks", "node_names"):
            labels = _read_analysis(file, path, video, notes)
        else:
            raise ValueError(
                f"{path}: holds {', '.join(map(str, file)) or 'nothing'}; expected labels or tracks of SLEAP"
            )
        return _source(labels, path, notes)


def _holds(file: Any, path: Path, *names: str) -> bool:
    return all(hdf5.find(file, path, name) is not None for name in names)


def _source(labels: "_Labels", path: Path, notes: list[records.Note]) -> SleapSource:
    """The instances whose image exists; what is left out is added to the notes."""
    available = np.array([i < len(labels.recordings) and n in labels.recordings[i][1] for i, n in labels.place], bool)
    if not available.any():
        stated = ", ".join(name for name, _ in labels.recordings[:5])
        raise ValueError(f"{path}: found no image of {len(available)} instances in {stated}; see the option video")
    names = _unique([name for name, _ in labels.recordings])
    if not available.all():
        recording, frame = labels.place[np.argmin(available)]
        stated = names[recording] if recording < len(names) else f"video {recording}"
        what, example = "left out instances whose image is absent", f"{stated} frame {frame}"
        notes.append(records.Note(what=what, count=int((~available).sum()), example=example))
    place = [labels.place[i] for i in np.flatnonzero(available)]
    keypoints, visible = labels.keypoints[available], labels.visible[available]
    source = SleapSource(
        skeleton=labels.skeleton,
        recordings={name: images for name, (_, images) in zip(names, labels.recordings, strict=True)},
        sequences=tuple(names[recording] for recording, _ in place),
        frames=np.array([frame for _, frame in place], dtype=np.int64),
        keypoints=keypoints,
        visible=visible,
        bboxes=None,
        notes=records.merged(notes),
    )
    if len(labels.skeleton) == 1:
        return source.subset(np.flatnonzero(visible[:, 0] > 0))
    return boxes.with_squares(source, factor=BOX_FACTOR)


class _Labels(NamedTuple):
    skeleton: Skeleton
    recordings: list[tuple[str, Images]]
    place: list[tuple[int, int]]  # (N,) recording and frame
    keypoints: np.ndarray  # float32 (N, K, 2), 0 where missing
    visible: np.ndarray  # uint8 (N, K)


_FIRST_CENTRED = 1.1  # format whose pixel centres are at integers
_FIRST_UNKNOWN = 3.0


def _read_project(file: Any, path: Path, video: str | os.PathLike | None, notes: list[records.Note]) -> _Labels:
    stated = file["metadata"].attrs.get("format_id", 1.0)
    if np.ndim(stated) or np.asarray(stated).dtype.kind not in "fiu":
        raise ValueError(f"{path}: format_id is {untrusted.one_line(stated)}, expected a number")
    version = float(stated)
    if not version < _FIRST_UNKNOWN:
        raise ValueError(f"{path}: has format {version:g}, expected less than {_FIRST_UNKNOWN:g}")
    instances = hdf5.table(file, path, "instances", "instance_type skeleton point_id_start point_id_end")
    frames = hdf5.table(file, path, "frames", "video frame_idx instance_id_start instance_id_end")
    points = hdf5.table(file, path, "points", "x y visible")
    owner = np.full(len(instances), -1)
    spans = frames["instance_id_end"].astype(np.float64) - frames["instance_id_start"].astype(np.float64)
    if spans.clip(0, len(instances)).sum() > 2 * len(instances):
        raise ValueError(f"{path}: frames have {spans.sum():.0f} instances, expected at most {len(instances)}")
    for row, (start, end) in enumerate(zip(frames["instance_id_start"], frames["instance_id_end"], strict=True)):
        owner[int(start) : int(end)] = row
    user = np.flatnonzero((instances["instance_type"] == 0) & (owner >= 0))
    if not len(user):
        raise ValueError(f"{path}: found {len(instances)} instances, none of a user; expected labels")
    metadata = hdf5.parsed(file["metadata"].attrs.get("json"), path, "metadata")
    skeleton = _skeleton_of(metadata, instances[user], path, notes)
    first, last = (instances[field][user].astype(np.int64) for field in ("point_id_start", "point_id_end"))
    if (last - first != len(skeleton)).any() or (first < 0).any() or (last > len(points)).any():
        raise ValueError(f"{path}: instances do not have {len(skeleton)} of {len(points)} points each")
    chosen = points[first[:, None] + np.arange(len(skeleton))]
    xy = np.stack([chosen["x"], chosen["y"]], axis=-1) - (0.5 if version < _FIRST_CENTRED else 0.0)
    keypoints, visible = boxes.usable(xy, np.where(chosen["visible"].astype(bool), records.VISIBLE, records.MISSING))
    recordings = list(sleap_images.recordings(file, path, video, version, notes))
    position = _positions(file, path, frames["video"], len(recordings))
    place = [(position(int(frames["video"][row])), int(frames["frame_idx"][row])) for row in owner[user]]
    return _Labels(skeleton, recordings, place, keypoints, visible)


def _read_analysis(file: Any, path: Path, video: str | os.PathLike | None, notes: list[records.Note]) -> _Labels:
    joints = hdf5.texts(hdf5.vector(file, path, "node_names"), path, "node_names")
    tracks = hdf5.array(file, path, "tracks")
    axes = ["track", "xy", "node", "frame"]
    if "dims" in file["tracks"].attrs:  # stated where they may differ from the original order
        axes = hdf5.parsed(file["tracks"].attrs["dims"], path, "dims of tracks")
    if tracks.ndim != 4 or sorted(map(str, axes)) != ["frame", "node", "track", "xy"] or tracks.dtype.kind != "f":
        raise ValueError(f"{path}: tracks are {tracks.dtype} {tracks.shape} along {axes}, expected floats")
    tracks = np.transpose(tracks, [list(axes).index(axis) for axis in ("frame", "track", "node", "xy")])
    if tracks.shape[2:] != (len(joints), 2):
        raise ValueError(f"{path}: tracks have {tracks.shape[2:]} nodes and axes, expected ({len(joints)}, 2)")
    edges = hdf5.array(file, path, "edge_names") if _holds(file, path, "edge_names") else np.empty((0, 2))
    if edges.size and edges.shape[1:] != (2,):
        raise ValueError(f"{path}: edge_names are {edges.dtype} {edges.shape}, expected pairs")
    names = hdf5.texts(edges.reshape(-1), path, "edge_names")
    bones = [(a, b) for a, b in zip(names[::2], names[1::2], strict=True) if {a, b} <= set(joints) and a != b]
    keypoints, visible = boxes.usable(tracks, np.full(tracks.shape[:3], records.VISIBLE))
    frame, track = np.nonzero(visible.any(axis=-1))
    if not len(frame):
        raise ValueError(f"{path}: found {tracks.shape[:2]} frames and tracks without a joint, expected some")
    stated = hdf5.array(file, path, "video_path") if _holds(file, path, "video_path") else np.array("")
    name = hdf5.texts(stated.reshape(-1)[:1], path, "video_path")
    if video is None and not any(name):
        raise ValueError(f"{path}: states no video, expected the option video")
    images = sleap_images.external([*name, ""][0] or str(video), path, video, notes)
    recording = (sleap_images.basename(name[0] if any(name) else str(video)), images)
    place = [(0, int(number)) for number in frame]
    return _Labels(
        _skeleton(joints, bones, (), path), [recording], place, keypoints[frame, track], visible[frame, track]
    )


def _skeleton_of(metadata: Any, instances: np.ndarray, path: Path, notes: list[records.Note]) -> Skeleton:
    """The skeleton that all the instances share."""
    used = sorted({int(number) for number in instances["skeleton"]})
    try:
        nodes, skeletons = metadata["nodes"], metadata["skeletons"]
        graphs = [skeletons[number].get("nx_graph", skeletons[number]) for number in used]
        indices = [[node["id"] for node in graph["nodes"]] for graph in graphs]
        joints = [tuple(nodes[index]["name"] for index in graph) for graph in indices]
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(f"{path}: the metadata do not describe the skeletons {used}") from None
    if not all(isinstance(joint, str) for names in joints for joint in names):
        raise ValueError(f"{path}: joints are {joints[0]}, expected names")
    if any(names != joints[0] for names in joints):
        raise ValueError(f"{path}: skeletons differ: {'; '.join(', '.join(names) for names in joints)}; expected one")
    bones, symmetries = [], []
    for kind, source, target in _links(graphs[0], notes):
        if source in indices[0] and target in indices[0] and source != target:
            pair = joints[0][indices[0].index(source)], joints[0][indices[0].index(target)]
            (bones if kind == _BONE else symmetries).append(pair)
    return _skeleton(joints[0], bones, symmetries, path)


_BONE, _SYMMETRY = 1, 2  # of a link; stated as a pickled enumeration at its first occurrence, then by a number


def _links(graph: dict[str, Any], notes: list[records.Note]) -> Iterator[tuple[int, Any, Any]]:
    kinds = []
    for link in graph.get("links") or ():
        try:
            kind = link["type"]
            if "py/reduce" in kind:
                kinds.append(kind["py/reduce"][1]["py/tuple"][0])
                kind = kinds[-1]
            else:
                number = kind["py/id"]
                kind = kinds[number - 1] if 0 < number <= len(kinds) else number
            if kind not in (_BONE, _SYMMETRY):
                raise ValueError(kind)
            yield kind, link["source"], link["target"]
        except (IndexError, KeyError, TypeError, ValueError):
            what = "left out links of the skeleton that are neither a bone nor a symmetry"
            notes.append(records.Note(what=what, count=1))


def _skeleton(
    joints: Sequence[str], bones: Sequence[tuple[str, str]], symmetries: Sequence[tuple[str, str]], path: Path
) -> Skeleton:
    flips, paired = [], set()
    for pair in symmetries:  # older files state each one in both directions
        if paired.isdisjoint(pair):
            paired.update(pair)
            flips += sides.left_right_pairs(pair) or (pair,)
    name = path.name.split(".")[0]
    try:
        return Skeleton(
            name=name,
            joints=tuple(joints),
            bones=tuple(dict.fromkeys(bones)),
            flips=tuple(flips) or sides.left_right_pairs(joints),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _positions(file: Any, path: Path, stated: np.ndarray, count: int) -> Callable[[int], int]:
    """Which recording a frame's number of a video means.

    It counts the videos, but packages made of some of a project's videos keep the number that is in the group's name.
    """
    numbers = range(count)
    if {int(number) for number in stated} != set(numbers):
        videos = hdf5.vector(file, path, "videos_json")
        names = [hdf5.parsed(text, path, "video")["backend"].get("dataset") for text in videos]
        groups = [str(name).partition("/")[0].removeprefix("video") for name in names]
        numbers = [int(group) if group.isdecimal() else i for i, group in enumerate(groups)]
    place = {number: i for i, number in enumerate(numbers)}
    return lambda number: place.get(number, count)


def _unique(names: Sequence[str]) -> list[str]:
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]
