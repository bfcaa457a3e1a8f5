import jax.numpy as jnp
import numpy as np

from jaxpose.ops import affine, heatmaps


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


def test_composition_applies_the_inner_map_first() -> None:
    points = jnp.asarray(np.random.default_rng(3).uniform(0, 32, (2, 5, 2)), jnp.float32)
    outer, inner = example(), example(20)
    expected = affine.apply(outer, affine.apply(inner, points))
    np.testing.assert_allclose(affine.apply(affine.compose(outer, inner), points), expected, atol=1e-4)


def test_maps_on_heatmaps_are_maps_of_image_pixels() -> None:
    points = jnp.asarray(np.random.default_rng(4).uniform(0, 32, (2, 5, 2)), jnp.float32)
    expected = heatmaps.image_to_heatmap(affine.apply(example(), points), 4.0)
    found = affine.apply(affine.on_heatmaps(example(), 4.0), heatmaps.image_to_heatmap(points, 4.0))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_shear_moves_what_lies_below_the_middle_left() -> None:
    matrix = affine.shear(jnp.deg2rad(jnp.asarray([45.0])), 11)
    moved = affine.apply(matrix, jnp.asarray([[[5.0, 5.0], [5.0, 8.0], [2.0, 1.0]]]))
    np.testing.assert_allclose(moved[0], [[5, 5], [2, 8], [6, 1]], atol=1e-5)
