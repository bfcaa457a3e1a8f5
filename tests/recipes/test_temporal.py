"""Temporal consistency: clips are seen alike, and one more update makes their heatmaps steadier."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, SIZE, make_batch, make_config, make_networks, make_task

from jaxpose.ops import augment
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import detector, inputs, supervised, temporal
from jaxpose.recipes.adabn import AdaBN
from jaxpose.recipes.cc_ssl import CCSSL
from jaxpose.recipes.dann import DANN
from jaxpose.recipes.mean_teacher import MeanTeacher
from jaxpose.recipes.stage import Stage, State, Update, initial_state, reads


def test_stages_on_the_target_also_read_clips() -> None:
    settings = temporal.Temporal(method=DANN(hidden=8))
    stages = settings.stages(make_task(), make_config(settings))
    assert [sorted(stage.reads) for stage in stages] == [["source"], ["source", "target", "target_clips"]]
    oracle = temporal.Temporal(method=supervised.Supervised(domain="target"))
    (only,) = oracle.stages(make_task(), make_config(oracle))
    assert sorted(only.reads) == ["target"]


def test_a_method_that_reads_clips_itself_shares_them() -> None:
    settings = temporal.Temporal(method=CCSSL(rounds=1, temporal_ratio=0.9))
    task = dataclasses.replace(make_task(), sizes={"target": 8})
    stages = settings.stages(task, make_config(settings))
    assert [sorted(stage.reads) for stage in stages] == [["source"], ["target_clips"], ["source", "target_clips"]]
    state = None
    for stage in stages:
        state = jax.eval_shape(stage.init, jax.random.key(0), state)
    pairs = jax.ShapeDtypeStruct((BATCH, 2, SIZE, SIZE, 3), jnp.uint8)
    rows = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    batch = make_batch(0) | {"target_clips": {"image": pairs, "position": rows, "index": rows}}
    _, metrics = jax.eval_shape(stages[-1].step, state, batch, jax.random.key(0))
    assert {"loss/temporal", "loss/target"} <= metrics.keys()


def test_all_frames_of_a_clip_are_augmented_alike() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    clips = jnp.asarray(np.stack([frame, frame], axis=1))
    task = make_task(augmentation=Augmentation())
    see = jax.jit(
        lambda clips: inputs.unlabelled(jax.random.key(0), {"image": clips, "position": jnp.arange(BATCH)}, task)
    )
    seen = np.asarray(see(clips))
    assert seen.shape == (BATCH, 2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(seen[:, 0], seen[:, 1])
    same = see(clips[:1].repeat(BATCH, axis=0))
    assert float(jnp.abs(same[0] - same[1]).max()) > 0.1


def test_the_update_is_that_of_neighbouring_softmaxes() -> None:
    networks = make_networks()
    params, stats = jax.jit(networks.init, static_argnums=1)(jax.random.key(0), ("backbone", "upsampling", "head"))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    leaves = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, leaves)

    def idle(state: State, batch: Any, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        return state, {"loss/own": jnp.zeros(())}

    config = make_config(None)
    config.optim.momentum, config.optim.weight_decay = 0.0, 0.0
    apply_gradients = detector.adaptation(config)
    optimizers = {name: apply_gradients.rule.init(params[name]) for name in params}
    state = initial_state(params=params, stats=stats, optimizers=optimizers)
    stage = Stage(
        name="adapt",
        steps=10,
        init=lambda k, p: state,
        updates=(Update(reads=reads(target=("image",)), step=idle),),
        evaluations=(networks.evaluation(),),
        apply_gradients=apply_gradients,
    )
    settings = temporal.Temporal(method=AdaBN(), weight=2.0)
    stage = temporal.consistent(stage, make_task(), networks, settings)
    clips = np.random.default_rng(1).integers(0, 256, (BATCH, 2, SIZE, SIZE, 3), np.uint8)
    batch = make_batch(0) | {"target_clips": {"image": jnp.asarray(clips), "position": jnp.arange(BATCH)}}
    after, metrics = jax.jit(stage.step)(state, batch, jax.random.key(7))
    assert set(metrics) == {"loss/own", "loss/temporal"}

    frames = augment.normalize(jnp.asarray(clips.reshape(-1, SIZE, SIZE, 3), jnp.float32))

    def objective(params: Any) -> jax.Array:
        features, s = networks.trunk(params, stats, frames, train=True)
        maps, _ = networks.head("head", params["head"], s, features, train=True)
        p = jax.nn.softmax(maps.reshape(2 * BATCH, -1, 3), axis=1).reshape(BATCH, 2, -1, 3)
        return 2.0 * jnp.mean(0.5 * jnp.sum((p[:, 0] - p[:, 1]) ** 2, axis=1))

    loss, grads = jax.jit(jax.value_and_grad(objective))(params)
    assert float(metrics["loss/temporal"]) == pytest.approx(float(loss), rel=1e-3)
    assert float(loss) > 0.01
    for name, rate in (("backbone", 0.005), ("head", 0.05)):
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads[name]))
        jax.tree.map(
            lambda p, q, g, rate=rate, scale=scale: np.testing.assert_allclose((p - q) / rate, g, atol=5e-3 * scale),
            params[name],
            after.params[name],
            grads[name],
        )
    jax.tree.map(np.testing.assert_array_equal, after.stats, stats)


@pytest.mark.parametrize(
    ("method", "step", "before", "expected"),
    [
        (MeanTeacher(schedule=lambda high, steps, settings: lambda step: step.astype(jnp.float32) * high), 3, 0, 3.0),
        (CCSSL(rounds=2), 0, 5, (1 + 1.5 * 5 / 10) ** -0.75),
    ],
    ids=["mean_teacher", "cc_ssl"],
)
def test_the_update_follows_the_schedule_of_the_method(method: Any, step: int, before: int, expected: float) -> None:
    """A stage's `apply_gradients` at a step, from gradients of one, against the rate that the method names."""
    config = make_config(method)
    config.optim.momentum, config.optim.weight_decay = 0.0, 0.0
    stage = method.stages(dataclasses.replace(make_task(), sizes={"target": 8}), config)[-1]
    assert stage.apply_gradients is not None
    params = {"head": {"bias": jnp.zeros(2)}}
    rule = detector.adaptation(config).rule
    state = State(
        step=jnp.int32(step),
        params=params,
        stats={},
        optimizers={"head": rule.init(params["head"])},
        extra={"before": jnp.int32(before)},
    )
    moved = stage.apply_gradients(state, {"head": {"bias": jnp.ones(2)}}).params["head"]["bias"]
    np.testing.assert_allclose(moved, -0.05 * expected, rtol=1e-5)
