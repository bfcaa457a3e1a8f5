"""Training with few target labels, against the sum of its losses written out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import make_batch, make_config, make_networks, make_task

from jaxpose.losses import heatmap
from jaxpose.recipes import few_labels, inputs
from jaxpose.recipes.detector import WHOLE
from jaxpose.recipes.few_labels import FewLabels
from jaxpose.recipes.stage import State, initial_state

KEY = jax.random.key(3)


def updated(method: FewLabels, batch: Any, **networks_of: Any) -> tuple[State, State, dict[str, float]]:
    networks, config = make_networks(**networks_of), make_config(method)
    config.optim.adapt_rule, config.optim.weight_decay, config.optim.adapt_trunk_scale = "sgd", 0.0, 1.0
    stage = few_labels.adapt(make_task(), config, networks, method)
    assert {word: read.fields for word, read in stage.reads.items()} == dict.fromkeys(batch, inputs.LABELLED)
    params, stats = networks.init(jax.random.key(0), WHOLE)
    before = jax.jit(stage.init)(jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))
    after, metrics = jax.jit(stage.step)(before, batch, KEY)
    return before, after, {name: float(value) for name, value in metrics.items()}


def written_out(batch: Any, before: State, weights: dict[str, float]) -> tuple[Any, dict[str, Any], dict[str, float]]:
    """Gradient of the weighted sum of losses, and each domain's own statistics after its pass from those before."""
    networks = make_networks()
    keys = dict(zip(weights, jax.random.split(KEY, len(weights)), strict=True))
    total, moved, values = jax.tree.map(jnp.zeros_like, before.params), {}, {}
    for domain, weight in weights.items():
        labels = inputs.labelled(keys[domain], batch[domain], make_task(), networks.draw)

        def loss(params: Any, labels: Any = labels) -> Any:
            maps, stats = networks.maps(params, before.stats, labels.images, train=True)
            log_p = jax.nn.log_softmax(maps.reshape(*maps.shape[:1], -1, maps.shape[-1]), axis=1)
            target = labels.maps.reshape(log_p.shape)
            target = target / target.sum(axis=1, keepdims=True)
            divergence = jnp.sum(target * (jnp.log(target + 1e-30) - log_p), axis=1)
            return jnp.sum(jnp.where(labels.mask, divergence, 0.0)) / jnp.sum(labels.mask.astype(jnp.float32)), stats

        (values[domain], moved[domain]), grads = jax.value_and_grad(loss, has_aux=True)(before.params)
        total = jax.tree.map(lambda t, g, w=weight: t + w * g, total, grads)
    return total, moved, {name: float(value) for name, value in values.items()}


def direction(tree: Any) -> np.ndarray:
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return flat / np.linalg.norm(flat)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_both_losses_are_added(weight: float) -> None:
    batch = {"source": make_batch(0)["source"], "labelled": make_batch(1)["source"]}
    before, after, metrics = updated(FewLabels(labelled=weight), batch)
    grads, _, values = written_out(batch, before, {"source": 1.0, "labelled": weight})
    step = jax.tree.map(lambda a, b: a - b, before.params, after.params)
    np.testing.assert_allclose(direction(step), direction(grads), atol=2e-4)
    for domain, value in values.items():
        assert metrics[f"loss/{domain}"] == pytest.approx(value, rel=1e-4)


def test_fine_tuning_reads_no_source() -> None:
    batch = {"labelled": make_batch(1)["source"]}
    before, after, metrics = updated(few_labels.fine_tuning(), batch)
    assert metrics.keys() == {"loss/labelled"}
    grads, moved, _ = written_out(batch, before, {"labelled": 1.0})
    step = jax.tree.map(lambda a, b: a - b, before.params, after.params)
    np.testing.assert_allclose(direction(step), direction(grads), atol=2e-4)
    assert optax.tree.norm(jax.tree.map(lambda a, b: a - b, after.stats, moved["labelled"])) < 1e-5


def test_target_statistics_are_those_of_the_labelled_images() -> None:
    batch = {"source": make_batch(0)["source"], "labelled": make_batch(1)["source"]}
    before, after, _ = updated(FewLabels(), batch, target_statistics=True)
    _, moved, _ = written_out(batch, before, {"source": 1.0, "labelled": 1.0})
    assert optax.tree.norm(jax.tree.map(lambda a, b: a - b, after.stats, moved["labelled"])) < 1e-5
    _, after, _ = updated(FewLabels(), batch)
    assert optax.tree.norm(jax.tree.map(lambda a, b: a - b, after.stats, moved["labelled"])) > 1e-3


def test_the_loss_is_the_divergence_that_source_models_are_trained_with() -> None:
    assert FewLabels().loss is heatmap.spatial_kl
