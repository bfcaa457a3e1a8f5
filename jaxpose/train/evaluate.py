"""Evaluation: every record of a split once, exact over batches, padded rows and processes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpose.data.host.elements import Crops
from jaxpose.data.host.pipeline import evaluation_batches
from jaxpose.data.records import BrokenImageError
from jaxpose.data.views import sequences_of
from jaxpose.metrics import mae, pck
from jaxpose.metrics import rows as by_row
from jaxpose.ops import augment
from jaxpose.recipes import inputs
from jaxpose.recipes.stage import Predictions, Stage, State, Task
from jaxpose.train import mesh as meshes

_POSES = 1000  # training records whose mean is the mean pose


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
      rows: `{metric, group, value, count}`: report groups, then single joints as `joint:NAME` and, of PCK, single
        clips as `clip:NAME`; `error_px` is in pixels of the stored image.
      floor: the same rows for the mean pose, which every image is given as its prediction.
      keypoints: predictions in crop pixels, (N, K, 2).
      broken: names of records whose images cannot be decoded.
    """

    rows: list[dict[str, Any]]
    floor: list[dict[str, Any]]
    keypoints: np.ndarray
    broken: list[str]


class Evaluator:
    """Evaluates the detector of a stage, and the mean pose (K, 2) in crop pixels beside it; compiled once."""

    def __init__(
        self, stage: Stage, task: Task, measures: Measures, mesh: Mesh, batch_size: int, mean_pose: np.ndarray
    ):
        self._task, self._measures, self._mesh, self._batch_size = task, measures, mesh, batch_size
        self._mean_pose = jax.device_put(mean_pose, meshes.replicated(mesh))
        everywhere, split = meshes.replicated(mesh), meshes.by_row(mesh)
        self._step = jax.jit(
            meshes.made_for(mesh, lambda state, batch, pose: _evaluate(stage, task, measures, state, batch, pose)),
            out_shardings=((everywhere, everywhere), split),
        )

    def __call__(self, state: State, crops: Crops, *, clips: bool = False) -> Scores:
        """Evaluates a split; with `clips`, every clip too, where the records say which they belong to."""
        total, found, broken = None, [], []
        batches = evaluation_batches(
            crops, batch_size=self._batch_size, process=jax.process_index(), processes=jax.process_count()
        )
        for batch in batches:
            broken += [crops.name(int(i)) for i in batch.pop("broken") if i >= 0]
            batch.pop("index")
            counts, rows = self._step(state, meshes.to_devices(self._mesh, batch), self._mean_pose)
            total = counts if total is None else jax.tree.map(jnp.add, total, counts)
            found.append(rows)
        assert total is not None
        parts = [meshes.to_host(rows) for rows in found]
        everything = {name: np.concatenate([rows[name] for rows in parts])[: len(crops)] for name in parts[0]}
        names = sequences_of(crops.source) if clips else None
        rows, floor = (
            _rows(counts, self._task, self._measures)
            + list(self._single(everything[f"{who}distance"], everything["scale"], everything["mask"], names or ()))
            for counts, who in zip(total, ("", "floor_"), strict=True)
        )
        return Scores(rows=rows, floor=floor, keypoints=everything["points"], broken=broken)

    def _single(
        self, distance: np.ndarray, scale: np.ndarray, mask: np.ndarray, clips: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """The rows that come from single distances."""
        yield from by_row.pixel_errors(distance, scale, mask)
        if clips and "pck" in self._measures.metrics:
            for threshold in self._measures.thresholds:
                correct = distance < np.float32(threshold * self._task.image_size)
                yield from by_row.by_clip(f"pck@{threshold:g}", correct, mask, clips)


def mean_pose(crops: Crops) -> np.ndarray:
    """The mean of some training labels in crop pixels, float32 (K, 2); the centre for a joint that has no label."""
    total, count = np.zeros((len(crops.joints), 2)), np.zeros(len(crops.joints))
    for index in np.unique(np.linspace(0, len(crops) - 1, min(len(crops), _POSES)).astype(int)):
        try:
            keypoints, visible = crops.labels(int(index))
        except BrokenImageError:
            continue
        known = visible > 0
        total[known] += keypoints[known]
        count += known
    centre = (crops.size - 1) / 2
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centre).astype(np.float32)


def _evaluate(
    stage: Stage, task: Task, measures: Measures, state: State, batch: dict[str, jax.Array], pose: jax.Array
) -> tuple[tuple[dict[str, Any], ...], dict[str, jax.Array]]:
    """Counts of the detector and of the mean pose, and what is known of each row."""
    assert stage.predict is not None
    found = stage.predict(state, augment.normalize(batch["image"].astype(jnp.float32)))
    points = found.points
    mask = (batch["visible"] > 0) & batch["row"][:, None]
    floor = jnp.broadcast_to(pose, points.shape)
    constant = Predictions(points=floor, peaks=floor)
    rows = {
        "points": points,
        "mask": mask,
        "scale": batch["scale"],
        "distance": pck.distances(points, batch["keypoints"]),
        "floor_distance": pck.distances(floor, batch["keypoints"]),
    }
    return tuple(_counts(measures, task, batch, mask, predicted) for predicted in (found, constant)), rows


def _counts(
    measures: Measures, task: Task, batch: dict[str, jax.Array], mask: jax.Array, found: Predictions
) -> dict[str, Any]:
    """The sums of every metric over a batch."""
    points = found.points
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
    return counts


def _rows(total: dict[str, Any], task: Task, measures: Measures) -> list[dict[str, Any]]:
    groups = task.skeleton.group_indices
    groups |= {by_row.JOINT + joint: np.array([i], np.int32) for i, joint in enumerate(task.skeleton.joints)}
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
