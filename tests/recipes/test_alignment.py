"""DAN, DANN, SW and AdaBN: objectives against NumPy, gradients against two separate players."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_batch, make_config, make_networks, make_task

from jaxpose.losses import heatmap
from jaxpose.models import functional
from jaxpose.models.discriminator import PixelDiscriminator, VectorDiscriminator
from jaxpose.ops import kernels
from jaxpose.recipes import alignment, dann, inputs, sw
from jaxpose.recipes.adabn import AdaBN
from jaxpose.recipes.dan import DAN
from jaxpose.recipes.stage import Stage, State, initial_state

RATE, TRUNK_SCALE = 0.05, 0.1
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=5).astype(np.float32), RNG.normal(size=5).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def start(method: Any, extra: alignment.Alignment) -> tuple[Stage, State]:
    """The adapt stage at the first step."""
    networks = make_networks()
    config = make_config(method)
    config.model.head = "regressor"
    config.optim.momentum, config.optim.weight_decay = 0.0, 0.0
    stage = alignment.adapt(make_task(), config, networks, extra)
    params, stats = networks.init(jax.random.key(0), ("backbone", "upsampling", "head"))
    previous = initial_state(params=params, stats=stats, optimizers={})
    return stage, jax.jit(stage.init)(jax.random.key(1), previous)


def captured(method: Any, monkeypatch: pytest.MonkeyPatch) -> alignment.Alignment:
    """What a method asks for."""
    made = {}
    monkeypatch.setattr(alignment, "stages", lambda task, config, make: made.update(it=make(make_networks())) or ())
    method.stages(make_task(), make_config(method))
    return made["it"]


def supervision(state: State, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    labels = inputs.labelled(jax.random.split(key)[0], batch["source"], make_task(), make_networks().draw)
    networks = make_networks()
    features, stats = networks.trunk(params, state.stats, labels.images, train=True)
    maps, _ = networks.head("head", params["head"], stats, features, train=True)
    return heatmap.masked_mean(heatmap.spatial_kl(labels.maps, maps), labels.mask)


def both_features(state: State, params: Any, batch: Any, key: jax.Array) -> list[Any]:
    networks, keys = make_networks(), jax.random.split(key)
    source = inputs.labelled(keys[0], batch["source"], make_task(), make_networks().draw).images
    target = inputs.unlabelled(keys[1], batch["target"], make_task())
    return [networks.features(params, state.stats, images, train=True)[0] for images in (source, target)]


def moved(before: State, after: State, name: str, rate: float) -> Any:
    """The gradient that plain SGD must have used."""
    return jax.tree.map(lambda b, a: (b - a) / rate, before.params[name], after.params[name])


def close(found: Any, expected: Any) -> None:
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert scale > 0
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, atol=2e-3 * scale), found, expected)


def test_adversarial_loss_is_binary_cross_entropy() -> None:
    source, target = LOGITS
    expected = -0.5 * (np.log(sigmoid(source)).mean() + np.log(1 - sigmoid(target)).mean())
    assert float(dann.adversarial_loss(*map(jnp.asarray, LOGITS))) == pytest.approx(expected, rel=1e-5)


def test_strong_and_weak_losses_are_the_papers() -> None:
    source, target = LOGITS
    local = 0.5 * (((1 - sigmoid(source)) ** 2).mean() + (sigmoid(target) ** 2).mean())
    assert float(sw.local_loss(*map(jnp.asarray, LOGITS))) == pytest.approx(local, rel=1e-5)
    p, q = sigmoid(source), 1 - sigmoid(target)
    weak = -0.5 * (((1 - p) ** 5 * np.log(p)).mean() + ((1 - q) ** 5 * np.log(q)).mean())
    assert float(sw.global_loss(*map(jnp.asarray, LOGITS), focus=5.0)) == pytest.approx(weak, rel=1e-4)


def test_warm_up_rises_from_zero_to_one() -> None:
    found = dann.warm_up(jnp.asarray([0.0, 0.1, 1.0]), 10.0)
    np.testing.assert_allclose(found, [0, 2 / (1 + np.exp(-1)) - 1, 2 / (1 + np.exp(-10)) - 1], atol=1e-6)


def discriminating(kind: str) -> tuple[dict[str, functional.Network], Any]:
    """A method's networks, and its loss without reversal written for two players."""
    vector = functional.network(functools.partial(VectorDiscriminator, inputs=6, hidden=8))
    pixel = functional.network(functools.partial(PixelDiscriminator, inputs=4, hidden=8))

    def pooled(name: str, params: Any, features: Any) -> jax.Array:
        return vector.apply(params[name], {}, features.layers[-1].mean((1, 2)), train=True)[0]

    if kind == "dann":
        return {"discriminator": vector}, lambda p, s, t: dann.adversarial_loss(
            pooled("discriminator", p, s), pooled("discriminator", p, t)
        )
    return (
        {"local": pixel, "global": vector},
        lambda p, s, t: (
            sw.local_loss(*(pixel.apply(p["local"], {}, f.layers[0], train=True)[0] for f in (s, t)))
            + sw.global_loss(pooled("global", p, s), pooled("global", p, t), focus=5.0)
        ),
    )


@pytest.mark.parametrize("kind", ["dann", "sw"])
def test_discriminators_descend_while_the_trunk_climbs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = dann.DANN(hidden=8) if kind == "dann" else sw.StrongWeak(hidden=8)
    stage, state = start(method, captured(method, monkeypatch))
    state = dataclasses.replace(state, step=jnp.asarray(5, jnp.int32))
    batch, key = make_batch(0), jax.random.key(3)
    after, metrics = jax.jit(stage.step)(state, batch, key)
    networks, play = discriminating(kind)

    def game(params: Any) -> jax.Array:
        return play(params, *both_features(state, params, batch, key))

    fit, against = (
        jax.jit(jax.grad(lambda p: supervision(state, p, batch, key)))(state.params),
        jax.jit(jax.grad(game))(state.params),
    )
    assert float(metrics["loss/alignment"]) == pytest.approx(float(game(state.params)), rel=1e-4)
    rate = RATE * (1 + 1.5 * 5 / 10) ** -0.75
    strength = 2 / (1 + np.exp(-10 * 0.5)) - 1 if kind == "dann" else 1.0
    for name in networks:
        close(moved(state, after, name, rate), against[name])
    for name in ("backbone", "upsampling"):
        expected = jax.tree.map(lambda f, a: f - strength * a, fit[name], against[name])
        close(moved(state, after, name, TRUNK_SCALE * rate), expected)
    close(moved(state, after, "head", rate), fit["head"])


def test_dan_descends_on_supervision_and_discrepancy() -> None:
    method = DAN(trade_off=0.7)
    stage, state = start(method, alignment.Alignment(networks={}, loss=method.loss))
    batch, key = make_batch(0), jax.random.key(3)
    after, metrics = jax.jit(stage.step)(state, batch, key)

    def objective(params: Any) -> jax.Array:
        pooled = [f.layers[-1].mean((1, 2)) for f in both_features(state, params, batch, key)]
        return supervision(state, params, batch, key) + 0.7 * kernels.mmd(*pooled)

    expected = jax.jit(jax.grad(objective))(state.params)
    assert float(metrics["mmd"]) > 0
    close(moved(state, after, "backbone", TRUNK_SCALE * RATE), expected["backbone"])
    close(moved(state, after, "head", RATE), expected["head"])


def test_without_a_loss_only_the_statistics_see_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, state = start(AdaBN(), captured(AdaBN(), monkeypatch))
    batch = make_batch(0)
    step = jax.jit(stage.step)
    first, _ = step(state, batch, jax.random.key(0))
    batch["target"]["image"] = 255 - batch["target"]["image"]
    second, _ = step(state, batch, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert float(jnp.abs(first.stats["backbone"]["bn1"]["mean"] - second.stats["backbone"]["bn1"]["mean"]).max()) > 1e-4
