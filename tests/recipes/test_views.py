"""What is seen in one view and used in another: coordinates, names of mirrored joints, shares and patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NONE, make_task

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.ops import heatmaps
from jaxpose.recipes import views

RNG = np.random.default_rng(0)
S, B = 64, 6
TASK = make_task(
    skeleton=Skeleton(name="three", joints=("left", "right", "middle"), flips=(("left", "right"),)),
    image_size=S,
)
GRID = heatmaps.Grid(size=16, stride=4.0, sigma=1.0)
SWAPPED = [1, 0, 2]
STRONG = dataclasses.replace(NONE, rotation=60.0, scale=(0.8, 1.2), translation=0.05, mirror=0.5)


def blobs(points: np.ndarray) -> np.ndarray:
    """Images in which joint k is a bright blob of colour k."""
    y, x = np.mgrid[:S, :S].astype(np.float32)
    squared = (x[None, ..., None] - points[:, None, None, :, 0]) ** 2 + (
        y[None, ..., None] - points[:, None, None, :, 1]
    ) ** 2
    return np.round(255 * np.exp(-squared / 18)).astype(np.uint8)


def centroids(normalised: jax.Array) -> np.ndarray:
    """Of each colour, (B, 3, 2)."""
    pixels = np.asarray(normalised) * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    y, x = np.mgrid[:S, :S]
    mass = pixels.sum((1, 2))
    return np.stack([(pixels * grid[None, ..., None]).sum((1, 2)) / mass for grid in (x, y)], axis=-1)


def test_points_are_carried_to_where_the_other_view_shows_them() -> None:
    fields = {
        "image": jnp.asarray(blobs(RNG.uniform(24, 40, (B, 3, 2)).astype(np.float32))),
        "position": jnp.arange(B),
    }
    seen, shown = (views.view(jax.random.key(i), fields, STRONG) for i in (3, 4))
    before, after = np.asarray(seen.mirrored), np.asarray(shown.mirrored)
    assert len({(bool(a), bool(b)) for a, b in zip(before, after, strict=True)}) > 2

    def named(view: views.View, mirrored: np.ndarray) -> np.ndarray:
        found = centroids(view.images)
        return np.where(mirrored[:, None, None], found[:, SWAPPED], found)

    confidence = np.where(before[:, None], np.array([[2.0, 1, 3]]), np.array([[1.0, 2, 3]])).astype(np.float32)
    points, values, inside = views.in_other_view(
        jnp.asarray(named(seen, before), jnp.float32), jnp.asarray(confidence), seen, shown, TASK
    )
    np.testing.assert_allclose(points, named(shown, after), atol=0.2)
    np.testing.assert_array_equal(values, np.where(after[:, None], [[2.0, 1, 3]], [[1.0, 2, 3]]))
    assert np.asarray(inside).all()


def test_points_outside_the_crop_or_the_view_are_told() -> None:
    matrix = np.array([[[1, 0, 10], [0, 1, 0]]], np.float32)
    shifted = views.View(images=None, matrix=jnp.asarray(matrix), mirrored=jnp.zeros(1, bool))
    still = dataclasses.replace(shifted, matrix=jnp.asarray([[[1.0, 0, 0], [0, 1, 0]]]))
    at = jnp.asarray([[[9.0, 30], [10, 30], [60, 30]]])  # x = -1, 0 and 50 in the crop
    moved, _, inside = views.in_other_view(at, jnp.ones((1, 3)), shifted, still, TASK)
    np.testing.assert_allclose(moved[0, :, 0], [-1, 0, 50])
    np.testing.assert_array_equal(inside, [[False, True, True]])
    _, _, inside = views.in_other_view(at, jnp.ones((1, 3)), still, shifted, TASK)
    np.testing.assert_array_equal(inside, [[True, True, False]])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_threshold_lets_the_share_pass(share: float) -> None:
    values = RNG.permutation(np.linspace(0.1, 0.9, 20)).reshape(4, 5).astype(np.float32)
    chosen = values > np.asarray(views.share_threshold(jnp.asarray(values), share))
    assert chosen.sum() == share * 20
    assert not chosen.any() or values[chosen].min() > np.max(values[~chosen], initial=0.0)
    assert float(views.share_threshold(jnp.zeros((4, 5)), share)) == 0.0


def test_points_and_confidences_are_read_off_maps() -> None:
    at = jnp.asarray([[[3.3, 5.8], [7.0, 2.25]]])
    maps = 0.7 * heatmaps.gaussian_maps(at, (16, 16), sigma=1.5)
    points, confidence = views.read(maps, GRID)
    np.testing.assert_allclose(points, (np.asarray(at) + 0.5) * 4 - 0.5, atol=1e-3)
    np.testing.assert_allclose(confidence, np.asarray(maps).max((1, 2)))
    points, confidence = views.read(jnp.zeros((1, 16, 16, 2)), GRID)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(confidence, 0.0)


def test_a_candidate_is_covered_by_a_patch_of_its_image() -> None:
    n, side = 40, 5
    images = RNG.normal(size=(n, 20, 20, 3)).astype(np.float32)
    points = RNG.uniform(0, 19, (n, 3, 2)).astype(np.float32)
    candidates = np.zeros((n, 3), bool)
    candidates[:30, 1] = True
    found = np.asarray(
        views.occluded(
            jax.random.key(0),
            *map(jnp.asarray, (images, np.arange(n), points, candidates)),
            side=side,
            probability=0.5,
        )
    )
    changed = (found != images).any((1, 2, 3))
    assert 8 <= changed[:30].sum() <= 22
    assert not changed[30:].any()
    for i in np.flatnonzero(changed):
        rows, columns = (np.flatnonzero((found[i] != images[i]).any((axis, 2))) for axis in (1, 0))
        x, y = np.round(points[i, 1]).astype(int)
        (left, right), (top, bottom) = (np.clip([v - side // 2, v - side // 2 + side], 0, 20) for v in (x, y))
        assert top <= y < bottom
        assert left <= x < right
        assert (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1) == (left, right, top, bottom)
        patch = found[i, top:bottom, left:right]
        windows = np.lib.stride_tricks.sliding_window_view(images[i], patch.shape)[:, :, 0]
        assert (windows == patch).all((2, 3, 4)).any()


def test_a_point_outside_covers_what_reaches_in() -> None:
    images = RNG.normal(size=(4, 20, 20, 3)).astype(np.float32)
    points = jnp.asarray([[[-2.0, 10]], [[40, 10]], [[-1e6, 3]], [[10, 21]]])
    found = views.occluded(
        jax.random.key(0), jnp.asarray(images), jnp.arange(4), points, jnp.ones((4, 1), bool), side=6, probability=1.0
    )
    changed = (np.asarray(found) != images).any(-1)
    np.testing.assert_array_equal(changed.sum((1, 2)), [6, 0, 0, 12])
    assert changed[0, 7:13, :1].all()
    assert changed[3, 18:, 7:13].all()


def test_the_average_rises_to_its_decay() -> None:
    for step, expected in ((0, 0.0), (1, 0.5), (9, 0.9), (5000, 0.99)):
        assert float(views.rising(jnp.int32(step), 0.99)) == pytest.approx(expected)
        assert float(views.constant(jnp.int32(step), 0.99)) == pytest.approx(0.99)
    moved = views.ema_update({"w": jnp.asarray(2.0)}, {"w": jnp.asarray(4.0)}, jnp.asarray(0.75))
    assert float(moved["w"]) == 2.5
