import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpose.metrics.mae import Errors, mae

seeds = st.integers(0, 2**32 - 1)
jitted = jax.jit(mae, static_argnames="pixels_per_unit")
everything = np.arange(3)


def points(seed, batch=6, joints=3):
    rng = np.random.default_rng(seed)
    found, true = rng.uniform(0, 64, (2, batch, joints, 2)).astype(np.float32)
    return found, true, rng.random((batch, joints)) < 0.7


def test_mae_in_units():
    found, true, mask = points(0)
    state = jitted(*map(jnp.asarray, (found, true, mask)), pixels_per_unit=31.0)
    for indices in (everything, np.array([1]), np.array([0, 2])):
        errors, count = state.group(indices)
        chosen = np.abs(found - true)[:, indices][mask[:, indices]] / 31
        x, y = chosen.mean(axis=0)
        assert int(count) == len(chosen)
        for name, expected in {"x": x, "y": y, "sum": x + y, "mean": (x + y) / 2}.items():
            np.testing.assert_allclose(errors[name], expected, rtol=1e-5)


def test_one_position_step_of_a_sprite():
    state = jitted(
        jnp.array([[[17.0, 20.0]]]), jnp.array([[[16.0, 20.0]]]), jnp.ones((1, 1), bool), pixels_per_unit=31.0
    )
    errors, _ = state.group(np.array([0]))
    assert [float(errors[n]) for n in ("x", "y", "sum", "mean")] == pytest.approx([1 / 31, 0, 1 / 31, 1 / 62])


@settings(max_examples=25, deadline=None)
@given(seed=seeds, cut=st.integers(1, 5))
def test_merge_is_concatenation(seed, cut):
    found, true, mask = points(seed)
    whole = jitted(*map(jnp.asarray, (found, true, mask)), pixels_per_unit=31.0)
    keep = np.arange(6)[:, None] < cut
    parts = [jitted(found, true, jnp.asarray(mask & k), pixels_per_unit=31.0) for k in (keep, ~keep)]
    merged = Errors.zeros(3).merge(parts[0]).merge(parts[1])
    np.testing.assert_allclose(merged.total, whole.total, rtol=1e-5)
    np.testing.assert_array_equal(merged.count, whole.count)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, junk=st.sampled_from([np.nan, np.inf, 1e30]))
def test_masked_points_never_count(seed, junk):
    found, true, mask = points(seed)
    state = jitted(*map(jnp.asarray, (found, true, mask)), pixels_per_unit=31.0)
    found[~mask] = junk
    true[~mask] = -junk
    other = jitted(*map(jnp.asarray, (found, true, mask)), pixels_per_unit=31.0)
    jax.tree.map(np.testing.assert_array_equal, state, other)


def test_without_labels_everything_is_nan():
    errors, count = Errors.zeros(3).group(everything)
    assert all(np.isnan(e) for e in errors.values())
    assert count == 0


def test_a_nan_prediction_shows():
    state = jitted(jnp.full((1, 1, 2), jnp.nan), jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), pixels_per_unit=31.0)
    assert np.isnan(state.group(np.array([0]))[0]["sum"])


def test_two_devices_equal_one():
    arrays = [jnp.asarray(a) for a in points(5)]
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jitted(*(jax.device_put(a, sharding) for a in arrays), pixels_per_unit=31.0)
    alone = jitted(*arrays, pixels_per_unit=31.0)
    np.testing.assert_allclose(sharded.total, alone.total, rtol=1e-6)
    np.testing.assert_array_equal(sharded.count, alone.count)


def test_the_state_holds_anything():
    assert set(jax.tree.leaves(jax.tree.map(lambda _: "sharding", Errors.zeros(2)))) == {"sharding"}
