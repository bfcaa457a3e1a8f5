import jax
import jax.numpy as jnp
import pytest

from jaxpose.ops.convolution import conv2d, deconv2d
from jaxpose.train import flops


def counted(function, *shapes: tuple[int, ...]) -> float:
    return flops.count(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_products_and_convolutions_by_hand() -> None:
    assert counted(lambda a, b: a @ b, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    image, kernel = (2, 8, 8, 3), (3, 3, 3, 4)
    # 4 x 4 outputs of 4 channels, each of 9 taps over 3 channels.
    assert counted(lambda x, k: conv2d(x, k, stride=2, padding=1), image, kernel) == 2 * 2 * 16 * 4 * 27
    assert counted(lambda x, k: conv2d(x, k), image, (1, 1, 3, 4)) == 2 * 2 * 64 * 4 * 3


def test_training_costs_three_times_the_forward_pass() -> None:
    image, kernel = (2, 8, 8, 4), (3, 3, 4, 4)
    forward = counted(lambda x, k: conv2d(x, k, padding=1), image, kernel)
    both = counted(jax.grad(lambda x, k: conv2d(x, k, padding=1).sum(), argnums=(0, 1)), image, kernel)
    assert both == 3 * forward


def test_transposed_convolutions_cost_what_the_convolution_costs() -> None:
    # Every input pixel adds a 4 x 4 kernel: 16 multiply-adds per pair of channels.
    needed = 2 * 2 * 25 * 16 * 3 * 6
    image, kernel = (2, 5, 5, 3), (4, 4, 3, 6)
    assert counted(deconv2d, image, kernel) == needed
    assert counted(lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), "SAME"), image, kernel) == needed
    backward = counted(lambda x, k: jax.vjp(deconv2d, x, k)[1](jnp.zeros((2, 10, 10, 6))), image, kernel)
    assert backward == pytest.approx(3 * needed)


def test_loops_and_branches() -> None:
    product = 2 * 4 * 4 * 4

    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=5)[0]

    assert counted(loop, (4, 4)) == 5 * product
    assert counted(lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y, x), (4, 4)) == 2 * product
    assert counted(jax.jit(lambda x: x @ x), (4, 4)) == product
