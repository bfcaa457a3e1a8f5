"""Makes a run out of a configuration, and finds out what is wrong before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from jaxpose import config as configs
from jaxpose.config import Config
from jaxpose.data.domains import OpenedPair, open_pair
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.recipes import measures
from jaxpose.recipes.stage import Task
from jaxpose.train import mesh as meshes
from jaxpose.train import written
from jaxpose.train.run import Program, Run


def open_data(config: Config) -> OpenedPair:
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


def build(config: Config, workdir: Path) -> Run:
    """The run of a configuration; nothing is written yet.

    Raises:
      ValueError: if the data are missing, or are not what the recipe reads, or the devices do not fit.
    """
    pair, mesh = open_data(config), meshes.make_mesh(config.mesh.data)
    program = program_of(config, task_of(config, pair), mesh)
    _check_reads(program, pair)
    metrics = measures.metrics_of(config, program.task, pixels_per_unit=pair.pixels_per_unit)
    return Run(**vars(program), pair=pair, metrics=metrics, workdir=workdir)


def task_of(config: Config, pair: OpenedPair) -> Task:
    """The problem of a pair."""
    sizes = {name: len(domain.splits["train"]) for name, domain in pair.domains.items()}
    skeletons = {name: domain.skeleton for name, domain in pair.domains.items()}
    return dataclasses.replace(described(config, pair.skeleton, sizes), skeletons=skeletons, area=pair.area)


def described(config: Config, skeleton: Skeleton, sizes: Mapping[str, int]) -> Task:
    """The problem of a skeleton and so many training records by domain."""
    image_size, augmentation = config.data.image_size, config.augmentation
    return Task(skeleton=skeleton, image_size=image_size, augmentation=augmentation, sizes=sizes)


def program_of(config: Config, task: Task, mesh: meshes.AnyMesh) -> Program:
    """What is compiled for a recipe on a mesh.

    Raises:
      ValueError: if steps are given to unknown stages, or a batch cannot be split over the devices.
    """
    stages = meshes.with_mesh(mesh, config.method.stages)(task, config)
    names = {stage.name for stage in stages}
    if unknown := set(config.steps) - names:
        raise ValueError(f"config.steps: found {sorted(unknown)[0]!r}, expected stages of this recipe: {sorted(names)}")
    if config.data.batch_size % mesh.size:
        raise ValueError(
            f"config.data.batch_size: found {config.data.batch_size}, expected a multiple of the {mesh.size} devices"
        )
    return Program(config=config, stages=stages, task=task, mesh=mesh)


def check_same_run(config: Config, workdir: Path, *, free: Sequence[str] = ()) -> None:
    """A work directory belongs to one configuration, but for the fields that are `free`.

    Raises:
      ValueError: naming what it has otherwise.
    """
    path = workdir / "config.json"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise ValueError(f"{path}: found none beside the checkpoints, expected the configuration of the run")
        return
    there = configs.fixed_part(configs.completed(written.read_config(path), config))
    here = configs.fixed_part(configs.to_json(config))
    for field in sorted(there.keys() | here.keys()):
        if field not in free and there.get(field) != here.get(field):
            raise ValueError(
                f"config.{field}: found {here.get(field)!r}, expected {there.get(field)!r} as in {path}; "
                "choose another --workdir"
            )


def check_images(run: Run) -> None:
    """What cannot be read, or has not the fields that are asked for, is not found out after hours on something else.

    Raises:
      ValueError: naming it.
    """
    splits = [(name, split, e) for name, of in run.pair.domains.items() for split, e in of.splits.items()]
    splits += [(domain, "train", elements) for (domain, _), elements in run.training.items()]
    splits += run.all_evaluated()
    splits += [found for stage in run.stages for found in run.shown(stage).values()]
    for name, split, elements in splits:
        try:
            if len(elements):
                elements[0]
        except ValueError as error:
            raise ValueError(f"data.{name}={run.pair.domains[name].spec}: {split}: {error}") from None


def check_files(run: Run) -> None:
    """What a later stage reads is not found missing after hours on the stages before it.

    Raises:
      FileNotFoundError: naming the file and the stage.
    """
    for stage in run.stages:
        for file in stage.files:
            if not Path(file).is_file():
                raise FileNotFoundError(f"{file}: no such file, expected the weights that the stage {stage.name} reads")


def check_metrics(run: Run) -> None:
    """Some stage finds what the metrics measure, and the target has what they read, wherever it is measured.

    Another domain is measured by what it has, see `evaluate.fields_of`.

    Raises:
      ValueError: naming the metric.
    """
    if other := [metric for metric in run.metrics if metric.needs not in _FOUND_BY_ALL]:
        found = _found(run)
        for metric in other:
            if metric.needs not in found:
                raise ValueError(
                    f"config.metrics: found {type(metric).__name__}, expected metrics of what {run.config.method.name} "
                    f"finds: {', '.join(found)}"
                )
    for evaluation in (evaluation for stage in run.stages for evaluation in stage.evaluations):
        for name, split in run.measured(evaluation):
            if name != "target":
                continue
            domain = run.pair.domains[name]
            for metric in run.metrics if evaluation.metrics is None else evaluation.metrics:
                try:
                    domain.elements(split, metric.fields, evaluation.window, word=name)[0]
                except ValueError as error:
                    what = f"{type(metric).__name__} cannot be measured on data.target={domain.spec}"
                    raise ValueError(f"{what}: {error}") from None


def describe(pair: OpenedPair) -> str:
    """How the joints of a pair were matched, its splits, and the notes on them, to be printed."""
    match = pair.match
    if all(joint.how == "same name" for joint in match.pairs):
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


def _check_reads(program: Program, pair: OpenedPair) -> None:
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
        for read in (*stage.reads.values(), *(stage.pictures.reads.values() if stage.pictures else ())):
            what = f"the stage {stage.name} of {program.config.method.name} reads"
            if read.domain not in pair.domains:
                expected = "SCHEME:PATH" + (" or a number of the target's rows" if read.domain == "labelled" else "")
                raise ValueError(f"config.data.{read.domain}: found none, expected {expected}, as {what} it")
            domain = pair.domains[read.domain]
            if "visible" in read.fields and not domain.splits["train"].labelled:
                raise ValueError(
                    f"data.{read.domain}={domain.spec}: found no labels in the training split, expected some: {what} "
                    "them"
                )


_FOUND_BY_ALL = ("points", "peaks")  # parts of `Predictions`


def _found(run: Run) -> list[str]:
    """Which parts of `Predictions` the stages find; networks are traced for it, but not compiled."""
    parts: dict[str, None] = {}
    for stage, state in zip(run.stages, run.abstract_states(), strict=True):
        for evaluation in stage.evaluations:
            name = next(name for name in evaluation.domains if name in run.pair.domains)
            domain = run.pair.domains[name]
            element = domain.elements("train", evaluation.fields, evaluation.window, word=name)[0]
            batch = {f: jax.ShapeDtypeStruct((run.mesh.size, *x.shape), x.dtype) for f, x in element.items()}
            found = dataclasses.asdict(jax.eval_shape(meshes.with_mesh(run.mesh, evaluation.predict), state, batch))
            parts |= dict.fromkeys(part for part, value in found.items() if value not in (None, {}))
    return list(parts)
