"""Images per second of the host pipeline from array_record, beside OpenCV decoding the same bytes on the same core.

    taskset -c 0 python tests/benchmarks/host_pipeline.py [--images=FOLDER_OR_TAR] [--cache]

Photographs, or noise of natural smoothness where none are given, are resized to 256 x 256 and stored as JPEG (quality
90). The loops run alternately, five times; the medians and the spread are printed. With `--workers=N` N processes
read, and the process may use as many cores as it is allowed. `--cache` also reads the crops from a cache
(`data.cache`), in turn with the others, and prints the rates of the stages. `--memory` reads 100,000 records and
prints how the resident memory grows.
"""

import argparse
import dataclasses
import functools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from jaxpose.data.formats import files, shards
from jaxpose.data.host import elements, pipeline, rates
from jaxpose.data.host.cache import Cache
from jaxpose.data.joints.skeletons import LSP14
from jaxpose.data.readers.tfds_source import TfdsSource
from jaxpose.data.records import Record

SIZE, COUNT, BATCH = 256, 512, 32
FIELDS = ("image", "keypoints", "visible")


def pictures(folder: str | None) -> Iterator[np.ndarray]:
    if folder is not None:
        found = files.Files(folder)
        for name in [n for n in found.names if Path(n).suffix.lower() in files.IMAGE_SUFFIXES][:COUNT]:
            yield cv2.resize(files.decode_image(found.read(name), name), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return
    rng = np.random.default_rng(0)
    for _ in range(COUNT):
        image = np.full((SIZE, SIZE, 3), 128.0)
        for cells in (4, 16, 64, 256):
            noise = rng.normal(0, 60 / cells**0.5, (cells, cells, 3))
            image += cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        yield image.clip(0, 255).astype(np.uint8)


def records(folder: str | None) -> Iterator[Record]:
    rng = np.random.default_rng(1)
    for i, image in enumerate(pictures(folder)):
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        points = rng.uniform(0, SIZE, (14, 2)).astype(np.float32)
        box = np.array([0, 0, SIZE, SIZE], np.float32)
        yield Record(image=data, keypoints=points, visible=np.full(14, 2, np.uint8), name=f"{i}", bbox=box)


def prepare(folder: Path, images: str | None) -> TfdsSource:
    features = shards.record_features(LSP14, ("bbox",))
    parts = {"train": [functools.partial(records, images)]}
    written = shards.write_shards(folder, parts, features=features, name="benchmark", total=COUNT)
    shards.finish(folder, shards.describe(folder, "benchmark", LSP14, features), written)
    return TfdsSource(folder=folder, split="train")


def through(crops: elements.Crops, workers: int) -> Callable[..., int]:
    """Reads so many images through the pipeline, which is warm."""
    reads = {"source": pipeline.BatchPart(elements=crops, count=BATCH, fields=FIELDS)}
    batches = pipeline.training_batches([reads], seed=0, ahead=0, workers=workers)
    for _ in range(20):
        next(batches)

    def read(count: int = 2048) -> int:
        for _ in range(count // BATCH):
            next(batches)
        return count

    return read


def rate(read: Callable[[], int]) -> float:
    start = time.perf_counter()
    count = read()
    return count / (time.perf_counter() - start)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args(argv[1:])
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = prepare(Path(folder), options.images)
        encoded = [source[i]["image"] for i in range(len(source))]
        crops = elements.Crops(source=source, joints=np.arange(14), size=SIZE, margin=1.0)
        through_pipeline = through(crops, options.workers)

        def plain() -> int:
            for data in encoded:
                cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            return len(encoded)

        if options.memory:
            for thousands in range(0, 101, 20):
                resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{thousands},000 records read: at most {resident:.0f} MiB resident")
                through_pipeline(20_000)
            return
        measured: dict[str, Callable[..., int]] = {"OpenCV alone": plain, "pipeline": through_pipeline}
        if options.cache:
            kept = Cache(folder=f"{folder}/cache", name="benchmark", asked={}, found={})
            measured["pipeline from the cache"] = through(dataclasses.replace(crops, cache=kept), options.workers)
        found = [[rate(read) for read in measured.values()] for _ in range(5)]
        for name, values in zip(measured, zip(*found, strict=True), strict=True):
            print(f"{name}: {statistics.median(values):.0f} images/s ({min(values):.0f} to {max(values):.0f})")
        ratios = [statistics.median(row[i] / row[0] for row in found) for i in range(1, len(measured))]
        size = statistics.mean(map(len, encoded)) / 1024
        for name, ratio in zip(list(measured)[1:], ratios, strict=True):
            print(f"{name} / OpenCV: {ratio:.2f}; {len(encoded)} JPEG of {size:.0f} KiB, workers {options.workers}")
        if options.cache:
            for name, value in rates.measure_stages(crops, fields=FIELDS, batch_size=BATCH).items():
                print(f"{name} alone: {value:.0f} images/s of one thread")


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()  # Grain asks absl for its flags
    main(sys.argv)
