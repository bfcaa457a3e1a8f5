"""What several views, and neighbouring frames, say about where points are."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SIZE, K

from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import consensus, views

RNG = np.random.default_rng(0)


def test_views_agree_on_where_the_points_are() -> None:
    """A detector that returns the image's own colours as heatmaps finds the same points in every view."""
    size, stride = 128, 4
    grid = Grid(size=size // stride, stride=float(stride), sigma=1.0)
    points = RNG.uniform(50, 78, (3, K, 2)).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32)[:, None, ..., None]
    squared = (x - points[:, None, None, :, 0]) ** 2 + (y - points[:, None, None, :, 1]) ** 2
    images = np.round(255 * np.exp(-squared / 128)).astype(np.uint8)
    images[2, ..., 1] = 0
    seen = []

    def colours(normalised: jax.Array) -> jax.Array:
        pixels = normalised * jnp.asarray([[[[0.229, 0.224, 0.225]]]]) + jnp.asarray([[[[0.485, 0.456, 0.406]]]])
        seen.append(pixels)
        return jax.image.resize(pixels, (pixels.shape[0], size // stride, size // stride, 3), "linear", antialias=True)

    @jax.jit
    def agreed(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, positions = jax.random.key(0), jnp.asarray([7, 2, 9])
        random = consensus.RandomViews()
        found = consensus.of_views(key, images, positions, grid, random, lambda x: views.plain_maps(colours(x)))
        return *found, seen[-1]

    found, confidence, pixels = agreed(jnp.asarray(images))
    assert len(seen) == 1  # one pass
    moved = np.asarray(pixels).reshape(3, 5, size, size, 3)
    np.testing.assert_allclose(moved[:, 0] * 255, images, atol=1e-3)
    assert np.abs(np.diff(moved, axis=1)).max((2, 3, 4)).min() > 0.1
    visible = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], bool)
    np.testing.assert_allclose(np.asarray(found)[visible], points[visible], atol=0.5)
    assert np.asarray(confidence)[visible].min() > 0.8
    assert np.isfinite(found).all()
    np.testing.assert_allclose(confidence[2, 1], 0.0, atol=1e-6)


def test_random_views_turn_and_scale_about_the_middle_within_their_limits() -> None:
    matrix = np.asarray(consensus._views(jax.random.key(0), jnp.arange(200), SIZE, consensus.RandomViews()))
    np.testing.assert_allclose(matrix[:, 0], np.tile([[1, 0, 0], [0, 1, 0]], (200, 1, 1)), atol=1e-6)
    turned = matrix[:, 1:].reshape(-1, 2, 3)
    scale, degrees = (
        np.hypot(turned[:, 0, 0], turned[:, 1, 0]),
        np.rad2deg(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])),
    )
    assert (scale.min(), scale.max()) == pytest.approx((1 / 1.25, 1 / 0.75), abs=1e-4)
    assert np.abs(degrees).max() == pytest.approx(60, abs=1e-3)
    assert degrees.std() == pytest.approx(30, abs=3)
    middle = np.full(2, (SIZE - 1) / 2)
    np.testing.assert_allclose(turned[:, :, :2] @ middle + turned[:, :, 2], np.tile(middle, (800, 1)), atol=1e-3)


def test_tracked_points_take_over_where_confidence_falls() -> None:
    points, tracked = np.zeros((1, 4, 2), np.float32), np.ones((1, 4, 2), np.float32)
    confidence = np.array([[0.5, 0.5, 0.5, 0.95]], np.float32)
    found = np.array([[True, False, True, True]])
    previous = np.array([[1.0, 1.0, 0.5, 1.0]], np.float32)
    moved, sure = consensus.temporally_consistent(*map(jnp.asarray, (points, confidence, tracked, previous, found)))
    np.testing.assert_array_equal(moved[0, :, 0], [1, 0, 0, 0])
    np.testing.assert_allclose(sure, [[0.9, 0.5, 0.5, 0.95]])


def test_a_frame_takes_labels_over_from_the_one_before_it() -> None:
    size, stride, b = 128, 4, 2
    grid = Grid(size=size // stride, stride=float(stride), sigma=1.0)
    first = RNG.uniform(46, 80, (b, K, 2)).astype(np.float32)
    shift = np.array([[6.0, -3.0], [-4.0, 5.0]], np.float32)[:, None]
    points = np.stack([first, first + shift], axis=1)
    y, x = np.mgrid[:size, :size].astype(np.float32)[:, None, None, ..., None]
    squared = (x - points[:, :, None, None, :, 0]) ** 2 + (y - points[:, :, None, None, :, 1]) ** 2
    pairs = np.round(255 * np.exp(-squared / 128)).astype(np.uint8)

    def forgetful(normalised: jax.Array) -> jax.Array:
        """The image's colours; in second frames joint 1 is weak and elsewhere, joint 2 a little weaker."""
        pixels = normalised * jnp.asarray([[[[0.229, 0.224, 0.225]]]]) + jnp.asarray([[[[0.485, 0.456, 0.406]]]])
        maps = jax.image.resize(pixels, (2 * b, size // stride, size // stride, K), "linear", antialias=True)
        wrong = jnp.stack([maps[..., 0], 0.5 * jnp.roll(maps[..., 1], 8, axis=2), 0.95 * maps[..., 2]], axis=-1)
        return jnp.where((jnp.arange(2 * b) % 2 == 1)[:, None, None, None], wrong, maps)

    still = consensus.RandomViews(count=0)

    @functools.partial(jax.jit, static_argnames="ratio")
    def of_frames(ratio: float) -> tuple[jax.Array, jax.Array]:
        key = jax.random.key(0)
        return consensus.of_frames(key, jnp.asarray(pairs), jnp.arange(b), grid, still, forgetful, ratio=ratio)

    found, confidence = of_frames(ratio=0.9)
    np.testing.assert_allclose(found, points[:, 1], atol=0.6)
    alone, weak = of_frames(ratio=0.0)
    assert np.abs(np.asarray(alone)[:, 1, 0] - points[:, 1, 1, 0]).min() > 20
    np.testing.assert_allclose(np.asarray(alone)[:, [0, 2]], np.asarray(found)[:, [0, 2]])
    np.testing.assert_allclose(np.asarray(confidence)[:, [0, 2]], np.asarray(weak)[:, [0, 2]])
    before, _ = consensus.of_views(
        jax.random.key(0),
        jnp.asarray(pairs[:, 0].repeat(2, axis=0)),
        jnp.arange(b).repeat(2),
        grid,
        still,
        forgetful,
    )
    np.testing.assert_allclose(np.asarray(before)[::2], points[:, 0], atol=0.5)
    assert (np.asarray(confidence)[:, 1] > 1.5 * np.asarray(weak)[:, 1]).all()


def test_a_motion_too_long_to_be_believed_is_not_followed() -> None:
    grid = Grid(size=16, stride=4.0, sigma=1.0)
    frame = cv2.GaussianBlur(RNG.uniform(0, 255, (64, 64, 3)).astype(np.float32), (0, 0), 2)
    frame = np.clip(128 + 6 * (frame - frame.mean()), 0, 255)
    at = np.array([[8.0, 8.0]] * K, np.float32)

    def second(shift: float) -> np.ndarray:
        moved = cv2.warpAffine(frame, np.array([[1, 0, shift], [0, 1, 0.0]]), (64, 64), borderMode=cv2.BORDER_REFLECT)
        return np.stack([frame, moved])[None].astype(np.uint8)

    def sure_first(normalised: jax.Array) -> jax.Array:
        grid = jnp.arange(16.0)
        bump = jnp.exp(-((grid[:, None] - at[0, 1]) ** 2 + (grid[None] - at[0, 0]) ** 2) / 2)
        return bump[None, :, :, None] * jnp.asarray([1.0, 0.5])[:, None, None, None] * jnp.ones((1, 1, 1, K))

    @jax.jit
    def of_frames(pair: jax.Array) -> jax.Array:
        key, still = jax.random.key(0), consensus.RandomViews(count=0)
        return consensus.of_frames(key, pair, jnp.arange(1), grid, still, sure_first, ratio=0.9)[0]

    def found(shift: float) -> np.ndarray:
        return np.asarray(of_frames(jnp.asarray(second(shift))))[0, :, 0]

    here = (8 + 0.5) * 4 - 0.5
    np.testing.assert_allclose(found(3.0), here + 3.0, atol=0.2)
    np.testing.assert_allclose(found(5.0), here, atol=0.2)  # more than 15 of 256 pixels
