"""A recipe that finds poses in space and no point in the image: the whole run, its tables and its pages."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxpose.config import Config, Data
from jaxpose.data.host.windows import consecutive
from jaxpose.metrics import MPJPE
from jaxpose.metrics.metric import Predictions
from jaxpose.recipes import measures
from jaxpose.recipes.stage import Batch, Evaluation, Metrics, Stage, State, Task, Update, initial_state, reads
from jaxpose.report import comparison, text
from jaxpose.train import modes, poses, trainer

FIELDS = ("keypoints3d",)
WINDOW = consecutive(3)


@dataclasses.dataclass(kw_only=True)
class MeanPose:
    """Finds the source's mean pose times a number, which it learns; a second stage finds it in windows, too."""

    name: str = "mean_pose"
    windows: bool = False

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        root, joints = measures.root(task.skeleton), len(task.skeleton)
        rule = optax.sgd(0.02)

        def init(key: jax.Array, previous: State | None) -> State:
            fresh = {"mean": jnp.zeros((joints, 3)), "scale": jnp.full((), -1.0)}
            params = {"pose": fresh if previous is None else previous.params["pose"]}
            return initial_state(params=params, stats={}, optimizers={"pose": rule.init(params["pose"]["scale"])})

        def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
            poses = batch["source"]["keypoints3d"]
            mean = jnp.mean(poses - poses[:, root, None], axis=0)
            scale = state.params["pose"]["scale"]
            loss, gradient = jax.value_and_grad(lambda scale: jnp.sum(jnp.square(scale * mean - mean)))(scale)
            updates, new = rule.update(gradient, state.optimizers["pose"])
            pose = {"mean": mean, "scale": optax.apply_updates(scale, updates)}
            state = dataclasses.replace(state, params={"pose": pose}, optimizers={"pose": new})
            return state, {"loss/source": loss}

        def predict(state: State, fields: Any) -> Predictions:
            pose, rows = state.params["pose"], fields["image"].shape[:-3]
            return Predictions(points3d=jnp.broadcast_to(pose["scale"] * pose["mean"], (*rows, joints, 3)))

        def evaluations(stage: str) -> tuple[Evaluation, ...]:
            if not (self.windows and stage == "adapt"):
                return (Evaluation(predict=predict),)
            metrics = (MPJPE(align="scale", root=root),)  # of other names than those of single images
            windows = Evaluation(predict=predict, domains=("target",), window=WINDOW, metrics=metrics)
            return Evaluation(predict=predict), windows

        update = Update(reads=reads(source=FIELDS), step=step)
        return tuple(
            Stage(name=name, steps=steps, init=init, updates=(update,), evaluations=evaluations(name))
            for name, steps in config.steps.items()
        )


def make_config(**changes: Any) -> Config:
    data = Data(
        source="bodies:studio?train=8&validation=4&test=4",
        target="bodies:street?train=8&validation=4&test=16",
        image_size=32,
        batch_size=4,
        eval_batch_size=4,
    )
    fields: dict[str, Any] = {
        "method": MeanPose(windows=True),
        "steps": {"pretrain": 1, "adapt": 30},
        "metrics": ("mpjpe", "pa_mpjpe"),
        "data": data,
    }
    return Config(**fields | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("run")
    return workdir, trainer.train(make_config(), workdir, show=False)


def value(results: dict[str, Any], stage: str, metric: str) -> float:
    place = {"stage": stage, "metric": metric, "group": "all", "domain": "target", "split": "test"}
    return next(row["value"] for row in results["evaluations"] if place.items() <= row.items())


def test_the_headline_is_the_error_in_millimetres_and_smaller_is_better(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    before, after = (value(results, stage, "mpjpe") for stage in ("pretrain", "adapt"))
    assert 50 < after < before - 50  # it stands on its head at first
    change = f"\N{MINUS SIGN}{before - after:.1f}"
    assert text.headline(results).replace("\N{NO-BREAK SPACE}", " ") == (
        f"MPJPE on the target test split: {before:.1f} mm source-only → {after:.1f} mm after adaptation ({change} mm)"
    )
    summary = text.summary_table(results)
    assert "MPJPE, target test" in summary
    assert "PA MPJPE, target test" in summary
    assert f"{after:.1f} mm" in summary
    assert not [note for note in results["notes"] if "MPJPE" in note and "worse" in note and "PA" not in note]
    assert all(np.isfinite(row["value"]) for row in results["evaluations"])
    assert {row["metric"] for row in results["evaluations"]} == {"mpjpe", "pa_mpjpe", "n_mpjpe"}


def test_the_report_has_the_poses_before_and_after(finished: tuple[Path, dict[str, Any]]) -> None:
    workdir, results = finished
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert "Poses in space <span>target test</span>" in page
    assert "Poses in space <span>target test, windows of 3 frames</span>" in page
    assert "lower is better" in page
    assert "<h2>Pictures</h2>" not in page  # there is nothing to draw into them
    assert page.count("<figcaption>source-only</figcaption>") == 6
    assert "px" not in text.summary_table(results)


def test_errors_of_the_cases_are_those_of_the_metric(finished: tuple[Path, dict[str, Any]]) -> None:
    workdir, results = finished
    run = trainer.build.build(make_config(), workdir)
    single, windows = poses.poses(run, results)
    assert (len(single.names), len(windows.names)) == (16, windows.truth.shape[0])
    assert list(single.predictions) == ["pretrain", "adapt"]
    assert list(windows.predictions) == ["adapt"]
    assert windows.truth.shape[1:] == (3, 16, 3)
    root = run.task.skeleton.joints.index("pelvis")
    for stage, found in single.predictions.items():
        truth = single.truth - single.truth[:, root, None]
        distance = 1000 * np.linalg.norm(found - found[:, root, None] - truth, axis=-1)
        np.testing.assert_allclose(distance.mean(), value(results, stage, "mpjpe"), rtol=1e-5)
    assert single.image is not None
    assert single.image(5).shape == (32, 32, 3)
    left_out = poses.poses(run, {"skipped_records": [f"target: {single.names[3]}"]})[0]
    assert left_out.names == [*single.names[:3], *single.names[4:]]
    np.testing.assert_array_equal(left_out.truth, np.delete(single.truth, 3, axis=0))


def test_a_damaged_file_costs_its_poses_and_not_the_report(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, _ = finished
    path = workdir / "predictions" / "adapt_target_test_points3d.npy"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-4])
        (workdir / "report.html").unlink()
        trainer.train(make_config(), workdir, show=False)
    finally:
        path.write_bytes(whole)
    assert "adapt_target_test_points3d.npy" in capsys.readouterr().out
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert "windows of 3 frames" in page


def test_such_methods_are_compared(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, results = finished

    def made(rows: list[dict[str, Any]]) -> comparison.RunResults:
        return comparison.RunResults(rows=rows, curve=[], timing=results["timing"])

    by_stage = {s: [r for r in results["evaluations"] if r["stage"] == s] for s in ("pretrain", "adapt")}
    points = {"metric": "pck@0.05", "domain": "target", "split": "test", "group": "all", "value": 0.5, "count": 9}
    table = comparison.summarize(
        {"source-only": [made([points, *by_stage["pretrain"]])], "mean_pose": [made(by_stage["adapt"])]}
    )
    json.dumps(table, allow_nan=False)
    printed = comparison.text_table(table)
    assert "MPJPE in mm on the target's test split" in printed  # PCK is not what both have
    assert f"{value(results, 'adapt', 'mpjpe'):.1f}" in printed
    page = comparison.write_page(tmp_path, "bodies", table).read_text(encoding="utf-8")
    assert "<h2>MPJPE in mm, lower is better</h2>" in page
    assert "<h2>PCK@0.05</h2>" in page


def test_without_labels_of_the_target_nothing_breaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (40, 40, 3), np.uint8))
    config = make_config(method=MeanPose(), steps={"adapt": 2})
    config.data.target = f"images:{folder}"
    results = trainer.train(config, tmp_path / "run", show=False)
    assert any("Nothing is measured on the target" in note for note in results["notes"])
    assert "MPJPE on the source test split" in text.headline(results)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Without labels" in page
    assert "Poses in space <span>target train</span>" in page


def test_the_mode_that_evaluates_finds_the_same(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, results = finished
    rows = modes.evaluate(make_config(), workdir)["evaluations"]
    found = [(r["domain"], r["split"], r["metric"], r["group"], r["value"]) for r in rows if r["stage"] == "adapt"]
    known = [
        (r["domain"], r["split"], r["metric"], r["group"], r["value"])
        for r in results["evaluations"]
        if r["stage"] == "adapt"
    ]
    assert found == known
