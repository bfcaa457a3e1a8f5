"""Batch normalisation against its formula in float64, in the forms of every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from platforms import traced_for

from jaxpose.ops import normalization

PLATFORMS = ("cpu", "gpu", "tpu")
# Vectors; maps; as many pixels as the GPU form sums in two steps.
SHAPES = ((6, 5), (3, 4, 5, 2), (4, 16, 16, 3))


def drawn(shape: tuple[int, ...], *, mean: float = 3.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (mean + rng.normal(size=shape)).astype(np.float32)


def formula(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias, mean, variance


def formula_gradients(x: np.ndarray, scale: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By the chain rule through mean and variance, one after the other (Ioffe and Szegedy 2015, Sec. 3)."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean, deviation = x.mean(axes), np.sqrt(x.var(axes) + 1e-5)
    normal = (x - mean) / deviation
    dnormal = dy * scale
    dvariance = (dnormal * (x - mean)).sum(axes) * -0.5 / deviation**3
    dmean = (-dnormal / deviation).sum(axes) + dvariance * (-2 * (x - mean)).mean(axes)
    dx = dnormal / deviation + dvariance * 2 * (x - mean) / count + dmean / count
    return dx, (dy * normal).sum(axes), dy.sum(axes)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_formula(shape: tuple[int, ...], platform: str) -> None:
    x, dy = drawn(shape), drawn(shape, mean=0.5, seed=1)
    scale, bias = drawn(shape[-1:], seed=2), drawn(shape[-1:], seed=3)
    with traced_for(platform):
        found, pull = jax.vjp(normalization.batch_norm, *(jnp.asarray(a) for a in (x, scale, bias)))
        zeros = jax.tree.map(jnp.zeros_like, found[1:])
        gradients = pull((jnp.asarray(dy), *zeros))
    for ours, theirs in zip(found, formula(x, scale, bias), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    for ours, theirs in zip(gradients, formula_gradients(x, scale, dy), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("mean", [0.0, 1e3, -1e4])
def test_the_variance_survives_a_mean_of_ten_thousand_deviations(mean: float, platform: str) -> None:
    """As exact as the two-pass formula on the same float32 numbers, whatever the running mean was."""
    x = drawn((4, 32, 32, 3), mean=mean)
    with traced_for(platform):
        _, found, variance = normalization.batch_norm(jnp.asarray(x), jnp.ones(3), jnp.zeros(3))
    np.testing.assert_allclose(found, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_constant_channel_is_zero(platform: str) -> None:
    x = np.full((4, 16, 16, 2), 1e5, np.float32)
    with traced_for(platform):
        y, _, variance = normalization.batch_norm(jnp.asarray(x), jnp.ones(2), jnp.zeros(2))
    np.testing.assert_array_equal(variance, 0.0)
    np.testing.assert_array_equal(y, 0.0)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_domains_side_by_side_are_normalised_each_by_itself(platform: str) -> None:
    first, second = drawn((4, 8, 8, 3)), drawn((4, 8, 8, 3), mean=-7.0, seed=5)
    scale, bias = drawn((3,), seed=2), drawn((3,), seed=3)
    dy = drawn((4, 8, 8, 3), seed=6), drawn((4, 8, 8, 3), seed=7)

    def both(a: jax.Array, b: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, ...]:
        y, mean, variance = normalization.batch_norm(normalization.stack_domains(a, b), scale, bias)
        return (*normalization.unstack_domains(y), jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance))

    given = tuple(jnp.asarray(a) for a in (first, second, scale, bias))
    with traced_for(platform):
        found, pull = jax.vjp(both, *given)
        gradients = pull((*(jnp.asarray(d) for d in dy), jnp.zeros((2, 3)), jnp.zeros((2, 3))))
    alone = [formula(x, scale, bias) for x in (first, second)]
    for i in range(2):
        np.testing.assert_allclose(found[i], alone[i][0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[2][i], alone[i][1], rtol=1e-5)
        np.testing.assert_allclose(found[3][i], alone[i][2], rtol=1e-4)
    apart = [formula_gradients(x, scale, d) for x, d in zip((first, second), dy, strict=True)]
    for i in range(2):
        np.testing.assert_allclose(gradients[i], apart[i][0], atol=1e-4)
        np.testing.assert_allclose(gradients[2 + i], apart[0][1 + i] + apart[1][1 + i], rtol=1e-3)


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_on_two_devices_the_statistics_are_those_of_all_rows(mean: float) -> None:
    """The devices' rows differ by a thousand deviations: merging must not lose what one pass over all would."""
    x = drawn((4, 16, 16, 3), mean=mean)
    x[2:] += 1000
    dy = drawn(x.shape, mean=0.0, seed=4)
    scale, bias = jnp.ones(3), jnp.zeros(3)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def step(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            (y, mean, variance), pull = jax.vjp(lambda x: normalization.batch_norm(x, scale, bias), x)
            return y, mean, variance, *pull((dy, jnp.zeros(3), jnp.zeros(3)))

    compiled = jax.jit(step, in_shardings=rows).lower(*(jax.device_put(a, rows) for a in (x, dy))).compile()
    y, mean_found, variance, dx = compiled(*(jax.device_put(a, rows) for a in (x, dy)))
    expected = formula(x, np.ones(3), np.zeros(3))
    np.testing.assert_allclose(mean_found, expected[1], rtol=1e-6)
    np.testing.assert_allclose(variance, expected[2], rtol=1e-4)
    np.testing.assert_allclose(y, expected[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(dx, formula_gradients(x, np.ones(3), dy)[0], atol=1e-5)
    # One exchange forward, one backward: of both sums together, not one each.
    text = compiled.as_text()
    assert text.count(" all-gather(") == 1
    assert text.count(" all-reduce(") <= 2


def test_domains_keep_their_rows_on_every_device() -> None:
    """(N, D, B / N, ...): device by device, in it domain by domain."""
    source, target = (jnp.arange(4.0).reshape(4, 1, 1, 1) + start for start in (0, 10))
    with jax.sharding.use_abstract_mesh(jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,)).abstract_mesh):
        both = normalization.stack_domains(source, target)
        back = normalization.unstack_domains(both)
    np.testing.assert_array_equal(both.reshape(2, 2, 2), [[[0, 1], [10, 11]], [[2, 3], [12, 13]]])
    np.testing.assert_array_equal(back[0], source)
    np.testing.assert_array_equal(back[1], target)
