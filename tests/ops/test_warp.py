import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from platforms import traced_for
from test_affine import example

from jaxpose.ops import affine, warp


def similarity(
    degrees: float, *, scale: float = 1.0, mirror: float = 1.0, move: tuple[float, float] = (0.0, 0.0), size: int
) -> jax.Array:
    return affine.similarity(
        rotation=jnp.deg2rad(jnp.array([degrees])),
        scale=jnp.array([scale]),
        translation=jnp.array([move], jnp.float32),
        mirror=jnp.array([mirror]),
        size=size,
    )


def test_warp_equals_opencv() -> None:
    image = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    matrix = example()
    found = warp.warp(jnp.asarray(image), matrix)
    for i in range(2):
        expected = cv2.warpAffine(image[i].astype(np.float32), np.asarray(matrix[i]), (32, 32), flags=cv2.INTER_LINEAR)
        # OpenCV rounds positions to 1/32 of a pixel.
        assert np.abs(np.asarray(found[i]) - expected).max() < 255 / 32 * 2 + 1
        assert np.abs(np.asarray(found[i]) - expected).mean() < 2.5


def test_warped_maps_equal_opencv() -> None:
    maps = np.random.default_rng(2).normal(size=(2, 20, 24, 2)).astype(np.float32)
    matrix = example(24)
    found = warp.warp_maps(jnp.asarray(maps), matrix)
    for i in range(2):
        expected = cv2.warpAffine(maps[i], np.asarray(matrix[i]), (24, 20), flags=cv2.INTER_LINEAR)
        assert np.abs(np.asarray(found[i]) - expected).max() < 0.3  # OpenCV rounds positions to 1/32 of a pixel
        assert np.abs(np.asarray(found[i]) - expected).mean() < 0.02


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_points_move_with_the_image(platform: str) -> None:
    image = np.zeros((2, 33, 33, 3), np.uint8)
    image[:, 12:15, 18:21] = 255
    matrix = example(33)
    with traced_for(platform):
        warped = np.asarray(warp.warp(jnp.asarray(image), matrix))[..., 0]
    where = np.asarray(affine.apply(matrix, jnp.full((2, 1, 2), jnp.array([19.0, 13.0]))))[:, 0]
    for i in range(2):
        y, x = (np.average(grid, weights=warped[i]) for grid in np.mgrid[:33, :33])
        np.testing.assert_allclose([x, y], where[i], atol=0.15)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("degrees", [0.0, 13.0, 44.9, 45.0, 60.0, 90.0, 135.0, 180.0, -101.0])
@pytest.mark.parametrize(("scale", "move"), [(1.0, (0.0, 0.0)), (0.8, (3.3, -2.6)), (1.3, (-7.1, 4.4))])
def test_shears_show_what_bilinear_interpolation_shows(
    degrees: float, mirror: float, scale: float, move: tuple[float, float]
) -> None:
    """On an image that is smooth for both, everywhere but at its edges, which they soften differently."""
    size = 48
    y, x = np.mgrid[:size, :size] / size
    blob = np.exp(-20 * ((x - 0.6) ** 2 + (y - 0.3) ** 2))
    image = np.stack([128 + 120 * np.sin(5 * x + 3 * y), 255 * x, 255 * blob], axis=-1)
    matrix = similarity(degrees, scale=scale, mirror=mirror, move=move, size=size)
    given = jnp.asarray(image[None], jnp.float32)
    expected = np.asarray(warp.warp_maps(given, matrix)[0])
    shown = np.asarray(warp.warp_maps(jnp.ones_like(given), matrix)[0, ..., 0])
    found = np.asarray(warp.shears(given, matrix)[0])
    inner = cv2.erode((shown > 0.999).astype(np.uint8), np.ones((7, 7)), borderValue=0) > 0
    assert inner.mean() > 0.3
    assert np.abs(found - expected)[inner].max() < 1.5  # of 255
    outside = cv2.dilate((shown > 0).astype(np.uint8), np.ones((9, 9))) == 0
    assert np.abs(found)[outside].max(initial=0.0) < 1e-3


def test_shears_of_nothing_change_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    found = warp.shears(jnp.asarray(image), similarity(0.0, size=32))
    np.testing.assert_allclose(found, image, atol=1e-3)


def test_shears_in_bfloat16_are_off_by_less_than_a_grey_level_on_average() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    matrix = example(64)
    with traced_for("tpu"):
        narrow = warp.warp(jnp.asarray(image), matrix)
    wide = warp.shears(jnp.asarray(image, jnp.float32), matrix)
    error = np.abs(np.asarray(narrow) - np.asarray(wide))
    assert narrow.dtype == jnp.float32
    assert error.mean() < 0.5
    assert error.max() < 4


def test_sheared_images_are_bilinear_on_every_platform() -> None:
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), np.uint8))
    matrix = affine.compose(similarity(40.0, size=24), affine.shear(jnp.deg2rad(jnp.asarray([30.0])), 24))
    found = []
    for platform in ("cpu", "tpu"):
        with traced_for(platform):
            found.append(warp.warp(image, matrix, similar=False))
    np.testing.assert_array_equal(*found)


def test_nearest_maps_take_the_nearest_pixel() -> None:
    maps = np.random.default_rng(2).normal(size=(2, 20, 24, 2)).astype(np.float32)
    matrix = example(24)
    found = np.asarray(warp.nearest_maps(jnp.asarray(maps), matrix))
    for i in range(2):
        inverse = np.linalg.inv(np.vstack([matrix[i], [0, 0, 1]]))
        for y in range(20):
            for x in range(24):
                column, row = np.rint(inverse @ [x, y, 1])[:2].astype(int)
                expected = maps[i, row, column] if 0 <= row < 20 and 0 <= column < 24 else 0
                np.testing.assert_array_equal(found[i, y, x], expected)
    gradient = jax.grad(lambda m: jnp.sum(warp.nearest_maps(m, matrix)))(jnp.asarray(maps))
    np.testing.assert_array_equal(gradient, np.rint(gradient))
    assert float(gradient.sum()) == (found != 0).sum()


def test_warped_maps_carry_gradients_on_every_platform() -> None:
    maps = jnp.asarray(np.random.default_rng(2).random((1, 16, 16, 2)), jnp.float32)
    matrix = similarity(20.0, size=16)
    for platform in ("cpu", "tpu"):
        with traced_for(platform):
            gradient = jax.grad(lambda m: jnp.sum(warp.warp_maps(m, matrix)))(maps)
        assert 0.8 < float(gradient.mean()) < 1.01
