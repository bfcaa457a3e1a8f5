"""MCD: its discrepancy, and which networks each of its steps moves."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_batch, make_config, make_networks, make_task

from jaxpose.losses import heatmap
from jaxpose.recipes import inputs, mcd
from jaxpose.recipes.stage import State, initial_state

RATE = 0.05


def networks(target_statistics: bool = False) -> Any:
    made = make_networks(target_statistics=target_statistics)
    made.networks["head2"] = made.networks["head_adv"]
    return made


@functools.cache
@jax.jit
def pretrained() -> tuple[Any, Any]:
    return make_networks().init(jax.random.key(0), ("backbone", "upsampling", "head"))


def test_difference_is_the_l1_distance_of_softmaxes() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 2, 3, 3, 1)).astype(np.float32)
    p, q = (np.exp(m) / np.exp(m).sum((1, 2), keepdims=True) for m in maps)
    found = mcd.difference(jnp.asarray(maps[0]), jnp.asarray(maps[1]))
    np.testing.assert_allclose(found, np.abs(p - q).sum((1, 2)), rtol=1e-5)
    apart = np.full((2, 1, 4, 4, 1), -100, np.float32)
    apart[0, 0, 0, 0], apart[1, 0, 3, 3] = 100, 100
    np.testing.assert_allclose(mcd.difference(*map(jnp.asarray, apart)), [[2.0]], rtol=1e-5)


def test_the_second_regressor_differs_by_noise_and_keeps_the_gain() -> None:
    settings = mcd.MCD()
    config = make_config(settings)
    config.model.head = "regressor"
    stage = mcd.adapt(make_task(), config, networks(), settings)
    params, stats = pretrained()
    state = jax.jit(stage.init)(jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))
    first, second = state.params["head"], state.params["head2"]
    for layer, name in (("bn1", "scale"), ("bn1", "bias"), ("conv1", "bias"), ("conv2", "bias")):
        np.testing.assert_array_equal(second[layer][name], first[layer][name])
    for layer in ("conv1", "conv2"):
        noise = np.asarray(second[layer]["kernel"] - first[layer]["kernel"])
        assert 0 < np.abs(noise).max() < 0.01


@pytest.mark.parametrize(("target_statistics", "repeats"), [(False, 2), (True, 0)])
def test_one_update_is_the_three_steps_in_turn(target_statistics: bool, repeats: int) -> None:
    """Against a version that runs the trunk anew for each of them."""
    settings = mcd.MCD(trade_off=0.5, trunk_updates=repeats)
    config = make_config(settings)
    config.model.head = "regressor"
    config.optim.momentum, config.optim.weight_decay = 0.0, 0.0
    nets = networks(target_statistics)
    stage = mcd.adapt(make_task(), config, nets, settings)
    params, stats = pretrained()
    previous = initial_state(params=params, stats=stats, optimizers={})
    state: State = jax.jit(stage.init)(jax.random.key(1), previous)
    jax.tree.map(np.testing.assert_array_equal, state.params["head"], params["head"])
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params["head"], state.params["head2"])
    assert max(jax.tree.leaves(apart)) > 0
    batch, key = make_batch(0), jax.random.key(3)
    after, metrics = jax.jit(stage.step)(state, batch, key)

    @jax.jit
    def augmented() -> tuple[inputs.Labelled, jax.Array]:
        keys = jax.random.split(key)
        labels = inputs.labelled(keys[0], batch["source"], make_task(), nets.draw)
        return labels, inputs.unlabelled(keys[1], batch["target"], make_task())

    labels, images = augmented()

    def fit(p: Any, s: Any) -> tuple[jax.Array, Any]:
        features, s = nets.trunk(p, s, labels.images, train=True)
        losses = []
        for name in ("head", "head2"):
            maps, s = nets.head(name, p[name], s, features, train=True)
            losses.append(heatmap.masked_mean(heatmap.spatial_kl(labels.maps, maps), labels.mask))
        return losses[0] + losses[1], s

    def apart_by(p: Any, s: Any) -> tuple[jax.Array, Any]:
        features, s = nets.trunk(p, s, images, train=True)
        first, s = nets.head("head", p["head"], s, features, train=True)
        second, s = nets.head("head2", p["head2"], s, features, train=True)
        return 0.5 * jnp.mean(mcd.difference(first, second)), s

    def disagree(p: Any, s: Any) -> tuple[jax.Array, Any]:
        loss, s_after = apart_by(p, s)
        return fit(p, s)[0] - loss, s_after

    def sgd(p: Any, grads: Any, names: tuple[str, ...]) -> Any:
        rates = {"backbone": 0.1 * RATE, "upsampling": 0.1 * RATE, "head": RATE, "head2": RATE}
        return p | {n: jax.tree.map(lambda x, g, r=rates[n]: x - r * g, p[n], grads[n]) for n in names}

    @jax.jit
    def naive(p: Any, s: Any) -> tuple[Any, Any, jax.Array]:
        grads, after_source = jax.grad(fit, has_aux=True)(p, s)
        s = s if target_statistics else after_source
        p = sgd(p, grads, ("backbone", "upsampling", "head", "head2"))
        grads, s = jax.grad(disagree, has_aux=True)(p, s)
        p, last = sgd(p, grads, ("head", "head2")), jnp.zeros(())
        for _ in range(repeats):
            (last, s), grads = jax.value_and_grad(apart_by, has_aux=True)(p, s)
            p = sgd(p, grads, ("backbone", "upsampling"))
        return p, s, last

    p, s, last = naive(dict(state.params), dict(state.stats))
    close = {"rtol": 1e-3, "atol": 2e-6}
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, **close), (dict(after.params), dict(after.stats)), (p, s)
    )
    np.testing.assert_allclose(metrics["loss/discrepancy"], last, rtol=1e-3)
    assert (float(metrics["loss/discrepancy"]) > 0) == (repeats > 0)


def test_the_trunk_sees_the_target_once_for_b_and_the_first_c() -> None:
    config = make_config(mcd.MCD(trunk_updates=4))
    nets, seen = networks(), []
    trunk = nets.networks["backbone"].apply
    counted = dataclasses.replace(nets.networks["backbone"], apply=lambda *a, **k: (seen.append(1), trunk(*a, **k))[1])
    nets.networks["backbone"] = counted
    stage = mcd.adapt(make_task(), config, nets, mcd.MCD(trunk_updates=4))
    params, stats = pretrained()
    state = jax.eval_shape(stage.init, jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))
    jax.eval_shape(stage.step, state, make_batch(0), jax.random.key(3))
    assert len(seen) == 2 + 4  # the source for A and B; the target for B with the first C, and for three more
