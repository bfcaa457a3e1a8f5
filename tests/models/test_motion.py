"""The motion network beside its description in NumPy."""

import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxpose.models import functional, motion
from jaxpose.ops import convolution

BONES, DEPTH, SIZE = 2, 2, (8, 12)
TINY = functools.partial(motion.MotionNetwork, bones=BONES, width=2, depth=DEPTH, most=6)


@functools.cache
def tiny() -> functional.Network:
    return functional.network(TINY)


@functools.cache
def inputs() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (2, *SIZE, 3 + 2 * BONES)).astype(np.float32)


def described(params: Any, stats: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def step(name: str, x: np.ndarray) -> np.ndarray:
        return naive.conv_norm_relu(x, params[name], stats and stats[name])

    x = x.astype(np.float64)
    half = naive.halved(step("down0", x))
    quarter = naive.halved(step("down1", half))
    y = np.concatenate([step("up1", naive.doubled(quarter)), half], axis=-1)
    y = np.concatenate([step("up0", naive.doubled(y)), x], axis=-1)
    logits = naive.conv(y, params["heads"])
    masks = np.exp(logits[..., : BONES + 1])
    return masks / masks.sum(-1, keepdims=True), naive.sigmoid(logits[..., BONES + 1 :])


@functools.cache
def trained() -> tuple[Any, Any, Any]:
    """Outputs and new statistics of a training step, and the gradient of numbers that depend on all outputs."""
    params, stats = naive.filled(tiny())

    def loss(params, x):
        (masks, inpainting), new = tiny().apply(params, stats, x, train=True)
        uneven = jnp.asarray(np.random.default_rng(2).normal(size=masks.shape), jnp.float32)
        return jnp.sum(masks * uneven) + jnp.sum(inpainting), ((masks, inpainting), new)

    gradient, (outputs, new) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, jnp.asarray(inputs()))
    return outputs, new, gradient


def test_outputs_equal_the_description() -> None:
    params, stats = naive.filled(tiny())
    (masks, inpainting), kept = jax.jit(functools.partial(tiny().apply, train=False))(params, stats, inputs())
    expected = described(params, stats, inputs())
    assert min(e.std() for e in expected) > 0.05
    np.testing.assert_allclose(masks, expected[0], atol=2e-6)
    np.testing.assert_allclose(inpainting, expected[1], atol=2e-6)
    np.testing.assert_allclose(jnp.sum(masks, axis=-1), 1, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, kept, stats)


def test_training_normalises_by_the_batch_and_remembers_it() -> None:
    (masks, inpainting), new, _ = trained()
    params, stats = naive.filled(tiny())
    expected = described(params, None, inputs())
    np.testing.assert_allclose(masks, expected[0], atol=5e-6)
    np.testing.assert_allclose(inpainting, expected[1], atol=5e-6)
    first = naive.conv(inputs().astype(np.float64), params["down0"]["0"])
    for name, found in (("mean", first.mean((0, 1, 2))), ("var", first.var((0, 1, 2)))):
        running = 0.9 * np.asarray(stats["down0"]["1"][name]) + 0.1 * found
        np.testing.assert_allclose(new["down0"]["1"][name], running, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_array_less(0, np.abs(np.asarray(a - b))), new, stats)


def test_every_parameter_and_the_input_have_a_gradient() -> None:
    for leaf in jax.tree.leaves(trained()[2]):
        assert np.isfinite(leaf).all()
        assert float(jnp.abs(leaf).max()) > 0


def test_the_published_network_has_its_parameters() -> None:
    bones = 20
    assert naive.count(functional.network(functools.partial(motion.MotionNetwork, bones=bones))) == sum(
        [
            # 3x3 kernels, scales and offsets: down ...
            9 * (3 + 2 * bones) * 128 + 2 * 128,
            9 * 128 * 256 + 2 * 256,
            9 * 256 * 512 + 2 * 512,
            9 * 512 * 1024 + 2 * 1024,
            9 * 1024 * 1024 + 2 * 1024,
            # ... and up, from twice the channels but at the bottom.
            9 * 1024 * 1024 + 2 * 1024,
            9 * 2048 * 512 + 2 * 512,
            9 * 1024 * 256 + 2 * 256,
            9 * 512 * 128 + 2 * 128,
            9 * 256 * 64 + 2 * 64,
            # 7x7 heads of the last features and the input.
            (49 * (64 + 3 + 2 * bones) + 1) * (bones + 1),
            (49 * (64 + 3 + 2 * bones) + 1) * 1,
        ]
    )


def test_a_new_network_is_undecided() -> None:
    """Slopes of softmax and sigmoid do not vanish."""
    network = functional.network(functools.partial(motion.MotionNetwork, bones=BONES, width=32, depth=1))

    @jax.jit
    def outputs(key):
        return network.apply(*network.init(key), jnp.asarray(inputs()), train=True)[0]

    masks, inpainting = outputs(jax.random.key(0))
    assert float(jnp.mean(masks > 0.9)) < 0.05
    assert float(jnp.mean(jnp.abs(inpainting - 0.5) > 0.4)) < 0.05


@pytest.mark.parametrize("size", [(8, 10), (6, 12)])
def test_sizes_that_cannot_be_halved_are_refused(size: tuple[int, int]) -> None:
    shapes = jax.eval_shape(tiny().init, jax.random.key(0))
    message = rf"motion: found maps of {size[0]}x{size[1]} pixels, expected multiples of 4"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(tiny().apply, train=False), *shapes, jnp.zeros((1, *size, 7)))


def test_narrow_dtype_is_what_convolutions_compute_in_and_nothing_else() -> None:
    narrow = functional.network(TINY, dtype=jnp.bfloat16)
    params, stats = naive.filled(narrow)
    with mock.patch.object(convolution, "conv2d", wraps=convolution.conv2d) as calls:
        outputs, _ = jax.jit(functools.partial(narrow.apply, train=True))(params, stats, inputs())
    assert len(calls.call_args_list) == 2 * DEPTH + 1
    assert {x.dtype for call in calls.call_args_list for x in call.args[:2]} == {jnp.dtype(jnp.bfloat16)}
    masks, inpainting = outputs
    assert masks.dtype == inpainting.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(masks, axis=-1), 1, atol=1e-6)
    for found, expected in zip(outputs, trained()[0], strict=True):
        np.testing.assert_allclose(found, expected, atol=0.1)
