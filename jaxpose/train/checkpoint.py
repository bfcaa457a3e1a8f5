"""Checkpoints: the state, the position in the data and the configuration, written atomically. All of Orbax is here."""

import json
from collections.abc import Mapping
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
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            item_names=("state", "meta"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.LatestN(keep), enable_async_checkpointing=True
            ),
        )

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
        """Copies the state off the devices and returns; the files are written meanwhile."""
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(dict(meta))),
        )

    def preempted(self, step: int) -> bool:
        """Whether the processes of a multi-host run have agreed to stop at this step."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


class _readable:
    """Turns whatever a damaged checkpoint raises into one line that names it."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"{self._path}: found a checkpoint that cannot be read ({first[0][:200]}), expected a complete one; "
                "delete this folder to resume from the one before it"
            ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file at once or not at all."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)
