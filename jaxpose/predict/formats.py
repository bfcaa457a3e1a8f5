"""Writes predictions as the tables and files of other tools, frame by frame, so that memory does not grow with them.

Pixels are those of every tool here but old SLEAP files: the centre of the top-left pixel is (0, 0).
"""

import contextlib
import csv
import dataclasses
import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.predict.found import Parts
from jaxpose.predict.recordings import Recording
from jaxpose.train.checkpoint import naming

_PIXEL, _SHARE = 4, 6  # decimals of coordinates and of confidences in texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predicted:
    """A recording and what was found in it.

    Attributes:
      recording: F frames.
      skeleton: names the K joints.
      scorer: who predicted, in one word that contains `DLC`, by which DeepLabCut's converters tell predictions.
      parts: the values.
    """

    recording: Recording
    skeleton: Skeleton
    scorer: str
    parts: Parts

    @property
    def animals(self) -> int:
        """A: the most boxes of a frame."""
        return self.parts.shape[1]

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Frames and their values (A, K, 3)."""
        for start, values in self.parts.read():
            yield from enumerate(values, start)

    def index(self, frame: int) -> int | str:
        """What tables call a frame: the number in its video, or the name of an image."""
        recording = self.recording
        return recording.image(frame) if recording.rate is None else recording.number(frame)


Write = Callable[[Predicted, Path], list[Path]]  # (predictions, path without ending) -> what was written


def dlc(predicted: Predicted, stem: Path) -> list[Path]:
    """DeepLabCut's table of an analysed video, `STEM<scorer>.csv`, and its H5 where pandas and tables are installed.

    Of several animals, as those of a multi-animal project.
    """
    scorer, names = predicted.scorer, _individuals(predicted)
    path = stem.with_name(f"{stem.name}{scorer}.csv")
    _write_table(predicted, path, scorer, names)
    if importlib.util.find_spec("pandas") is None or importlib.util.find_spec("tables") is None:
        return [path]
    return [path, _write_h5(predicted, path.with_suffix(".h5"), names)]


def lightning(predicted: Predicted, stem: Path) -> list[Path]:
    """Lightning Pose's table of a predicted video, `STEM.csv`.

    Raises:
      ValueError: if a frame has several animals, which such tables do not hold.
    """
    if predicted.animals > 1:
        raise ValueError(
            f"--formats=lightning: found {predicted.animals} boxes in a frame, expected one; use dlc or slp"
        )
    path = stem.with_name(f"{stem.name}.csv")
    _write_table(predicted, path, "jaxpose_tracker", None)
    return [path]


def coco(predicted: Predicted, stem: Path) -> list[Path]:
    """COCO's results, `STEM.coco.json`: an entry per animal, with the third number of a joint its confidence.

    `image_id` is the number of the frame or, of images, their place in the order of names, beside `file_name`.
    """
    path = stem.with_name(f"{stem.name}.coco.json")
    with _replaced(path) as temporary, temporary.open("w") as file:
        file.write("[")
        between = "\n"
        for frame, values in predicted.frames():
            for found in values:
                if not np.isfinite(found).all():
                    continue
                rounded = np.round(found.astype(np.float64), _PIXEL)
                entry: dict[str, Any] = {"image_id": predicted.recording.number(frame), "category_id": 1}
                entry["keypoints"] = rounded.ravel().tolist()
                entry["score"] = round(float(found[:, 2].mean()), _SHARE)
                if predicted.recording.rate is None:
                    entry["file_name"] = predicted.recording.image(frame)
                file.write(between + json.dumps(entry))
                between = ",\n"
        file.write("\n]\n")
    return [path]


def slp(predicted: Predicted, stem: Path) -> list[Path]:
    """SLEAP's `STEM.slp` of format 1.2, with predicted instances; needs h5py."""
    try:
        import h5py
    except ImportError:
        raise ImportError(
            "--formats=slp: to write SLEAP files install the extra: pip install 'jaxpose[sleap]'"
        ) from None
    path, joints = stem.with_name(f"{stem.name}.slp"), len(predicted.skeleton)
    with _replaced(path) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group("metadata")
        group.attrs["format_id"] = 1.2
        group.attrs["json"] = np.bytes_(json.dumps(_slp_metadata(predicted)))
        for name, texts in (("videos_json", [json.dumps(_slp_video(predicted.recording))]), ("tracks_json", [])):
            file.create_dataset(name, data=np.array(texts, dtype=h5py.string_dtype()))
        file.create_dataset("suggestions_json", data=np.array([], dtype=h5py.string_dtype()))
        tables = {
            name: file.create_dataset(name, (0,), np.dtype(kind), maxshape=(None,), chunks=(4096,))
            for name, kind in _SLP.items()
        }
        for start, values in predicted.parts.read():
            there: Any = np.isfinite(values).all(axis=(-1, -2))  # (n, A); in unreadable frames none
            seen = there.any(axis=1)
            counts, found = there.sum(axis=1)[seen], values[there].astype(np.float64)  # found: (M, K, 3)
            frames: Any = np.zeros(len(counts), tables["frames"].dtype)
            frames["frame_id"] = len(tables["frames"]) + np.arange(len(counts))
            frames["frame_idx"] = _numbers(predicted.recording, start, len(values))[seen]
            frames["instance_id_end"] = len(tables["instances"]) + np.cumsum(counts)
            frames["instance_id_start"] = frames["instance_id_end"] - counts.astype(np.uint64)
            instances: Any = np.zeros(len(found), tables["instances"].dtype)
            instances["instance_id"] = len(tables["instances"]) + np.arange(len(found))
            instances["instance_type"], instances["track"], instances["from_predicted"] = _PREDICTED, -1, -1
            instances["frame_id"], instances["score"] = (
                np.repeat(frames["frame_id"], counts),
                found[..., 2].mean(axis=1),
            )
            instances["point_id_start"] = instances["instance_id"] * joints
            instances["point_id_end"] = instances["point_id_start"] + joints
            points: Any = np.zeros(len(found) * joints, tables["pred_points"].dtype)
            points["x"], points["y"], points["score"] = found.reshape(-1, 3).T
            points["visible"] = True
            for name, new in (("frames", frames), ("instances", instances), ("pred_points", points)):
                tables[name].resize((len(tables[name]) + len(new),))
                if len(new):
                    tables[name][-len(new) :] = new
    return [path]


def parquet(predicted: Predicted, stem: Path) -> list[Path]:
    """A tidy table, `STEM.parquet`: frame, image, animal, joint, x, y, confidence; needs pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet as tables
    except ImportError:
        raise ImportError("--formats=parquet: found no pyarrow, expected it: pip install pyarrow") from None
    path, animals = stem.with_name(f"{stem.name}.parquet"), predicted.animals
    names = pyarrow.array(predicted.skeleton.joints)
    kinds: dict[str, Any] = {"frame": pyarrow.int64(), "image": pyarrow.string(), "animal": pyarrow.int32()}
    kinds |= {"joint": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
    kinds |= dict.fromkeys(("x", "y", "confidence"), pyarrow.float32())
    schema, joints = pyarrow.schema(list(kinds.items())), len(names)
    with _replaced(path) as temporary, tables.ParquetWriter(temporary, schema) as writer:
        for start, values in predicted.parts.read():
            frames = range(start, start + len(values))
            images = [predicted.recording.image(frame) for frame in frames]
            flat = values.reshape(-1, 3)
            columns = {
                "frame": np.repeat(_numbers(predicted.recording, start, len(values)), animals * joints),
                "image": np.repeat(np.array(images, object), animals * joints),
                "animal": np.tile(np.repeat(np.arange(animals, dtype=np.int32), joints), len(values)),
                "joint": pyarrow.DictionaryArray.from_arrays(
                    np.tile(np.arange(joints, dtype=np.int32), len(values) * animals), names
                ),
                **{name: flat[:, i] for i, name in enumerate(("x", "y", "confidence"))},
            }
            there = ~np.isnan(flat[:, 2])
            writer.write_table(pyarrow.table(columns, schema=schema).filter(pyarrow.array(there)))
    return [path]


WRITERS: dict[str, Write] = {write.__name__: write for write in (dlc, lightning, coco, slp, parquet)}

_SLP: dict[str, Any] = {
    "frames": [
        *(("frame_id", "u8"), ("video", "u4"), ("frame_idx", "u8")),
        *(("instance_id_start", "u8"), ("instance_id_end", "u8")),
    ],
    "instances": [
        *(("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4")),
        *(("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8")),
        ("tracking_score", "f4"),
    ],
    "points": [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")],
    "pred_points": [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?"), ("score", "f8")],
}


_PREDICTED = 1  # type of an instance


def _slp_metadata(predicted: Predicted) -> dict[str, Any]:
    """Skeleton and provenance; a link's type is a pickled enumeration where it first occurs, and then its number."""
    skeleton, links, kinds = predicted.skeleton, [], []
    for kind, pairs in ((1, skeleton.bones), (2, skeleton.flips)):
        for a, b in pairs:
            known = {"py/id": kinds.index(kind) + 1} if kind in kinds else None
            first = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [kind]}]}
            kinds += [] if known else [kind]
            source, target = (skeleton.joints.index(joint) for joint in (a, b))
            link = {"source": source, "target": target, "key": 0, "type": known or first}
            links.append(link | ({"edge_insert_idx": len(links)} if kind == 1 else {}))
    graph = {"name": skeleton.name, "num_edges_inserted": len(skeleton.bones)}
    nodes = [{"id": i} for i in range(len(skeleton))]
    made = {"directed": True, "graph": graph, "links": links, "multigraph": True, "nodes": nodes}
    return {
        "version": "2.0.0",
        "skeletons": [made],
        "nodes": [{"name": joint, "weight": 1.0} for joint in skeleton.joints],
        "videos": [],
        "tracks": [],
        "suggestions": [],
        "negative_anchors": {},
        "provenance": {"predicted_by": predicted.scorer},
    }


def _slp_video(recording: Recording) -> dict[str, Any]:
    if recording.rate is not None:
        return {"backend": {"type": "MediaVideo", "filename": str(recording.path), "grayscale": False, "bgr": True}}
    folder = recording.path if recording.path.is_dir() else recording.path.parent
    names = [str(folder / recording.image(frame)) for frame in range(len(recording))]
    return {"backend": {"type": "ImageVideo", "filename": names[0], "filenames": names}}


def _write_table(predicted: Predicted, path: Path, scorer: str, individuals: list[str] | None) -> None:
    """A table of three rows of heads, or four where there are individuals."""
    columns = [
        (name, joint, coordinate)
        for name in individuals or [""]
        for joint in predicted.skeleton.joints
        for coordinate in ("x", "y", "likelihood")
    ]
    with _replaced(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["scorer", *[scorer] * len(columns)])
        if individuals:
            rows.writerow(["individuals", *(name for name, _, _ in columns)])
        rows.writerow(["bodyparts", *(joint for _, joint, _ in columns)])
        rows.writerow(["coords", *(coordinate for _, _, coordinate in columns)])
        for frame, values in predicted.frames():
            flat = values.reshape(-1, 3).tolist()
            cells = (
                text for x, y, share in flat for text in (_text(x, _PIXEL), _text(y, _PIXEL), _text(share, _SHARE))
            )
            rows.writerow([predicted.index(frame), *cells])


def _text(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _write_h5(predicted: Predicted, path: Path, individuals: list[str] | None) -> Path:
    """The table as pandas keeps it, by the key that DeepLabCut reads."""
    import pandas as pd

    levels: list[Any] = [[predicted.scorer], list(predicted.skeleton.joints), ["x", "y", "likelihood"]]
    names = ["scorer", "bodyparts", "coords"]
    if individuals:
        levels.insert(1, individuals)
        names.insert(1, "individuals")
    columns = pd.MultiIndex.from_product(levels, names=names)
    width = max(len(str(predicted.index(frame))) for frame in range(len(predicted.recording)))
    sizes = {} if predicted.recording.rate is not None else {"index": width}
    with _replaced(path) as temporary, pd.HDFStore(str(temporary), "w") as store:
        for start, values in predicted.parts.read():
            index = [predicted.index(frame) for frame in range(start, start + len(values))]
            table = pd.DataFrame(values.reshape(len(values), -1).astype(np.float64), index=index, columns=columns)
            store.append("df_with_missing", table, format="table", min_itemsize=sizes)
    return path


def _individuals(predicted: Predicted) -> list[str] | None:
    return [f"animal{i + 1}" for i in range(predicted.animals)] if predicted.animals > 1 else None


def _numbers(recording: Recording, start: int, count: int) -> np.ndarray:
    return np.array([recording.number(frame) for frame in range(start, start + count)], np.int64)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary path, whose file gets its own name when all of it is written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
