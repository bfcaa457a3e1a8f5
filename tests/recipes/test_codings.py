"""How labels are drawn and predictions are read: the two belong together, and the released form is the release's."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_config, make_networks

from jaxpose import methods, pairs
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.metrics import pck
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import alignment, cc_ssl, detector, inputs, mcd, mean_teacher, regda, supervised, views
from jaxpose.recipes.stage import Stage, Task, initial_state
from jaxpose.recipes.supervised import Supervised

K = 5


def make_points_task(size: int, heatmap: int) -> Task:
    skeleton = Skeleton(name="five", joints=tuple("abcde"))
    return Task(
        skeleton=skeleton,
        image_size=size,
        heatmap_size=heatmap,
        sigma=2.0,
        augmentation=Augmentation(),
        sizes={"target": 8},
    )


def naive_target(x: float, y: float, weight: float, task: Task) -> tuple[np.ndarray, float]:
    """The release's label map of a joint, from what it does: Python's int, a square of 13 pixels for sigma 2."""
    n, maps = task.heatmap_size, np.zeros((task.heatmap_size, task.heatmap_size))
    column, row = int(x / task.stride + 0.5), int(y / task.stride + 0.5)
    if not (0 <= column < n and 0 <= row < n):
        return maps, 0.0
    for j in range(max(row - 6, 0), min(row + 7, n)):
        for i in range(max(column - 6, 0), min(column + 7, n)):
            maps[j, i] = np.exp(-((i - column) ** 2 + (j - row) ** 2) / 8)
    return maps * weight, weight


def test_released_labels_are_those_of_the_release_also_off_the_map() -> None:
    task = make_points_task(64, 16)
    edges = [-30.0, -6.01, -6.0, -5.9, -2.1, -2.0, -0.6, 0.0, 1.9, 2.0, 31.5, 61.9, 62.0, 63.4, 70.0, 90.0]
    points = np.array([[[x, y] for x in edges] for y in edges], np.float32)
    visible = np.random.default_rng(0).integers(0, 3, points.shape[:2], np.uint8)
    task = dataclasses.replace(task, skeleton=Skeleton(name="many", joints=tuple(f"j{i}" for i in range(len(edges)))))
    maps, mask = inputs.released_labels(jnp.asarray(points), jnp.asarray(visible), task)
    for b, k in np.ndindex(visible.shape):
        expected, weight = naive_target(*points[b, k].tolist(), float(visible[b, k] == 2), task)
        assert bool(mask[b, k]) == (weight > 0), (points[b, k], visible[b, k])
        np.testing.assert_allclose(maps[b, :, :, k], expected, atol=1e-6)
    assert 0 < int(mask.sum()) < mask.size / 3


def test_occluded_joints_count_but_for_the_release() -> None:
    task = make_points_task(64, 16)
    points, visible = jnp.full((1, 3, 2), 20.0), jnp.array([[0, 1, 2]], jnp.uint8)
    assert inputs.clean_labels(points, visible, task)[1].tolist() == [[False, True, True]]
    assert inputs.released_labels(points, visible, task)[1].tolist() == [[False, False, True]]


class Given(detector.Detector):
    """Takes heatmaps for images."""

    def predict(self, state: Any, fields: Any) -> jax.Array:
        return fields["image"]


def presets() -> dict[str, tuple[Any, inputs.Coding, bool]]:
    """What makes a stage of a task, how it draws labels, and whether its maps are logits."""
    clean, released = inputs.CLEAN, inputs.RELEASED
    given = Given(networks=make_networks().networks)

    def worded(l2: bool = False, released: bool = False) -> Any:
        return methods.supervised_config(pairs.bodies(), Supervised(), l2=l2, released=released).method

    def trained(config: Any) -> Any:
        return lambda task: supervised.pretrain(
            task, make_config(None), given, loss=config.loss, maps=config.maps, coding=config.coding, mean=config.mean
        )

    def teacher(settings: mean_teacher.MeanTeacher) -> Any:
        settings = dataclasses.replace(settings, evaluated=views.student)
        return lambda task: mean_teacher.adapt(task, make_config(None), given, settings)

    def adapted(module: Any, settings: Any) -> Any:
        return lambda task: module.adapt(task, make_config(None), given, settings)

    return {
        "source_only": (trained(Supervised()), clean, True),
        "source_only,l2": (trained(worded(l2=True)), clean, False),
        "source_only,released": (trained(worded(released=True)), released, False),
        "regda": (adapted(regda, regda.RegDA()), clean, True),
        "regda,released": (adapted(regda, regda.released_settings()), released, True),
        "mcd": (adapted(mcd, mcd.MCD()), clean, True),
        "alignment": (
            adapted(alignment, alignment.Alignment(networks={}, loss=lambda *_: (jnp.zeros(()), {}))),
            clean,
            True,
        ),
        "mean_teacher": (teacher(mean_teacher.MeanTeacher()), clean, True),
        "mean_teacher,released": (teacher(mean_teacher.released_settings()), released, False),
        "cc_ssl": (lambda task: cc_ssl.adapt(task, make_config(None), given, cc_ssl.CCSSL(), 0), clean, True),
        "cc_ssl,released": (
            lambda task: cc_ssl.adapt(task, make_config(None), given, cc_ssl.released_settings(), 0),
            cc_ssl.released_settings().coding,
            False,
        ),
    }


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("preset", sorted(presets()))
def test_perfect_maps_score_everything_under_every_preset_and_metric(preset: str, stride: int) -> None:
    make, coding, logits = presets()[preset]
    task = make_points_task(24 * stride, 24)
    stage: Stage = make(task)
    points = np.random.default_rng(stride).uniform(-0.4, task.image_size - 0.6, (200, K, 2)).astype(np.float32)
    points[0, :2] = [[-0.4, 0.0], [task.image_size - 0.6, task.image_size - 1.0]]

    @jax.jit
    def measured(points: jax.Array) -> Any:
        visible = jnp.full((200, K), 2, jnp.uint8)
        maps, mask = coding.draw(points, visible, task)
        # The least is below what of a Gaussian of sigma 2 remains in the corner, and above what float32 knows.
        maps = jnp.log(jnp.maximum(maps, 1e-35)) + 90.0 if logits else maps
        found = stage.evaluations[0].predict(initial_state(params={}, stats={}, optimizers={}), {"image": maps})
        labels, _ = inputs.released_labels(points, visible, task)
        error = jnp.max(jnp.where(mask[..., None], jnp.abs(found.points - points), 0))
        counted = pck.pck(found.points, points, mask, threshold=0.05 * task.image_size)
        released = pck.tllib_pck(found.peaks / task.stride, labels, jnp.ones(200, bool))
        return error, counted, released.rates()

    error, counted, rates = measured(jnp.asarray(points))
    assert error < (2e-2 * stride if coding is inputs.CLEAN else stride / 2 + 1e-3)
    assert (counted.correct == counted.count).all()
    assert int(counted.count.sum()) > 900
    np.testing.assert_array_equal(rates, np.ones(K))


@pytest.mark.parametrize("stride", [2.0, 4.0])
def test_reading_in_the_wrong_way_is_half_a_stride_off(stride: float) -> None:
    task = make_points_task(int(16 * stride), 16)
    points = jnp.full((1, 1, 2), 8 * stride)
    task = dataclasses.replace(task, skeleton=Skeleton(name="one", joints=("a",)))
    maps, _ = inputs.released_labels(points, jnp.full((1, 1), 2, jnp.uint8), task)
    logits = jnp.log(jnp.maximum(maps, 1e-30))
    np.testing.assert_allclose(inputs.released_points(logits, task), points, atol=1e-3)
    np.testing.assert_allclose(inputs.clean_points(logits, task) - points, stride / 2 - 0.5, atol=1e-3)
