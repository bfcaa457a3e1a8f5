"""Reads prepared data: record shards with tensorflow-datasets' metadata, see `shards`."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core.proto import dataset_info_pb2, feature_pb2

from jaxpose import untrusted
from jaxpose.data.formats import shards, unpickle
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Note, Record, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsSource:
    """A split of a prepared folder as a source (`records.Source`).

    Attributes:
      folder: with `dataset_info.json`.
      split: a split's name or a slice of it such as `train[:90%]`.
      index: which of its records, None for all.
    """

    folder: Path
    split: str
    index: np.ndarray | None = None

    @functools.cached_property
    def _records(self) -> Any:
        # Images stay encoded: the pipeline decodes them.
        return records_of(self.folder, self.split, decoders={"image", "segmentation"})

    @property
    def skeleton(self) -> Skeleton:
        """Names the joints."""
        return open_folder(self.folder)[1]

    @property
    def labelled(self) -> bool:
        """Prepared data has labels."""
        return True

    @property
    def sequences(self) -> tuple[str, ...] | None:
        """The clip of each record; None where there are none, and for slices of splits."""
        names = [name for name, count, _ in self._runs for _ in range(count)]
        if not any(names):
            return None
        return tuple(names if self.index is None else (names[i] for i in self.index))

    @property
    def frames(self) -> np.ndarray | None:
        """The number of each record in its clip; None where they are not known."""
        if not self._runs or any(first is None for _, _, first in self._runs):
            return None
        numbers = np.concatenate(
            [np.arange(first, first + count) for _, count, first in self._runs if first is not None]
        )
        return numbers if self.index is None else numbers[self.index]

    @property
    def rates(self) -> np.ndarray | None:
        """The frames per second of each record's clip, where the data were prepared with them."""
        rate = _rate(self.folder)
        return None if rate is None else np.full(len(self), rate)

    @property
    def _runs(self) -> list["_Run"]:
        splits, known = self.split.split("+"), _sequences(self.folder)
        return [run for split in splits for run in known[split]] if set(splits) <= set(known) else []

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was left out of all splits when the data were prepared."""
        return left_out(self.folder)

    def __len__(self) -> int:
        return len(self._records) if self.index is None else len(self.index)

    def __getitem__(self, index: int) -> Record:
        found: Any = read_record(self._records, self.folder, index if self.index is None else int(self.index[index]))
        texts = {name: _text(found[name]) for name in ("name", "hand", "sequence") if name in found}
        return found | texts

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "index": self.index}


def open_folder(folder: Path) -> tuple[Any, Skeleton]:
    """The builder of a prepared folder, and its joints.

    tensorflow-datasets imports the modules of the features that a folder names, so only the names of its own features
    reach it, those that `shards` writes.

    Raises:
      FileNotFoundError: if there is no prepared data.
      ValueError: naming the file that is not as `shards.finish` writes it.
    """
    return _open(folder)


def left_out(folder: Path) -> tuple[Note, ...]:
    """What was left out of a prepared folder.

    Raises:
      ValueError: if what says so is damaged.
    """
    path = folder / "skipped.json"
    if not path.exists():
        return ()
    found = untrusted.read_json(path, dict, "what was left out")
    with untrusted.reading(path, "what was left out"):
        return tuple(
            Note(what=f"left out when it was prepared, as {reason}", count=int(count), example=str(names[0]))
            for reason, (count, names) in found.items()
        )


def records_of(folder: Path, split: str, *, decoders: frozenset[str] | set[str] = frozenset()) -> Any:
    """The records of a split or a slice of it, by number.

    Args:
      folder: of prepared data.
      split: its name, or a slice such as `train[:90%]`.
      decoders: names of features that stay encoded.

    Raises:
      ValueError: if there is no such split, or it cannot be opened.
    """
    builder, _ = open_folder(folder)
    known = ", ".join(builder.info.splits)
    chosen = {part.partition("[")[0].strip() for part in split.split("+")}
    if not chosen <= set(builder.info.splits):
        raise ValueError(f"{folder}: found split {split!r}, expected one of {known}")
    kept = {name: tfds.decode.SkipDecoding() for name in decoders if name in builder.info.features}
    with untrusted.reading(folder, f"a split of {known}, or a slice of one, and its shards"):
        for shard in (Path(shard) for name in chosen for shard in builder.info.splits[name].filepaths):
            if shard.parent.resolve() != folder.resolve() or not shard.is_file():
                raise ValueError(f"found no file {shard}")
        records = builder.as_data_source(split, decoders=kept)
        len(records)
        return records


def read_record(records: Any, folder: Path, index: int) -> dict[str, Any]:
    """A record of `records_of`.

    Raises:
      ValueError: if it cannot be read.
    """
    with untrusted.reading(f"{folder}: record {index} cannot be read", "whole shards"):
        found = records[index]
        if empty := [name for name, value in found.items() if value is None]:  # what is read where a shard was cut
            raise ValueError(f"found no {empty[0]}")
        return found


def split_lengths(folder: Path) -> dict[str, int]:
    """The numbers of records of a prepared folder's splits."""
    return {name: split.num_examples for name, split in open_folder(folder)[0].info.splits.items()}


def open_preset(folder: Path, name: str) -> dict[str, Source]:
    """The splits of a preset that was given to `shards.finish`.

    Raises:
      ValueError: listing the presets there are.
    """
    path = folder / f"preset_{name}.npz"
    if not path.exists():
        known = ", ".join(p.stem.removeprefix("preset_") for p in sorted(folder.glob("preset_*.npz")))
        raise ValueError(f"found preset {name!r}, expected one of: {known or 'none'}")
    total = sum(split_lengths(folder).values())
    index = unpickle.load_npz(path)
    good = (isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.dtype.kind in "iu" for rows in index.values())
    if not all(good) or not all(((rows >= 0) & (rows < total)).all() for rows in index.values()):
        raise ValueError(f"{path}: found indices outside the {total} records")
    everything = "+".join(split_lengths(folder))
    found: dict[str, Source] = {
        split: TfdsSource(folder=folder, split=everything, index=index[split]) for split in index
    }
    return found


def skeleton_from_metadata(found: Mapping[str, Any]) -> Skeleton:
    """The reverse of `shards.skeleton_metadata`."""
    pairs = {key: tuple((str(a), str(b)) for a, b in found[key]) for key in ("bones", "flips")}
    groups = {name: tuple(map(str, joints)) for name, joints in found["groups"].items()}
    joints, sigmas = tuple(map(str, found["joints"])), tuple(map(float, found["sigmas"]))
    return Skeleton(name=str(found["name"]), joints=joints, groups=groups, sigmas=sigmas, **pairs)


@functools.cache
def _open(folder: Path) -> tuple[Any, Skeleton]:
    info, features = folder / "dataset_info.json", folder / "features.json"
    found = untrusted.read_json(info, dict, "tensorflow-datasets' metadata")
    with untrusted.reading(info, "tensorflow-datasets' metadata"):
        stated = json_format.ParseDict(found, _protos[0].DatasetInfo())
        if stated.HasField("features"):
            _check_features(stated.features)
        if stated.file_format != _FORMAT:
            raise ValueError(
                f"{folder}: prepared as {stated.file_format or 'tfrecord'}, expected file_format={_FORMAT}"
            )
    found = untrusted.read_json(features, dict, "tensorflow-datasets' features")
    with untrusted.reading(features, "the features that jaxpose writes"):
        _check_features(json_format.ParseDict(found, _protos[1].Feature()))
    path = folder / "metadata.json"
    found = untrusted.read_json(path, dict, "the metadata of data that jaxpose prepared")
    with untrusted.reading(path, "a skeleton"):
        skeleton = skeleton_from_metadata(found["skeleton"])
    with untrusted.reading(folder, "prepared data"):
        builder = tfds.builder_from_directory(folder)
        _check_fields(builder.info.features, skeleton)
    return builder, skeleton


_protos: tuple[Any, Any] = dataset_info_pb2, feature_pb2  # made when they are imported, so no type is known
_FORMAT = "array_record"
_CORE = "tensorflow_datasets.core.features."
_DTYPES = ("float32", "int64", "uint8")
_FIELDS = {  # of tensorflow-datasets' own features: what of a feature's description they read
    f"{_CORE}features_dict.FeaturesDict": "features_dict",
    f"{_CORE}image_feature.Image": "image",
    f"{_CORE}scalar.Scalar": "tensor",
    f"{_CORE}tensor_feature.Tensor": "tensor",
    f"{_CORE}text_feature.Text": "text",
}


def _check_features(feature: Any) -> None:
    """That a feature and those below it are tensorflow-datasets' own, described in its own form and not compressed."""
    name, form = feature.python_class_name, feature.WhichOneof("content")
    if _FIELDS.get(name) != form or form is None:
        raise ValueError(f"found the feature {name!r} with {form}")
    if form == "tensor" and feature.tensor.encoding not in ("", "none"):
        raise ValueError(f"found a tensor with encoding {feature.tensor.encoding!r}")
    if form in ("tensor", "image") and getattr(feature, form).dtype not in _DTYPES:
        raise ValueError(f"found values of {getattr(feature, form).dtype!r}")
    if form == "features_dict":
        for below in feature.features_dict.features.values():
            _check_features(below)


def _check_fields(features: Any, skeleton: Skeleton) -> None:
    """That the features are those of records or of motions of these joints."""
    motion = "positions" in features
    wanted = shards.motion_features(len(skeleton)) if motion else shards.record_features(skeleton, shards.OPTIONAL)
    for name, feature in features.items():
        if name not in wanted:
            raise ValueError(f"found a feature {name!r}, not one of {', '.join(wanted)}")
        for what in ("shape", "np_dtype"):
            if getattr(feature, what) != getattr(wanted[name], what):
                found = getattr(feature, what)
                raise ValueError(f"found {name} of {what} {found}, not {getattr(wanted[name], what)}")
    optional = () if motion else shards.OPTIONAL
    if missing := [name for name in wanted if name not in features and name not in optional]:
        raise ValueError(f"found no feature {missing[0]!r}")


@functools.cache
def _rate(folder: Path) -> float | None:
    """The frames per second of all clips, see `shards.describe`."""
    path, expected = folder / "metadata.json", f"{_SLOWEST} to {_FASTEST} frames per second"
    found = untrusted.read_json(path, dict, "the metadata of data that jaxpose prepared").get("rate")
    with untrusted.reading(path, expected):
        if found is None:
            return None
        rate = float(found)
        if not _SLOWEST <= rate <= _FASTEST:
            raise ValueError(f"found a rate of {rate:g}")
        return rate


_SLOWEST, _FASTEST = 0.01, 10_000


_Run = tuple[str, int, int | None]  # clip, number of records, number of the first frame


def _sequences(folder: Path) -> dict[str, list[_Run]]:
    """The runs of records of one clip, by split."""
    path = folder / "sequences.json"
    if not path.exists():
        return {}
    found = untrusted.read_json(path, dict, "clips by split")
    with untrusted.reading(path, "[clip, number of records, first frame] by split"):
        runs = {split: [_run(*run) for run in clips] for split, clips in found.items()}
        for split, length in split_lengths(folder).items():
            counts = [count for _, count, _ in runs.get(split, ())]
            if split in runs and (min(counts, default=0) < 0 or sum(counts) != length):
                raise ValueError(f"found {sum(counts)} records of {split}, not {length}")
        return runs


def _run(name: Any, count: Any, first: Any = None) -> _Run:
    return str(name), int(count), None if first is None else int(first)


def _text(value: Any) -> str:
    return value.decode(errors="replace")
