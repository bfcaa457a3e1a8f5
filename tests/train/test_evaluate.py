"""Evaluation beside NumPy: the mean pose, pixels of the stored images, clips, and images that cannot be decoded."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.config import Config
from jaxpose.data import domains
from jaxpose.metrics.metric import Predictions
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes.measures import metrics_of
from jaxpose.recipes.stage import Evaluation, State, Task, initial_state
from jaxpose.train import mesh as meshes
from jaxpose.train.evaluate import Evaluator, Scores, fields_of, mean_pose

SIZE = 32
CENTRE = np.array([(SIZE - 1) / 2] * 2)


def write_project(root: Path, clips: dict[str, int], *, width: int = 120, height: int = 80, broken: int = -1) -> None:
    """Pictures with two joints at random places; every third second joint is missing."""
    rng = np.random.default_rng(len(clips))
    for clip, count in clips.items():
        folder = root / "labeled-data" / clip
        folder.mkdir(parents=True)
        lines = ["scorer" + ",me" * 4, "bodyparts,left,left,right,right", "coords,x,y,x,y"]
        for i in range(count):
            data = cv2.imencode(".jpg", rng.integers(0, 255, (height, width, 3), np.uint8))[1].tobytes()
            (folder / f"img{i}.jpg").write_bytes(data[: len(data) // 2] if i == broken else data)
            x, y = rng.uniform((5, 5), (width - 5, height - 5), (2, 2)).T
            second = "," if i % 3 == 2 else f"{x[1]},{y[1]}"
            lines.append(f"labeled-data/{clip}/img{i}.jpg,{x[0]},{y[0]},{second}")
        (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def pair(tmp_path: Path) -> domains.OpenedPair:
    write_project(tmp_path / "source", {"one": 7, "two": 4}, broken=1)
    write_project(tmp_path / "target", {"anna": 5, "bert": 3, "carl": 4}, width=60, height=90, broken=2)
    return domains.open_pair(
        source=f"deeplabcut:{tmp_path / 'source'}?train=one&test=two&boxes=whole",
        target=f"deeplabcut:{tmp_path / 'target'}?train=carl&test=anna,bert&boxes=whole",
        root=".",
        image_size=SIZE,
        margin=1.0,
        memory=0,
        seed=0,
    )


def evaluated(pair: domains.OpenedPair, **options: bool) -> Scores:
    """The scores of a detector that finds all joints in the centre of every image."""
    task = Task(skeleton=pair.skeleton, image_size=SIZE, augmentation=Augmentation())

    def predict(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
        middle = jnp.broadcast_to(jnp.asarray(CENTRE, jnp.float32), (len(fields["image"]), 2, 2))
        return Predictions(points=middle, peaks=middle)

    pose = mean_pose(pair.domains["source"].splits["train"])
    config = Config(method=None, metrics=("pck", "tllib_pck", "mae"), pck_thresholds=(0.25,))
    metrics = metrics_of(config, task)
    evaluator = Evaluator(Evaluation(predict=predict), task, metrics, meshes.make_mesh(1), 4, pose)
    state = initial_state(params={}, stats={}, optimizers={})
    return evaluator(state, pair.domains["target"].splits["test"], **options)


def truth(pair: domains.OpenedPair) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Of the target's test split: labels in crop pixels, which count, crop pixels per image pixel, clips."""
    source = pair.domains["target"].splits["test"].source
    points, known, clips = [], [], []
    for i in range(len(source)):
        record = source[i]
        points.append((record["keypoints"] - (29.5, 44.5)) * (SIZE / 90) + CENTRE)
        known.append((record["visible"] > 0) & (not record["name"].endswith(("anna/img2.jpg", "bert/img2.jpg"))))
        clips.append(record["sequence"])
    return np.stack(points), np.stack(known), np.full(len(source), SIZE / 90), clips


def test_the_mean_pose_is_the_mean_of_the_sources_labels(pair: domains.OpenedPair) -> None:
    crops = pair.domains["source"].splits["train"]
    found = mean_pose(crops)
    records = [crops.source[i] for i in range(7)]
    labels = np.stack([record["keypoints"] for record in records])
    known = np.stack([record["visible"] > 0 for record in records])
    expected = np.stack([labels[known[:, k], k].mean(axis=0) for k in range(2)])
    np.testing.assert_allclose(found, (expected - (59.5, 39.5)) * (SIZE / 120) + CENTRE, atol=1e-4)


@pytest.mark.parametrize("who", ["rows", "floor"])
def test_rows_are_what_numpy_finds(pair: domains.OpenedPair, who: str) -> None:
    scores = evaluated(pair, clips=True)
    labels, known, scale, clips = truth(pair)
    point = CENTRE if who == "rows" else mean_pose(pair.domains["source"].splits["train"])
    distance = np.linalg.norm(labels - point, axis=-1)
    found = {(row["metric"], row["group"]): row for row in getattr(scores, who)}
    near = distance < 0.25 * SIZE
    pck = found["pck@0.25", "all"]
    assert (pck["value"], pck["count"]) == (pytest.approx(near[known].mean()), known.sum())
    assert 0 < near[known].mean() < 1
    errors = (distance / scale[:, None])[known]
    assert found["error_px", "mean"]["value"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["error_px", "median"]["value"] == pytest.approx(np.median(errors), rel=1e-4)
    for clip in set(clips):
        inside = known & (np.array(clips) == clip)[:, None]
        row = found["pck@0.25", f"clip:{clip}"]
        assert (row["value"], row["count"]) == (pytest.approx(near[inside].mean()), inside.sum())
    assert found["mae", "x"]["value"] == pytest.approx(np.abs(labels - point)[known][:, 0].mean(), rel=1e-4)
    assert ("tllib_pck@0.05", "all") in found
    json.dumps(getattr(scores, who), allow_nan=False)


def test_clips_are_only_told_apart_where_asked(pair: domains.OpenedPair) -> None:
    scores = evaluated(pair)
    assert not any(row["group"].startswith("clip:") for row in scores.rows + scores.floor)
    assert len(scores.broken) == 2


def test_what_records_have_no_fields_for_is_not_measured(pair: domains.OpenedPair) -> None:
    task = Task(skeleton=pair.skeleton, image_size=SIZE, augmentation=Augmentation())

    def predict(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
        return Predictions(points=fields["keypoints"])

    found = metrics_of(Config(method=None, metrics=("pckh", "pck", "ap", "mpjpe", "nme")), task)
    evaluation = Evaluation(predict=predict, fields=("keypoints",))
    evaluator = Evaluator(evaluation, task, found, meshes.make_mesh(1), 4, np.zeros((2, 2), np.float32))
    crops = pair.domains["target"].splits["test"]
    crops = dataclasses.replace(crops, fields=fields_of(evaluation, found, crops.known))
    assert set(crops.fields) == {"keypoints", "visible", "scale", "box_size"}
    scores = evaluator(initial_state(params={}, stats={}, optimizers={}), crops)
    assert {row["metric"] for row in scores.rows} == {"pck@0.05", "pck@0.1", "nme", "error_px"}
