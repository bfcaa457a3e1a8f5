"""Evaluation: every record of a split once, exact over batches, padded rows and processes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpose.data import augment
from jaxpose.data.pipeline import Crops, evaluation_batches
from jaxpose.metrics import mae, pck
from jaxpose.recipes import inputs
from jaxpose.recipes.stage import Stage, State, Task
from jaxpose.train import mesh as meshes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured.

    Attributes:
      metrics: of `pck`, `tllib_pck` and `mae`.
      thresholds: of PCK, as fractions of the image side.
      pixels_per_unit: of MAE.
    """

    metrics: tuple[str, ...]
    thresholds: tuple[float, ...]
    pixels_per_unit: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What an evaluation found.

    Attributes:
      rows: `{metric, group, value, count}`: report groups, then single joints as `joint:NAME`.
      keypoints: predictions in crop pixels, (N, K, 2).
      broken: names of records whose images cannot be decoded.
    """

    rows: list[dict[str, Any]]
    keypoints: np.ndarray
    broken: list[str]


class Evaluator:
    """Evaluates the detector of a stage; compiled once."""

    def __init__(self, stage: Stage, task: Task, measures: Measures, mesh: Mesh, batch_size: int):
        self._task, self._measures, self._mesh, self._batch_size = task, measures, mesh, batch_size
        self._step = jax.jit(
            meshes.made_for(mesh, lambda state, batch: _evaluate(stage, task, measures, state, batch)),
            out_shardings=(meshes.replicated(mesh), meshes.by_row(mesh)),
        )

    def __call__(self, state: State, crops: Crops) -> Scores:
        """Evaluates a split."""
        total, points, broken = None, [], []
        batches = evaluation_batches(
            crops, batch_size=self._batch_size, process=jax.process_index(), processes=jax.process_count()
        )
        for batch in batches:
            broken += [crops.name(int(i)) for i in batch.pop("broken") if i >= 0]
            batch.pop("index")
            counts, found = self._step(state, meshes.to_devices(self._mesh, batch))
            total = counts if total is None else jax.tree.map(jnp.add, total, counts)
            points.append(found)
        keypoints = np.concatenate([meshes.to_host(p) for p in points])[: len(crops)]
        assert total is not None
        return Scores(rows=_rows(total, self._task, self._measures), keypoints=keypoints, broken=broken)


def _evaluate(
    stage: Stage, task: Task, measures: Measures, state: State, batch: dict[str, jax.Array]
) -> tuple[dict[str, Any], jax.Array]:
    assert stage.predict is not None
    found = stage.predict(state, augment.normalize(batch["image"].astype(jnp.float32)))
    points = found.points
    mask = (batch["visible"] > 0) & batch["row"][:, None]
    counts: dict[str, Any] = {}
    if "pck" in measures.metrics:
        for threshold in measures.thresholds:
            pixels = threshold * task.image_size
            counts[f"pck@{threshold:g}"] = pck.pck(points, batch["keypoints"], mask, threshold=pixels)
    if "tllib_pck" in measures.metrics:
        labels, _ = inputs.released_labels(batch["keypoints"], batch["visible"], task)
        counts["tllib_pck@0.05"] = pck.tllib_pck(found.peaks / task.stride, labels, batch["row"])
    if "mae" in measures.metrics:
        counts["mae"] = mae.mae(points, batch["keypoints"], mask, pixels_per_unit=measures.pixels_per_unit)
    return counts, points


def _rows(total: dict[str, Any], task: Task, measures: Measures) -> list[dict[str, Any]]:
    groups = task.skeleton.group_indices
    groups |= {f"joint:{joint}": np.array([i], np.int32) for i, joint in enumerate(task.skeleton.joints)}
    rows = []
    for metric, state in total.items():
        if metric == "mae":
            values, count = state.group(groups["all"])
            rows += [_row(metric, name, value, count) for name, value in values.items()]
        else:
            rows += [_row(metric, group, *state.group(indices)) for group, indices in groups.items()]
    return [row for row in rows if row["count"]]


def _row(metric: str, group: str, value: jax.Array, count: jax.Array) -> dict[str, Any]:
    return {"metric": metric, "group": group, "value": float(value), "count": int(count)}
