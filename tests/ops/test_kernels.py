import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from jaxpose.ops import kernels


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(
    ("choose", "statistic"), [(kernels.mean_bandwidth, np.mean), (kernels.median_bandwidth, np.median)]
)
def test_mmd_is_the_formula(unbiased, choose, statistic):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(1.0, 2.0, size=(4, 3))
    width = statistic(distance.pdist(np.concatenate([x, y]), "sqeuclidean"))

    def kernel(a, b):
        return sum(np.exp(-np.sum((a - b) ** 2) / (2 * f * width)) for f in (0.5, 2.0))

    def mean(a, b, pairs):
        return np.mean([kernel(a[i], b[j]) for i, j in np.ndindex(len(a), len(b)) if pairs(i, j)])

    def within(i, j):
        return i != j or not unbiased

    total = mean(x, x, within) + mean(y, y, within) - 2 * mean(x, y, lambda i, j: True)
    found = kernels.mmd(
        jnp.asarray(x, jnp.float32),
        jnp.asarray(y, jnp.float32),
        factors=(0.5, 2.0),
        bandwidth=choose,
        unbiased=unbiased,
    )
    assert float(found) == pytest.approx(total, rel=1e-4)


def test_mmd_of_one_sample_with_itself_is_zero_and_has_a_gradient():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
    assert float(kernels.mmd(x, x)) == pytest.approx(0, abs=1e-6)
    same = jnp.ones((4, 2))
    gradient = jax.grad(lambda x: kernels.mmd(x, same))(same)
    assert bool(jnp.isfinite(gradient).all())


def test_the_u_statistic_has_no_bias():
    draws = np.random.default_rng(0).normal(size=(300, 2, 6, 2)).astype(np.float32)
    found = jax.vmap(lambda pair: kernels.mmd(pair[0], pair[1], unbiased=True))(jnp.asarray(draws))
    biased = jax.vmap(lambda pair: kernels.mmd(pair[0], pair[1]))(jnp.asarray(draws))
    assert abs(float(found.mean())) < 3 * float(found.std()) / 300**0.5
    assert float(biased.mean()) > 0.1
