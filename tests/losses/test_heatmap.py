import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxpose.losses import heatmap


def random_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (2, 4, 5, 3)).astype(np.float32), rng.normal(0, 3, (2, 4, 5, 3)).astype(np.float32)


def naive_kl(target: np.ndarray, logits: np.ndarray, eps: float) -> np.ndarray:
    t = target.astype(np.float64) + eps
    t /= t.sum((1, 2), keepdims=True)
    q = np.exp(logits.astype(np.float64))
    q /= q.sum((1, 2), keepdims=True)
    return special.rel_entr(t, q).sum((1, 2))


def test_kl_equals_the_formula() -> None:
    target, logits = random_maps(0)
    target[target < 0.5] = 0.0
    for eps in (0.0, 1e-3):
        found = heatmap.spatial_kl(jnp.asarray(target), jnp.asarray(logits), eps=eps)
        np.testing.assert_allclose(found, naive_kl(target, logits, eps), rtol=1e-5)


def test_kl_of_equal_distributions_is_zero_and_shifts_of_logits_change_nothing() -> None:
    _, logits = random_maps(1)
    target = np.exp(logits)
    np.testing.assert_allclose(heatmap.spatial_kl(jnp.asarray(target), jnp.asarray(logits)), 0.0, atol=1e-5)
    shifted = heatmap.spatial_kl(jnp.asarray(target), jnp.asarray(logits + 100))
    np.testing.assert_allclose(shifted, 0.0, atol=1e-4)


def test_kl_and_its_gradient_are_finite_for_empty_maps_and_extreme_logits() -> None:
    target, logits = random_maps(2)
    target[0, ..., 1] = 0.0
    logits[1, 0, 0, 0] = 1e4

    def total(z: jax.Array) -> jax.Array:
        return jnp.sum(heatmap.spatial_kl(jnp.asarray(target), z))

    value, grad = jax.value_and_grad(total)(jnp.asarray(logits))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad[0, ..., 1], 0.0)


def test_l2_is_half_the_mean_square() -> None:
    target, maps = random_maps(3)
    expected = 0.5 * ((target - maps) ** 2).mean((1, 2))
    np.testing.assert_allclose(heatmap.l2(jnp.asarray(target), jnp.asarray(maps)), expected, rtol=1e-5)


def test_means_differ_in_what_they_divide_by() -> None:
    values = jnp.array([[1.0, 2.0], [3.0, jnp.nan]])
    mask = jnp.array([[True, True], [False, False]])
    assert heatmap.masked_mean(values, mask) == 1.5
    assert heatmap.mean_with_zeros(values, mask) == 0.75
    assert heatmap.masked_mean(values, jnp.zeros((2, 2), bool)) == 0.0


def test_masked_joints_have_no_gradient() -> None:
    mask = jnp.array([[True, False]])
    grad = jax.grad(lambda v: heatmap.masked_mean(jnp.square(v), mask))(jnp.array([[2.0, 1e30]]))
    np.testing.assert_array_equal(grad, [[4.0, 0.0]])


def test_temporal_l2_compares_neighbours_that_both_count() -> None:
    maps = np.random.default_rng(4).normal(size=(2, 3, 4, 5, 2)).astype(np.float32)
    squares = 0.5 * ((maps[:, 1:] - maps[:, :-1]) ** 2).sum((2, 3))
    every = np.ones((2, 3, 2), bool)
    found = heatmap.temporal_l2(jnp.asarray(maps), jnp.asarray(every))
    np.testing.assert_allclose(found, squares.mean(1), rtol=1e-5)
    every[0, 0, 0], every[1, 1, 1] = False, False
    found = heatmap.temporal_l2(jnp.asarray(maps), jnp.asarray(every))
    np.testing.assert_allclose(found[0], [squares[0, 1, 0], squares[0, :, 1].mean()], rtol=1e-5)
    np.testing.assert_allclose(found[1], [squares[1, :, 0].mean(), 0.0], rtol=1e-5)
