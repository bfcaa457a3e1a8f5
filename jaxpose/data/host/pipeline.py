"""The host pipeline: records of several domains become fixed-shape batches, in an order that depends on the seed
and the step alone.

A batch is a pure function of its step, so the position in the data *is* the step: resuming, another number of
workers or another number of processes need no iterator state. The host reads, decodes and crops; everything else
happens on the device.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from jaxpose import interruption
from jaxpose.data import seeds
from jaxpose.data.host.cache import Element, Indexed, cached
from jaxpose.data.host.elements import Crops, Elements

HostBatch = dict[str, Element]

_READ_THREADS = 2
_FEW, _MANY = 4, 256  # batches that are read ahead, at least and at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPart:
    """What batches hold of some elements: how many of a global batch, and which of their fields."""

    elements: Elements
    count: int
    fields: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Batches:
    """The training batches of one process, by step; of several updates in turn, each reads its own words."""

    streams: Mapping[str, grain.MapDataset]
    turns: Sequence[Mapping[str, BatchPart]]
    process: int
    processes: int
    stop: int

    def __len__(self) -> int:
        return self.stop

    @property
    def nbytes(self) -> int:
        """Bytes of the largest batch's pixels."""
        return max(sum(r.count // self.processes * r.elements.nbytes for r in rows.values()) for rows in self.turns)

    def __getitem__(self, index: int) -> HostBatch:
        whole, turn = divmod(index, len(self.turns))
        batch = {}
        for word, rows in self.turns[turn].items():
            readers = [n for n, others in enumerate(self.turns) if word in others]
            before = whole * len(readers) + readers.index(turn)  # batches that have read the word
            local = rows.count // self.processes
            first = before * rows.count + self.process * local
            batch[word] = stack([self.streams[word][first + i] for i in range(local)], rows.fields)
            batch[word]["position"] = np.arange(local, dtype=np.int32) + self.process * local
        return batch


def training_batches(
    turns: Sequence[Mapping[str, BatchPart]],
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
    """The batches of steps `start` to `stop`: elements are shuffled anew, by word independently, in each epoch.

    Args:
      turns: what the batches hold, by word: one after the other, and again. What a word reads is the same in all.
      seed, order: the order of a word's elements depends on these and the word alone, not on what else is read.
      start, stop: steps.
      ahead: bytes of images that are read ahead, most of them while the update compiles.
      workers: 0 reads in threads of this process; more are processes of their own, which read a few batches ahead and
        share the memory of the elements.
      process, processes: this one, which reads its rows of each batch, and how many there are.

    Yields:
      the fields asked for, by word, and `position` (the row of the global batch), `index` and `broken`. A cache that
      elements have and that is not yet made is made first.

    Raises:
      ValueError: if a global batch cannot be split evenly over the processes, or there are no elements.
      WorkerKilledError: by the iterator, if a reading process was killed.
    """
    read = {word: rows for turn in turns for word, rows in turn.items()}
    for word, rows in read.items():
        if rows.count % processes:
            raise ValueError(f"data.batch_size: {rows.count} {word} rows cannot be split over {processes} processes")
        if not len(rows.elements):
            raise ValueError(f"data.{word}: found 0 records, expected at least 1")
    streams = {
        word: grain.MapDataset.source(_stored(rows.elements, workers=workers, show=process == 0))
        .seed(_shuffle_seed(seed, order, word))
        .shuffle()
        .repeat()
        for word, rows in read.items()
    }
    source = _Batches(streams=streams, turns=turns, process=process, processes=processes, stop=stop)
    count = _FEW if workers else min(max(_FEW, ahead // source.nbytes), _MANY)
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
    """Every element once, in order."""

    elements: Elements
    fields: tuple[str, ...]
    batch_size: int
    process: int
    processes: int

    def __len__(self) -> int:
        return -(-len(self.elements) // self.batch_size)

    def __getitem__(self, index: int) -> Element:
        local = self.batch_size // self.processes
        indices = index * self.batch_size + self.process * local + np.arange(local)
        rows = [self.elements[int(i) if i < len(self.elements) else 0] for i in indices]
        batch = stack(rows, self.fields)
        # A broken image is no evidence for or against the model, so its stand-in is not counted.
        batch["row"] = (indices < len(self.elements)) & (batch["broken"] < 0)
        return batch


def evaluation_batches(
    elements: Elements, fields: tuple[str, ...], *, batch_size: int, process: int = 0, processes: int = 1
) -> Iterator[Element]:
    """Every element once, in order, in batches of one shape; `row` is false for the rows that fill up the last one.

    All processes yield the same number of batches; together their rows make up each global batch.
    """
    source = _EvaluationBatches(
        elements=elements, fields=fields, batch_size=batch_size, process=process, processes=processes
    )
    return iter(grain.MapDataset.source(source).to_iter_dataset(_read_options(_FEW)))


def stack(rows: Sequence[Any], fields: Sequence[str]) -> Element:
    """Elements as one batch of the given fields, `index` and `broken`."""
    return {field: np.stack([row[field] for row in rows]) for field in (*fields, "index", "broken")}


def _read_options(batches: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=batches)


def _stored(elements: Elements, *, workers: int, show: bool) -> Indexed:
    """The elements, from their cache if they have one; each worker keeps its own share of them in memory."""
    if not isinstance(elements, Crops):
        return elements
    if elements.cache is None:
        return dataclasses.replace(elements, memory=elements.memory // workers) if workers else elements
    return cached(
        dataclasses.replace(elements, memory=0, cache=None), elements.described_cache(), workers=workers, show=show
    )


def _shuffle_seed(seed: int, order: str, domain: str) -> int:
    return int(np.random.SeedSequence((seed, *seeds.numbers("data", order, domain))).generate_state(1)[0] >> 1)
