"""What else is done with a configuration than training it: modes of the command line."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxpose.config import Config
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.recipes.stage import State
from jaxpose.report import benchmark as benchmark_table
from jaxpose.report import compilation, evaluation
from jaxpose.report.browse import Browsed, JointMatches, shown, write_page
from jaxpose.train import benchmark, build, rebuild, topologies
from jaxpose.train import compile as compiling
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import Checkpoints, newest_whole, write_json
from jaxpose.train.progress import restored
from jaxpose.train.results import circumstances
from jaxpose.train.run import Run

_SOME_RECORDS = 10_000  # of a domain whose data are not there


# What may be otherwise where a run is evaluated: no weight and no crop of the model depends on it.
_OF_AN_EVALUATION = ("data.target", "data.eval_batch_size", "metrics", "flip_test", "pck_thresholds")
_OF_AN_EVALUATION += ("pckh_thresholds", "nme_joints", "actions")


def evaluate(config: Config, workdir: Path) -> dict[str, Any]:
    """Evaluates the newest whole checkpoint of a work directory, prints a table and writes `evaluation.json`.

    Args:
      config: the run's, also with another target, or with other metrics.
      workdir: of the run.

    Raises:
      ValueError: if there is no checkpoint, all are damaged, or the target has not the joints that the model finds.
    """
    build.check_same_run(config, workdir, free=_OF_AN_EVALUATION)
    run = build.build(config, workdir)
    build.check_metrics(run)
    if (workdir / rebuild.FILE).exists():
        _check_joints(run, rebuild.task_of(workdir).skeleton.joints)
    folder = workdir / "checkpoints"
    step, damaged = meshes.from_first_process(lambda: newest_whole(folder))
    if step is None:
        raise ValueError(f"{folder}: found no checkpoint, expected the work directory of a run")
    first = jax.process_index() == 0
    if first:
        for number, wrong in damaged.items():
            print(f"{folder / str(number)}: {wrong}, so {step} is evaluated")
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        state, progress = restored(run, checkpoints, step)
    rows = rows_of(run, progress.stage, state)
    found = {
        "recipe": config.method.name,
        "pair": config.pair,
        "source": config.data.source,
        "target": config.data.target,
        "meaning": evaluation.meanings(config, rows),
        "evaluations": rows,
    }
    if first:
        write_json(workdir / "evaluation.json", found)
        print(f"{build.describe(run.pair)}\n\n{evaluation.table(found)}\n\n{workdir / 'evaluation.json'}")
    return found


def rows_of(run: Run, number: int, state: State) -> list[dict[str, Any]]:
    """What a stage finds on every labelled split that is not for training, as rows of `results.json`.

    Raises:
      ValueError: if the stage finds nothing.
    """
    stage = run.stages[number]
    if not stage.evaluations:
        raise ValueError(f"{run.workdir}: found stage {stage.name!r}, expected one with a detector")
    return [
        {"stage": stage.name, "step": int(state.step), "domain": domain, "split": split} | row
        for (domain, split), scores in run.evaluate(run.evaluators(stage), state).items()
        for row in scores.rows
    ]


def _check_joints(run: Run, joints: Sequence[str]) -> None:
    """Raises a ValueError if a target has other joints in common with the source than that of the training had."""
    shared = run.task.skeleton.joints
    if shared != tuple(joints):
        missing = [joint for joint in joints if joint not in shared]
        what = f"no {', '.join(missing)}" if missing else f"the joints {', '.join(shared)}"
        raise ValueError(
            f"config.data.target={run.config.data.target}: found {what}, expected the joints that the model finds: "
            f"{', '.join(joints)}"
        )


def measure(
    config: Config, workdir: Path, *, steps: int, baseline: Path | None, stage: str | None = None
) -> dict[str, Any]:
    """Measures the speed of a stage, the last or a named one, writes `benchmark.json` and prints a table.

    Raises:
      ValueError: if the baseline is no earlier result, or there is no such stage.
    """
    before = benchmark_table.read(baseline) if baseline else None
    run = build.build(config, workdir)
    measured = benchmark.measure(run, steps=steps, stage=stage) | circumstances(run)
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "benchmark.json", measured)
        print(f"{benchmark_table.table(measured, before)}\n\n{workdir / 'benchmark.json'}")
    return measured


def compile_for(
    config: Config, topology: str, *, joints: int | None, stage: str | None, arguments: Sequence[str]
) -> None:
    """Compiles every update of a configuration, or one, for devices that need not be here, and prints a table.

    Args:
      config: the recipe; its data are opened for their joints and sizes.
      topology: see `topologies.find`.
      joints: with it, no data are opened.
      stage: only this stage, or this one of its updates (`STAGE/1`), in this process; printed as JSON.
      arguments: of this command line, for the processes of the single updates.

    Raises:
      ValueError: if the topology or the data are not there.
    """
    devices, notes = topologies.find(topology), []
    if joints is None:
        try:
            pair = build.open_data(config)
        except ValueError as error:
            raise ValueError(f"{error}; --joints=21 (or as many as there are) compiles without the data") from None
        task = build.task_of(config, pair)
        notes = [f"{name}: {note}" for name, domain in pair.domains.items() for note in domain.notes]
    else:
        skeleton = Skeleton(name="any", joints=tuple(f"joint{i}" for i in range(joints)))
        task = build.described(config, skeleton, sizes=dict.fromkeys(("source", "target"), _SOME_RECORDS))
    program = build.program_of(config, task, devices.mesh)
    names = list(compiling.names_of(program))
    if stage is not None:
        if stage not in names:
            raise ValueError(f"--stage: found {stage!r}, expected one of {', '.join(names)}")
        print(json.dumps(compiling.compiled(program, stage, devices)))
        return
    title = (
        f"{config.method.name}, {config.pair}: {config.data.batch_size} rows of every domain, {task.image_size} px, "
        f"{len(task.skeleton)} joints; {devices.mesh.size} x {devices.mesh.devices.flat[0].device_kind}"
    )
    print("\n".join([*notes, title]), flush=True)
    if devices.speed is None:  # what is here can belong to one process only
        results = (compiling.compiled(program, name, devices) for name in names)
    else:
        results = compiling.in_turn(names, arguments)
    rows = []
    for result in results:
        print(f"  {result['stage']}", flush=True)
        rows.append(compilation.row(result))
    print(f"\n{compilation.table(rows)}\n\n{compilation.MEANING}")


def browse(config: Config, workdir: Path) -> Path:
    """Writes a page that shows the data of a pair and how its joints were matched."""
    pair = build.open_data(config)
    print(build.describe(pair))
    browsed = {
        name: Browsed(
            spec=domain.spec,
            splits={split: shown(part.source) for split, part in domain.splits.items()},
            notes=domain.notes,
        )
        for name, domain in pair.domains.items()
    }
    joined = JointMatches(
        rows=[(joint.source, joint.target, joint.how) for joint in pair.match.pairs],
        left_out={"source": pair.match.unmatched_source, "target": pair.match.unmatched_target},
    )
    return write_page(workdir, config.pair, browsed, joined)
