"""The network that reads points from pictures of skeletons beside its description in NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
from scipy import special

from jaxpose.models import functional, layers, pose_reader

SIZE = (16, 24)
TINY = functools.partial(pose_reader.PoseReader, inputs=2, joints=3, width=1 / 16)


@functools.cache
def tiny() -> functional.Network:
    return functional.network(TINY)


@functools.cache
def pictures() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, *SIZE, 2)).astype(np.float32)


def instance_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)


def described(params: Any, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    for number in range(8):
        x = naive.conv(x, params["encoder"]["convs"][str(number)]["0"])
        x = x[:, ::2, ::2] if number in (2, 4, 6) else x
        x = naive.relu(instance_norm(x))
    maps = naive.conv(x, params["maps"])
    assert maps.shape[1:3] == (2, 3)
    columns, rows = special.softmax(maps.mean(1), axis=1), special.softmax(maps.mean(2), axis=1)
    return np.stack([np.einsum("bwj,w", columns, [-1, 0, 1]), np.einsum("bhj,h", rows, [-1, 1])], axis=-1)


def test_points_equal_the_description() -> None:
    params, stats = naive.filled(tiny())
    assert not jax.tree.leaves(stats)

    def loss(params, x):
        points, _ = tiny().apply(params, stats, x, train=True)
        return jnp.sum(points[..., 0] - 2 * points[..., 1]), points

    gradient, points = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, pictures())
    expected = described(params, pictures())
    assert expected.std() > 0.05
    np.testing.assert_allclose(points, expected, atol=2e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all()
        # The softmax does not see a bias of its maps.
        np.testing.assert_equal(float(jnp.abs(leaf).max()) > 1e-6, path[-1] != jax.tree_util.DictKey("bias"))


def test_the_published_network_has_its_parameters() -> None:
    channels = [3, 32, 32, 64, 64, 128, 128, 256, 256]
    kernels = sum((49 if i == 0 else 9) * channels[i] * channels[i + 1] for i in range(8))
    found = naive.count(functional.network(functools.partial(pose_reader.PoseReader, inputs=3, joints=15)))
    assert found == kernels + 15 * (256 + 1)


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    shapes = jax.eval_shape(tiny().init, jax.random.key(0))
    with pytest.raises(ValueError, match="encoder: found images of 16x20 pixels, expected multiples of 8"):
        jax.eval_shape(functools.partial(tiny().apply, train=False), *shapes, jnp.zeros((1, 16, 20, 2)))


def test_instance_normalisation_of_even_and_narrow_images() -> None:
    even = jnp.full((2, 4, 4, 3), 7.0)
    normalise = functools.partial(layers.InstanceNorm(3, dtype=jnp.float32), train=True)
    np.testing.assert_array_equal(normalise(even), 0)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(normalise(x) ** 2))(even)).all()
    narrow = layers.InstanceNorm(3, dtype=jnp.bfloat16)
    x = 1000 + np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    found = narrow(jnp.asarray(x, jnp.float32), train=False)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), instance_norm(x), atol=0.02)
