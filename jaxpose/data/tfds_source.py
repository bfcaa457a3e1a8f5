"""Reads prepared data: record shards with tensorflow-datasets' metadata, see `shards`."""

import dataclasses
import functools
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxpose.data.records import Note, Record, Source
from jaxpose.data.skeletons import Skeleton


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
        builder = _open(self.folder)
        # Images stay encoded: the pipeline decodes them.
        kept = {k: tfds.decode.SkipDecoding() for k in ("image", "segmentation") if k in builder.info.features}
        try:
            return builder.as_data_source(self.split, decoders=kept)
        except NotImplementedError:
            form = builder.info.file_format.value
            raise ValueError(f"{self.folder}: prepared as {form}, expected file_format=array_record") from None

    @property
    def skeleton(self) -> Skeleton:
        """Names the joints."""
        return skeleton_from_metadata(_open(self.folder).info.metadata["skeleton"])

    @property
    def labelled(self) -> bool:
        """Prepared data has labels."""
        return True

    @property
    def sequences(self) -> tuple[str, ...] | None:
        """The clip of each record; None where there are none, and for slices of splits."""
        path = self.folder / "sequences.json"
        runs = json.loads(path.read_text()) if path.exists() else {}
        splits = self.split.split("+")
        if not set(splits) <= set(runs):
            return None
        names = [name for split in splits for name, count in runs[split] for _ in range(count)]
        if not any(names):
            return None
        return tuple(names if self.index is None else (names[i] for i in self.index))

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was left out of all splits when the data were prepared."""
        path = self.folder / "skipped.json"
        try:
            found = json.loads(path.read_text()) if path.exists() else {}
            return tuple(
                Note(what=f"left out when it was prepared, as {reason}", count=int(count), example=str(names[0]))
                for reason, (count, names) in found.items()
            )
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}, expected what was left out") from None

    def __len__(self) -> int:
        return len(self._records) if self.index is None else len(self.index)

    def __getitem__(self, index: int) -> Record:
        try:
            found = self._records[index if self.index is None else int(self.index[index])]
        except (RuntimeError, IndexError) as error:
            first = str(error).splitlines() or [""]
            raise ValueError(
                f"{self.folder}: record {index} cannot be read ({first[0]}), expected whole shards"
            ) from None
        texts = {name: found[name].decode() for name in ("name", "hand", "sequence") if name in found}
        return found | texts

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "index": self.index}


def split_lengths(folder: Path) -> dict[str, int]:
    """The numbers of records of a prepared folder's splits."""
    return {name: split.num_examples for name, split in _open(folder).info.splits.items()}


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
    try:
        with np.load(path, allow_pickle=False) as arrays:
            index = {split: arrays[split] for split in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}, expected the preset's indices") from None
    if not all(rows.ndim == 1 and ((rows >= 0) & (rows < total)).all() for rows in index.values()):
        raise ValueError(f"{path}: found indices outside the {total} records")
    everything = "+".join(split_lengths(folder))
    found: dict[str, Source] = {
        split: TfdsSource(folder=folder, split=everything, index=index[split]) for split in index
    }
    return found


def skeleton_from_metadata(found: Mapping[str, Any]) -> Skeleton:
    """The reverse of `shards.skeleton_metadata`."""
    pairs = {key: tuple((a, b) for a, b in found[key]) for key in ("bones", "flips")}
    groups = {name: tuple(joints) for name, joints in found["groups"].items()}
    return Skeleton(
        name=found["name"], joints=tuple(found["joints"]), groups=groups, sigmas=tuple(found["sigmas"]), **pairs
    )


@functools.cache
def _open(folder: Path) -> Any:
    return tfds.builder_from_directory(folder)
