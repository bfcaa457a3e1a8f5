"""Recipes train an architecture that they know nothing of."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny import BATCH, SIZE, K, make_batch, make_task
from toy import Toy

from jaxpose import config as configs
from jaxpose.config import Config, Data
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import detector, regda, sw
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
