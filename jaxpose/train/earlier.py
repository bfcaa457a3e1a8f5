"""Earlier runs that a run refers to: the one that it starts from, and its oracle."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxpose import config as configs
from jaxpose.config import Config
from jaxpose.recipes.stage import Stage, State
from jaxpose.train import mesh as meshes
from jaxpose.train import written
from jaxpose.train.checkpoint import Checkpoints, damage
from jaxpose.train.progress import Progress
from jaxpose.train.run import Run

# What the optimizers of such a stage are made of, and what it has learned from; its networks are of the same model.
_OF_A_START = ("optim.pretrain_rule", "data.source")
_OF_ANY_START = ("model.sigma", "model.target_statistics", "model.weights")
_READ = "clean_points"  # of methods that draw and read maps in one way only
_OF_AN_ORACLE = ("data.target", "data.margin")  # PCK's threshold is a fraction of the crop


def start(config: Config, joints: Sequence[str], stages: Sequence[Stage]) -> tuple[int, dict[str, Any]]:
    """Which of this run's stages that of `config.start` ended with, and what there is to say of that run.

    That is its folder, recipe, pair, data and fingerprint. The last of several stages cannot be what it ended with:
    there would be nothing left to do.

    Raises:
      ValueError: naming what it has otherwise than that stage of this run.
    """
    folder, results = _finished("start", config.start)
    their_config = results["config"]
    possible = stages[:-1] or stages
    ended = list(results["timing"].get("step_s_by_stage", {}))  # an earlier version did not say
    last = ended[-1] if ended else possible[0].name
    domain = their_config["method"].get("domain", "source")
    number = next((n for n, of in enumerate(possible) if of.name == last and domain in of.reads), None)
    if number is None:
        known = " or ".join(f"{of.name} on the {' and the '.join(of.reads)}" for of in possible)
        raise ValueError(
            f"config.start: found a run of {results['recipe']} in {folder}, whose last stage is {last}, expected one "
            f"that ends with {known}"
        )
    _same_joints("start", folder, results, joints)
    model = [
        name for name in configs.fixed_part(their_config) if name.startswith("model.") and name not in _OF_ANY_START
    ]
    _same_fields("start", folder, their_config, config, (*model, *_OF_A_START))
    read = [made["method"].get("coding", {}).get("read", _READ) for made in (their_config, configs.to_json(config))]
    if read[0] != read[1]:  # the other way is half a stride off
        raise ValueError(f"config.start: found maps to be read by {read[0]} in {folder}, expected by {read[1]}")
    return number, {
        "workdir": str(folder),
        "recipe": results["recipe"],
        "pair": results["pair"],
        "source": their_config["data"]["source"],
        "target": their_config["data"]["target"],
        "fingerprint": results["fingerprint"],
    }


def started(run: Run) -> tuple[State, Progress]:
    """All up to a stage as if it were finished, with the final state of the run that `config.start` names.

    Raises:
      ValueError: as `start`, or if that run has no whole checkpoint of this stage.
    """
    folder = Path(str(run.config.start)) / "checkpoints"
    number, found = start(run.config, run.task.skeleton.joints, run.stages)
    stage = run.stages[number]
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        step = checkpoints.latest()
        if step is None:
            raise ValueError(f"config.start: found no checkpoint in {folder.parent}, expected that of a finished run")
        last = folder / str(step)
        if wrong := meshes.from_first_process(lambda: damage(last)):
            raise ValueError(f"config.start: {last}: {wrong}, expected the whole checkpoint of a finished run")
        try:
            state = checkpoints.restore(step, run.abstract_states()[number])
        except ValueError as error:
            raise ValueError(
                f"config.start: {last} cannot be read as this run's stage {stage.name}, expected a whole checkpoint of "
                "the same networks and optimizers"
            ) from error
    found["step"] = int(state.step)
    done = jax.device_put(np.array(stage.steps, np.int32), meshes.replicated(run.mesh))
    return dataclasses.replace(state, step=done), Progress(stage=number, start=found)


def oracle(config: Config, joints: Sequence[str]) -> list[dict[str, Any]]:
    """The target's rows of the run that `config.oracle` names.

    Raises:
      ValueError: naming what it has otherwise than this run.
    """
    folder, results = _finished("oracle", config.oracle)
    their_config = results["config"]
    if results["recipe"] != "oracle":
        raise ValueError(f"config.oracle: found a run of {results['recipe']} in {folder}, expected one of oracle")
    _same_joints("oracle", folder, results, joints)
    _same_fields("oracle", folder, their_config, config, _OF_AN_ORACLE)
    return [row for row in results["evaluations"] if row["domain"] == "target"]


def _finished(field: str, workdir: str | None) -> tuple[Path, dict[str, Any]]:
    folder = Path(str(workdir))
    path = folder / "results.json"
    if not path.exists():
        raise ValueError(f"config.{field}: found no {path}, expected the work directory of a finished run")
    try:
        return folder, written.read_results(path)
    except ValueError as error:
        raise ValueError(f"config.{field}: found no results of a run in {path} ({error})") from None


def _same_joints(field: str, folder: Path, results: Mapping[str, Any], joints: Sequence[str]) -> None:
    theirs = results.get("joints", list(joints))  # of an earlier version: not known
    if list(theirs) == list(joints):
        return
    other = [joint for joint in theirs if joint not in joints] or [joint for joint in joints if joint not in theirs]
    what = f"joint {other[0]!r} in only one of" if other else "another order of the joints of"
    raise ValueError(
        f"config.{field}: found {what} {folder} ({len(theirs)} joints) and this run ({len(joints)}), expected the same"
    )


def _same_fields(
    field: str, folder: Path, their_config: Mapping[str, Any], config: Config, names: Sequence[str]
) -> None:
    there, here = configs.fixed_part(dict(their_config)), configs.fixed_part(configs.to_json(config))
    for name in names:
        if name in there and there[name] != here.get(name):
            raise ValueError(f"config.{field}: found {name} {there[name]!r} in {folder}, expected {here.get(name)!r}")
