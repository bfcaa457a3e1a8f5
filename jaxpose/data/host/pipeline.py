"""The host pipeline: records of several domains become fixed-shape batches, in an order that depends on the seed
and the step alone.

A batch is a pure function of its step, so the position in the data *is* the step: resuming, another number of
workers or another number of processes need no iterator state. The host reads, decodes and crops; everything else
happens on the device.
"""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from jaxpose import interruption
from jaxpose.data import seeds
from jaxpose.data.host.cache import Element, Elements, cached, labels_of
from jaxpose.data.host.elements import Clips, Crops

HostBatch = dict[str, Element]

_READ_THREADS = 2
_FEW, _MANY = 4, 256  # batches that are read ahead, at least and at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """What a stage reads of a domain: which elements, how many per global batch, and which of their fields."""

    crops: Crops
    batch_size: int
    fields: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Batches:
    """The training batches of one process, by step."""

    streams: Mapping[str, grain.MapDataset]
    reads: Mapping[str, Read]
    process: int
    processes: int
    stop: int

    def __len__(self) -> int:
        return self.stop

    @property
    def image_bytes(self) -> int:
        """Bytes of a batch's pixels."""
        return sum(read.batch_size // self.processes * read.crops.image_bytes for read in self.reads.values())

    def __getitem__(self, index: int) -> HostBatch:
        batch = {}
        for domain, read in self.reads.items():
            local = read.batch_size // self.processes
            first = index * read.batch_size + self.process * local
            rows = [self.streams[domain][first + i] for i in range(local)]
            batch[domain] = stack(rows, read.fields)
            batch[domain]["position"] = np.arange(local, dtype=np.int32) + self.process * local
        return batch


def training_batches(
    reads: Mapping[str, Read],
    *,
    seed: int,
    order: str = "",
    start: int = 0,
    stop: int = sys.maxsize,
    ahead: int = 128 * 2**20,
    workers: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[HostBatch]:
    """The batches of steps `start` to `stop`: every domain is shuffled anew, independently, in each of its epochs.

    A domain's order depends on the seed, its name and `order`, not on what else is read. Besides the fields asked for,
    each domain carries `position` (the row of the global batch), `index` and `broken`. `ahead` is how many bytes of
    images are read ahead, most of them while the update compiles. `workers` 0 reads in threads of this process; more
    are processes of their own, which read a few batches ahead and share the memory of the crops. A cache that a domain
    has and that is not yet made is made first.

    Raises:
      ValueError: if a global batch cannot be split evenly over the processes, or a domain is empty.
      WorkerKilledError: by the iterator, if a reading process was killed.
    """
    for domain, read in reads.items():
        if read.batch_size % processes:
            raise ValueError(
                f"data.batch_size: {read.batch_size} {domain} rows cannot be split over {processes} processes"
            )
        if not len(read.crops):
            raise ValueError(f"data.{domain}: found 0 records, expected at least 1")
    streams = {
        domain: grain.MapDataset.source(_elements(read.crops, workers=workers, show=process == 0))
        .seed(_shuffle_seed(seed, order, domain))
        .shuffle()
        .repeat()
        for domain, read in reads.items()
    }
    source = _Batches(streams=streams, reads=reads, process=process, processes=processes, stop=stop)
    count = _FEW if workers else min(max(_FEW, ahead // source.image_bytes), _MANY)
    dataset = grain.MapDataset.source(source)[start:].to_iter_dataset(_read_options(count))
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        return _watched(iter(dataset.mp_prefetch(options, worker_init_fn=interruption.leave_to_parent)))
    return iter(dataset)


class WorkerKilledError(Exception):
    """A reading process was killed, for instance because there was no memory left."""


def _watched(batches: Iterator[HostBatch]) -> Iterator[HostBatch]:
    try:
        yield from batches
    except RuntimeError as error:
        killed = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
        if killed is None:
            raise
        raise WorkerKilledError(f"a reading process was killed (status {killed[1]})") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _EvaluationBatches:
    """Every record once, in order."""

    crops: Crops
    batch_size: int
    process: int
    processes: int

    def __len__(self) -> int:
        return -(-len(self.crops) // self.batch_size)

    def __getitem__(self, index: int) -> Element:
        local = self.batch_size // self.processes
        indices = index * self.batch_size + self.process * local + np.arange(local)
        rows = [self.crops[int(i) if i < len(self.crops) else 0] for i in indices]
        batch = stack(rows, ("image", "keypoints", "visible", "scale"))
        # A broken image is no evidence for or against the model, so its stand-in is not counted.
        batch["row"] = (indices < len(self.crops)) & (batch["broken"] < 0)
        return batch


def evaluation_batches(crops: Crops, *, batch_size: int, process: int = 0, processes: int = 1) -> Iterator[Element]:
    """Every record once, in order, in batches of one shape; `row` is false for the rows that fill up the last one.

    All processes yield the same number of batches; together their rows make up each global batch.
    """
    source = _EvaluationBatches(crops=crops, batch_size=batch_size, process=process, processes=processes)
    return iter(grain.MapDataset.source(source).to_iter_dataset(_read_options(_FEW)))


def stack(rows: Sequence[Any], fields: Sequence[str]) -> Element:
    """Elements as one batch of the given fields, `index` and `broken`."""
    return {field: np.stack([row[field] for row in rows]) for field in (*fields, "index", "broken")}


def _read_options(batches: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=batches)


def _elements(crops: Crops, *, workers: int, show: bool) -> Elements:
    """The crops, from their cache if they have one; each worker keeps its own share of them in memory."""
    if crops.cache is None:
        return dataclasses.replace(crops, memory=crops.memory // workers) if workers else crops
    joints = crops.source.skeleton.joints
    asked: dict[str, Any] = {
        "image_size": crops.size,
        "margin": crops.margin,
        "joints": [joints[i] for i in crops.joints],
        "seed": getattr(crops.source, "seed", None),  # of what is rendered
    }
    if isinstance(crops, Clips):
        asked["windows"] = hashlib.sha256(np.ascontiguousarray(crops.windows, np.int64).tobytes()).hexdigest()[:16]
    found = {"labels": labels_of(crops.source)}
    cache = dataclasses.replace(crops.cache, asked={**crops.cache.asked, **asked}, found={**crops.cache.found, **found})
    return cached(dataclasses.replace(crops, memory=0, cache=None), cache, workers=workers, show=show)


def _shuffle_seed(seed: int, order: str, domain: str) -> int:
    return int(np.random.SeedSequence((seed, *seeds.numbers("data", order, domain))).generate_state(1)[0] >> 1)
