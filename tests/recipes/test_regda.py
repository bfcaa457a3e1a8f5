"""RegDA against a naive version that follows the released code's three passes, and the routing of its gradients."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, K, make_batch, make_config, make_networks, make_task

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import detector, inputs, regda
from jaxpose.recipes.stage import Stage, State, initial_state


def adapt_stage(method: regda.RegDA, networks: detector.Detector | None = None) -> tuple[Stage, State]:
    networks = networks or make_networks(coding=method.coding)
    stage = regda.adapt(make_task(), make_config(method), networks, method)
    params, stats = networks.init(jax.random.key(0), ("backbone", "upsampling"))
    return stage, stage.init(jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))


# The naive version: torch's meaning of every line of the released loop, three passes, no sharing.


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def warm_start(x: jax.Array, weight: float) -> jax.Array:
    return x


warm_start.defvjp(lambda x, weight: (x, None), lambda weight, _, g: (weight * g,))


def naive_maps(points: np.ndarray) -> np.ndarray:
    maps = np.zeros((BATCH, 8, 8, K), np.float32)
    for b in range(BATCH):
        for k in range(K):
            cx, cy = points[b, k]
            for y in range(8):
                for x in range(8):
                    if abs(x - cx) <= 3 and abs(y - cy) <= 3:
                        maps[b, y, x, k] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2)
    return maps


def naive_peaks(logits: np.ndarray) -> np.ndarray:
    points = np.zeros((BATCH, K, 2))
    for b in range(BATCH):
        for k in range(K):
            y, x = np.unravel_index(np.argmax(logits[b, :, :, k]), (8, 8))
            points[b, k] = (x, y) if logits[b, :, :, k].max() > 0 else (0, 0)
    return points


def naive_kl(target: np.ndarray, logits: jax.Array, weight: np.ndarray, eps: float) -> jax.Array:
    t = target + eps
    total = t.sum((1, 2), keepdims=True)
    t = np.where(total > 0, t / np.where(total > 0, total, 1), 0)
    log_q = jax.nn.log_softmax(logits.reshape(BATCH, 64, K), axis=1).reshape(logits.shape)
    log_t = np.log(np.where(t > 0, t, 1))
    return jnp.mean(jnp.sum(jnp.asarray(t) * (jnp.asarray(log_t) - log_q), axis=(1, 2)) * jnp.asarray(weight))


class Sgd:
    """torch.optim.SGD(nesterov=True, momentum=0.9, weight_decay=1e-4) on a few networks."""

    def __init__(self, names: tuple[str, ...], rate: float, buffers: dict):
        self.names, self.rate, self.buffers = names, rate, buffers

    def step(self, params: dict, grads: dict) -> None:
        for name in self.names:
            decayed = jax.tree.map(lambda p, g: g + 1e-4 * p, params[name], grads[name])
            self.buffers[name] = jax.tree.map(lambda m, g: 0.9 * m + g, self.buffers[name], decayed)
            params[name] = jax.tree.map(
                lambda p, g, m: p - self.rate * (g + 0.9 * m), params[name], decayed, self.buffers[name]
            )


def released_weights(fields: dict) -> tuple[np.ndarray, np.ndarray]:
    keypoints = np.asarray(fields["keypoints"])
    centre = np.trunc(keypoints / 4 + 0.5)
    weight = ((np.asarray(fields["visible"]) == 2) & ((centre >= 0) & (centre < 8)).all(-1)).astype(np.float32)
    return naive_maps(centre) * weight[:, None, None, :], weight


def naive_released_step(networks: Any, state: State, batch: dict, step: int) -> tuple[dict, dict, dict]:
    params, stats = dict(state.params), dict(state.stats)
    buffers = {name: jax.tree.map(jnp.zeros_like, params[name]) for name in params}
    rate = 0.05 * (1 + 1.5 * step / 10) ** -0.75
    weight = 0.1 * np.tanh(step / 2000)
    optimizer_f = Sgd(("backbone", "upsampling"), 0.1 * rate, buffers)
    optimizer_h, optimizer_adv = Sgd(("head",), rate, buffers), Sgd(("head_adv",), rate, buffers)
    images = {
        d: (batch[d]["image"].astype(jnp.float32) / 255 - jnp.array([[[[0.485, 0.456, 0.406]]]]))
        / jnp.array([[[[0.229, 0.224, 0.225]]]])
        for d in batch
    }

    @jax.jit
    def forward(p: dict, s: dict, x: jax.Array) -> tuple[jax.Array, jax.Array, dict]:
        s = dict(s)
        layers, s["backbone"] = networks["backbone"].apply(p["backbone"], s["backbone"], x, train=True)
        x, s["upsampling"] = networks["upsampling"].apply(p["upsampling"], s["upsampling"], layers, train=True)
        y, s["head"] = networks["head"].apply(p["head"], s["head"], x, train=True)
        a, s["head_adv"] = networks["head_adv"].apply(
            p["head_adv"], s["head_adv"], warm_start(x, float(weight)), train=True
        )
        return y, a, s

    def false_maps(points: np.ndarray) -> np.ndarray:
        maps = naive_maps(points)
        return np.clip(np.stack([np.delete(maps, k, axis=-1).sum(-1) for k in range(K)], -1), 0, 1)

    labels, w_s = released_weights(batch["source"])
    _, w_t = released_weights(batch["target"])

    peaks = naive_peaks(np.asarray(forward(params, stats, images["source"])[0]))

    def loss_a(p: dict) -> tuple[jax.Array, dict]:
        y, a, s = forward(p, stats, images["source"])
        return naive_kl(labels, y, w_s, 0) + 4 * naive_kl(naive_maps(peaks), a, w_s, 1e-7), s

    grads, stats = jax.jit(jax.grad(loss_a, has_aux=True))(params)
    for optimizer in (optimizer_f, optimizer_h, optimizer_adv):
        optimizer.step(params, grads)

    peaks = naive_peaks(np.asarray(forward(params, stats, images["target"])[0]))

    def loss_b(p: dict) -> tuple[jax.Array, dict]:
        _, a, s = forward(p, stats, images["target"])
        return naive_kl(false_maps(peaks), a, w_t, 1e-7), s

    grads, stats_b = jax.jit(jax.grad(loss_b, has_aux=True))(params)
    stats = stats_b
    optimizer_adv.step(params, grads)

    peaks = naive_peaks(np.asarray(forward(params, stats, images["target"])[0]))

    def loss_c(p: dict) -> tuple[jax.Array, dict]:
        _, a, s = forward(p, stats, images["target"])
        return naive_kl(naive_maps(peaks), a, w_t, 1e-7), s

    grads, stats = jax.jit(jax.grad(loss_c, has_aux=True))(params)
    optimizer_f.step(params, grads)
    return params, buffers, stats


def test_released_step_equals_three_naive_passes() -> None:
    method = regda.released_settings()
    stage, state = adapt_stage(method)
    networks = make_networks().networks
    # Step 1000: the warm-up has let 5 % of f's gradient through to the trunk.
    state = dataclasses.replace(state, step=jnp.asarray(1000, jnp.int32))
    # Larger weights than the initial N(0, 0.001), so that every term matters.
    params = {
        name: jax.tree.map(partial(jnp.multiply, 10.0), tree) if name.startswith("head") else tree
        for name, tree in state.params.items()
    }
    state = dataclasses.replace(state, params=params)
    batch = make_batch(3)
    expected_params, expected_momentum, expected_stats = naive_released_step(networks, state, batch, 1000)
    found, _ = jax.jit(stage.step)(state, batch, jax.random.key(0))
    moved = 0.0
    for name in params:
        compared = (
            (found.params[name], expected_params[name]),
            (found.optimizers[name][1].trace, expected_momentum[name]),
            (found.stats[name], expected_stats[name]),
        )
        for got, want in compared:
            for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5 * max(1.0, float(jnp.abs(w).max())))
        before, after = jax.tree.leaves(params[name]), jax.tree.leaves(found.params[name])
        moved = max(moved, *(float(jnp.abs(a - b).max()) for a, b in zip(after, before, strict=True)))
    assert moved > 1e-3


def gradients_without_labels(method: regda.RegDA) -> dict[str, np.ndarray]:
    """Each network's gradient in a step without source labels, in which only target terms count."""
    stage, state = adapt_stage(method)
    state = dataclasses.replace(
        state, params=jax.tree.map(lambda x: x + 0.01 * jax.random.normal(jax.random.key(5), x.shape), state.params)
    )
    batch = make_batch(4)
    batch["source"]["visible"] = jnp.zeros_like(batch["source"]["visible"])
    found, _ = jax.jit(stage.step)(state, batch, jax.random.key(0))

    def without_decay(trace: Any, params: Any) -> np.ndarray:
        moved = jax.tree.map(lambda t, p: np.ravel(t - 1e-4 * p), trace, params)
        return np.concatenate(jax.tree.leaves(moved))

    return {name: without_decay(found.optimizers[name][1].trace, params) for name, params in state.params.items()}


@pytest.fixture(scope="module")
def ours() -> dict[str, np.ndarray]:
    return gradients_without_labels(regda.RegDA())


def largest(gradients: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.abs(values).max()) for name, values in gradients.items()}


def test_target_terms_move_the_trunk_and_the_adversary_but_not_f(ours: dict[str, np.ndarray]) -> None:
    moved = largest(ours)
    assert moved["head"] < 1e-8
    assert moved["head_adv"] > 1e-6
    assert moved["backbone"] > 1e-6
    assert moved["upsampling"] > 1e-6


def test_trunk_weight_stops_the_trunk_and_nothing_else() -> None:
    moved = largest(gradients_without_labels(regda.RegDA(trunk_weight=0.0)))
    assert moved["backbone"] < 1e-8
    assert moved["upsampling"] < 1e-8
    assert moved["head_adv"] > 1e-6


def test_nothing_moves_without_labels_and_trade_off() -> None:
    moved = largest(gradients_without_labels(regda.RegDA(trade_off=0.0)))
    assert max(moved.values()) < 1e-8


def test_ablations_change_only_the_side_they_name(ours: dict[str, np.ndarray]) -> None:
    """Table 3: DD turns the adversary's objective around, min/max L_F the trunk's."""
    dd, game, swapped = (
        gradients_without_labels(method)
        for method in (
            regda.RegDA(adversary=regda.maximize_true),
            regda.RegDA(trunk=regda.maximize_false),
            regda.RegDA(adversary=regda.minimize_true, trunk=regda.minimize_false),
        )
    )
    close = {"rtol": 1e-4, "atol": 1e-7}
    for network in ("backbone", "upsampling"):
        np.testing.assert_allclose(dd[network], ours[network], **close)
        np.testing.assert_allclose(game[network], -swapped[network], **close)
        assert np.abs(ours[network] - swapped[network]).max() > 1e-5
    np.testing.assert_allclose(dd["head_adv"], -swapped["head_adv"], **close)
    np.testing.assert_allclose(game["head_adv"], ours["head_adv"], **close)
    assert np.abs(ours["head_adv"] - swapped["head_adv"]).max() > 1e-5


def test_target_labels_never_reach_the_step() -> None:
    stage, state = adapt_stage(regda.RegDA())
    assert stage.reads["target"].fields == ("image",)
    batch = make_batch(7)
    step = jax.jit(stage.step)
    with_labels, _ = step(state, batch, jax.random.key(0))
    batch["target"] = {name: batch["target"][name] for name in ("image", "position")}
    without, _ = step(state, batch, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, with_labels, without)


@pytest.mark.parametrize("both", [True, False])
def test_which_domains_move_the_running_statistics(both: bool) -> None:
    stage, state = adapt_stage(regda.RegDA(), make_networks(target_statistics=not both))
    batch = make_batch(8)
    step = jax.jit(stage.step)
    first, _ = step(state, batch, jax.random.key(0))
    batch["source"]["image"] = 255 - batch["source"]["image"]
    second, _ = step(state, batch, jax.random.key(0))
    moved = float(jnp.abs(first.stats["backbone"]["bn1"]["mean"] - second.stats["backbone"]["bn1"]["mean"]).max())
    assert (moved > 1e-4) == both
    assert float(jnp.abs(first.stats["backbone"]["bn1"]["mean"] - state.stats["backbone"]["bn1"]["mean"]).max()) > 1e-4


def test_released_preset_says_that_it_reads_target_labels() -> None:
    stage, _ = adapt_stage(regda.released_settings())
    assert stage.reads["target"].fields == inputs.LABELLED


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (500, 0.0245), (1000, 0.0462), (2000, 0.0762), (5000, 0.0987)])
def test_warm_up_follows_the_released_table(step: int, share: float) -> None:
    assert float(regda.released_settings().trunk_share(jnp.asarray(step))) == pytest.approx(share, abs=1e-4)


def test_an_area_of_the_image_is_one_of_whole_heatmap_pixels() -> None:
    """The fourth heatmap pixel ends between image pixels 15 and 16: its middle is 13.5, that of the next 17.5."""
    grid = Grid(size=16, stride=4.0, sigma=1.0)
    assert regda.whole_pixels((15.4, 48.4), grid) == (3.0, 12.0)
    assert regda.whole_pixels((15.6, 47.4), grid) == (4.0, 11.0)


def test_one_joint_needs_an_area() -> None:
    task = make_task(skeleton=Skeleton(name="one", joints=("a",)))
    with pytest.raises(ValueError, match="found one joint"):
        regda.RegDA().stages(task, make_config(regda.RegDA()))
