import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxpose.ops import heatmaps


def naive_gaussian(points: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
    b, k, _ = points.shape
    maps = np.zeros((b, *size, k))
    for i in range(b):
        for y in range(size[0]):
            for x in range(size[1]):
                for j in range(k):
                    r2 = (x - points[i, j, 0]) ** 2 + (y - points[i, j, 1]) ** 2
                    maps[i, y, x, j] = np.exp(-r2 / (2 * sigma**2))
    return maps


def random_points(seed: int, b: int = 2, k: int = 3, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, size, (b, k, 2)).astype(np.float32)


@given(st.floats(-50, 300), st.integers(1, 8))
def test_image_and_heatmap_coordinates_are_inverse(value: float, stride: int) -> None:
    point = jnp.array([value, -value], jnp.float32)
    there = heatmaps.image_to_heatmap(point, float(stride))
    np.testing.assert_allclose(heatmaps.heatmap_to_image(there, float(stride)), point, atol=1e-3)


def test_heatmap_pixel_covers_stride_image_pixels() -> None:
    """The first heatmap pixel of stride 4 covers image pixels 0-3, whose middle is 1.5."""
    np.testing.assert_allclose(heatmaps.heatmap_to_image(jnp.zeros(2), 4.0), [1.5, 1.5])


def test_gaussian_maps_equal_the_formula() -> None:
    points = random_points(0)
    maps = heatmaps.gaussian_maps(jnp.asarray(points), (12, 9), sigma=1.5)
    np.testing.assert_allclose(maps, naive_gaussian(points, (12, 9), 1.5), atol=1e-6)


def test_square_and_circle_supports_are_those_of_the_released_code() -> None:
    centre = jnp.array([[[16.0, 16.0]]])
    square = np.asarray(heatmaps.gaussian_maps(centre, (33, 33), sigma=2.0, support="square"))
    circle = np.asarray(heatmaps.gaussian_maps(centre, (33, 33), sigma=2.0, support="circle"))
    assert (square > 0).sum() == 13 * 13
    assert (circle > 0).sum() == 113
    # Masses computed from exp(-r^2 / 8) by hand: all of the plane, and the 113 pixels.
    assert square.sum() == pytest.approx(25.08, abs=0.01)
    assert circle.sum() == pytest.approx(24.85, abs=0.01)


def test_ground_false_is_the_sum_of_the_others() -> None:
    maps = np.random.default_rng(1).uniform(0, 1, (2, 5, 6, 4)).astype(np.float32)
    expected = np.stack([np.delete(maps, k, axis=-1).sum(-1) for k in range(4)], axis=-1)
    np.testing.assert_allclose(heatmaps.ground_false_maps(jnp.asarray(maps)), expected, atol=1e-6)
    clipped = heatmaps.ground_false_maps(jnp.asarray(maps), clip=True)
    np.testing.assert_allclose(clipped, np.clip(expected, 0, 1), atol=1e-6)


def test_ground_false_of_overlapping_joints_keeps_the_other_joint() -> None:
    points = jnp.array([[[3.0, 3.0], [3.0, 3.0]]])
    maps = heatmaps.gaussian_maps(points, (7, 7), sigma=1.0)
    np.testing.assert_allclose(heatmaps.ground_false_maps(maps), maps, atol=1e-6)


def test_area_false_leaves_out_the_own_pixel() -> None:
    """Equation 15, summed pixel by pixel."""
    area, own, sigma, n = (3, 8), (5, 7), 1.0, 12
    centres = [(x, y) for y in range(area[0], area[1] + 1) for x in range(area[0], area[1] + 1) if (x, y) != own]
    expected = sum(naive_gaussian(np.array([[c]]), (n, n), sigma) for c in centres)
    own_map = heatmaps.gaussian_maps(jnp.array([[own]], jnp.float32), (n, n), sigma=sigma)
    found = heatmaps.area_false_maps(own_map, (3.0, 8.0), sigma=sigma)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_argmax_finds_the_pixel_and_the_released_form_moves_negative_maps_to_the_corner() -> None:
    maps = np.full((1, 5, 6, 2), -3.0, np.float32)
    maps[0, 2, 4, 0] = 1.0
    maps[0, 3, 1, 1] = -1.0
    np.testing.assert_array_equal(heatmaps.argmax_points(jnp.asarray(maps))[0], [[4, 2], [1, 3]])
    np.testing.assert_array_equal(heatmaps.argmax_points_released(jnp.asarray(maps))[0], [[4, 2], [0, 0]])


@given(st.floats(1.0, 10.0), st.floats(1.0, 7.0))
def test_subpixel_is_exact_for_gaussian_logits(x: float, y: float) -> None:
    points = jnp.array([[[x, y]]], jnp.float32)
    yy, xx = np.mgrid[:9, :12]
    logits = -((xx - x) ** 2 + (yy - y) ** 2)[None, ..., None] / 8.0
    found = heatmaps.subpixel_points(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(found, points, atol=2e-3)


def test_subpixel_stays_on_border_pixels_and_flat_maps() -> None:
    maps = np.zeros((1, 4, 4, 2), np.float32)
    maps[0, 0, 3, 0] = 5.0
    found = heatmaps.subpixel_points(jnp.asarray(maps))
    np.testing.assert_array_equal(found[0], [[3, 0], [0, 0]])


def test_rendering_has_finite_gradients_far_outside() -> None:
    points = jnp.array([[[1e4, -1e4]]])
    grad = jax.grad(lambda p: jnp.sum(heatmaps.gaussian_maps(p, (8, 8), sigma=2.0)))(points)
    assert np.isfinite(grad).all()
