"""Prepared data: record shards with tensorflow-datasets' metadata, written in parallel and resumable.

A prepared folder can be read by `tfds_source.TfdsSource`, and by anyone's `tfds.builder_from_directory`.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from array_record.python.array_record_module import ArrayRecordWriter  # pyright: ignore[reportMissingImports]
from etils import epath
from tensorflow_datasets.core.splits import SplitDict

from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import BrokenImageError, Motion, Record, Source


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An example that is left out, and why; reasons are counted, so they name no example."""

    name: str
    reason: str


Item = Record | Motion
Shard = Callable[[], Iterable[Item | Skipped]]  # picklable; every call yields the same


def in_shards(source: Source, size: int = 1000) -> list[Shard]:
    """The records of a source, `size` to a shard."""
    return [
        functools.partial(_records, source, start, min(start + size, len(source)))
        for start in range(0, len(source), size)
    ]


def record_features(skeleton: Skeleton, optional: Iterable[str] = ()) -> tfds.features.FeaturesDict:
    """The features of records: the labels of K joints and the named optional fields of `Record`, of `OPTIONAL`."""
    k, features = len(skeleton), tfds.features
    known = {
        "bbox": features.Tensor(shape=(4,), dtype=np.float32),
        "area": features.Scalar(np.float32),
        "head_size": features.Scalar(np.float32),
        "keypoints3d": features.Tensor(shape=(k, 3), dtype=np.float32),
        "intrinsics": features.Tensor(shape=(3, 3), dtype=np.float32),
        "hand": features.Text(),
        "sequence": features.Text(),
        "frame": features.Scalar(np.int64),
        "segmentation": features.Image(shape=(None, None, 1), encoding_format="png"),
    }
    return features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3)),
            "keypoints": features.Tensor(shape=(k, 2), dtype=np.float32),
            "visible": features.Tensor(shape=(k,), dtype=np.uint8),
            "name": features.Text(),
        }
        | {name: known[name] for name in optional}
    )


OPTIONAL = ("bbox", "area", "head_size", "keypoints3d", "intrinsics", "hand", "sequence", "frame", "segmentation")


def motion_features(joints: int) -> tfds.features.FeaturesDict:
    """The features of motions of K joints."""
    return tfds.features.FeaturesDict(
        {
            "positions": tfds.features.Tensor(shape=(None, joints, 3), dtype=np.float32),
            "rate": tfds.features.Scalar(np.float32),
            "name": tfds.features.Text(),
            "subject": tfds.features.Text(),
        }
    )


def example(item: Item, features: tfds.features.FeaturesDict) -> dict[str, Any]:
    """A record or motion as tensorflow-datasets encodes it.

    Raises:
      ValueError: if a field is absent or of another shape.
    """
    fields: Mapping[str, Any] = (
        {name: getattr(item, name) for name in features} if isinstance(item, Motion) else dict(item)
    )
    if missing := [name for name in features if name not in fields]:
        raise ValueError(f"{fields['name']}: found no {missing[0]}, expected {', '.join(features)}")
    for name, feature in features.items():
        found = np.shape(fields[name])
        expected: Any = getattr(feature, "shape", ())
        if type(feature) is tfds.features.Tensor and not _fits(found, expected):
            raise ValueError(f"{fields['name']}: {name} has shape {found}, expected {expected}")
    return {name: fields[name] for name in features}


def write_shards(
    folder: Path,
    splits: Mapping[str, Sequence[Shard]],
    *,
    features: tfds.features.FeaturesDict,
    name: str,
    workers: int = 0,
    total: int | None = None,
) -> "Written":
    """Writes shards into a folder; those that an earlier call has finished are left as they are.

    Args:
      folder: made if it is absent.
      splits: what each shard of each split holds.
      features: of the items.
      name: of the data set, for the files' names.
      workers: processes that write; 0 writes in this one.
      total: expected number of items, for the progress bar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(folder / f"{name}-{split}.array_record-{i:05d}-of-{len(shards):05d}", split, shard, features)
        for split, shards in splits.items()
        for i, shard in enumerate(shards)
    ]
    reports = {}
    with tqdm.tqdm(total=total, unit="record", desc=name, dynamic_ncols=True) as bar:
        for path, report in _run(jobs, workers, bar.update):
            reports[path] = report
    return Written(
        lengths={s: [reports[j.path]["count"] for j in jobs if j.split == s] for s in splits},
        sizes={s: sum(j.path.stat().st_size for j in jobs if j.split == s) for s in splits},
        skipped=_merge(reports[j.path]["skipped"] for j in jobs),
        sequences={
            s: [tuple(run) for j in jobs if j.split == s for run in reports[j.path]["sequences"]] for s in splits
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """What `write_shards` wrote.

    Attributes:
      lengths: items per shard, by split.
      sizes: bytes by split.
      skipped: reason -> (how many, names of the first few).
      sequences: (clip, number of records, number of the first frame) in the order of the records, by split; frames
        follow one another, or their numbers are not known (None).
    """

    lengths: dict[str, list[int]]
    sizes: dict[str, int]
    skipped: dict[str, tuple[int, list[str]]]
    sequences: dict[str, list[tuple[str, int, int | None]]]


Preset = Callable[[Mapping[str, int]], Mapping[str, Sequence[tuple[str, int]]]]


def finish(
    folder: Path, info: tfds.core.DatasetInfo, written: Written, presets: Mapping[str, Preset] | None = None
) -> None:
    """Writes the metadata that makes a folder of shards a data set.

    Args:
      folder: of `write_shards`.
      info: of the data set.
      written: what `write_shards` returned.
      presets: divisions of released code by name: from the lengths of the splits to (split, index) of each record of
        each split of the preset.

    Raises:
      ValueError: if there are no records.
    """
    splits: list[Any] = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=lengths,
            num_bytes=written.sizes[split],
            filename_template=tfds.core.ShardedFileTemplate(
                dataset_name=info.name, split=split, filetype_suffix="array_record", data_dir=epath.Path(folder)
            ),
        )
        for split, lengths in written.lengths.items()
        if sum(lengths)
    ]
    if not splits:
        raise ValueError(f"{info.name}: found 0 records, expected at least 1")
    info.set_file_format("array_record", override=True)
    info.set_splits(SplitDict(splits))
    info.write_to_directory(str(folder))
    lengths = {split.name: split.num_examples for split in splits}
    starts = dict(zip(lengths, np.cumsum([0, *lengths.values()])[:-1].tolist(), strict=True))
    for name, preset in (presets or {}).items():
        index = {split: [starts[s] + i for s, i in rows] for split, rows in preset(lengths).items()}
        arrays: dict[str, Any] = {s: np.array(i, np.int64) for s, i in index.items()}
        np.savez_compressed(folder / f"preset_{name}.npz", **arrays)
    (folder / "sequences.json").write_text(json.dumps(written.sequences))
    (folder / "skipped.json").write_text(json.dumps(written.skipped, indent=1))
    for report in folder.glob("*.report.json"):
        report.unlink()


def describe(
    folder: Path, name: str, skeleton: Skeleton, features: tfds.features.FeaturesDict, **metadata: Any
) -> tfds.core.DatasetInfo:
    """The metadata of a folder that no builder stands for; the keywords are kept beside the skeleton.

    Of these, `rate` are the frames per second of all clips.
    """
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=__name__
    )
    kept = tfds.core.MetadataDict(skeleton=skeleton_metadata(skeleton), **metadata)
    return tfds.core.DatasetInfo(builder=identity, features=features, metadata=kept)


def skeleton_metadata(skeleton: Skeleton) -> dict[str, Any]:
    """A skeleton as JSON, kept in a prepared folder's metadata."""
    return dataclasses.asdict(skeleton)


@dataclasses.dataclass(frozen=True)
class _Job:
    path: Path
    split: str
    shard: Shard
    features: tfds.features.FeaturesDict


def _records(source: Source, start: int, stop: int) -> Iterator[Record]:
    for index in range(start, stop):
        yield source[index]


def _run(jobs: Sequence[_Job], workers: int, progress: Callable[[int], Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    todo = []
    for job in jobs:
        report = _report_path(job.path)
        if report.exists() and job.path.exists():
            done = json.loads(report.read_text())
            progress(done["count"])
            yield job.path, done
        else:
            todo.append(job)
    if not workers:
        for job in todo:
            yield job.path, _write_one(job, progress)
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=_end_with, initargs=(os.getpid(),)
    ) as pool:
        futures = {pool.submit(_write_one, job): job for job in todo}
        for future in concurrent.futures.as_completed(futures):
            report = future.result()
            progress(report["count"])
            yield futures[future].path, report


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, which a killed parent cannot see to itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_one(job: _Job, progress: Callable[[int], Any] | None = None) -> dict[str, Any]:
    """Writes one shard, then its report: the report says that the shard is whole."""
    temporary = job.path.with_name(job.path.name + ".partial")
    count, skipped, sequences = 0, collections.defaultdict(list), []
    writer = ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        for item in map(_checked, job.shard()):
            if isinstance(item, Skipped):
                skipped[item.reason].append(item.name)
                continue
            writer.write(job.features.serialize_example(example(item, job.features)))
            count += 1
            known: Mapping[str, Any] = {} if isinstance(item, Motion) else item
            sequence, frame = known.get("sequence", ""), known.get("frame")
            if sequences and _goes_on(sequences[-1], sequence, frame):
                sequences[-1][1] += 1
            else:
                sequences.append([sequence, 1, frame])
            if progress is not None:
                progress(1)
    finally:
        writer.close()
    os.replace(temporary, job.path)
    summary = {reason: (len(names), names[:5]) for reason, names in skipped.items()}
    report = {"count": count, "skipped": summary, "sequences": sequences}
    partial = _report_path(job.path).with_suffix(".partial")
    partial.write_text(json.dumps(report))
    os.replace(partial, _report_path(job.path))
    return report


def _goes_on(run: Sequence[Any], sequence: str, frame: int | None) -> bool:
    """Whether a record belongs to a run of records: the next frame of its clip, or unnumbered like the rest of it."""
    name, count, first = run
    return name == sequence and frame == (None if first is None else first + count)


def _checked(item: Item | Skipped) -> Item | Skipped:
    """The item, unless its image cannot be decoded."""
    if isinstance(item, dict):
        try:
            files.decode_image(item["image"], item["name"])
        except BrokenImageError:
            return Skipped(item["name"], "the image cannot be decoded")
    return item


def _report_path(path: Path) -> Path:
    return path.with_name(path.name + ".report.json")


def _merge(summaries: Iterable[Mapping[str, tuple[int, list[str]]]]) -> dict[str, tuple[int, list[str]]]:
    merged: dict[str, tuple[int, list[str]]] = {}
    for summary in summaries:
        for reason, (count, names) in summary.items():
            before, first = merged.get(reason, (0, []))
            merged[reason] = (before + count, (first + names)[:5])
    return merged


def _fits(found: tuple[int, ...], expected: Sequence[int | None]) -> bool:
    return len(found) == len(expected) and all(e in (None, f) for f, e in zip(found, expected, strict=True))
