"""The training loop: stages one after the other, resumable at any update."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import signal
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

from jaxpose.data.domains import Pair
from jaxpose.data.host.elements import Crops
from jaxpose.data.host.pipeline import WorkerKilledError
from jaxpose.data.views import Subset
from jaxpose.metrics.metric import CLIP, JOINT
from jaxpose.recipes.stage import Stage, State
from jaxpose.train import earlier
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import Checkpoints, damage, set_aside_damaged
from jaxpose.train.evaluate import Evaluator, Scores
from jaxpose.train.log import LateMetrics, MetricLog, Window
from jaxpose.train.run import Run, next_batch

_PICTURED = 512  # training images of a target without a test split that are predicted for the report


class NonFiniteError(RuntimeError):
    """A loss became infinite or not a number."""


class Interrupted(Exception):
    """A signal, or the end of a reading process: the run was saved and can be resumed."""


@dataclasses.dataclass(kw_only=True)
class Record:
    """What a run knows besides its state; saved with every checkpoint.

    Attributes:
      stage: number of the stage that the state belongs to.
      evaluations: rows of `results.json`.
      floor: rows of the mean pose.
      start: what `earlier.start` says of the run that this one started from, and its `step`.
      broken: names of skipped records by domain.
      wall_s, compile_s: seconds, over all parts of a resumed run.
      data_wait_s, device_wait_s: seconds of waiting for batches, see `next_batch`.
      step_s: of the stages finished so far: median seconds of an update.
      loop_s: seconds in the loop over updates, compilation and evaluation excluded.
      window: metrics of the updates that are not yet in the log, see `LateMetrics`.
    """

    stage: int = 0
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    floor: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    start: dict[str, Any] = dataclasses.field(default_factory=dict)
    broken: list[str] = dataclasses.field(default_factory=list)
    wall_s: float = 0.0
    compile_s: float = 0.0
    data_wait_s: float = 0.0
    device_wait_s: float = 0.0
    step_s: dict[str, float] = dataclasses.field(default_factory=dict)
    loop_s: float = 0.0
    window: Window = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, checkpoints: Checkpoints, step: int) -> "Record":
        """What was saved with a checkpoint; what other versions of this class have besides is left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in checkpoints.meta(step).items() if name in known})


def train(run: Run) -> tuple[State, Record]:
    """Trains all stages, from the newest whole checkpoint of the work directory if there is one.

    Returns the final state and what was recorded on the way. Evaluations of finished stages leave their predictions
    in `workdir/predictions`.

    Raises:
      Interrupted: after SIGINT or SIGTERM, or where a reading process was killed; everything up to the last finished
        update is saved.
      NonFiniteError: naming the step and the loss; the state before that update lies in `workdir/nonfinite`.
      ValueError: if the checkpoint cannot be read, or all are damaged.
    """
    folder = run.workdir / "checkpoints"
    for line in meshes.by_first(lambda: set_aside_damaged(folder)):
        if jax.process_index() == 0:
            tqdm.tqdm.write(line)
    checkpoints = Checkpoints(folder)
    total = checkpoints.latest()
    if total is not None:
        record = Record.read(checkpoints, total)
        state = checkpoints.restore(total, run.abstract_states()[record.stage])
    elif run.config.start is not None:
        state, record = _start(run, Path(run.config.start))
    else:
        record, state = Record(), run.initial_state(0, None)
    stop = _StopFlag(checkpoints, done=run.steps_before(record.stage) + int(state.step))
    log = MetricLog(run.workdir, resume_at=total or 0, write=jax.process_index() == 0)
    started, wall_before = time.perf_counter(), record.wall_s

    def save(state: State) -> None:
        record.wall_s = wall_before + time.perf_counter() - started
        step = run.steps_before(record.stage) + int(state.step)
        if checkpoints.latest() != step:
            checkpoints.save(step, state, dataclasses.asdict(record))

    with contextlib.ExitStack() as at_end:
        at_end.callback(stop.restore)
        at_end.callback(checkpoints.close)
        at_end.callback(log.close)
        while True:
            state = _train_stage(run, state, record, log, save, stop)
            if record.stage + 1 == len(run.stages):
                break
            record.stage += 1
            state = run.initial_state(record.stage, state)
        record.wall_s = wall_before + time.perf_counter() - started
    if stop.noted:
        raise Interrupted("saved at the end; the same command writes the results")
    return state, record


def _start(run: Run, workdir: Path) -> tuple[State, Record]:
    """The first stage as if it were finished, with the final state of another run: what it reaches is measured here."""
    stage = run.stages[0]
    found = earlier.start(run.config, run.task.skeleton.joints, stage)
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        step = checkpoints.latest()
        if step is None:
            raise ValueError(f"config.start: found no checkpoint in {workdir}, expected that of a finished run")
        last = workdir / "checkpoints" / str(step)
        if wrong := meshes.by_first(lambda: damage(last)):
            raise ValueError(f"config.start: {last}: {wrong}, expected the whole checkpoint of a finished run")
        try:
            state = checkpoints.restore(step, run.abstract_states()[0])
        except ValueError as error:
            raise ValueError(
                f"config.start: {last} cannot be read as this run's stage {stage.name}, expected a whole checkpoint of "
                "the same networks and optimizers"
            ) from error
    finally:
        checkpoints.close()
    found["step"] = int(state.step)
    done = jax.device_put(np.array(stage.steps, np.int32), meshes.replicated(run.mesh))
    return dataclasses.replace(state, step=done), Record(start=found)


def fingerprint(state: State) -> str:
    """SHA-256 of the parameters: names, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in sorted(
        ((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)),
        key=lambda item: item[0],
    ):
        array = np.asarray(leaf)
        digest.update(f"{path}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def evaluate_all(run: Run, number: int, state: State) -> dict[tuple[str, str], Scores]:
    """Evaluates what a stage finds on every labelled split that is not for training.

    Raises:
      ValueError: if the stage finds nothing.
    """
    if not run.stages[number].evaluations:
        raise ValueError(f"{run.workdir}: found stage {run.stages[number].name!r}, expected one with a detector")
    return _evaluate(run, run.evaluators(run.stages[number]), state)


def _train_stage(
    run: Run,
    state: State,
    record: Record,
    log: MetricLog,
    save: Callable[[State], None],
    stop: "_StopFlag",
) -> State:
    config, stage, before = run.config, run.stages[record.stage], run.steps_before(record.stage)
    evaluators = run.evaluators(stage)
    step = int(state.step)
    if step < stage.steps:
        noted = functools.partial(_note_broken, record, set(record.broken))
        first = stage.first_batch
        batches = run.batches(stage, start=first + step, stop=first + stage.steps, broken=noted)
        seed_key, alive = run.update_key(record.stage), jnp.asarray(True)
        batch = next(batches)
        clock = time.perf_counter()
        updates = {step % len(stage.updates): _compiled(run, stage, step, state, batch, seed_key, alive)}
        record.compile_s += time.perf_counter() - clock
        images = run.images_per_step(stage)
        late = LateMetrics(log, stage.name, before, record.window)
        durations: list[float] = []
        seconds = 1.0 if sys.stderr.isatty() else 30.0  # between two lines; in a file they stay
        with tqdm.tqdm(
            total=stage.steps,
            initial=step,
            desc=stage.name,
            unit="step",
            dynamic_ncols=True,
            mininterval=seconds,
            maxinterval=seconds,
            disable=jax.process_index() != 0,
        ) as bar:
            while step < stage.steps:
                turn = step % len(stage.updates)
                if turn not in updates:
                    clock = time.perf_counter()
                    updates[turn] = _compiled(run, stage, step, state, batch, seed_key, alive)
                    record.compile_s += time.perf_counter() - clock
                clock = time.perf_counter()
                state, alive, metrics = updates[turn](state, batch, seed_key, alive)
                step += 1
                killed = None
                if step < stage.steps:
                    try:
                        batch, waited, idle = next_batch(batches, alive)
                    except WorkerKilledError as error:
                        killed = error
                    else:
                        record.data_wait_s += waited
                        record.device_wait_s += idle
                bad = late.take(step, metrics)
                if bad is None and (step == stage.steps or step % config.log_every == 0):
                    bad = late.flush()
                if bad is not None:
                    raise _non_finite(run, stage, state, *bad)
                durations.append(time.perf_counter() - clock)
                record.loop_s += durations[-1]
                bar.update()
                speed = f"{images / statistics.median(durations[-50:]):.0f} images/s"
                bar.set_postfix_str(f"{speed} {late.summary}", refresh=False)
                if evaluators and step < stage.steps and step % config.eval_every == 0 and not killed:
                    _log_evaluation(log, stage, step, before, _evaluate(run, evaluators, state))
                interrupted = stop.raised(before + step) or killed is not None
                # After the last step the stage is evaluated first; then it is saved in any case.
                if step < stage.steps and (interrupted or step % config.checkpoint_every == 0):
                    bad = late.fetch()  # what is saved is the whole step, with its metrics
                    if bad is not None:
                        raise _non_finite(run, stage, state, *bad)
                    save(state)
                    if interrupted:
                        why = f"{killed}; " if killed else ""
                        raise Interrupted(
                            f"{why}saved at step {step} of {stage.name}; the same command goes on from there"
                        )
        record.step_s[stage.name] = statistics.median(durations)
    if evaluators and not any(row["stage"] == stage.name for row in record.evaluations):
        found = _evaluate(run, evaluators, state)
        split, crops = pictured(run.pair)
        for evaluator in evaluators:
            single = evaluator.evaluation.window is None
            if single and "target" in evaluator.evaluation.domains and ("target", split) not in found:
                found["target", split] = evaluator(state, dataclasses.replace(crops, fields=evaluator.fields))
        _log_evaluation(log, stage, step, before, found)
        trained = record.start["step"] if record.start and record.stage == 0 else step
        _keep_final(run, stage, trained, found, record)
    save(state)
    return state


def _non_finite(run: Run, stage: Stage, state: State, step: int, name: str, value: float) -> NonFiniteError:
    folder = run.workdir / "nonfinite"
    dump = Checkpoints(folder)
    dump.save(step - 1, state, {"stage": stage.name, "step": step, "term": name, "value": str(value)})
    dump.close()
    return NonFiniteError(
        f"{stage.name} step {step}: found {name} = {value}, expected a finite loss; the state before this step is in "
        f"{folder}"
    )


def _compiled(run: Run, stage: Stage, step: int, *arguments: Any) -> Any:
    """The update of a step, for the shapes of its arguments."""
    update = stage.updates[step % len(stage.updates)]
    return run.update(update.step).lower(*arguments).compile()


def _evaluate(run: Run, evaluators: Sequence[Evaluator], state: State) -> dict[tuple[str, str], Scores]:
    found: dict[tuple[str, str], Scores] = {}
    for evaluator in evaluators:
        for name, split in run.measured(evaluator.evaluation):
            elements, skeleton = run.evaluated(evaluator.evaluation, name, split), run.task.skeletons[name]
            scores = evaluator(state, elements, skeleton=skeleton, clips=name != "source")
            found[name, split] = scores.beside(found.get((name, split)))
    return found


def pictured(pair: Pair) -> tuple[str, Crops]:
    """The split of the target that a report shows; of training images, which may be many, some."""
    if "test" in pair.domains["target"].splits:
        return "test", pair.crops("target", "test")
    crops = pair.crops("target", "train")
    some = np.unique(np.linspace(0, len(crops) - 1, min(len(crops), _PICTURED)).astype(int))
    return "train", dataclasses.replace(crops, source=Subset(source=crops.source, index=some), memory=0)


def _log_evaluation(
    log: MetricLog, stage: Stage, step: int, before: int, found: Mapping[tuple[str, str], Scores]
) -> None:
    values = {
        f"{domain}/{split}/{row['metric']}/{row['group']}": row["value"]
        for (domain, split), scores in found.items()
        for row in scores.rows
        if not row["group"].startswith((JOINT, CLIP))
    }
    if values:
        log.write(stage.name, step, before + step, values)


def _keep_final(run: Run, stage: Stage, step: int, found: Mapping[tuple[str, str], Scores], record: Record) -> None:
    folder = run.workdir / "predictions"
    if jax.process_index() == 0:
        folder.mkdir(exist_ok=True)
    for (domain, split), scores in found.items():
        known = set(record.broken)
        for name in scores.broken:
            _note_broken(record, known, domain, name)
        place = {"domain": domain, "split": split}
        record.evaluations += [{"stage": stage.name, "step": step} | place | row for row in scores.rows]
        if not any(place.items() <= row.items() for row in record.floor):
            record.floor += [place | row for row in scores.floor]
        if jax.process_index() == 0:
            for name, points in scores.points.items():
                what = "" if name == "points" else f"_{name}"
                np.save(folder / f"{stage.name}_{domain}_{split}{what}.npy", points)


def _note_broken(record: Record, known: set[str], domain: str, name: str) -> None:
    """Adds a broken record to those that are known already."""
    entry = f"{domain}: {name}"
    if entry not in known:
        known.add(entry)
        record.broken.append(entry)


class _StopFlag:
    """Notes SIGINT and SIGTERM instead of dying of them; a second SIGINT is not waited with.

    Several processes have to agree on the step at which they stop; there jax listens for SIGTERM, and Orbax is asked.
    """

    def __init__(self, checkpoints: Checkpoints, *, done: int) -> None:
        self._checkpoints = checkpoints
        self.noted = False  # of several processes, only what all have agreed on
        self._alone = jax.process_count() == 1
        self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._note)}
        if self._alone:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
            return
        # jax agrees on the number after the largest that any process has asked about, and says yes to that number
        # alone. For a notice that came before the first question that is 1: a resumed run must ask from there on.
        for step in range(1, done + 1):
            self.raised(step)

    def raised(self, total_step: int) -> bool:
        """Whether to save and stop after this step, or one before it at which the run could not stop."""
        if not self._alone and self._checkpoints.preempted(total_step):
            self.noted = True
        return self.noted

    def _note(self, number: int, *_: Any) -> None:
        self.noted |= self._alone
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)  # so that jax hears of it
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])

    def restore(self) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
