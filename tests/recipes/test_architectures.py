"""Recipes train architectures that they know nothing of."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from platforms import traced_for
from tiny import BATCH, SIZE, K, make_batch, make_config, make_task
from toy import Toy

from jaxpose import config as configs
from jaxpose.config import Config, Data
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.models import functional
from jaxpose.models.cross_attention import CrossAttention
from jaxpose.models.hrnet import HRNet
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import cafa, detector, regda, sw
from jaxpose.train import trainer


def configured(method: Any) -> Config:
    return Config(
        method=method,
        steps={"pretrain": 2, "adapt": 2},
        metrics=("pck", "tllib_pck"),
        eval_every=2,
        checkpoint_every=2,
        log_every=1,
        data=Data(
            source="bodies:studio?train=16&validation=4&test=4",
            target="bodies:street?train=16&validation=0&test=4",
            image_size=SIZE,
            batch_size=BATCH,
            eval_batch_size=BATCH,
        ),
        model=Toy(),
    )


def test_labels_lie_on_the_maps_of_the_architecture() -> None:
    networks = detector.build(make_task(), configured(regda.RegDA()))
    assert (networks.grid, networks.channels) == (Grid(size=16, stride=2.0, sigma=1.5), (4, 6))
    fields = make_batch(0)["source"]
    labels, _ = networks.draw(jnp.full((BATCH, K, 2), 8.5), fields["visible"])
    assert jnp.unravel_index(jnp.argmax(labels[0, :, :, 0]), (16, 16)) == (4, 4)
    assert float(labels[0, 4, 5, 0]) == pytest.approx(float(jnp.exp(-1 / (2 * 1.5**2))))

    def found() -> jax.Array:
        params, stats = networks.init(jax.random.key(0), detector.WHOLE)
        return networks.maps(params, stats, fields["image"].astype(jnp.float32), train=True)[0]

    assert jax.eval_shape(found).shape == labels.shape


@pytest.mark.parametrize("method", [regda.RegDA(), sw.StrongWeak(hidden=4)], ids=lambda method: method.name)
def test_another_architecture_is_trained_and_measured(method: Any, tmp_path: Path) -> None:
    config = configured(method)
    configs.validate(config)
    results = trainer.train(config, tmp_path / "run", show=False)
    found = {(row["stage"], row["domain"], row["metric"]) for row in results["evaluations"]}
    for stage in ("pretrain", "adapt"):
        assert {(stage, "target", "pck@0.05"), (stage, "target", "tllib_pck@0.05")} <= found
    written = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert (written["stride"], written["source_head"]) == (2, "regressor")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/source"] for line in lines if line["stage"] == "adapt" and "loss/source" in line]
    assert len(set(losses)) == 2


NARROW = HRNet(width=2, stem=2, modules=(1, 1, 1), blocks=1, sigma=1.0, head="regressor")


def hrnet(method: Any) -> tuple[Any, Config]:
    """A task with bones, and a narrow HRNet."""
    skeleton = Skeleton(name="three", joints=("a", "b", "c"), bones=(("a", "b"), ("b", "c")))
    return make_task(skeleton=skeleton), dataclasses.replace(make_config(method), model=NARROW)


def images() -> dict[str, jax.Array]:
    batch = make_batch(0)
    return {name: batch[name]["image"].astype(jnp.float32) / 255 for name in ("source", "target")}


def test_attention_to_the_branch_at_a_32nd_is_nothing_while_its_gates_are_closed() -> None:
    built = detector.build(*hrnet(cafa.CAFA()))
    attention = functional.network(functools.partial(CrossAttention, inputs=built.channels[-1]))
    networks = dataclasses.replace(built, networks={**built.networks, "attention": attention})
    params, stats = jax.jit(lambda key: networks.init(key, (*detector.WHOLE, "attention")))(jax.random.key(0))
    through = jax.jit(functools.partial(cafa.attended, networks, images=images()))
    plain, _ = jax.jit(functools.partial(cafa.plain, networks, images=images()))(params, stats)
    closed, _ = through(params, stats)
    assert [x.shape[1:] for x in plain["source"].layers] == [(8, 8, 2), (4, 4, 4), (2, 2, 8), (1, 1, 16)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), plain, closed)
    opened, _ = through(params | {"attention": params["attention"] | {"source_gate": jnp.float32(1)}}, stats)
    for fine in (0, 1, 2):
        np.testing.assert_allclose(opened["source"].layers[fine], closed["source"].layers[fine], atol=1e-5)
    assert not np.allclose(opened["source"].up, closed["source"].up, atol=1e-2)
    np.testing.assert_allclose(opened["target"].up, closed["target"].up, atol=1e-5)


@pytest.mark.slow  # forty convolutions take their time to compile
@pytest.mark.parametrize("method", [cafa.CAFA(hidden=4, blocks=0), regda.RegDA()], ids=lambda method: method.name)
def test_hrnet_is_adapted(method: Any) -> None:
    task, config = hrnet(method)
    first, stage = method.stages(task, config)

    def updated(key: jax.Array) -> Any:
        before = stage.init(key, first.init(key, None))
        batch = {name: make_batch(0)[name] for name in stage.reads}
        after, metrics = stage.updates[0].step(before, batch, key)
        return before, after, metrics

    before, after, metrics = jax.jit(updated)(jax.random.key(1))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((after, metrics)))
    for name in after.params:
        leaves = (jax.tree.leaves(state.params[name]) for state in (before, after))
        assert any(bool(jnp.any(a != b)) for a, b in zip(*leaves, strict=True)), name


def test_both_domains_go_through_hrnet_side_by_side() -> None:
    networks = detector.build(*hrnet(cafa.CAFA()))
    params, stats = jax.jit(lambda key: networks.init(key, detector.TRUNK))(jax.random.key(0))

    def seen(platform: str) -> Any:
        with traced_for(platform):
            return jax.jit(lambda: networks.features_of_both(params, stats, *images().values()))()

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), seen("gpu"), seen("cpu"))
