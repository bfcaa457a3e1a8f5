"""The loop's guards, on a stage without a network."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.config import Config, Data, Mesh
from jaxpose.data import domains
from jaxpose.metrics import PCK
from jaxpose.recipes.stage import Batch, Metrics, Read, Stage, State, Task, Update, initial_state, reads
from jaxpose.train import mesh as meshes
from jaxpose.train import modes
from jaxpose.train.checkpoint import Checkpoints
from jaxpose.train.log import NonFiniteError
from jaxpose.train.progress import Progress
from jaxpose.train.results import fingerprint
from jaxpose.train.run import Run
from jaxpose.train.trainer import train_stages


@dataclasses.dataclass(kw_only=True)
class Counting:
    """Adds the mean pixel to a number; its loss breaks at a step."""

    name: str = "counting"
    breaks_at: int = -1

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        def init(key: jax.Array, previous: State | None) -> State:
            start = jnp.zeros(()) if previous is None else previous.params["sum"]["value"]
            return initial_state(params={"sum": {"value": start}}, stats={}, optimizers={})

        def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
            mean = jnp.mean(batch["source"]["image"].astype(jnp.float32))
            loss = jnp.where(state.step == self.breaks_at, jnp.nan, mean)
            value = state.params["sum"]["value"] + mean + jax.random.uniform(key)
            params = {"sum": {"value": value}}
            return dataclasses.replace(state, params=params), {"loss/source": loss, "other": mean}

        return tuple(
            Stage(name=name, steps=steps, init=init, updates=(Update(reads=reads(source=("image",)), step=step),))
            for name, steps in config.steps.items()
        )


def make_run(workdir: Path, *, devices: int = 1, **changes: Any) -> Run:
    config = Config(
        method=Counting(**changes),
        steps={"first": 5, "second": 4},
        checkpoint_every=2,
        log_every=2,
        data=Data(
            source="bodies:studio?train=12&validation=4&test=4",
            target="bodies:street?train=12&validation=4&test=4",
            image_size=32,
            batch_size=4,
        ),
        mesh=Mesh(data=devices),
    )
    pair = domains.open_pair(
        source=config.data.source, target=config.data.target, root=".", image_size=32, margin=1.0, memory=1, seed=0
    )
    task = Task(skeleton=pair.skeleton, image_size=32, augmentation=config.augmentation)
    return Run(
        config=config,
        stages=config.method.stages(task, config),
        task=task,
        pair=pair,
        metrics=(PCK(size=32, thresholds=(0.1,)),),
        mesh=meshes.make_mesh(devices),
        workdir=workdir,
    )


def with_two_updates(run: Run) -> Run:
    """The last stage with a second update in turn, which reads the target and computes a product."""

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        rows = batch["target"]["image"].reshape(2, -1).astype(jnp.float32)
        return state, {"loss/target": jnp.mean(rows @ rows.T)}

    target = {"target": Read(domain="target", fields=("image",), rows=2)}
    *others, last = run.stages
    last = dataclasses.replace(last, updates=(*last.updates, Update(reads=target, step=step)))
    return dataclasses.replace(run, stages=(*others, last))


def test_stages_hand_on_their_state_and_checkpoints_are_kept_by_total_step(tmp_path: Path) -> None:
    state, record = train_stages(make_run(tmp_path))
    assert int(state.step) == 4
    assert record.stage == 1
    assert set(record.step_s) == {"first", "second"}
    assert 0 < record.loop_s < record.wall_s
    assert Checkpoints(tmp_path / "checkpoints").latest() == 9
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        ("first", 2),
        ("first", 4),
        ("first", 5),
        ("second", 2),
        ("second", 4),
    ]


def test_checkpoints_of_other_versions_are_read() -> None:
    class Older(Checkpoints):
        def __init__(self) -> None: ...

        def meta(self, step: int) -> dict[str, Any]:
            return {"stage": 1, "wall_s": 3.0, "images": 72}

    record = Progress.read(Older(), 9)
    assert (record.stage, record.wall_s, record.loop_s) == (1, 3.0, 0.0)


def test_a_stage_without_a_detector_cannot_be_evaluated(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ValueError, match="found stage 'second', expected one with a detector"):
        modes.rows_of(run, 1, run.initial_state(0, None))


def test_nothing_is_compiled_after_the_first_update(tmp_path: Path) -> None:
    compiled: list[str] = []

    def note(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def compilations(name: str, steps: int) -> int:
        run = make_run(tmp_path / name)
        stages = tuple(dataclasses.replace(stage, steps=steps) for stage in run.stages)
        compiled.clear()
        train_stages(dataclasses.replace(run, stages=stages))
        return len(compiled)

    compilations("warm", 1)  # compiles what jax itself needs
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        once = compilations("once", 1)
        assert once >= 2  # an update for each stage
        assert compilations("often", 9) == once
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_two_devices_read_the_same_batches(tmp_path: Path) -> None:
    one, _ = train_stages(make_run(tmp_path / "one"))
    two, _ = train_stages(make_run(tmp_path / "two", devices=2))
    np.testing.assert_allclose(two.params["sum"]["value"], one.params["sum"]["value"], rtol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_state_before_it(tmp_path: Path) -> None:
    whole, _ = train_stages(make_run(tmp_path / "whole"))
    run = make_run(tmp_path / "broken")
    stages = (run.stages[0], make_run(tmp_path / "broken", breaks_at=2).stages[1])
    with pytest.raises(NonFiniteError, match=r"second step 3: found loss/source = nan, expected a finite loss"):
        train_stages(dataclasses.replace(run, stages=stages))
    dump = Checkpoints(tmp_path / "broken" / "nonfinite")
    step = dump.latest()
    assert step == 2
    assert dump.meta(step)["term"] == "loss/source"
    kept = dump.restore(step, make_run(tmp_path / "broken").abstract_states()[1])
    assert int(kept.step) == 2
    assert 0 < float(kept.params["sum"]["value"]) < float(whole.params["sum"]["value"])


def with_a_broken_image(run: Run, folder: Path) -> Run:
    images = folder / "labeled-data" / "video"
    images.mkdir(parents=True)
    lines = ["scorer,me,me", "bodyparts,left_knee,left_knee", "coords,x,y"]
    for i in range(10):
        image = cv2.imencode(".jpg", np.full((40, 40, 3), 20 * i, np.uint8))[1].tobytes()
        (images / f"img{i}.jpg").write_bytes(image[: len(image) // 2] if i == 3 else image)
        lines.append(f"labeled-data/video/img{i}.jpg,5,6")
    (images / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")
    pair = domains.open_pair(
        source=f"deeplabcut:{folder}",
        target=run.config.data.target,
        root=".",
        image_size=32,
        margin=1.0,
        memory=1,
        seed=0,
    )
    return dataclasses.replace(run, pair=pair)


def test_broken_images_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    run = with_a_broken_image(make_run(tmp_path / "run"), tmp_path)
    state, record = train_stages(run)
    assert (record.stage, int(state.step)) == (1, 4)
    (name,) = record.broken
    assert name.startswith("source: ")
    assert name.endswith("img3.jpg")


def test_a_broken_image_is_told_once_however_often_it_is_read(tmp_path: Path) -> None:
    run = with_a_broken_image(make_run(tmp_path / "run"), tmp_path)
    told = []
    for _ in run.batches(run.stages[0], start=0, stop=20, broken=lambda *found: told.append(found)):
        pass
    assert told == [("source", "labeled-data/video/img3.jpg")]


def test_fingerprints_see_names_and_values() -> None:
    def state(**params: float) -> State:
        return initial_state(params={k: jnp.asarray(v) for k, v in params.items()}, stats={}, optimizers={})

    same = fingerprint(state(a=1.0, b=2.0))
    assert same == fingerprint(state(b=2.0, a=1.0))
    assert same != fingerprint(state(a=1.0, b=2.0000002))
    assert same != fingerprint(state(a=1.0, c=2.0))


class Stopped(Exception):
    """What stops a run in a test."""


class StoppedRun(Run):
    """A run whose batches end too early."""

    stop_at = 3

    def batches(self, stage: Stage, *, start: int, **options: Any) -> Iterator[Any]:
        for step, batch in enumerate(super().batches(stage, start=start, **options), start):
            if (stage.name, step) == ("second", self.stop_at):
                raise Stopped
            yield batch


@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_the_log_is_the_same_after_a_resume(tmp_path: Path, log_every: int) -> None:
    """Also where checkpoints do not fall on the ends of the log's windows."""

    def configured(workdir: Path) -> Run:
        run = make_run(workdir)
        return dataclasses.replace(run, config=dataclasses.replace(run.config, log_every=log_every))

    train_stages(configured(tmp_path / "whole"))
    run = configured(tmp_path / "parts")
    with pytest.raises(Stopped):
        train_stages(StoppedRun(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)}))
    assert Checkpoints(tmp_path / "parts" / "checkpoints").latest() == 7
    train_stages(run)
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert parts == whole
