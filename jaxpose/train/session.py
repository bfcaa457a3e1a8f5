"""One run from a configuration to its results: opens the data, builds the recipe, trains, reports."""

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose import config as configs
from jaxpose.config import Config
from jaxpose.data.domains import Pair, open_pair
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.ops import heatmaps
from jaxpose.recipes.stage import State, Task
from jaxpose.report import benchmark as benchmark_table
from jaxpose.report import compilation, html, notes, text
from jaxpose.report.browse import Browsed, Joined, shown, write_page
from jaxpose.train import benchmark, earlier, loop, machine, topologies, written
from jaxpose.train import compile as compiling
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import Checkpoints, naming, newest_whole, write_json
from jaxpose.train.evaluate import metrics_of
from jaxpose.train.log import read_metrics
from jaxpose.train.run import Program, Run
from jaxpose.train.workdir import data_changes, held

_PACKAGES = ("jaxpose", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_SOME_RECORDS = 10_000  # of a domain whose data are not there
_DOMAINS = ("source", "target", "labelled", "motions", "poses")
_GALLERY = 2000  # test images whose predictions the report may choose from


def train(config: Config, workdir: Path, *, show: bool = True) -> dict[str, Any]:
    """Trains, or resumes, or takes the results of a finished run; with `show` it prints what it reads and finds.

    Raises:
      ValueError: in one line, before the first step, for whatever is wrong with configuration, data or checkpoint.
      workdir.InUseError: if another process uses the work directory.
    """
    first = jax.process_index() == 0
    show &= first
    results_file = workdir / "results.json"
    _check_same_run(config, workdir)
    if results_file.exists() and (workdir / "report.html").exists():
        results = written.read_results(results_file)
        if show:
            print(f"{workdir} is finished; delete it or choose another --workdir to train again.\n")
            print(text.summary_table(results))
        return results
    run = _build(config, workdir)
    _check_images(run)
    joints = run.task.skeleton.joints
    oracle = {} if config.oracle is None else {"oracle": earlier.oracle(config, joints)}
    if config.start is not None and not (workdir / "config.json").exists():  # before anything is written
        earlier.start(config, joints, run.stages[0])
    with held(workdir):
        _check_same_run(config, workdir)  # now that no other process writes to it
        if first:
            write_json(workdir / "config.json", configs.to_json(config))
        if show:
            print(describe(run.pair))
            print(f"Devices: {run.mesh.size} x {jax.devices()[0].device_kind}; work directory: {run.workdir}")
        if results_file.exists():  # the report is missing
            results = written.read_results(results_file)
        else:
            changes = meshes.by_first(
                lambda: data_changes(workdir, run.pair, root=config.data.root, cache=config.data.cache)
            )
            if first and changes:
                print("\n".join(changes))
            state, record = loop.train(run)
            results = _results(run, state, record, oracle) | {"data_changes": changes}
            if first:
                write_json(results_file, results)
        if first:
            with naming(workdir / "report.html"):
                html.write_report(workdir, results, read_metrics(workdir), _cases(run), run.task.skeleton)
    if show:
        print(f"\n{text.summary_table(results)}\n\nReport: {workdir / 'report.html'}")
    return results


def evaluate(config: Config, workdir: Path) -> list[dict[str, Any]]:
    """Evaluates the newest whole checkpoint of a work directory and prints what it finds.

    Raises:
      ValueError: if there is no checkpoint, or all are damaged.
    """
    _check_same_run(config, workdir)
    run = _build(config, workdir)
    folder = workdir / "checkpoints"
    step, damaged = meshes.by_first(lambda: newest_whole(folder))
    if step is None:
        raise ValueError(f"{folder}: found no checkpoint, expected the work directory of a run")
    if jax.process_index() == 0:
        for number, wrong in damaged.items():
            print(f"{folder / str(number)}: {wrong}, so {step} is evaluated")
    checkpoints = Checkpoints(folder)
    record = loop.Record.read(checkpoints, step)
    state = checkpoints.restore(step, run.abstract_states()[record.stage])
    checkpoints.close()
    stage = run.stages[record.stage]
    rows = [
        {"stage": stage.name, "step": int(state.step), "domain": domain, "split": split} | row
        for (domain, split), scores in loop.evaluate_all(run, record.stage, state).items()
        for row in scores.rows
    ]
    if jax.process_index() == 0:
        for row in rows:
            print(json.dumps(row))
    return rows


def measure(config: Config, workdir: Path, *, steps: int, baseline: Path | None) -> dict[str, Any]:
    """Measures the speed of a configuration's last stage, writes `benchmark.json` and prints a table.

    Raises:
      ValueError: if the baseline is no earlier result.
    """
    before = benchmark_table.read(baseline) if baseline else None
    run = _build(config, workdir)
    found = benchmark.measure(run, steps=steps) | _circumstances(run)
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "benchmark.json", found)
        print(f"{benchmark_table.table(found, before)}\n\n{workdir / 'benchmark.json'}")
    return found


def compile_for(
    config: Config, topology: str, *, joints: int | None, stage: str | None, arguments: Sequence[str]
) -> None:
    """Compiles every stage of a configuration, or one, for devices that need not be here, and prints a table.

    Args:
      config: the recipe; its data are opened for their joints and sizes.
      topology: see `topologies.find`.
      joints: with it, no data are opened.
      stage: only this one, in this process; printed as JSON.
      arguments: of this command line, for the processes of the single stages.

    Raises:
      ValueError: if the topology or the data are not there.
    """
    found, notes = topologies.find(topology), []
    if joints is None:
        try:
            pair = open_data(config)
        except ValueError as error:
            raise ValueError(f"{error}; --joints=21 (or as many as there are) compiles without the data") from None
        task = _task(config, pair)
        notes = [f"{name}: {note}" for name, domain in pair.domains.items() for note in domain.notes]
    else:
        skeleton = Skeleton(name="any", joints=tuple(f"joint{i}" for i in range(joints)))
        task = _described(config, skeleton, sizes=dict.fromkeys(("source", "target"), _SOME_RECORDS))
        task = dataclasses.replace(task, skeletons=dict.fromkeys(_DOMAINS, skeleton))
    program = _program(config, task, found.mesh)
    names = [part.name for part in program.stages]
    if stage is not None:
        if stage not in names:
            raise ValueError(f"--stage: found {stage!r}, expected one of {', '.join(names)}")
        print(json.dumps(compiling.compiled(program, names.index(stage), found)))
        return
    title = (
        f"{config.method.name}, {config.pair}: {config.data.batch_size} rows of every domain, {task.image_size} px, "
        f"{len(task.skeleton)} joints; {found.mesh.size} x {found.mesh.devices.flat[0].device_kind}"
    )
    print("\n".join([*notes, title]), flush=True)
    if found.speed is None:  # what is here can belong to one process only
        results = (compiling.compiled(program, number, found) for number in range(len(names)))
    else:
        results = compiling.in_turn(names, arguments)
    rows = []
    for result in results:
        print(f"  {result['stage']}", flush=True)
        rows.append(compilation.row(result))
    print(f"\n{compilation.table(rows)}\n\n{compilation.MEANING}")


def browse(config: Config, workdir: Path) -> Path:
    """Writes a page that shows the data of a pair and how its joints were matched."""
    pair = open_data(config)
    print(describe(pair))
    browsed = {
        name: Browsed(
            spec=domain.spec,
            splits={split: shown(part.source) for split, part in domain.splits.items()},
            notes=domain.notes,
        )
        for name, domain in pair.domains.items()
    }
    joined = Joined(
        rows=[(found.source, found.target, found.how) for found in pair.match.pairs],
        left_out={"source": pair.match.unmatched_source, "target": pair.match.unmatched_target},
    )
    return write_page(workdir, config.pair, browsed, joined)


def open_data(config: Config) -> Pair:
    """The pair of a configuration.

    Raises:
      ValueError: naming what is missing.
    """
    data = config.data
    return open_pair(
        source=data.source,
        target=data.target,
        labelled=data.labelled,
        motions=data.motions,
        poses=data.poses,
        root=data.root,
        image_size=data.image_size,
        margin=data.margin,
        memory=data.memory,
        seed=config.seed,
        cache=data.cache,
    )


def _build(config: Config, workdir: Path) -> Run:
    pair, mesh = open_data(config), meshes.make_mesh(config.mesh.data)
    program = _program(config, _task(config, pair), mesh)
    _check_reads(program, pair)
    return Run(
        config=config,
        stages=program.stages,
        task=program.task,
        mesh=mesh,
        pair=pair,
        metrics=metrics_of(config, program.task, pixels_per_unit=pair.pixels_per_unit),
        workdir=workdir,
    )


def _program(config: Config, task: Task, mesh: meshes.AnyMesh) -> Program:
    stages = meshes.made_for(mesh, config.method.stages)(task, config)
    names = {stage.name for stage in stages}
    if unknown := set(config.steps) - names:
        raise ValueError(f"config.steps: found {sorted(unknown)[0]!r}, expected stages of this recipe: {sorted(names)}")
    if config.data.batch_size % mesh.size:
        raise ValueError(
            f"config.data.batch_size: found {config.data.batch_size}, expected a multiple of the {mesh.size} devices"
        )
    return Program(config=config, stages=stages, task=task, mesh=mesh)


def _check_reads(program: Program, pair: Pair) -> None:
    """Every domain that is read is there; what trains on labels, or lets them mask a loss, trains on none without.

    And every domain that is there besides source and target is read.
    """
    read_by_any = {read.domain for stage in program.stages for read in stage.reads.values()}
    read_by_any |= {name for stage in program.stages for found in stage.evaluations for name in found.domains}
    for name in pair.domains.keys() - read_by_any - {"source", "target"}:
        raise ValueError(
            f"config.data.{name}: found {pair.domains[name].spec}, expected none: no stage of "
            f"{program.config.method.name} reads it"
        )
    for stage in program.stages:
        for read in stage.reads.values():
            what = f"the stage {stage.name} of {program.config.method.name} reads"
            if read.domain not in pair.domains:
                raise ValueError(f"config.data.{read.domain}: found none, expected SCHEME:PATH, as {what} it")
            domain = pair.domains[read.domain]
            if "visible" in read.fields and not domain.splits["train"].labelled:
                raise ValueError(
                    f"data.{read.domain}={domain.spec}: found no labels in the training split, expected some: {what} "
                    "them"
                )


def _check_images(run: Run) -> None:
    """What cannot be read, or has not the fields that are asked for, is not found out after hours on something else."""
    splits = [(name, split, e) for name, of in run.pair.domains.items() for split, e in of.splits.items()]
    training = [(name, "train", e) for (name, _), e in run.training.items()]
    for name, split, elements in [*splits, *training, *run.all_evaluated()]:
        try:
            if len(elements):
                elements[0]
        except ValueError as error:
            raise ValueError(f"data.{name}={run.pair.domains[name].spec}: {split}: {error}") from None


def _task(config: Config, pair: Pair) -> Task:
    sizes = {name: len(domain.splits["train"]) for name, domain in pair.domains.items()}
    task = _described(config, pair.skeleton, sizes)
    task = dataclasses.replace(task, skeletons={name: domain.skeleton for name, domain in pair.domains.items()})
    if pair.area is None:
        return task
    edges = heatmaps.image_to_heatmap(jnp.asarray(pair.area), task.stride)
    return dataclasses.replace(task, area=(float(jnp.round(edges[0])), float(jnp.round(edges[1]))))


def _described(config: Config, skeleton: Skeleton, sizes: Mapping[str, int]) -> Task:
    size = config.data.image_size
    return Task(
        skeleton=skeleton,
        image_size=size,
        heatmap_size=size * 2**config.model.upsampling // 32,
        sigma=config.model.sigma,
        augmentation=config.augmentation,
        sizes=sizes,
    )


def _check_same_run(config: Config, workdir: Path) -> None:
    """A work directory belongs to one configuration."""
    path = workdir / "config.json"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise ValueError(f"{path}: found none beside the checkpoints, expected the configuration of the run")
        return
    there = configs.fixed_part(configs.completed(written.read_config(path), config))
    here = configs.fixed_part(configs.to_json(config))
    for field in sorted(there.keys() | here.keys()):
        if there.get(field) != here.get(field):
            raise ValueError(
                f"config.{field}: found {here.get(field)!r}, expected {there.get(field)!r} as in {path}; "
                "choose another --workdir"
            )


def describe(pair: Pair) -> str:
    """How the joints of a pair were matched, its splits, and the notes on them, to be printed."""
    match = pair.match
    if all(found.how == "same name" for found in match.pairs):
        lines = [f"Joints ({len(pair.skeleton)}): {', '.join(pair.skeleton.joints)}"]
        left_out = {"source": match.unmatched_source, "target": match.unmatched_target}
        lines += [f"Only in the {name}: {', '.join(joints)}" for name, joints in left_out.items() if joints]
    else:
        lines = match.table()
    for name, domain in pair.domains.items():
        sizes = ", ".join(f"{len(part.source)} {split}" for split, part in domain.splits.items())
        lines.append(f"{name.capitalize()}: {domain.spec} ({sizes})")
        if domain.skeleton != pair.skeleton:
            lines.append(f"  Joints ({len(domain.skeleton)}): {', '.join(domain.skeleton.joints)}")
        lines += [f"  {note}" for note in domain.notes]
    return "\n".join(lines)


def _results(run: Run, state: State, record: loop.Record, oracle: Mapping[str, Any]) -> dict[str, Any]:
    last = run.stages[-1].name
    results = {
        "recipe": run.config.method.name,
        "pair": run.config.pair,
        "seed": run.config.seed,
        "joints": list(run.task.skeleton.joints),
        "evaluations": record.evaluations,
        "references": {**oracle, text.FLOOR: record.floor},
        "start": record.start,
        "fingerprint": loop.fingerprint(state),
        "timing": {
            "wall_s": record.wall_s,
            "compile_s": record.compile_s,
            "step_s": record.step_s.get(last, 0.0),
            "step_s_by_stage": record.step_s,
            "images_per_s": run.images_per_step(run.stages[-1]) / record.step_s[last] if last in record.step_s else 0.0,
            "loop_s": record.loop_s,
            "data_wait_s": record.data_wait_s,
            "device_wait_s": record.device_wait_s,
            "device_wait_fraction": record.device_wait_s / record.loop_s if record.loop_s else 0.0,
        },
        "skipped_records": meshes.gather_names(record.broken),
        "data_notes": [
            {"domain": name} | dataclasses.asdict(note)
            for name, domain in run.pair.domains.items()
            for note in domain.notes
        ],
    } | _circumstances(run)
    return results | {"notes": notes.of_run(results)}


def _circumstances(run: Run) -> dict[str, Any]:
    """What numbers depend on besides the method."""
    return {
        "machine": machine.describe(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in run.mesh.devices.flat],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        "config": configs.to_json(run.config),
    }


def _cases(run: Run) -> list[html.Case]:
    """Target images with the predictions of every stage."""
    split, crops = loop.pictured(run.pair)
    predictions = {}
    for stage in run.stages:
        path, joints = run.workdir / "predictions" / f"{stage.name}_target_{split}.npy", len(run.task.skeleton)
        try:
            predictions[stage.name] = written.read_predictions(path, records=len(crops), joints=joints)
        except FileNotFoundError:
            continue
        except ValueError as error:  # pictures are not worth the report
            print(f"{error}; left out of the report")
    if not predictions:
        return []
    cases = []
    for i in range(min(len(crops), _GALLERY)):
        element = crops[i]
        cases.append(
            html.Case(
                image=element["image"],
                name=crops.name(i),
                keypoints=element["keypoints"],
                visible=element["visible"],
                predictions={stage: points[i] for stage, points in predictions.items()},
            )
        )
    return cases
