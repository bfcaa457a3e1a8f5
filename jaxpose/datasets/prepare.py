"""Converts a published data set from its owners' files: `--mode=prepare --dataset=NAME --manual_dir=DIR`."""

import os
from pathlib import Path

from jaxpose import untrusted
from jaxpose.data.formats import shards
from jaxpose.data.readers import tfds_source
from jaxpose.datasets.builder import RecordBuilder


def prepare(builder_class: type[RecordBuilder], manual_dir: Path, data_dir: Path, *, workers: int = 0) -> Path:
    """Writes `data_dir/NAME/VERSION` and returns it; a call that was killed goes on where it stopped.

    Raises:
      FileNotFoundError, ValueError: naming the owners' file that is missing or not as described.
    """
    builder = builder_class(data_dir=str(data_dir), file_format="array_record")
    folder = Path(builder.data_dir)
    if folder.exists():
        return folder
    if not manual_dir.is_dir():
        raise FileNotFoundError(f"--manual_dir: found no folder {manual_dir}. {instructions(builder_class)}")
    parts = builder.shards(manual_dir)
    unfinished = folder.with_name(folder.name + ".unfinished")
    counts = [count for count in builder_class.COUNTS.values() if count is not None]
    written = shards.write_shards(
        unfinished,
        parts,
        features=builder.features(),
        name=builder.name,
        workers=workers,
        total=sum(counts) or None,
    )
    shards.finish(unfinished, builder.info, written, builder_class.PRESETS)
    os.replace(unfinished, folder)
    return folder


def summary(builder_class: type[RecordBuilder], folder: Path) -> str:
    """What a prepared folder holds beside what is published, and what was left out."""
    splits = tfds_source.split_lengths(folder)
    lines = [f"{builder_class.name} in {folder}"]
    for split, length in splits.items():
        published = builder_class.COUNTS.get(split)
        verdict = "no published number"
        if published is not None:
            same = length == published
            verdict = "as published" if same else f"DIFFERS from the published {published:,}"
        lines.append(f"  {split}: {length:,} records, {verdict}")
    lines += [
        f"  {split}: 0 records, published are {n:,}"
        for split, n in builder_class.COUNTS.items()
        if n and split not in splits
    ]
    path = folder / "skipped.json"
    skipped = untrusted.read_json(path, dict, "what was left out")
    with untrusted.reading(path, "number and names by reason"):
        for reason, (count, names) in skipped.items():
            lines.append(f"  skipped {count:,}: {reason} ({', '.join(names)}{', ...' if count > len(names) else ''})")
    return "\n".join(lines)


def instructions(builder_class: type[RecordBuilder]) -> str:
    """What the owners ask for and where the files go."""
    return f"{builder_class.HOMEPAGE} ({builder_class.LICENCE}): {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}"
