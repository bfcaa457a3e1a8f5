"""Adversarial losses against NumPy, and the gradient penalty against a network whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.losses import adversarial
from jaxpose.ops import convolution


@pytest.mark.parametrize("true", [True, False])
def test_logistic_loss_is_the_log_likelihood(true: bool) -> None:
    logits = np.array([-3.0, -0.5, 0.0, 2.0])
    likelihood = 1 / (1 + np.exp(-logits))
    expected = -np.log(likelihood if true else 1 - likelihood)
    found = adversarial.logistic(jnp.asarray(logits, jnp.float32), true=true)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_logistic_loss_saturates_for_no_generator() -> None:
    """Where the discriminator is sure that an image is made, the slope is -1; nothing overflows."""
    value, slope = jax.value_and_grad(lambda x: adversarial.logistic(x, true=True))(jnp.float32(-1e4))
    assert float(value) == 1e4
    assert float(slope) == -1


@pytest.mark.parametrize(("true", "goal"), [(True, 1), (False, 0)])
def test_least_squares_weigh_maps_alike_however_large(true: bool, goal: int) -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 2, 3))]
    expected = [np.mean([((score[b] - goal) ** 2).mean() for score in scores]) for b in range(2)]
    found = adversarial.least_squares([jnp.asarray(score, jnp.float32) for score in scores], true=true)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_r1_is_that_of_every_image() -> None:
    """Of sum(a x^3), whose gradient is 3 a x^2; and its own gradient by a is 2 * sum(9 a x^4)."""
    rng = np.random.default_rng(0)
    weight, images = rng.normal(size=(3, 4, 2)), rng.normal(size=(2, 3, 4, 2))

    def penalty(weight, images):
        return adversarial.r1(lambda x: jnp.sum(weight[None] * x**3, axis=(1, 2, 3)), images)

    arguments = jnp.asarray(weight, jnp.float32), jnp.asarray(images, jnp.float32)
    np.testing.assert_allclose(penalty(*arguments), ((3 * weight * images**2) ** 2).sum((1, 2, 3)), rtol=1e-5)
    slope = jax.grad(lambda weight: jnp.sum(penalty(weight, arguments[1])))(arguments[0])
    np.testing.assert_allclose(slope, (2 * 9 * weight * images**4).sum(0), rtol=1e-4)


def test_r1_goes_twice_through_a_convolution_in_each_of_its_forms() -> None:
    """Of a quadratic form in a convolution's outputs: 64 channels and 1024 pixels go through a transform on CPU."""
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(1, 32, 32, 64)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 64)) / 24, jnp.float32)

    def plain(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    def penalty(conv):
        def value(kernel):
            return jnp.sum(adversarial.r1(lambda x: jnp.sum(conv(x, kernel) ** 2, axis=(1, 2, 3)), images))

        return jax.jit(jax.value_and_grad(value))(kernel)

    found = penalty(lambda x, kernel: convolution.conv2d(x, kernel, padding=1))
    expected = penalty(plain)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-3 * float(jnp.abs(expected[1]).max()))
