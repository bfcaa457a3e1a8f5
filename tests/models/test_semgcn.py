import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.data.joints.skeletons import MPII16
from jaxpose.models import functional, semgcn
from jaxpose.ops import graph as graphs

GRAPH = graphs.of_bones(len(MPII16), MPII16.bone_indices)


def as_released(**options) -> functional.Network:
    """SemGCN as it lifts 16 joints from 2D to 3D."""

    def last(channels, rngs):
        return semgcn.SemGraphConv(graph=GRAPH, inputs=channels, outputs=3, rngs=rngs)

    return functional.network(functools.partial(semgcn.SemGCN, graph=GRAPH, inputs=2, readout=last, **options))


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


# Source: the counts that the README of the released code states as 0.27 and 0.43 million.
@pytest.mark.parametrize(("non_local", "parameters"), [(False, 267_343), (True, 434_703)])
def test_parameters_are_as_many_as_those_of_the_released_network(non_local: bool, parameters: int) -> None:
    shapes = jax.eval_shape(as_released(non_local=non_local).init, jax.random.key(0))[0]
    assert count(shapes) == parameters


def test_non_local_blocks_are_the_formula_and_begin_as_the_identity() -> None:
    net = functional.network(lambda dtype, rngs: semgcn.NonLocal(channels=4, rngs=rngs))
    params, stats = net.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    same, _ = net.apply(params, stats, jnp.asarray(x), train=True)
    np.testing.assert_array_equal(same, x)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)

    def affine(name, x):
        return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"])

    received, sent, value = (affine(name, x) for name in ("receiver", "sender", "value"))
    y = np.zeros((3, 5, 2))
    for b in range(3):
        for i in range(5):
            for j in range(5):
                both = np.concatenate([received[b, i], sent[b, j]])
                y[b, i] += max(both @ np.asarray(params["affinity"]), 0) / 5 * value[b, j]
    out = affine("output", y)
    scale, bias = (np.asarray(params["norm"][name]) for name in ("scale", "bias"))
    normal = (out - out.mean((0, 1))) / np.sqrt(out.var((0, 1)) + 1e-5) * scale + bias
    np.testing.assert_allclose(net.apply(params, stats, jnp.asarray(x), train=True)[0], x + normal, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"one_kernel": True}, {"channelwise": True}, {"non_local": True}])
def test_it_learns_sums_over_neighbours(options: dict) -> None:
    """Joints whose values are sums over their neighbours."""
    net = as_released(hidden=8, blocks=1, **options)
    params, stats = net.init(jax.random.key(1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 16, 2)), jnp.float32)
    sums = graphs.convolve(x, jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.zeros(len(GRAPH)), GRAPH)

    @jax.jit
    def step(params, stats):
        def loss(params):
            y, after = net.apply(params, stats, x, train=True)
            return jnp.mean((y - sums) ** 2), after

        (value, stats), slope = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, slope), stats, value

    first = None
    for _ in range(60):
        params, stats, value = step(params, stats)
        first = value if first is None else first
    assert float(value) < 0.3 * float(first)
