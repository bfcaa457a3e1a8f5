"""CAFA, ISA and IHTA: what each part sees and moves, that parts can be off, what keeps the graph from collapsing."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_batch, make_config, make_networks, make_task

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.losses import structure
from jaxpose.models import cross_attention, functional
from jaxpose.recipes import cafa, inputs
from jaxpose.recipes.cafa import CAFA
from jaxpose.recipes.stage import Stage, State, initial_state

SMALL = {"hidden": 6, "blocks": 0}  # blocks only cost compile time
KEY = jax.random.key(7)
ATTENTION = functional.network(functools.partial(cross_attention.CrossAttention, inputs=6))


def task_with_bones() -> Any:
    return make_task(skeleton=Skeleton(name="three", joints=("a", "b", "c"), bones=(("a", "b"), ("b", "c"))))


def start(method: CAFA, *, few: bool = False) -> tuple[Stage, State]:
    networks, config = make_networks(), make_config(method)
    config.data.labelled = "images:few" if few else None
    stage = cafa.adapt(task_with_bones(), config, networks, method)
    params, stats = networks.init(jax.random.key(0), ("backbone", "upsampling", "head"))
    return stage, jax.jit(stage.init)(jax.random.key(1), initial_state(params=params, stats=stats, optimizers={}))


def batch_of(*, few: bool = False) -> dict[str, dict[str, jax.Array]]:
    batch = make_batch(0)
    target = {"image": batch["target"]["image"], "position": batch["target"]["position"]}  # and no labels
    return {"source": batch["source"], "target": target} | ({"labelled": make_batch(1)["source"]} if few else {})


def run(method: CAFA, *, few: bool = False) -> tuple[State, State, dict[str, float]]:
    stage, state = start(method, few=few)
    after, metrics = jax.jit(stage.updates[0].step)(state, batch_of(few=few), KEY)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((after, metrics)))
    return state, after, {name: float(value) for name, value in metrics.items()}


def differs(before: State, after: State, name: str) -> bool:
    pairs = zip(jax.tree.leaves(before.params[name]), jax.tree.leaves(after.params[name]), strict=True)
    return any(bool(jnp.any(a != b)) for a, b in pairs)


def test_it_reads_no_label_of_the_target() -> None:
    stage, _ = start(CAFA(**SMALL), few=True)
    assert stage.reads["target"].fields == ("image",)
    assert stage.reads["labelled"].fields == inputs.LABELLED


@pytest.mark.parametrize("make", [CAFA, cafa.literal_settings], ids=["robust", "literal"])
def test_every_part_has_a_finite_gradient(make: Any) -> None:
    before, after, metrics = run(dataclasses.replace(make(), **SMALL, threshold=0.0), few=True)
    parts = {"supervision", "alignment", "topology", "structure"}
    assert {name.removeprefix("gradient/") for name in metrics if name.startswith("gradient/")} == parts
    assert all(metrics[f"gradient/{part}"] > 0 for part in parts)
    for name in ("backbone", "upsampling", "head", "attention", "graph"):
        assert differs(before, after, name), name
    assert "loss/labelled" in metrics


def test_few_labelled_images_do_not_move_what_is_normalised_by_at_test() -> None:
    stage, state = start(CAFA(**SMALL, trade_off=0.0, anchor=0.0), few=True)
    step = jax.jit(stage.step)
    batch = batch_of(few=True)
    after, other = (step(state, batch | {"labelled": make_batch(seed)["source"]}, KEY)[0] for seed in (1, 2))
    assert differs(after, other, "backbone")
    for name in ("backbone", "upsampling", "head"):
        for a, b in zip(jax.tree.leaves(after.stats[name]), jax.tree.leaves(other.stats[name]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_has_no_weight_is_not_there() -> None:
    """With nothing but the labels left, networks of the other parts stay as they were made."""
    before, after, metrics = run(CAFA(**SMALL, alignment=0.0, topology=0.0, structure=0.0, entropy=0.0), few=True)
    assert [name for name in metrics if name.startswith("gradient/")] == ["gradient/supervision"]
    decay = 1e-2  # what weight decay alone may change
    for name in ("attention", "graph", "places"):
        for a, b in zip(jax.tree.leaves(before.params[name]), jax.tree.leaves(after.params[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=decay)
    assert differs(before, after, "backbone")


def test_no_pair_is_no_loss() -> None:
    *_, metrics = run(CAFA(**SMALL, threshold=1.0, anchor=0.0))
    assert metrics["pairs"] == metrics["loss/topology"] == metrics["gradient/topology"] == 0
    assert not {"loss/labelled", "loss/structure", "gradient/structure"} & set(metrics)  # there are no few labels


def test_with_closed_gates_training_and_test_see_the_same() -> None:
    networks = make_networks()
    _, state = start(CAFA(**SMALL))
    images = {name: inputs.unlabelled(KEY, of, task_with_bones()) for name, of in batch_of().items()}
    made = dataclasses.replace(networks, networks={**networks.networks, "attention": ATTENTION})
    plain, _ = jax.jit(lambda p, s: cafa.plain(made, p, s, images))(state.params, state.stats)
    through, _ = jax.jit(lambda p, s: cafa.attended(made, p, s, images))(state.params, state.stats)
    for name in images:
        np.testing.assert_allclose(plain[name].up, through[name].up, atol=1e-5)
    opened = state.params | {"attention": state.params["attention"] | {"source_gate": jnp.float32(1)}}
    through, _ = jax.jit(lambda p, s: cafa.attended(made, p, s, images))(opened, state.stats)
    assert not np.allclose(plain["source"].up, through["source"].up, atol=1e-2)
    np.testing.assert_allclose(plain["target"].up, through["target"].up, atol=1e-5)


def maps_at(points: list[tuple[float, float]]) -> jax.Array:
    """Rows of one blob each, of the grid of `tiny`."""
    return make_networks().grid.gaussians(jnp.asarray(points, jnp.float32)[:, None])


def test_comparisons_of_maps_are_what_they_are_called() -> None:
    grid = make_networks().grid
    few, others = maps_at([(2, 2), (5, 5)]), maps_at([(2, 2), (5, 4)])
    same_place = float(cafa.literal(few[:1], others[:1], grid))
    elsewhere = float(cafa.literal(few[1:], others[:1], grid))
    assert same_place == pytest.approx(0, abs=1e-5)
    assert elsewhere > 0.8
    assert float(cafa.centred(few, few[::-1], grid)) < 0.1  # but for what the map's edge cuts off
    # Each is compared with the pose that is nearest, of which the second is one pixel away: cosine exp(-1/4).
    assert float(cafa.nearest(few, others, grid)) == pytest.approx((1 - np.exp(-1 / 4)) / 2, abs=0.02)


@pytest.mark.parametrize("compare", [cafa.literal, cafa.centred, cafa.nearest])
def test_comparisons_have_a_gradient_for_empty_maps_and_one_row(compare: cafa.Comparison) -> None:
    grid = make_networks().grid
    for maps in (jnp.zeros((1, 8, 8, 2)), maps_at([(3, 3)])):
        value, slope = jax.value_and_grad(lambda x, m=maps: compare(m, x, grid))(maps)
        assert bool(jnp.isfinite(value))
        assert bool(jnp.isfinite(slope).all())


@pytest.mark.parametrize(("anchor", "collapses"), [(0.0, True), (1.0, False)])
def test_the_anchor_keeps_the_graph_from_collapsing(anchor: float, collapses: bool) -> None:
    """Hundreds of updates in which all pairs are made alike: without it all poses have one output in the end."""
    method = CAFA(**SMALL, anchor=anchor, threshold=0.0, alignment=0.0, topology=20.0)
    stage, state = start(method)
    update = jax.jit(stage.updates[0].step)
    first = last = None
    for number in range(150):
        state, metrics = update(state, batch_of(), jax.random.fold_in(KEY, number))
        state = dataclasses.replace(state, step=state.step * 0)
        last = float(metrics["graph_variance"])
        first = last if first is None else first
    assert first is not None
    assert (last < 0.25 * first) == collapses


def test_chosen_pairs_and_their_loss_are_the_formulas() -> None:
    """Which pairs are kept and what is lost on them, from NumPy's loops over poses and joints."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 2, 4)).astype(np.float32), rng.normal(size=(2, 2, 4)).astype(np.float32)
    sure = rng.uniform(0.2, 1, (3, 2)).astype(np.float32), rng.uniform(0.2, 1, (2, 2)).astype(np.float32)
    alike = structure.cosines(jnp.asarray(x), jnp.asarray(y))
    similar = structure.pair_similarity(alike, *map(jnp.asarray, sure))
    found = structure.mean_of_pairs(1 - alike, similar >= 0.0)
    kept = []
    for a in range(3):
        for b in range(2):
            cosines = [x[a, k] @ y[b, k] / np.linalg.norm(x[a, k]) / np.linalg.norm(y[b, k]) for k in range(2)]
            weights = np.sqrt(sure[0][a] * sure[1][b])
            if (weights * cosines).sum() / weights.sum() >= 0:
                kept.append(1 - np.mean(cosines))
    assert 0 < len(kept) < 6
    assert float(found) == pytest.approx(np.mean(kept), abs=1e-5)
