"""Networks of relation distillation beside their description in NumPy."""

import functools
import itertools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxpose.models import functional, relations
from jaxpose.ops import convolution

CHANNELS, LATENT, WIDTH = 3, 4, 1 / 16
SIZE = (5, 6)


@functools.cache
def regressor(dtype: Any = jnp.float32) -> functional.Network:
    made = functools.partial(relations.PoseRegressor, inputs=CHANNELS, size=SIZE, latent=LATENT, bound=2.0, width=WIDTH)
    return functional.network(made, dtype=dtype)


@functools.cache
def filled(network: functional.Network) -> Any:
    rng = np.random.default_rng(1)
    shapes, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert stats == {}

    def fill(s: Any) -> jax.Array:
        return jnp.asarray(rng.normal(size=s.shape) / np.sqrt(np.prod(s.shape[:-1]) / 2), jnp.float32)

    return jax.tree.map(fill, shapes)


def applied(network: functional.Network, x: np.ndarray) -> Any:
    x32 = jnp.asarray(x, jnp.float32)
    return jax.jit(functools.partial(network.apply, train=True))(filled(network), {}, x32)[0]


def affine(made: Any, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(made["kernel"], np.float64) + np.asarray(made["bias"])


def three_layers(params: Any, x: np.ndarray) -> np.ndarray:
    return affine(params["layer3"], naive.relu(affine(params["layer2"], naive.relu(affine(params["layer1"], x)))))


@functools.cache
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *SIZE, CHANNELS))


def test_regression_equals_its_description() -> None:
    params, x = filled(regressor()), features()
    for number in range(4):
        x = naive.relu(naive.conv(x, params["convs"][str(number)]))
        x = x if number else x[:, ::2, ::2]  # a stride only leaves out
    assert x.shape == (3, 3, 3, 4)
    expected = naive.relu(affine(params["embedding"], x.reshape(3, -1)))
    y = expected
    for number in range(3):
        y = naive.relu(affine(params["hidden"][str(number)], y))
    z, embedding = applied(regressor(), features())
    assert embedding.shape == (3, relations.embedding_size(WIDTH))
    latent = 2 * np.tanh(affine(params["latent"], y) / 2)
    assert min(expected.std(axis=0).max(), latent.std(axis=0).max()) > 0.1  # images differ
    np.testing.assert_allclose(embedding, expected, atol=1e-5)
    np.testing.assert_allclose(z, latent, atol=1e-5)


def test_clips_are_batches_of_frames() -> None:
    z, embedding = applied(regressor(), features())
    of_clips = applied(regressor(), features()[None])
    np.testing.assert_allclose(of_clips[0][0], z, atol=1e-6)
    np.testing.assert_allclose(of_clips[1][0], embedding, atol=1e-6)


def test_only_convolutions_are_computed_in_the_narrow_type() -> None:
    with mock.patch.object(convolution, "conv2d", wraps=convolution.conv2d) as calls:
        z, embedding = applied(regressor(jnp.bfloat16), features())
    assert [call.args[0].dtype for call in calls.call_args_list] == [jnp.bfloat16] * 4
    assert z.dtype == embedding.dtype == jnp.float32
    np.testing.assert_allclose(z, applied(regressor(), features())[0], atol=0.1)


def test_published_sizes() -> None:
    """On features of a ResNet's third layer of 224 pixels."""

    def affine(*sizes: int) -> int:
        return sum((a + 1) * b for a, b in itertools.pairwise(sizes))

    made = functional.network(functools.partial(relations.PoseRegressor, inputs=1024, size=(14, 14)))
    convolutions = sum((9 * a + 1) * b for a, b in ((1024, 512), (512, 256), (256, 128), (128, 64)))
    assert naive.count(made) == convolutions + affine(7 * 7 * 64, 1024, 512, 256, 128, 32)
    assert relations.embedding_size(1.0) == 1024
    relation = functional.network(functools.partial(relations.RelationNetwork, inputs=128, outputs=128))
    assert naive.count(relation) == affine(128, 1024, 512, 128)
    projection = functional.network(functools.partial(relations.Projection, inputs=1024))
    assert naive.count(projection) == affine(1024, 512, 256, 128)


def test_relations_are_three_layers_and_bounded() -> None:
    made = functools.partial(relations.RelationNetwork, inputs=LATENT, outputs=LATENT, bound=3.0, width=WIDTH)
    network, x = functional.network(made), np.random.default_rng(2).normal(size=(2, 5, LATENT))
    expected = 3 * np.tanh(three_layers(filled(network), x) / 3)
    np.testing.assert_allclose(applied(network, x), expected, atol=1e-5)


def test_projections_have_length_one_and_finite_gradients_where_there_is_nothing() -> None:
    network = functional.network(functools.partial(relations.Projection, inputs=6, outputs=5, width=WIDTH))
    x = np.random.default_rng(3).normal(size=(7, 6))
    expected = three_layers(filled(network), x)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(applied(network, x), expected, atol=1e-5)
    nothing = jax.tree.map(jnp.zeros_like, filled(network))
    slope = jax.grad(lambda p: jnp.sum(network.apply(p, {}, jnp.ones((1, 6)), train=True)[0]))(nothing)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_new_regressor_is_undecided_and_tells_images_apart(scale: float) -> None:
    """Neither is the bound's slope 0, nor is what is left of the input after nine layers."""
    made = functools.partial(relations.PoseRegressor, inputs=16, size=(6, 6), latent=8, width=1 / 8)
    network = functional.network(made)
    params, _ = jax.jit(network.init)(jax.random.key(0))
    x = scale * jnp.abs(jax.random.normal(jax.random.key(1), (16, 6, 6, 16)))
    (z, _), _ = jax.jit(functools.partial(network.apply, train=True))(params, {}, x)
    assert float(jnp.max(jnp.abs(z))) < 0.95
    assert float(jnp.mean(jnp.std(z, axis=0))) > 1e-3 * scale
