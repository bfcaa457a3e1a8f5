"""Domains that go through the trunk side by side, as on accelerators, are trained on as one after the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from platforms import traced_for
from tiny import make_batch, make_config, make_networks, make_task

from jaxpose.losses import heatmap
from jaxpose.recipes import alignment, dan, inputs, pseudo_labels, regda
from jaxpose.recipes.stage import State, initial_state

KEY = jax.random.key(3)


def moved(method: Any, *, target_statistics: bool, platform: str) -> tuple[State, Any]:
    """A state after one update of the adaptation, and what it says."""
    networks = make_networks(target_statistics=target_statistics)
    task, config = make_task(), make_config(method)
    if isinstance(method, regda.RegDA):
        stage = regda.adapt(task, config, networks, method)
    else:
        stage = alignment.adapt(task, config, networks, alignment.Alignment(networks={}, loss=method.loss))
    params, stats = networks.init(jax.random.key(0), ("backbone", "upsampling", "head"))
    state = stage.init(jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))
    state = dataclasses.replace(state, step=jnp.int32(5))  # a share of the gradient through f' reaches the trunk
    with traced_for(platform):
        return jax.jit(stage.step)(state, make_batch(2), KEY)


def assert_alike(first: Any, second: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), first, second)


@pytest.mark.parametrize("target_statistics", [False, True])
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("method", [regda.RegDA(), dan.DAN()], ids=lambda method: method.name)
def test_one_update_is_the_same(method: Any, platform: str, target_statistics: bool) -> None:
    state, metrics = moved(method, target_statistics=target_statistics, platform=platform)
    expected, expected_metrics = moved(method, target_statistics=target_statistics, platform="cpu")
    assert_alike(state.params, expected.params)
    assert_alike(state.stats, expected.stats)
    assert_alike(metrics, expected_metrics)


@pytest.mark.parametrize("target_statistics", [False, True])
def test_pseudo_labels_of_both_domains_give_the_same_gradients(target_statistics: bool) -> None:
    networks, task, batch = make_networks(target_statistics=target_statistics), make_task(), make_batch(4)
    params, stats = networks.init(jax.random.key(0), ("backbone", "upsampling", "head"))
    labels, found = (inputs.labelled(KEY, batch[name], task, networks.draw) for name in ("source", "target"))

    def gradients(platform: str) -> Any:
        with traced_for(platform):
            losses = {"loss": heatmap.spatial_kl, "mean": heatmap.masked_mean, "weight": 0.7}
            return jax.jit(lambda: pseudo_labels.gradients(networks, params, stats, labels, found, **losses))()

    assert_alike(gradients("gpu"), gradients("cpu"))
