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
from jaxpose.ops import heatmaps
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


def naive_place(point: np.ndarray, grid: Grid, way: str) -> np.ndarray:
    """Where a point of the image lies on the maps."""
    if way == "udp":
        return point * (grid.size - 1) / (grid.size * grid.stride - 1)
    return point / grid.stride


@pytest.mark.parametrize("way", sorted(inputs.CODINGS))
def test_labels_of_top_down_people_are_gaussians_where_the_papers_put_them(way: str) -> None:
    grid = make_grid(64, 16)
    edges = [-40.0, -30.1, -27.0, -5.0, 0.0, 1.9, 2.1, 31.5, 61.9, 63.0, 80.0, 87.0, 86.0, 95.0]
    points = np.array([[[x, y] for x in edges] for y in edges])
    visible = np.random.default_rng(0).integers(0, 3, points.shape[:2], np.uint8)
    maps, mask = inputs.CODINGS[way].draw(jnp.asarray(points, jnp.float32), jnp.asarray(visible), grid)
    y, x = np.mgrid[:16, :16]
    for b, k in np.ndindex(visible.shape):
        place = naive_place(points[b, k], grid, way)
        whole = np.array([int(value + 0.5) for value in place])
        reached = (whole - 6 < 16).all() and (whole + 6 + 1 >= 0).all()
        assert bool(mask[b, k]) == (bool(visible[b, k]) and bool(reached)), (points[b, k], visible[b, k])
        centre = whole if way == "msra" else place
        expected = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 8) * bool(mask[b, k])
        if way == "msra":
            expected *= (np.abs(x - centre[0]) <= 6) & (np.abs(y - centre[1]) <= 6)
        np.testing.assert_allclose(maps[b, :, :, k], expected, atol=1e-5)


@pytest.mark.parametrize(("way", "bound"), [("msra", 0.5), ("dark", 0.01), ("udp", 0.01)])
@pytest.mark.parametrize("stride", [2.0, 4.0])
def test_what_is_drawn_is_read(way: str, bound: float, stride: float) -> None:
    """MSRA's whole pixels lose half a one; the others lose nothing."""
    grid = make_grid(int(32 * stride), 32)
    points = np.random.default_rng(5).uniform(9 * stride, 22 * stride, (3, 60, 2)).astype(np.float32)
    coding = inputs.CODINGS[way]
    maps, mask = coding.draw(jnp.asarray(points), jnp.full((3, 60), 2, jnp.uint8), grid)
    assert mask.all()
    found, confidence = views.read(maps, grid, coding)
    assert np.abs(np.asarray(found) - points).max() <= bound * stride + 1e-3
    assert float(confidence.max()) <= 1


class Sides(detector.Detector):
    """Finds what is bright: the middle joint anywhere, the others the surer the further on their side."""

    def predict(self, state: Any, fields: Any) -> jax.Array:
        bright = fields["image"][..., 0]
        side = jnp.linspace(0.0, 1.0, bright.shape[2])[None, None]
        return jnp.stack([bright * (1 - side), bright, bright * side], axis=-1)


def found_by(detector_class: Any, image: jax.Array, coding: inputs.Coding, mirror: tuple[int, ...] | None) -> Any:
    grid = make_grid(64, 16)
    networks = detector_class(networks={}, grid=grid, coding=coding, mirror=mirror)
    state = initial_state(params={}, stats={}, optimizers={})
    return networks.evaluation(normal=views.plain_maps).predict(state, {"image": image})


def test_a_detector_that_is_the_same_in_the_mirror_finds_the_same() -> None:
    image = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32))
    once, both = (found_by(Sides, image, inputs.CLEAN, mirror) for mirror in (None, (2, 1, 0)))
    np.testing.assert_allclose(once.points, both.points, atol=1e-4)
    np.testing.assert_allclose(once.scores, both.scores, atol=1e-6)
    names_kept = found_by(Sides, image, inputs.CLEAN, (0, 1, 2))
    assert np.abs(np.asarray(once.points - names_kept.points)).max() > 1


def test_mirrored_twice_is_once() -> None:
    maps = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 5, 6, 3)).astype(np.float32))
    there = inputs.mirrored_back(maps, (2, 1, 0), inputs.CLEAN)
    np.testing.assert_array_equal(inputs.mirrored_back(there, (2, 1, 0), inputs.CLEAN), maps)
    np.testing.assert_array_equal(there[1, 2, :, 0], maps[1, 2, ::-1, 2])
    moved = inputs.mirrored_back(maps, (2, 1, 0), inputs.MSRA)
    np.testing.assert_array_equal(moved[:, :, 1:], there[:, :, :-1])
    np.testing.assert_array_equal(moved[:, :, 0], there[:, :, 0])


@pytest.mark.parametrize("stride", [2.0, 4.0])
@pytest.mark.parametrize("way", ["clean", "released", *sorted(inputs.CODINGS)])
def test_labels_of_a_mirrored_image_are_mirrored_back_to_where_they_were(way: str, stride: float) -> None:
    """Exactly where centres of pixels are mapped to each other; else, with the shift, 1 / stride of a pixel beside."""
    coding = {"clean": inputs.CLEAN, "released": inputs.RELEASED, **inputs.CODINGS}[way]
    grid = make_grid(int(32 * stride), 32)
    points = np.random.default_rng(7).uniform(12 * stride, 20 * stride, (1, 200, 2)).astype(np.float32)
    mirrored = np.stack([32 * stride - 1 - points[..., 0], points[..., 1]], axis=-1)
    seen = jnp.full((1, 200), 2, jnp.uint8)
    straight, back = (coding.draw(jnp.asarray(p), seen, grid)[0] for p in (points, mirrored))
    back = inputs.mirrored_back(back, tuple(range(200)), coding)
    was, now = (heatmaps.subpixel_points(jnp.log(maps + 1e-9)) for maps in (straight, back))
    offset = np.asarray(now - was)
    assert np.abs(offset[..., 1]).max() < 1e-3
    exact = {"clean": 0.0, "udp": 0.0, "dark": 1 / stride}
    if way in exact:
        np.testing.assert_allclose(offset[..., 0], exact[way], atol=1e-3)
    else:  # whole pixels: on average the same, in steps of one
        assert offset[..., 0].mean() == pytest.approx(1 / stride, abs=0.12)
