import cv2
import jax.numpy as jnp
import numpy as np

from jaxpose.ops import affine


def example(size: int = 32) -> jnp.ndarray:
    return affine.similarity(
        rotation=jnp.array([0.4, -1.0]),
        scale=jnp.array([1.3, 0.8]),
        translation=jnp.array([[2.0, -3.0], [0.5, 4.0]]),
        mirror=jnp.array([1.0, -1.0]),
        size=size,
    )


def test_inverse_composes_to_the_identity() -> None:
    matrix = example()
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 32, (2, 5, 2)), jnp.float32)
    back = affine.apply(affine.invert(matrix), affine.apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_similarity_mirrors_about_the_centre_then_rotates_scales_and_moves() -> None:
    """A point one pixel right of the centre, mirrored to its left, turned by 90 degrees to above it, doubled, moved."""
    matrix = affine.similarity(
        rotation=jnp.array([np.pi / 2]),
        scale=jnp.array([2.0]),
        translation=jnp.array([[3.0, 0.0]]),
        mirror=jnp.array([-1.0]),
        size=11,
    )
    found = affine.apply(matrix, jnp.array([[[6.0, 5.0], [5.0, 5.0]]]))
    np.testing.assert_allclose(found[0], [[8.0, 3.0], [8.0, 5.0]], atol=1e-5)


def test_warp_equals_opencv() -> None:
    image = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    matrix = example()
    found = affine.warp(jnp.asarray(image), matrix)
    for i in range(2):
        expected = cv2.warpAffine(image[i].astype(np.float32), np.asarray(matrix[i]), (32, 32), flags=cv2.INTER_LINEAR)
        # OpenCV rounds positions to 1/32 of a pixel.
        assert np.abs(np.asarray(found[i]) - expected).max() < 255 / 32 * 2 + 1
        assert np.abs(np.asarray(found[i]) - expected).mean() < 2.5


def test_points_move_with_the_image() -> None:
    image = np.zeros((2, 33, 33, 3), np.uint8)
    image[:, 12:15, 18:21] = 255
    matrix = example(33)
    warped = np.asarray(affine.warp(jnp.asarray(image), matrix))[..., 0]
    where = np.asarray(affine.apply(matrix, jnp.full((2, 1, 2), jnp.array([19.0, 13.0]))))[:, 0]
    for i in range(2):
        y, x = (np.average(grid, weights=warped[i]) for grid in np.mgrid[:33, :33])
        np.testing.assert_allclose([x, y], where[i], atol=0.15)
