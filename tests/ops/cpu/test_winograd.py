import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxpose.ops.cpu import winograd

CONV = jax.jit(winograd.conv3x3)


def relative(found: jax.Array, expected: np.ndarray | jax.Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (1, 4, 4, 5)])
def test_equals_the_direct_sum(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[-1], 2))
    expected = np.zeros((*shape[:3], 2))
    for b in range(shape[0]):
        for o in range(2):
            for i in range(shape[-1]):
                expected[b, ..., o] += signal.correlate2d(x[b, ..., i], kernel[..., i, o], mode="same")
    found = CONV(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    assert relative(found, expected) < 1e-5


def test_gradients_are_those_of_the_convolution() -> None:
    rng = np.random.default_rng(1)
    x, kernel, dy = (
        jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, 8, 4, 3), (3, 3, 3, 5), (2, 8, 4, 5))
    )

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def gradients(function):
        return jax.jit(lambda *a: jax.vjp(function, *a[:2])[1](a[2]))(x, kernel, dy)

    expected, found = (gradients(function) for function in (direct, winograd.conv3x3))
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 1e-5


def test_the_error_stays_small_over_many_channels() -> None:
    rng = np.random.default_rng(2)
    x, kernel = rng.standard_normal((1, 8, 8, 256)), rng.standard_normal((3, 3, 256, 4))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    found = CONV(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    assert relative(found, exact) < 1e-5
