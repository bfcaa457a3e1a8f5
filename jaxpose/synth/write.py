"""Renders a prepared data set: `--mode=synthesize --config=configs/synth.py[:body|:hand]`."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from jaxpose import synth
from jaxpose.data.formats import shards
from jaxpose.data.records import Record

_FIELDS = ("bbox", "area", "keypoints3d", "intrinsics", "sequence", "frame", "segmentation")
_SHARD = 512  # images


@dataclasses.dataclass(kw_only=True)
class Synthesis:
    """What is rendered.

    Attributes:
      name: of the data set, as in `tfds:NAME`.
      train, validation, test: images per split, a multiple of `clip_length`.
      kind, image_size, clip_length, seed, backgrounds, motions, rate, truncation, device: see `synth.SynthConfig`.
    """

    name: str
    kind: str
    train: int = 8192
    validation: int = 256
    test: int = 512
    image_size: int = 256
    clip_length: int = 4
    seed: int = 0
    backgrounds: str | None = None
    motions: str | None = None
    rate: float = 10.0
    truncation: float = 0.1
    device: str = "cpu"


def synthesize(config: Synthesis, data_dir: Path, *, workers: int = 0) -> Path:
    """Writes `data_dir/NAME/1.0.0` and returns it; a call that was killed goes on where it stopped.

    Recorded motions have their frames per second, so that what is written can be read in windows by time.

    Raises:
      ValueError: if a number of images is no multiple of the clip's length, a field is out of range, or the folder
        holds something else.
      ImportError: without the extra `jaxpose[synth]`.
    """
    fields = dataclasses.asdict(config)
    sizes = {split: fields.pop(split) for split in ("train", "validation", "test")}
    fields.pop("name")
    made = synth.SynthConfig(**fields)
    for split, size in sizes.items():
        if size < 0 or size % config.clip_length:
            raise ValueError(f"config.{split}: found {size}, expected a multiple of clip_length {config.clip_length}")
    folder = data_dir / config.name / "1.0.0"
    if folder.exists():
        return folder
    skeleton = synth.skeleton(config.kind)
    features = shards.record_features(skeleton, _FIELDS + (("hand",) if config.kind == "hand" else ()))
    parts, first = {}, 0
    for split, size in sizes.items():
        clips = size // config.clip_length
        step = max(_SHARD // config.clip_length, 1)
        parts[split] = [
            functools.partial(_render, made, first + start, first + min(start + step, clips))
            for start in range(0, clips, step)
        ]
        first += clips
    unfinished = folder.with_name(folder.name + ".unfinished")
    written = shards.write_shards(
        unfinished, parts, features=features, name=config.name, workers=workers, total=sum(sizes.values())
    )
    known = {} if config.motions is None else {"rate": config.rate}
    info = shards.describe(unfinished, config.name, skeleton, features, synthesis=dataclasses.asdict(config), **known)
    shards.finish(unfinished, info, written)
    os.replace(unfinished, folder)
    return folder


def _render(config: synth.SynthConfig, start: int, stop: int) -> Iterator[Record]:
    for index in range(start, stop):
        yield from synth.render_clip(config, index)
