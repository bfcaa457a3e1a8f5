"""A run from its configuration to its report, in the order in which things happen.

What is mechanical has modules of its own, which need not be opened to follow it: `build` opens the data, makes the
recipe and checks both; `run` compiles updates and makes batches on the devices; `evaluate` measures, `pictures` draws;
`progress` is what is known besides the state; `checkpoint`, `log` and `stop` save, write and listen; `results` sums up.
"""

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxpose import config as configs
from jaxpose.config import Config
from jaxpose.data.host.pipeline import WorkerKilledError
from jaxpose.metrics.metric import ACTION, CLIP, JOINT
from jaxpose.recipes.stage import Stage, State
from jaxpose.report import html, text
from jaxpose.train import build, earlier, pictures, poses, rebuild, written
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import Checkpoints, naming, set_aside_damaged, write_json
from jaxpose.train.evaluate import Evaluator, Scores
from jaxpose.train.log import LateMetrics, MetricLog, NonFiniteError, read_metrics
from jaxpose.train.progress import Progress, restored
from jaxpose.train.results import cases, results_of
from jaxpose.train.run import Run, next_batch
from jaxpose.train.stop import Interrupted, StopFlag
from jaxpose.train.workdir import data_changes, locked


def train(config: Config, workdir: Path, *, show: bool = True) -> dict[str, Any]:
    """Trains, or resumes, or takes the results of a finished run; with `show` it prints what it reads and finds.

    Raises:
      ValueError: in one line, before the first step, for whatever is wrong with configuration, data or checkpoint.
      workdir.InUseError: if another process uses the work directory.
      Interrupted, NonFiniteError: as `train_stages`.
    """
    first = jax.process_index() == 0
    show &= first
    results_file, report_file = workdir / "results.json", workdir / "report.html"
    build.check_same_run(config, workdir)
    if results_file.exists() and report_file.exists():
        results = written.read_results(results_file)
        if show:
            print(f"{workdir} is finished; delete it or choose another --workdir to train again.\n")
            print(text.summary_table(results))
        return results

    run = build.build(config, workdir)
    build.check_images(run)
    build.check_metrics(run)
    joints = run.task.skeleton.joints
    oracle = {} if config.oracle is None else {"oracle": earlier.oracle(config, joints)}
    if not (workdir / "config.json").exists():  # before anything is written
        build.check_files(run)
        if config.start is not None:
            earlier.start(config, joints, run.stages)

    with locked(workdir):
        build.check_same_run(config, workdir)  # now that no other process writes to it
        if first:
            write_json(workdir / "config.json", configs.to_json(config))
            write_json(workdir / rebuild.FILE, rebuild.described(config, run.task))
        if show:
            print(build.describe(run.pair))
            print(f"Devices: {run.mesh.size} x {jax.devices()[0].device_kind}; work directory: {workdir}")
        if results_file.exists():  # the report is missing
            results = written.read_results(results_file)
        else:
            data = config.data
            changes = meshes.from_first_process(
                lambda: data_changes(workdir, run.pair, root=data.root, cache=data.cache)
            )
            if first and changes:
                print("\n".join(changes))
            state, progress = train_stages(run)
            results = results_of(run, state, progress, oracle) | {"data_changes": changes}
            if first:
                write_json(results_file, results)
        if first:
            with naming(report_file):
                shown = cases(run), run.task.skeleton, pictures.sheets(run, results), poses.poses(run, results)
                html.write_report(workdir, results, read_metrics(workdir), *shown)
    if show:
        print(f"\n{text.summary_table(results)}\n\nReport: {report_file}")
    return results


def train_stages(run: Run) -> tuple[State, Progress]:
    """Trains all stages, from the newest whole checkpoint of the work directory if there is one.

    Returns the final state and what was recorded on the way. Finished stages leave their predictions in
    `workdir/predictions` and what they draw in `workdir/pictures`.

    Raises:
      Interrupted: after SIGINT or SIGTERM, or where a reading process was killed; everything up to the last finished
        update is saved.
      NonFiniteError: naming the step and the loss; the state before that update lies in `workdir/nonfinite`.
      ValueError: if the checkpoint cannot be read, or all are damaged.
    """
    folder, first = run.workdir / "checkpoints", jax.process_index() == 0
    for line in meshes.from_first_process(lambda: set_aside_damaged(folder)):
        if first:
            print(line)
    checkpoints = Checkpoints(folder)
    newest = checkpoints.latest()
    if newest is not None:
        state, progress = restored(run, checkpoints, newest)
    elif run.config.start is not None:
        state, progress = earlier.started(run)
    else:
        state, progress = run.initial_state(0, None), Progress()
    done, started = run.steps_before(progress.stage) + int(state.step), time.perf_counter() - progress.wall_s

    def save(state: State) -> None:
        progress.wall_s = time.perf_counter() - started
        step = run.steps_before(progress.stage) + int(state.step)
        if checkpoints.latest() != step:
            checkpoints.save(step, state, dataclasses.asdict(progress))

    with (
        StopFlag(checkpoints, done=done) as stop,
        contextlib.closing(checkpoints),
        contextlib.closing(MetricLog(run.workdir, resume_at=newest or 0, write=first)) as log,
    ):
        for number in range(progress.stage, len(run.stages)):
            if number > progress.stage:
                progress.stage, state = number, run.initial_state(number, state)
            stage = run.stages[number]
            evaluators = run.evaluators(stage)
            if int(state.step) < stage.steps:
                state = _apply_updates(run, evaluators, state, progress, log, save, stop)
            if evaluators and not any(row["stage"] == stage.name for row in progress.evaluations):
                by_split = run.evaluate(evaluators, state, pictured=True)
                _log_evaluation(log, stage, stage.steps, run.steps_before(number), by_split)
                progress.add(stage, by_split)
                if first:
                    _write_predictions(run.workdir / "predictions", stage, by_split)
            if stage.pictures and stage.name not in progress.pictures:
                progress.pictures[stage.name] = pictures.draw(run, stage, state)
            save(state)
    if stop.requested:
        raise Interrupted("saved at the end; the same command writes the results")
    return state, progress


def _apply_updates(
    run: Run,
    evaluators: Sequence[Evaluator],
    state: State,
    progress: Progress,
    log: MetricLog,
    save: Callable[[State], None],
    stop: StopFlag,
) -> State:
    """The updates of a stage that are left."""
    config, stage, before = run.config, run.stages[progress.stage], run.steps_before(progress.stage)
    step, first, images = int(state.step), stage.first_batch, run.images_per_step(stage)
    batches = run.batches(stage, start=first + step, stop=first + stage.steps, broken=progress.note_broken)
    batch, key, finite = next(batches), run.update_key(progress.stage), jnp.asarray(True)
    late = LateMetrics(log, stage.name, before, progress.window)
    compiled: dict[int, Any] = {}
    durations: list[float] = []
    try:
        with _progress(stage, step) as bar:
            while step < stage.steps:
                turn = step % len(stage.updates)
                if turn not in compiled:
                    clock = time.perf_counter()
                    compiled[turn] = run.update(stage.updates[turn].step).lower(state, batch, key, finite).compile()
                    progress.compile_s += time.perf_counter() - clock
                    bar.unpause()  # this is not the speed
                clock = time.perf_counter()
                state, finite, metrics = compiled[turn](state, batch, key, finite)
                step += 1
                if step < stage.steps:
                    try:
                        batch, waited, idle = next_batch(batches, finite)
                    except WorkerKilledError as error:
                        stop.give(str(error))
                    else:
                        progress.data_wait_s += waited
                        progress.device_wait_s += idle
                late.take(step, metrics)
                if step == stage.steps or step % config.log_every == 0:
                    late.flush()
                durations.append(time.perf_counter() - clock)
                progress.loop_s += durations[-1]
                bar.update()
                speed = f"{images / statistics.median(durations[-50:]):.0f} images/s"
                bar.set_postfix_str(f"{speed} {late.summary}", refresh=False)
                if evaluators and step < stage.steps and step % config.eval_every == 0:
                    _log_evaluation(log, stage, step, before, run.evaluate(evaluators, state))
                interrupted = stop.raised(before + step)
                # After the last step the stage is evaluated first; then it is saved in any case.
                if step < stage.steps and (interrupted or step % config.checkpoint_every == 0):
                    late.fetch()  # what is saved is the whole step, with its metrics
                    save(state)
                    if interrupted:
                        raise Interrupted(
                            f"{stop.why}saved at step {step} of {stage.name}; the same command goes on from there"
                        )
    except NonFiniteError as error:
        folder = run.workdir / "nonfinite"
        with contextlib.closing(Checkpoints(folder)) as dump:
            dump.save(error.found["step"] - 1, state, error.found)
        error.args = (f"{error}; the state before this step is in {folder}",)
        raise
    progress.step_s[stage.name] = statistics.median(durations)
    return state


def _progress(stage: Stage, step: int) -> tqdm.tqdm:
    seconds = 1.0 if sys.stderr.isatty() else 30.0  # between two lines; in a file they stay
    return tqdm.tqdm(
        total=stage.steps,
        initial=step,
        desc=stage.name,
        unit="step",
        dynamic_ncols=True,
        mininterval=seconds,
        maxinterval=seconds,
        disable=jax.process_index() != 0,
    )


def _log_evaluation(
    log: MetricLog, stage: Stage, step: int, before: int, by_split: Mapping[tuple[str, str], Scores]
) -> None:
    values = {
        f"{domain}/{split}/{row['metric']}/{row['group']}": row["value"]
        for (domain, split), scores in by_split.items()
        for row in scores.rows
        if not row["group"].startswith((ACTION, CLIP, JOINT))
    }
    if values:
        log.write(stage.name, step, before + step, values)


def _write_predictions(folder: Path, stage: Stage, found: Mapping[tuple[str, str], Scores]) -> None:
    folder.mkdir(exist_ok=True)
    for (domain, split), scores in found.items():
        for name, points in scores.points.items():
            what = "" if name == "points" else f"_{name}"
            np.save(folder / f"{stage.name}_{domain}_{split}{what}.npy", points)
