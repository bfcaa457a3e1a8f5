"""Predicts on all recordings of a collection: goes on where it was stopped, or does one job's part of it."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from jaxpose import untrusted
from jaxpose.model import MOST_ROWS, Model
from jaxpose.predict.asked import Shard
from jaxpose.predict.formats import Predicted, Write
from jaxpose.predict.found import LONGEST, Parts
from jaxpose.predict.pictures import overlay
from jaxpose.predict.recordings import Input, Recording
from jaxpose.predict.stream import Clock, compile_for, predictions
from jaxpose.train.checkpoint import write_json
from jaxpose.train.results import fingerprint
from jaxpose.train.workdir import locked

_FINISHED = ".meta.json"  # ending of the file that is written last
_PARTS = ".parts"
_SECONDS = 60  # of work that a kill may cost
_MOST_NAMED = 20  # unreadable frames that are named on the terminal


def predict(
    model: Model,
    inputs: Sequence[Input],
    output: Path,
    *,
    formats: dict[str, Write],
    pictures: bool = False,
    shard: Shard | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Writes the predictions of every recording that is not finished yet.

    Beside them stands `NAME.meta.json`: the model, the frames that could not be read, and how fast it was.

    Args:
      model: what predicts.
      inputs: the recordings.
      output: a folder.
      formats: how they are written.
      pictures: whether overlays and contact sheets are drawn, too.
      shard: of the files or, if there is one, of its frames; what is left is written by the job that has all.
      say: is told a line for each recording.

    Raises:
      ValueError: if the model finds no points in images, the folder holds predictions of another one, or a recording
        cannot be read.
      workdir.InUseError: if another job predicts the same recording.
    """
    if not model.finds_points:
        raise ValueError(
            f"{model.title}: found poses in space alone, expected points to be written; jaxpose.load gives the poses"
        )
    shard, writers = shard or Shard(), {**formats, **({"overlay": overlay} if pictures else {})}
    identity = {
        "recipe": model.recipe,
        "pair": model.pair,
        "stage": model.stage,
        "step": model.step,
        "fingerprint": fingerprint(model.state),
    }
    several = len(inputs) > 1
    chosen = inputs[slice(*shard.frames(len(inputs)))] if several else inputs
    output.mkdir(parents=True, exist_ok=True)
    if not chosen:
        say(f"shard {shard.number} of {shard.of}: nothing to do, there are {len(inputs)} files")
    for number, one in enumerate(chosen, start=1):
        title = f"{one.name} ({number} of {len(chosen)})" if several else one.name
        finished = _finished(output / f"{one.name}{_FINISHED}", identity, writers)
        if finished:
            say(f"{title}: finished before; delete {finished.name} to predict it again")
            continue
        try:
            recording = one.open()
        except (ValueError, OSError) as error:
            if not several:
                raise
            say(f"{title}: left out: {untrusted.one_line(error)}")
            continue
        part = Shard() if several else shard
        rows = model.batch_rows(MOST_ROWS if several else len(recording) * recording.animals)
        _predict_one(model, recording, output, identity, writers, part, rows=rows, title=title, say=say)


def _predict_one(
    model: Model,
    recording: Recording,
    output: Path,
    identity: dict[str, Any],
    writers: dict[str, Write],
    shard: Shard,
    *,
    rows: int,
    title: str,
    say: Callable[[str], None],
) -> None:
    stem, (first, last) = output / recording.name, shard.frames(len(recording))
    stem.parent.mkdir(parents=True, exist_ok=True)
    shape = len(recording), recording.animals, len(model.skeleton)
    parts = Parts(
        folder=stem.with_name(stem.name + _PARTS),
        made_by={"model": identity, "input": str(recording.path.resolve())},
        shape=shape,
    )
    parts.prepare()
    # Jobs that share a recording have a lock each; whoever writes its files has the first one's.
    with locked(parts.folder / "jobs" / f"{shard.number}of{shard.of}"):
        clock, seconds, gaps = Clock(), 0.0, parts.missing(first, last)
        frames = [frame for gap in gaps for frame in gap]
        if frames:
            compile_for(model, rows)
            started = time.perf_counter()
            _fill(model, recording, parts, gaps, clock, rows=rows, title=title)
            seconds = time.perf_counter() - started
        if parts.missing(0, len(recording)):
            say(f"{title}: frames {first} to {last - 1} are there; the same command without --shard joins the parts")
            return
        scorer = f"DLC_jaxpose_{model.recipe}_{model.pair}_{model.stage}{model.step}"
        predicted = Predicted(recording=recording, skeleton=model.skeleton, scorer=scorer, parts=parts)
        written = [path for write in writers.values() for path in write(predicted, stem)]
        unreadable = [recording.image(frame) for frame, values in predicted.frames() if np.isnan(values[0, 0, 0])]
        speed = len(frames) / seconds if seconds else 0.0
        meta = {
            "model": identity,
            "input": str(recording.path),
            "frames": len(recording),
            "rate": recording.rate,
            "joints": list(model.skeleton.joints),
            "pixels": "x to the right, y down, (0, 0) is the centre of the top-left pixel",
            "unreadable": unreadable,
            "notes": recording.notes(),
            "writers": list(writers),
            "files": [path.relative_to(output).as_posix() for path in written],
            "frames_per_s": round(speed, 2),
            "decoding_frames_per_s": round(len(frames) / clock.decoding, 2) if clock.decoding else 0.0,
            "waited_for_frames_s": round(clock.waiting, 3),
        }
        write_json(stem.with_name(stem.name + _FINISHED), meta)
    parts.delete()
    rate = f"{speed:.1f} frames/s ({meta['decoding_frames_per_s']:.0f} of decoding alone)" if frames else "joined"
    say(f"{title}: {len(recording)} frames, {rate}; {', '.join(meta['files'])}")
    for note in meta["notes"]:
        say(f"  {note}")
    if unreadable:
        more = ", ..." if len(unreadable) > _MOST_NAMED else ""
        say(f"  frames that cannot be decoded: {len(unreadable)} ({', '.join(unreadable[:_MOST_NAMED])}{more})")


def _fill(
    model: Model,
    recording: Recording,
    parts: Parts,
    gaps: Sequence[range],
    clock: Clock,
    *,
    rows: int,
    title: str,
) -> None:
    """Predicts what is missing and saves it part by part."""
    ends = {frame for gap in gaps for frame in (*gap[LONGEST - 1 :: LONGEST], gap[-1])}
    frames = [frame for gap in gaps for frame in gap]
    absent = np.full((*parts.shape[1:], 3), np.nan, np.float32)
    unreadable = absent.copy()
    unreadable[..., 2] = 0
    values: list[np.ndarray] = []
    frame, saved = -1, time.monotonic()
    seconds = 0.5 if sys.stderr.isatty() else 30.0  # between two lines; in a file they stay
    bar = tqdm.tqdm(
        total=len(frames), desc=title, unit="frame", dynamic_ncols=True, mininterval=seconds, maxinterval=seconds
    )
    try:
        for frame, found in predictions(model, recording, frames, clock, rows=rows):
            row = (unreadable if found is None else absent).copy()
            if found is not None:
                row[: len(found)] = found
            values.append(row)
            bar.update()
            if frame in ends or time.monotonic() - saved > _SECONDS:
                parts.save(frame + 1 - len(values), np.stack(values))
                values, saved = [], time.monotonic()
    finally:
        bar.close()
        if values:  # it was stopped
            parts.save(frame + 1 - len(values), np.stack(values))


def _finished(path: Path, identity: dict[str, Any], writers: dict[str, Write]) -> Path | None:
    """The file that says that all is written, if there is one."""
    if not path.exists():
        return None
    meta = untrusted.read_json(path, dict, "what was predicted")
    if meta.get("model") != json.loads(json.dumps(identity)):
        raise ValueError(f"{path}: found predictions of another model, expected none; choose another --output")
    return path if set(writers) <= set(meta.get("writers", ())) else None
