"""Decoding beside naive versions of what the papers and their codes do, and on Gaussians whose place is known."""

from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxpose.ops import decoding, heatmaps

H, W = 24, 32


def gaussians(points: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """Maps (B, H, W, K) of points (B, K, 2)."""
    y, x = np.mgrid[:H, :W][..., None]
    squared = (x - points[:, None, None, :, 0]) ** 2 + (y - points[:, None, None, :, 1]) ** 2
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def noisy(seed: int) -> np.ndarray:
    """Maps with a peak anywhere, borders and corners included, and something everywhere."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-1, -1), (W, H), (6, 20, 2))
    points[0, :4] = [[0, 0], [W - 1, H - 1], [1, 5], [W - 2, H - 3]]
    points[1, :4] = [[2, 2], [W - 3, H - 3], [W - 2, 9], [3, H - 2]]
    return gaussians(points) + rng.uniform(0, 0.02, (6, H, W, 20)).astype(np.float32)


def peak(one: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(np.argmax(one), one.shape)
    return int(x), int(y)


def naive_quarter(one: np.ndarray) -> np.ndarray:
    x, y = peak(one)
    at = np.array([x, y], float)
    if 1 < x < W - 1 and 1 < y < H - 1:
        at += 0.25 * np.sign([one[y, x + 1] - one[y, x - 1], one[y + 1, x] - one[y - 1, x]])
    return at


def opencv_blur(one: np.ndarray, kernel: int) -> np.ndarray:
    """With zeros around, and OpenCV's own choice of the width."""
    border = kernel // 2
    return cv2.GaussianBlur(np.pad(one.astype(np.float64), border), (kernel, kernel), 0)[border:-border, border:-border]


def naive_dark(one: np.ndarray) -> np.ndarray:
    x, y = peak(one)
    log = np.log(np.maximum(opencv_blur(one, 11), 1e-10))
    at = np.array([x, y], float)
    if 1 < x < W - 2 and 1 < y < H - 2:
        gradient = np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]]) / 2
        dxx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
        dyy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
        dxy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
        hessian = np.array([[dxx, dxy], [dxy, dyy]])
        if np.linalg.det(hessian) != 0:
            at -= np.linalg.solve(hessian, gradient)
    return at


def naive_udp(one: np.ndarray) -> np.ndarray:
    x, y = peak(one)
    log = np.pad(np.log(np.clip(opencv_blur(one, 11), 1e-3, 50)), 1, mode="edge")
    a = log[y : y + 3, x : x + 3]  # of the pixel and those around it
    gradient = np.array([a[1, 2] - a[1, 0], a[2, 1] - a[0, 1]]) / 2
    dxx, dyy = a[1, 2] - 2 * a[1, 1] + a[1, 0], a[2, 1] - 2 * a[1, 1] + a[0, 1]
    dxy = 0.5 * (a[2, 2] - a[1, 2] - a[2, 1] + 2 * a[1, 1] - a[1, 0] - a[0, 1] + a[0, 0])
    hessian = np.array([[dxx, dxy], [dxy, dyy]])
    return np.array([x, y]) - np.linalg.solve(hessian + np.finfo(np.float32).eps * np.eye(2), gradient)


WAYS: dict[str, tuple[Callable[[jax.Array], jax.Array], Callable[[np.ndarray], np.ndarray], float]] = {
    "quarter": (decoding.quarter_points, naive_quarter, 0.25),
    "dark": (decoding.dark_points, naive_dark, 0.01),
    "udp": (decoding.udp_points, naive_udp, 0.01),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_points_are_those_of_a_naive_version(way: str) -> None:
    decode, naive, _ = WAYS[way]
    maps = noisy(3)
    found = np.asarray(jax.jit(decode)(jnp.asarray(maps)))
    expected = np.array([[naive(maps[b, :, :, k]) for k in range(20)] for b in range(6)])
    np.testing.assert_allclose(found, expected, atol=2e-2 if way == "udp" else 2e-3)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_gaussians_are_found_where_they_are(way: str) -> None:
    """To a quarter of a pixel, or almost exactly, where a whole pixel is half a one off."""
    decode, _, bound = WAYS[way]
    points = np.random.default_rng(1).uniform((8, 8), (W - 9, H - 9), (4, 200, 2))
    maps = jnp.asarray(gaussians(points))
    error = np.abs(np.asarray(jax.jit(decode)(maps)) - points)
    assert error.max() < bound + 1e-3
    assert np.abs(np.asarray(heatmaps.argmax_points(maps)) - points).max() > 0.45


@pytest.mark.parametrize("kernel", [11, 17])
def test_blur_is_opencvs_with_zeros_around(kernel: int) -> None:
    maps = np.random.default_rng(2).uniform(0, 1, (1, H, W, 2)).astype(np.float32)
    found = decoding.blurred(jnp.asarray(maps), kernel)
    expected = np.stack([opencv_blur(maps[0, :, :, k], kernel) for k in range(2)], axis=-1)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_maps_without_a_peak_have_finite_points(way: str) -> None:
    maps = np.zeros((1, H, W, 2), np.float32)
    maps[..., 1] = 0.3
    assert np.isfinite(WAYS[way][0](jnp.asarray(maps))).all()


def test_separable_soft_argmax_is_the_formula() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 3)) * 4
    expected = np.empty((2, 3, 2))
    for b, k in np.ndindex(2, 3):
        columns, rows = maps[b, :, :, k].mean(0), maps[b, :, :, k].mean(1)
        expected[b, k] = [special.softmax(line) @ np.linspace(-1, 1, len(line)) for line in (columns, rows)]
    found = decoding.separable_soft_argmax(jnp.asarray(maps, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_separable_soft_argmax_of_one_bright_pixel_is_that_pixel() -> None:
    maps = jnp.zeros((1, 9, 5, 1)).at[0, 2, 3, 0].set(1e4)
    np.testing.assert_allclose(decoding.separable_soft_argmax(maps), [[[0.5, -0.5]]], atol=1e-6)
