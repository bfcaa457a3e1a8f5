"""MCD: its discrepancy, and which networks each of its steps moves."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.losses import heatmap
from jaxpose.recipes import inputs, mcd
from jaxpose.recipes.stage import State, initial_state

sys.path.insert(0, str(Path(__file__).parent))
from tiny import make_batch, make_config, make_networks, make_task

RATE = 0.05


def networks() -> Any:
    made = make_networks()
    made.networks["head2"] = made.networks["head_adv"]
    return made


def test_difference_is_the_l1_distance_of_softmaxes() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 2, 3, 3, 1)).astype(np.float32)
    p, q = (np.exp(m) / np.exp(m).sum((1, 2), keepdims=True) for m in maps)
    found = mcd.difference(jnp.asarray(maps[0]), jnp.asarray(maps[1]))
    np.testing.assert_allclose(found, np.abs(p - q).sum((1, 2)), rtol=1e-5)
    apart = np.full((2, 1, 4, 4, 1), -100, np.float32)
    apart[0, 0, 0, 0], apart[1, 0, 3, 3] = 100, 100
    np.testing.assert_allclose(mcd.difference(*map(jnp.asarray, apart)), [[2.0]], rtol=1e-5)


def test_one_update_is_the_three_steps_in_turn() -> None:
    settings = mcd.MCD(trade_off=0.5, trunk_updates=2)
    config = make_config(settings)
    config.model.head = "regressor"
    config.optim.momentum, config.optim.weight_decay = 0.0, 0.0
    nets = networks()
    stage = mcd.adapt(make_task(), config, nets, settings)
    params, stats = nets.init(jax.random.key(0), ("backbone", "upsampling", "head"))
    previous = initial_state(params=params, stats=stats, optimizers={})
    state: State = jax.jit(stage.init)(jax.random.key(1), previous)
    jax.tree.map(np.testing.assert_array_equal, state.params["head"], params["head"])
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params["head"], state.params["head2"])
    assert max(jax.tree.leaves(apart)) > 0
    batch, key = make_batch(0), jax.random.key(3)
    after, metrics = jax.jit(stage.step)(state, batch, key)

    keys = jax.random.split(key)
    labels = inputs.labelled(keys[0], batch["source"], make_task(), inputs.clean_labels)
    images = inputs.unlabelled(keys[1], batch["target"], make_task())

    def fit(p: Any) -> jax.Array:
        features, s = nets.trunk(p, state.stats, labels.images, train=True)
        maps = [nets.head(n, p[n], s, features, train=True)[0] for n in ("head", "head2")]
        return sum(heatmap.masked_mean(heatmap.spatial_kl(labels.maps, m), labels.mask) for m in maps)

    def apart_by(p: Any) -> jax.Array:
        features, s = nets.trunk(p, state.stats, images, train=True)
        first, second = (nets.head(n, p[n], s, features, train=True)[0] for n in ("head", "head2"))
        return 0.5 * jnp.mean(mcd.difference(first, second))

    def sgd(p: Any, grads: Any, names: tuple[str, ...]) -> Any:
        rates = {"backbone": 0.1 * RATE, "upsampling": 0.1 * RATE, "head": RATE, "head2": RATE}
        return p | {n: jax.tree.map(lambda x, g, r=rates[n]: x - r * g, p[n], grads[n]) for n in names}

    p = dict(state.params)
    p = sgd(p, jax.grad(fit)(p), ("backbone", "upsampling", "head", "head2"))
    p = sgd(p, jax.grad(lambda x: fit(x) - apart_by(x))(p), ("head", "head2"))
    for _ in range(2):
        last = apart_by(p)
        p = sgd(p, jax.grad(apart_by)(p), ("backbone", "upsampling"))
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-3, atol=2e-6), dict(after.params), p)
    np.testing.assert_allclose(metrics["loss/discrepancy"], last, rtol=1e-3)
    assert float(metrics["loss/discrepancy"]) > 0
