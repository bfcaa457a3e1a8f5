import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxpose.models import functional, layers


def _count(network):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0))[0]))


def _normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _normalised(x, scale=1.0, bias=0.0):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * scale + bias


def test_published_sizes():
    assert _count(functional.upsampling(2048, 256, jnp.float32)) == 10_487_296
    assert _count(functional.keypoint_head(256, 21)) == 5_397
    assert _count(functional.regressor(256, 21, jnp.float32)) == 595_989


@pytest.mark.parametrize(("count", "size"), [(1, 6), (3, 24)])
def test_upsampling_doubles_per_layer_and_ends_normalised(count, size):
    network = functional.upsampling(5, 4, jnp.float32, layers=count)
    params, stats = network.init(jax.random.key(0))
    y, after = network.apply(params, stats, (_normal(0, (2, 3, 3, 5)),), train=True)
    assert y.shape == (2, size, size, 4)
    assert float(y.min()) == 0.0  # ReLU comes last
    assert set(params) == {f"{kind}{i}" for kind in ("deconv", "bn") for i in range(count)}
    assert not np.array_equal(after[f"bn{count - 1}"]["var"], stats[f"bn{count - 1}"]["var"])


def test_heads_start_near_zero_with_deviation_a_thousandth():
    key = jax.random.key(0)
    head = functional.keypoint_head(64, 21).init(key)[0]["conv"]
    regressor = functional.regressor(64, 21, jnp.float32).init(key)[0]
    deconv = functional.upsampling(16, 16, jnp.float32).init(key)[0]["deconv0"]
    for kernel in (
        head["kernel"],
        regressor["conv1"]["kernel"],
        regressor["conv2"]["kernel"],
        deconv["kernel"],
    ):
        assert np.isclose(np.std(kernel), 0.001, rtol=0.1)
    for bias in (head["bias"], regressor["conv1"]["bias"], regressor["conv2"]["bias"]):
        assert not np.any(bias)


def test_keypoint_head_is_a_linear_map_of_each_pixel():
    network = functional.keypoint_head(3, 2)
    params = {"conv": {"kernel": _normal(1, (1, 1, 3, 2)), "bias": _normal(2, (2,))}}
    x = _normal(3, (2, 4, 5, 3))
    y, stats = network.apply(params, {}, x, train=True)
    expected = np.asarray(x) @ np.asarray(params["conv"]["kernel"])[0, 0] + np.asarray(params["conv"]["bias"])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert stats == {}


def test_regressor_equals_its_formula():
    network = functional.regressor(3, 2, jnp.float32)
    params, stats = network.init(jax.random.key(0))
    params = jax.tree.map(lambda p: _normal(p.size, p.shape), params)
    x = _normal(3, (2, 4, 5, 3))
    found, _ = network.apply(params, stats, x, train=True)

    p = jax.tree.map(np.asarray, params)
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    hidden = p["conv1"]["bias"] + sum(
        padded[:, i : i + 4, j : j + 5] @ p["conv1"]["kernel"][i, j] for i in range(3) for j in range(3)
    )
    hidden = np.maximum(_normalised(hidden, p["bn1"]["scale"], p["bn1"]["bias"]), 0)
    expected = hidden @ p["conv2"]["kernel"][0, 0] + p["conv2"]["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


class _OnlyNorm(nnx.Module):
    def __init__(self, *, dtype, rngs):
        del rngs
        self.norm = layers.BatchNorm(3, dtype=dtype)

    def __call__(self, x, train):
        return self.norm(x, train)


@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 6, 3)])
def test_batch_norm_normalises_and_remembers_a_tenth(shape):
    network = functional.network(_OnlyNorm)
    params, stats = network.init(jax.random.key(0))
    x = 3 * _normal(0, shape) + 2
    y, after = network.apply(params, stats, x, train=True)
    np.testing.assert_allclose(y, _normalised(np.asarray(x)), atol=1e-5)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(after["norm"]["mean"], 0.1 * np.mean(x, axes), rtol=1e-5)
    np.testing.assert_allclose(after["norm"]["var"], 0.9 + 0.1 * np.var(x, axes), rtol=1e-5)
    evaluated, same = network.apply(params, after, x, train=False)
    running = jax.tree.map(np.asarray, after["norm"])
    expected = (np.asarray(x) - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)
    assert same is after


def test_batch_norm_gradient_equals_finite_differences():
    network = functional.network(_OnlyNorm)
    params, stats = network.init(jax.random.key(0))
    x, weight = _normal(0, (6, 3)), _normal(1, (6, 3))

    def loss(x):
        return jnp.sum(weight * network.apply(params, stats, x, train=True)[0])

    direction = np.asarray(_normal(2, (6, 3)), np.float64)
    wide = np.asarray(x, np.float64)
    expected = sum(sign * np.sum(np.asarray(weight) * _normalised(wide + sign * 1e-5 * direction)) for sign in (1, -1))
    np.testing.assert_allclose(np.sum(jax.grad(loss)(x) * direction), expected / 2e-5, rtol=1e-4)


def test_batch_norm_survives_a_constant_and_a_far_channel():
    network = functional.network(_OnlyNorm)
    params, stats = network.init(jax.random.key(0))
    x = _normal(0, (64, 3)) * jnp.array([[0.0, 1.0, 1.0]]) + jnp.array([[7.3, 0.0, 1000.0]])
    value, gradient = jax.value_and_grad(lambda x: network.apply(params, stats, x, train=True)[0].sum())(x)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
    # Once the running mean is near, the variance of a channel with a large mean is exact.
    stats = {"norm": {"mean": jnp.array([7.0, 0.0, 990.0]), "var": stats["norm"]["var"]}}
    _, after = network.apply(params, stats, x, train=True)
    np.testing.assert_allclose(after["norm"]["var"][2], 0.9 + 0.1 * np.var(np.asarray(x)[:, 2]), rtol=1e-4)


def test_batch_statistics_are_those_of_the_global_batch():
    network = functional.network(_OnlyNorm)
    params, stats = network.init(jax.random.key(0))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    x = _normal(0, (4, 3)) + jnp.arange(4.0).reshape(4, 1)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    y, after = jax.jit(functools.partial(network.apply, train=True))(params, stats, sharded)
    np.testing.assert_allclose(y, _normalised(np.asarray(x)), atol=1e-5)
    np.testing.assert_allclose(after["norm"]["mean"], 0.1 * np.mean(x, 0), rtol=1e-5)


def test_bfloat16_computes_narrow_but_keeps_parameters_statistics_and_heatmaps_wide():
    upsampling = functional.upsampling(8, 8, jnp.bfloat16, layers=1)
    regressor = functional.regressor(8, 5, jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0))
    params, stats = zip(upsampling.init(keys[0]), regressor.init(keys[1]), strict=True)
    x = _normal(0, (2, 4, 4, 8))

    def loss(params):
        features, up = upsampling.apply(params[0], stats[0], (x,), train=True)
        heatmaps, head = regressor.apply(params[1], stats[1], features, train=True)
        return jnp.square(heatmaps).sum(), (features, heatmaps, (up, head))

    gradients, (features, heatmaps, after) = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert features.dtype == jnp.bfloat16
    assert heatmaps.dtype == jnp.float32
    wide = jax.tree.leaves((params, gradients, after))
    assert {leaf.dtype for leaf in wide} == {jnp.dtype(jnp.float32)}
    assert all(np.all(np.isfinite(leaf)) for leaf in wide)


def test_bfloat16_backbone_is_close_to_float32():
    narrow, wide = (functional.backbone(18, 8, dtype) for dtype in (jnp.bfloat16, jnp.float32))
    params, stats = wide.init(jax.random.key(0))
    images = _normal(0, (2, 32, 32, 3))
    y, _ = jax.jit(functools.partial(narrow.apply, train=False))(params, stats, images)
    expected, _ = jax.jit(functools.partial(wide.apply, train=False))(params, stats, images)
    assert y.dtype == jnp.bfloat16
    error = np.linalg.norm(y.astype(jnp.float32) - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.05


def test_network_is_a_pure_function_of_plain_dicts():
    network = functional.upsampling(4, 4, jnp.float32, layers=2)
    params, stats = network.init(jax.random.key(0))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path((params, stats))]
    for path in paths:
        assert all(isinstance(entry.key, str) for entry in path[1:])
    x = _normal(0, (1, 2, 2, 4))
    first, second = (network.apply(params, stats, (x,), train=True) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert inspect.signature(network.apply).parameters["train"].kind is inspect.Parameter.KEYWORD_ONLY
