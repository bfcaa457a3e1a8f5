"""Losses on images beside SciPy's Gaussian and a VGG-19 step by step."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
from scipy import ndimage

from jaxpose.losses import perceptual
from jaxpose.models import functional, vgg

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pictures(seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Noise with structure at all scales."""
    rng = np.random.default_rng(seed)

    def noise(n: int) -> np.ndarray:
        coarse = rng.uniform(0, 1, (2, 1 + size[0] // n, 1 + size[1] // n, 3))
        return np.asarray(ndimage.zoom(coarse, (1, n, n, 1), order=1))[:, : size[0], : size[1]]

    return np.mean([noise(n) for n in (1, 4, 8)], axis=0).astype(np.float32)


def smaller(images: np.ndarray, step: int) -> np.ndarray:
    if step == 1:
        return images.astype(np.float64)
    sigma = (step - 1) / 2
    radius = round(4 * sigma)
    blurred = ndimage.gaussian_filter(
        images.astype(np.float64), (0, sigma, sigma, 0), mode="nearest", radius=(0, radius, radius, 0)
    )
    return blurred[:, ::step, ::step]


def activations(params: Any, images: np.ndarray) -> list[np.ndarray]:
    """relu1_1 to relu5_1."""
    x, found = (images - MEAN) / STD, []
    for number in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28):
        if number in (5, 10, 19, 28):
            h, w = (n // 2 * 2 for n in x.shape[1:3])
            x = np.max([x[:, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)], axis=0)
        x = naive.relu(naive.conv(x, params["features"][str(number)]))
        if number in (0, 5, 10, 19, 28):
            found.append(x)
    return found


def mean_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(x - y).mean((1, 2, 3))


def shifted(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two activations that are quick to compute."""
    return x, x[:, 1:] * x[:, :-1]


@pytest.mark.parametrize("size", [(32, 24), (21, 18), (3, 5)])
def test_pyramids_equal_scipys_gaussian_borders_included(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (2, *size, 4)).astype(np.float32)
    found = perceptual.pyramid(jnp.asarray(images), (1.0, 0.5, 0.25, 0.125, 1 / 3))
    for x, step in zip(found, (1, 2, 4, 8, 3), strict=True):
        np.testing.assert_allclose(x, smaller(images, step), atol=1e-6)


def test_even_colours_stay_as_they_are_to_the_border() -> None:
    for x in perceptual.pyramid(jnp.full((1, 16, 24, 3), 0.7)):
        np.testing.assert_allclose(x, 0.7, atol=1e-6)


@pytest.mark.parametrize("scale", [0.3, 2.0, 0.75])
def test_scales_between_whole_steps_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=rf"pyramid: found a scale of {scale}, expected 1 over a whole number"):
        perceptual.pyramid(jnp.zeros((1, 8, 8, 3)), (1.0, scale))


def test_values_equal_a_vgg_step_by_step() -> None:
    network = functional.network(functools.partial(vgg.VGG, width=1))
    params, _ = naive.filled(network)
    images, wanted, weights = pictures(0), pictures(1), (1.0, 0.5, 2.0, 3.0, 0.25)

    @jax.jit
    def values(images, wanted):
        def features_of(x):
            return network.apply(params, {}, x, train=False)[0]

        return perceptual.perceptual(features_of, images, wanted, scales=(1.0, 0.5), weights=weights)

    expected = np.zeros(2)
    for step in (1, 2):
        both = (activations(params, smaller(x, step)) for x in (images, wanted))
        expected += sum(w * mean_difference(x, y) for w, x, y in zip(weights, *both, strict=True))
    assert np.ptp(expected) > 0.01  # one per image
    np.testing.assert_allclose(values(images, wanted), expected, rtol=2e-5)


def test_all_scales_and_activations_count_alike_at_first() -> None:
    found = perceptual.perceptual(lambda x: (x,) * 5, jnp.asarray(pictures(0)), jnp.asarray(pictures(1)))
    # Normalisation divides, and its mean falls out of differences.
    expected = [5 * mean_difference(*(smaller(pictures(i), n) / STD for i in (0, 1))) for n in (1, 2, 4, 8)]
    np.testing.assert_allclose(found, np.sum(expected, axis=0), rtol=1e-5)


def test_blurred_pixels_equal_scipys() -> None:
    found = perceptual.blurred_pixels(jnp.asarray(pictures(0)), jnp.asarray(pictures(1)), scales=(1.0, 0.25))
    expected = [mean_difference(*(smaller(pictures(i), step) for i in (0, 1))) for step in (1, 4)]
    np.testing.assert_allclose(found, np.sum(expected, axis=0), rtol=1e-5)


def with_shifted(images: jax.Array, wanted: jax.Array, *, scales: Sequence[float]) -> jax.Array:
    return perceptual.perceptual(shifted, images, wanted, scales=scales, weights=(1.0, 1.0))


@pytest.mark.parametrize("loss", [with_shifted, perceptual.blurred_pixels])
def test_only_what_is_made_has_a_gradient(loss: Callable[..., jax.Array]) -> None:
    def total(images, wanted):
        return jnp.sum(loss(images, wanted, scales=(1.0, 0.5)))

    made, wanted = jax.jit(jax.grad(total, argnums=(0, 1)))(jnp.asarray(pictures(0)), jnp.asarray(pictures(1)))
    assert np.isfinite(made).all()
    assert float(jnp.abs(made).min()) > 0
    np.testing.assert_array_equal(wanted, 0)


def test_equal_images_have_no_difference_and_no_gradient() -> None:
    """Of the pixels themselves: behind more arithmetic, rounding decides on signs."""
    images = jnp.asarray(pictures(0))
    value, slope = jax.value_and_grad(lambda x: jnp.sum(perceptual.blurred_pixels(x, images, scales=(1.0,))))(images)
    assert float(value) == 0
    np.testing.assert_array_equal(slope, 0)


def test_activations_of_what_is_wanted_are_not_differentiated() -> None:
    differentiated = []

    @jax.custom_vjp
    def features_of(x):
        return (x,)

    def forward(x):
        differentiated.append(x.shape)
        return (x,), None

    features_of.defvjp(forward, lambda _, y: y)

    def total(images, wanted):
        return jnp.sum(perceptual.perceptual(features_of, images, wanted, scales=(1.0, 0.5), weights=(1.0,)))

    jax.eval_shape(jax.grad(total, argnums=(0, 1)), jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 32, 32, 3)))
    assert differentiated == [(2, 32, 32, 3), (2, 16, 16, 3)]


def test_a_networks_own_parameters_learn_from_what_is_made_alone() -> None:
    images, wanted = jnp.asarray(pictures(0)), jnp.asarray(pictures(1))

    def total(factor):
        return jnp.sum(perceptual.perceptual(lambda x: (factor * x,), images, wanted, scales=(1.0,), weights=(1.0,)))

    made, target = ((pictures(i) - MEAN) / STD for i in (0, 1))
    expected = (np.sign(made - target) * made).mean((1, 2, 3)).sum()
    assert float(jax.grad(total)(jnp.float32(1.0))) == pytest.approx(expected, rel=1e-4)


def test_narrow_activations_are_compared_in_float32() -> None:
    """The difference of 256 and 1.25 is 255 in bfloat16."""

    def narrow(x: jax.Array) -> tuple[jax.Array]:
        return (jnp.where(x > 0, 256.0, 1.25).astype(jnp.bfloat16),)

    images = jnp.ones((1, 8, 8, 3))
    found = perceptual.perceptual(narrow, images, 0 * images, scales=(1.0,), weights=(1.0,))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, 254.75)


def test_every_activation_needs_a_weight() -> None:
    images = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="perceptual: found 5 weights, expected 2, one per activation"):
        perceptual.perceptual(shifted, images, images, scales=(1.0,))
