"""Checkpoints: the state, the position in the data and the configuration, written atomically. All of Orbax is here.

A checkpoint holds digests of its own files, so that one that was damaged afterwards is known before anything of it is
read, whatever the damage would have done to the state.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxpose.recipes.stage import State


class Checkpoints:
    """The checkpoints of a work directory, by the number of updates since the start of the first stage.

    The state is a pytree of arrays; what belongs to it is JSON (`Mapping`), so nothing is ever unpickled.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        self._folder, self._saving = folder, 0
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.LatestN(keep),
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        with _readable(folder, "whole ones"):
            self._manager = ocp.CheckpointManager(folder.absolute(), item_names=("state", "meta"), options=options)

    def latest(self) -> int | None:
        """The newest complete checkpoint."""
        return self._manager.latest_step()

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state.

        Raises:
          ValueError: if it cannot be read.
        """
        with _readable(self._folder / str(step)):
            return dict(self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"])

    def restore(self, step: int, like: State) -> State:
        """The state, on the devices that `like` (abstract arrays with shardings) says.

        Raises:
          ValueError: if it cannot be read, or has another shape.
        """
        with _readable(self._folder / str(step)):
            args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
            return self._manager.restore(step, args=args)["state"]

    def save(self, step: int, state: State, meta: Mapping[str, Any]) -> None:
        """Copies the state off the devices and returns; the files are written meanwhile.

        Raises:
          OSError: if this one, or the one before, could not be written.
        """
        self._wait()
        self._saving = step
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(dict(meta)))
        with self._writable():
            self._manager.save(step, args=args)

    def preempted(self, step: int) -> bool:
        """Whether the processes of a multi-host run have agreed to stop at this step."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
          OSError: if the last one could not be written.
        """
        self._wait()
        self._manager.close()

    def _wait(self) -> None:
        with self._writable():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """Turns whatever a full disk makes Orbax raise into one line."""
        try:
            yield
        except Exception as error:
            raise OSError(
                f"{self._folder / str(self._saving)}: could not be written ({_first_line(error)}); with room for it "
                "the same command goes on from the checkpoint before it"
            ) from error

    def _write_digests(self) -> None:
        """Runs in Orbax's thread of process 0 when all files are there and the checkpoint has not yet its name."""
        (folder,) = self._folder.glob(f"{self._saving}{_UNFINISHED}*")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
        (folder / _DIGESTS).write_text(json.dumps(digests, indent=1))


def newest_whole(folder: Path) -> tuple[int | None, dict[int, str]]:
    """The newest checkpoint that is as it was written, and what is wrong with each one after it.

    Those of earlier versions, which hold no digests, are taken for whole. Changes nothing.

    Raises:
      ValueError: if there are checkpoints and all are damaged.
    """
    steps = sorted((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), reverse=True)
    damaged: dict[int, str] = {}
    for step in steps:
        wrong = damage(folder / str(step))
        if wrong is None:
            return step, damaged
        damaged[step] = wrong
    if damaged:
        faults = "; ".join(f"{step}: {wrong}" for step, wrong in damaged.items())
        raise ValueError(
            f"{folder}: found none that is whole ({faults}), expected one; delete the folder to start anew"
        )
    return None, {}


def set_aside_damaged(folder: Path) -> list[str]:
    """Makes the newest whole checkpoint the newest, and says in a line each which ones were not.

    They get another name; what a killed process left unfinished is removed. For the only process that uses the folder.

    Raises:
      ValueError: if there are checkpoints and all are damaged.
    """
    for left in folder.glob(f"*{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    step, damaged = newest_whole(folder)
    lines = []
    for number, wrong in damaged.items():
        aside = folder / f"{number}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        (folder / str(number)).rename(aside)
        lines.append(f"{folder / str(number)}: {wrong}; it is now {aside.name}, and the run goes on from {step}")
    return lines


def damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written, or if nobody knows."""
    if not (checkpoint / _DIGESTS).exists():
        return None
    name = _DIGESTS
    try:
        for name, expected in json.loads((checkpoint / _DIGESTS).read_bytes().decode()).items():
            if _digest(checkpoint / name) != expected:
                return f"found {name} changed since it was written"
    except FileNotFoundError:
        return f"found no {name}"
    except (OSError, ValueError, TypeError, AttributeError):
        return f"found {name} unreadable"
    return None


_DIGESTS = "digests.json"
_UNFINISHED = ocp.utils.TMP_DIR_SUFFIX
_STEP_METADATA, _COMMITTED_AT = "_CHECKPOINT_METADATA", "commit_timestamp_nsecs"


def _digest(path: Path) -> str:
    """SHA-256 of a file. Orbax adds the time to one after the digests were written; there it does not count."""
    if path.name != _STEP_METADATA:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = json.loads(path.read_bytes().decode())
    if not isinstance(content.pop(_COMMITTED_AT, None), int | None):
        raise ValueError(f"{path}: found another kind of time")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _readable(
    path: Path, expected: str = "a complete one; delete this folder to resume from the one before it"
) -> Iterator[None]:
    """Turns whatever a damaged checkpoint raises into one line that names it."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path}: found a checkpoint that cannot be read ({_first_line(error)}), expected {expected}"
        ) from error


def _first_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first if len(first) < 400 else f"{first[:100]} ... {first[-250:]}"  # causes come last


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in the error of a write that finds no room, which does not say where."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file at once or not at all."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with naming(path):
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)
