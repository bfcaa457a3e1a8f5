"""How labels are drawn and predictions are read: the two belong together, and the released form is the release's."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_config
from toy import Toy

from jaxpose import methods, pairs
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.metrics import pck
from jaxpose.ops.augment import Augmentation
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import adabn, cc_ssl, detector, inputs, mcd, mean_teacher, regda, views
from jaxpose.recipes.stage import Task, initial_state
from jaxpose.recipes.supervised import Supervised

K = 5


def make_grid(size: int, heatmap: int) -> Grid:
    return Grid(size=heatmap, stride=size / heatmap, sigma=2.0)


def naive_target(x: float, y: float, weight: float, grid: Grid) -> tuple[np.ndarray, float]:
    """The release's label map of a joint, from what it does: Python's int, a square of 13 pixels for sigma 2."""
    n, maps = grid.size, np.zeros((grid.size, grid.size))
    column, row = int(x / grid.stride + 0.5), int(y / grid.stride + 0.5)
    if not (0 <= column < n and 0 <= row < n):
        return maps, 0.0
    for j in range(max(row - 6, 0), min(row + 7, n)):
        for i in range(max(column - 6, 0), min(column + 7, n)):
            maps[j, i] = np.exp(-((i - column) ** 2 + (j - row) ** 2) / 8)
    return maps * weight, weight


def test_released_labels_are_those_of_the_release_also_off_the_map() -> None:
    grid = make_grid(64, 16)
    edges = [-30.0, -6.01, -6.0, -5.9, -2.1, -2.0, -0.6, 0.0, 1.9, 2.0, 31.5, 61.9, 62.0, 63.4, 70.0, 90.0]
    points = np.array([[[x, y] for x in edges] for y in edges], np.float32)
    visible = np.random.default_rng(0).integers(0, 3, points.shape[:2], np.uint8)
    maps, mask = inputs.released_labels(jnp.asarray(points), jnp.asarray(visible), grid)
    for b, k in np.ndindex(visible.shape):
        expected, weight = naive_target(*points[b, k].tolist(), float(visible[b, k] == 2), grid)
        assert bool(mask[b, k]) == (weight > 0), (points[b, k], visible[b, k])
        np.testing.assert_allclose(maps[b, :, :, k], expected, atol=1e-6)
    assert 0 < int(mask.sum()) < mask.size / 3


def test_occluded_joints_count_but_for_the_release() -> None:
    grid = make_grid(64, 16)
    points, visible = jnp.full((1, 3, 2), 20.0), jnp.array([[0, 1, 2]], jnp.uint8)
    assert inputs.clean_labels(points, visible, grid)[1].tolist() == [[False, True, True]]
    assert inputs.released_labels(points, visible, grid)[1].tolist() == [[False, False, True]]


class Given(detector.Detector):
    """Takes heatmaps for images."""

    def predict(self, state: Any, fields: Any) -> jax.Array:
        return fields["image"]


def presets() -> dict[str, tuple[Any, inputs.Coding, bool]]:
    """A method, how it draws labels, and whether its maps are logits."""
    clean, released = inputs.CLEAN, inputs.RELEASED

    def worded(l2: bool = False, released: bool = False) -> Any:
        return methods.supervised_config(pairs.bodies(), Supervised(), l2=l2, released=released).method

    teacher, released_teacher = (
        dataclasses.replace(settings, evaluated=views.student)
        for settings in (mean_teacher.MeanTeacher(), mean_teacher.released_settings())
    )
    return {
        "source_only": (Supervised(), clean, True),
        "source_only,l2": (worded(l2=True), clean, False),
        "source_only,released": (worded(released=True), released, False),
        "regda": (regda.RegDA(), clean, True),
        "regda,released": (regda.released_settings(), released, True),
        "mcd": (mcd.MCD(), clean, True),
        "alignment": (adabn.AdaBN(), clean, True),
        "mean_teacher": (teacher, clean, True),
        "mean_teacher,released": (released_teacher, released, False),
        "cc_ssl": (cc_ssl.CCSSL(), clean, True),
        "cc_ssl,released": (cc_ssl.released_settings(), cc_ssl.released_settings().coding, False),
    }


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("preset", sorted(presets()))
def test_perfect_maps_score_everything_under_every_preset_and_metric(
    preset: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, coding, logits = presets()[preset]
    skeleton = Skeleton(name="five", joints=tuple("abcde"))
    task = Task(skeleton=skeleton, image_size=24 * stride, augmentation=Augmentation(), sizes={"target": 8})
    grid = make_grid(task.image_size, 24)
    monkeypatch.setattr(detector, "Detector", Given)
    config = dataclasses.replace(make_config(method), model=Toy(stride=stride, sigma=grid.sigma))
    stage = method.stages(task, config)[-1]
    points = np.random.default_rng(stride).uniform(-0.4, task.image_size - 0.6, (200, K, 2)).astype(np.float32)
    points[0, :2] = [[-0.4, 0.0], [task.image_size - 0.6, task.image_size - 1.0]]

    @jax.jit
    def measured(points: jax.Array) -> Any:
        visible = jnp.full((200, K), 2, jnp.uint8)
        maps, mask = coding.draw(points, visible, grid)
        # The least is below what of a Gaussian of sigma 2 remains in the corner, and above what float32 knows.
        maps = jnp.log(jnp.maximum(maps, 1e-35)) + 90.0 if logits else maps
        found = stage.evaluations[0].predict(initial_state(params={}, stats={}, optimizers={}), {"image": maps})
        labels, _ = inputs.released_labels(points, visible, grid)
        error = jnp.max(jnp.where(mask[..., None], jnp.abs(found.points - points), 0))
        counted = pck.pck(found.points, points, mask, threshold=0.05 * task.image_size)
        released = pck.tllib_pck(found.peaks / grid.stride, labels, jnp.ones(200, bool))
        return error, counted, released.rates()

    error, counted, rates = measured(jnp.asarray(points))
    assert error < (2e-2 * stride if coding is inputs.CLEAN else stride / 2 + 1e-3)
    assert (counted.correct == counted.count).all()
    assert int(counted.count.sum()) > 900
    np.testing.assert_array_equal(rates, np.ones(K))


@pytest.mark.parametrize("stride", [2.0, 4.0])
def test_reading_in_the_wrong_way_is_half_a_stride_off(stride: float) -> None:
    grid = make_grid(int(16 * stride), 16)
    points = jnp.full((1, 1, 2), 8 * stride)
    maps, _ = inputs.released_labels(points, jnp.full((1, 1), 2, jnp.uint8), grid)
    logits = jnp.log(jnp.maximum(maps, 1e-30))
    np.testing.assert_allclose(inputs.released_points(logits, grid), points, atol=1e-3)
    np.testing.assert_allclose(inputs.clean_points(logits, grid) - points, stride / 2 - 0.5, atol=1e-3)
