"""Mean teacher: one update against NumPy, who gets gradients, and how the teacher follows."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NONE, SIZE, make_batch, make_config, make_networks, make_task

from jaxpose import limits
from jaxpose.losses import heatmap
from jaxpose.ops import augment, heatmaps
from jaxpose.recipes import inputs, mean_teacher, style, views
from jaxpose.recipes.stage import Stage, State, initial_state
from jaxpose.train import mesh as meshes

TURNED = dataclasses.replace(NONE, rotation=20.0, translation=0.1)
PLAIN = mean_teacher.MeanTeacher(
    style_probability=0.0, cover_probability=0.0, share=0.5, weight=0.7, teacher_view=TURNED, student_view=TURNED
)
SETTINGS = {
    "plain": PLAIN,
    "covered": dataclasses.replace(PLAIN, cover_probability=1.0, cover_side=0.5),
    "styled": dataclasses.replace(PLAIN, transfer=lambda p, k, content, look: 0.0 * content, style_probability=1.0),
}
RATE, TRUNK_SCALE = 0.05 * (1 + 1.5 * 3 / 10) ** -0.75, 0.1
KEY = jax.random.key(3)


@jax.jit
def random_weights(key: jax.Array) -> tuple[Any, Any]:
    """Weights large enough that heatmaps have peaks; fresh heads are almost flat."""
    params, stats = make_networks().init(key, ("backbone", "upsampling", "head"))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    leaves = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, leaves), stats


def start(settings: mean_teacher.MeanTeacher) -> tuple[Stage, State]:
    """The adapt stage at its fourth step, with a teacher unlike the student."""
    config = make_config(settings)
    config.model.head = "regressor"
    config.optim.momentum, config.optim.weight_decay = 0.0, 0.0
    stage = mean_teacher.adapt(make_task(), config, make_networks(), settings)
    params, stats = random_weights(jax.random.key(0))
    state = jax.jit(stage.init)(jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))
    jax.tree.map(np.testing.assert_array_equal, state.extra["teacher"], {"params": params, "stats": stats})
    extra = {"teacher": {"params": random_weights(jax.random.key(9))[0], "stats": stats}}
    return stage, dataclasses.replace(state, step=jnp.int32(3), extra=extra)


@functools.cache
def updated(name: str) -> tuple[State, Any]:
    """The state and the metrics after one update."""
    stage, state = start(SETTINGS[name])
    return jax.jit(stage.step)(state, unlabelled(make_batch(0)), KEY)


def unlabelled(batch: Any) -> Any:
    """The batch as the loader gives it: without labels of the target."""
    return batch | {"target": {field: batch["target"][field] for field in ("image", "position")}}


@jax.jit
def forward(params: Any, stats: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    networks = make_networks()
    features, stats = networks.trunk(params, stats, images, train=True)
    return networks.head("head", params["head"], stats, features, train=True)


def pseudo_labels(maps: np.ndarray, seen: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's labels in the student's view, and which count."""
    z = np.exp(maps - maps.max((1, 2), keepdims=True))
    p = z / z.sum((1, 2), keepdims=True)
    confidence = p.max((1, 2))
    points = np.asarray(heatmaps.subpixel_points(jnp.asarray(np.log(p))))
    stride = SIZE / 8
    points = (points + 0.5) * stride - 0.5
    full = [np.concatenate([m, np.tile([[[0.0, 0, 1]]], (len(m), 1, 1))], axis=1) for m in (seen, shown)]
    homogeneous = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=-1)
    crop = np.einsum("bij,bkj->bki", np.linalg.inv(full[0]), homogeneous)
    points = np.einsum("bij,bkj->bki", full[1], crop)[..., :2]
    inside = ((points > -0.5) & (points < SIZE - 0.5)).all(-1) & ((crop > -0.5) & (crop < SIZE - 0.5))[..., :2].all(-1)
    chosen = confidence > np.sort(confidence.ravel())[confidence.size // 2 - 1]
    assert chosen.sum() == confidence.size / 2
    h = (points + 0.5) / stride - 0.5
    y, x = np.mgrid[:8, :8]
    squared = (x[None, ..., None] - h[:, None, None, :, 0]) ** 2 + (y[None, ..., None] - h[:, None, None, :, 1]) ** 2
    return np.exp(-squared / 2), chosen & inside


def test_one_update_is_supervision_and_the_teachers_surest_points() -> None:
    _, state = start(PLAIN)
    batch = make_batch(0)
    after, metrics = updated("plain")

    @jax.jit
    def shown_and_seen() -> Any:
        keys, target = jax.random.split(KEY, 7), batch["target"]
        labels = inputs.labelled(keys[0], batch["source"], make_task(), make_networks().draw)
        views = (augment.augment(k, target["image"], target["position"], TURNED) for k in keys[1:3])
        return labels, *((images, drawn.matrix) for images, drawn in views)

    labels, (seen, a), (shown, b) = shown_and_seen()
    teacher = state.extra["teacher"]
    maps, teacher_stats = forward(teacher["params"], teacher["stats"], seen)
    truth, chosen = pseudo_labels(*(np.asarray(v, np.float64) for v in (maps, a, b)))
    assert 2 < chosen.sum() <= chosen.size / 2

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        maps, stats = forward(params, state.stats, labels.images)
        supervision = heatmap.masked_mean(heatmap.spatial_kl(labels.maps, maps), labels.mask)
        maps, _ = forward(params, stats, shown)
        loss = heatmap.masked_mean(heatmap.spatial_kl(jnp.asarray(truth, jnp.float32), maps), jnp.asarray(chosen))
        return supervision + 0.7 * loss, loss

    grads, loss = jax.jit(jax.grad(objective, has_aux=True))(state.params)
    assert float(metrics["loss/target"]) == pytest.approx(float(loss), rel=1e-3)
    assert float(metrics["pseudo_labels"]) == pytest.approx(chosen.mean())
    for name, rate in (("backbone", TRUNK_SCALE * RATE), ("upsampling", TRUNK_SCALE * RATE), ("head", RATE)):
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads[name]))
        jax.tree.map(
            lambda p, q, g, rate=rate, scale=scale: np.testing.assert_allclose((p - q) / rate, g, atol=5e-3 * scale),
            state.params[name],
            after.params[name],
            grads[name],
        )
        # After three steps the teacher is the average of what it was and one part of four of the new student.
        jax.tree.map(
            lambda t, old, new: np.testing.assert_allclose(t, 0.75 * old + 0.25 * new, atol=1e-6),
            after.extra["teacher"]["params"][name],
            teacher["params"][name],
            after.params[name],
        )
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-5),
        after.extra["teacher"]["stats"],
        teacher_stats,
    )


def test_styles_and_patches_change_what_the_student_sees_but_not_its_pseudo_labels() -> None:
    plain, covered, styled = (updated(name)[1] for name in ("plain", "covered", "styled"))
    assert covered["confidence"] == plain["confidence"]
    assert covered["loss/source"] == plain["loss/source"]
    assert covered["loss/target"] != plain["loss/target"]
    assert styled["confidence"] != plain["confidence"]
    assert styled["loss/source"] != plain["loss/source"]


def test_the_teacher_or_the_student_predicts() -> None:
    fields = {"image": jax.random.randint(jax.random.key(0), (2, SIZE, SIZE, 3), 0, 256, jnp.uint8)}
    networks = make_networks()
    stage, state = start(PLAIN)
    plain, _ = start(dataclasses.replace(PLAIN, evaluated=views.student))
    find = networks.evaluation().predict
    teacher = dataclasses.replace(state, params=state.extra["teacher"]["params"])
    by_teacher, by_student = (s.evaluations[0].predict(state, fields).points for s in (stage, plain))
    np.testing.assert_allclose(by_teacher, find(teacher, fields).points, atol=1e-4)
    np.testing.assert_allclose(by_student, find(state, fields).points, atol=1e-4)
    assert float(jnp.abs(by_teacher - by_student).max()) > 1e-2


def test_two_devices_do_what_one_does() -> None:
    one = updated("covered")
    stage, state = start(SETTINGS["covered"])
    mesh = meshes.make_mesh(2)
    everywhere, rows = meshes.replicated(mesh), meshes.by_row(mesh)
    step = jax.jit(stage.step, in_shardings=(everywhere, rows, everywhere), out_shardings=everywhere)
    two = step(state, unlabelled(make_batch(0)), KEY)
    close = {"rtol": 1e-3, "atol": 1e-5}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **close), (one[0].params, one[1]), (two[0].params, two[1])
    )


def test_style_networks_are_trained_between_and_kept() -> None:
    settings = mean_teacher.MeanTeacher(transfer=style.adain, style_network=style.Style(width=4))
    config = make_config(settings)
    with pytest.raises(ValueError, match=r"config.steps: found pretrain, adapt, expected steps of 'style'"):
        settings.stages(make_task(), config)
    config.steps["style"] = 3
    stages = settings.stages(make_task(), config)
    assert [stage.name for stage in stages] == ["pretrain", "style", "adapt"]
    state = None
    for stage in stages:
        state = jax.eval_shape(stage.init, jax.random.key(0), state)
    assert set(state.params) == {"backbone", "upsampling", "head", *style.NETWORKS}
    assert set(state.extra["teacher"]["params"]) == set(state.optimizers) == {"backbone", "upsampling", "head"}


def test_wrong_shares_are_named() -> None:
    with pytest.raises(ValueError, match=r"config.method.share: found 1.5, expected 0 to 1"):
        limits.check(mean_teacher.MeanTeacher(share=1.5), "config.method")


def test_the_released_rate_falls_twice() -> None:
    rate = mean_teacher.released_schedule(1.0, 300, make_config(None).optim)
    found = [float(rate(jnp.int32(i))) for i in (0, 39, 40, 189, 190)]
    np.testing.assert_allclose(found, [1, 1, 0.1, 0.1, 0.01], rtol=1e-5)
