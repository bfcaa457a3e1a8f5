"""CC-SSL: consensus of views against known points, the memory's rows, the curriculum, and one update against NumPy."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, GRID, NONE, SIZE, K, make_batch, make_config, make_networks, make_task

from jaxpose import limits
from jaxpose.data.host.windows import consecutive
from jaxpose.losses import heatmap
from jaxpose.recipes import cc_ssl, consensus, inputs, views
from jaxpose.recipes.stage import Read, State, initial_state
from jaxpose.train import mesh as meshes

N = 6
VIEWS = consensus.RandomViews(count=2)
SETTINGS = cc_ssl.CCSSL(rounds=3, random_views=VIEWS, weight=0.7)
TASK = make_task(sizes={"source": 20, "target": N}, augmentation=dataclasses.replace(NONE, rotation=20.0))
RNG = np.random.default_rng(0)


def config() -> Any:
    made = make_config(SETTINGS)
    made.model.head = "regressor"
    made.optim.momentum, made.optim.weight_decay = 0.0, 0.0
    return made


@functools.cache
@jax.jit
def pretrained() -> State:
    params, stats = make_networks().init(jax.random.key(0), ("backbone", "upsampling", "head"))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    leaves = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return initial_state(params=jax.tree.unflatten(tree, leaves), stats=stats, optimizers={})


def target_batch(images: np.ndarray, records: list[int]) -> dict[str, dict[str, jax.Array]]:
    return {
        "target": {
            "image": jnp.asarray(images),
            "index": jnp.asarray(records, jnp.int32),
            "position": jnp.arange(len(records)),
        }
    }


def test_rounds_are_stages_that_share_the_steps_of_adapt() -> None:
    settings = config()
    stages = SETTINGS.stages(TASK, settings)
    assert [(s.name, s.steps) for s in stages] == [
        ("pretrain", 2),
        ("relabel_1", 2),
        ("adapt_1", 3),
        ("relabel_2", 2),
        ("adapt_2", 3),
        ("relabel_3", 2),
        ("adapt", 4),
    ]
    assert not any(stage.evaluations for stage in stages if "relabel" in stage.name)
    assert all("keypoints" not in stage.reads["target"].fields for stage in stages if "target" in stage.reads)
    state = None
    for stage in stages:
        state = jax.eval_shape(stage.init, jax.random.key(0), state)
    assert state.extra["points"].shape == (N, K, 2)
    np.testing.assert_allclose([cc_ssl.CCSSL().share(i) for i in range(6)], [0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_what_cannot_be_is_named() -> None:
    for wrong, message in (
        ({"rounds": 0}, "rounds: found 0, expected at least 1"),
        ({"last_share": 80.0}, "last_share: found 80.0, expected 0 to 1"),
        ({"temporal_ratio": -1.0}, "temporal_ratio: found -1.0, expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=f"config.method.{message}"):
            limits.check(cc_ssl.CCSSL(**wrong), "config.method")
    with pytest.raises(ValueError, match=r"task.sizes: found \{\}, expected the number of target images"):
        cc_ssl.CCSSL().stages(make_task(), config())


def test_a_round_writes_every_record_once_into_its_row() -> None:
    networks = make_networks()
    stage = cc_ssl.relabel(TASK, config(), networks, SETTINGS, 0)
    state = jax.jit(stage.init)(jax.random.key(1), pretrained())
    images = RNG.integers(0, 256, (N, SIZE, SIZE, 3), np.uint8)
    other = RNG.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    order = [[3, 0, 5, 1], [4, 2, 3, 0]]  # the last two belong to the next epoch
    batches = [
        target_batch(images[order[0]], order[0]),
        target_batch(np.concatenate([images[order[1][:2]], other]), order[1]),
    ]
    step, key = jax.jit(stage.step), jax.random.key(2)
    after = state
    for i, batch in enumerate(batches):
        after, metrics = step(dataclasses.replace(after, step=jnp.int32(i)), batch, key)
    assert np.isfinite(metrics["confidence"])

    @jax.jit
    def alone(records: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        def predict(x: jax.Array) -> jax.Array:
            return views.softmax_maps(networks.maps(state.params, state.stats, x, train=False)[0])

        return consensus.of_views(key, images, records, GRID, VIEWS, predict)

    points, confidence = alone(jnp.arange(N), jnp.asarray(images))
    np.testing.assert_allclose(after.extra["confidence"], confidence, rtol=1e-4)
    np.testing.assert_allclose(after.extra["points"], points, atol=1e-2)
    assert np.unique(np.round(np.asarray(after.extra["confidence"]), 5)).size > N
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)

    mesh = meshes.make_mesh(2)
    everywhere, rows = meshes.replicated(mesh), meshes.by_row(mesh)
    sharded = jax.jit(stage.step, in_shardings=(everywhere, rows, everywhere), out_shardings=everywhere)
    two, _ = sharded(state, batches[0], key)
    one, _ = step(state, batches[0], key)
    np.testing.assert_allclose(two.extra["confidence"], one.extra["confidence"], rtol=1e-4)


def test_pairs_of_frames_are_records_where_there_are_clips() -> None:
    settings = dataclasses.replace(SETTINGS, temporal_ratio=0.9)
    networks, images = make_networks(), RNG.integers(0, 256, (BATCH, 2, SIZE, SIZE, 3), np.uint8)
    stages = settings.stages(TASK, config())
    assert {tuple(stage.reads) for stage in stages[1:]} == {("target_clips",), ("source", "target_clips")}
    wanted = Read(domain="target", fields=("image", "index"), window=consecutive(2))
    assert all(stage.reads["target_clips"] == wanted for stage in stages[1:])
    stage = cc_ssl.relabel(TASK, config(), networks, settings, 0)
    state = jax.jit(stage.init)(jax.random.key(1), pretrained())
    records, key = [3, 0, 4, 1], jax.random.key(2)
    fields = target_batch(images, records)["target"]
    after, _ = jax.jit(stage.step)(state, {"target_clips": fields}, key)

    @jax.jit
    def alone() -> tuple[jax.Array, jax.Array]:
        def predict(x: jax.Array) -> jax.Array:
            return views.softmax_maps(networks.maps(state.params, state.stats, x, train=False)[0])

        return consensus.of_frames(key, fields["image"], fields["index"], GRID, VIEWS, predict, ratio=0.9)

    points, confidence = alone()
    np.testing.assert_allclose(after.extra["points"][jnp.asarray(records)], points, atol=1e-2)
    np.testing.assert_allclose(after.extra["confidence"][jnp.asarray(records)], confidence, rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(after.extra["confidence"])[[2, 5]], 0.0)
    labelled = cc_ssl.remembered(after, fields)
    np.testing.assert_array_equal(labelled["image"], images[:, 1])
    np.testing.assert_array_equal(labelled["keypoints"], after.extra["points"][jnp.asarray(records)])


def test_one_update_is_supervision_and_the_surest_of_the_memory() -> None:
    networks, settings = make_networks(), config()
    first = jax.jit(cc_ssl.relabel(TASK, settings, networks, SETTINGS, 0).init)(jax.random.key(1), pretrained())
    stage = cc_ssl.adapt(TASK, settings, networks, SETTINGS, 1)
    memory = {
        "points": RNG.uniform(4, SIZE - 5, (N, K, 2)).astype(np.float32),
        "confidence": RNG.permutation(np.linspace(0.05, 0.9, N * K)).reshape(N, K).astype(np.float32),
    }
    filled = dataclasses.replace(first, extra=first.extra | jax.tree.map(jnp.asarray, memory))
    state = jax.jit(stage.init)(jax.random.key(2), filled)
    chosen = memory["confidence"] > float(state.extra["threshold"])
    assert chosen.sum() == N * K - int(0.6 * N * K)  # the second round
    assert memory["confidence"][chosen].min() > memory["confidence"][~chosen].max()
    records = [1, 5, 0, 4]
    batch = {"source": make_batch(0)["source"]} | target_batch(np.asarray(make_batch(0)["target"]["image"]), records)
    key = jax.random.key(3)
    state = dataclasses.replace(state, step=jnp.int32(1))
    step = jax.jit(stage.step)
    after, metrics = step(state, batch, key)

    @jax.jit
    def labelled() -> Any:
        keys = jax.random.split(key)
        fields = {
            "image": batch["target"]["image"],
            "position": jnp.arange(BATCH),
            "keypoints": jnp.asarray(memory["points"][records]),
            "visible": jnp.asarray(2 * chosen[records].astype(np.uint8)),
        }
        return tuple(
            inputs.labelled(k, f, TASK, networks.draw) for k, f in zip(keys, (batch["source"], fields), strict=True)
        )

    source, target = labelled()
    assert np.asarray(target.mask).any()

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        losses, stats = [], state.stats
        for labels in (source, target):
            features, stats = networks.trunk(params, stats, labels.images, train=True)
            maps, stats = networks.head("head", params["head"], stats, features, train=True)
            losses.append(heatmap.masked_mean(heatmap.spatial_kl(labels.maps, maps), labels.mask))
        return losses[0] + 0.7 * losses[1], losses[1]

    grads, loss = jax.jit(jax.grad(objective, has_aux=True))(state.params)
    assert float(metrics["loss/target"]) == pytest.approx(float(loss), rel=1e-3)
    # The rate goes on from the three steps of the round before.
    rate = 0.05 * (1 + 1.5 * (3 + 1) / 10) ** -0.75
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads["head"]))
    jax.tree.map(
        lambda p, q, g: np.testing.assert_allclose((p - q) / rate, g, atol=2e-3 * scale),
        state.params["head"],
        after.params["head"],
        grads["head"],
    )

    empty = dataclasses.replace(
        state, extra=state.extra | {"confidence": jnp.zeros((N, K)), "threshold": jnp.zeros(())}
    )
    after, metrics = step(empty, batch, key)
    assert float(metrics["loss/target"]) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
