"""Evaluation: every record of a split once, exact over batches, padded rows and processes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpose.config import Config
from jaxpose.data.host.elements import Crops
from jaxpose.data.host.pipeline import evaluation_batches
from jaxpose.data.records import BrokenImageError
from jaxpose.data.views import sequences_of
from jaxpose.metrics import MAE, PCK, PixelError, TllibPCK
from jaxpose.metrics.metric import JOINT, Metric, Predictions
from jaxpose.ops import augment
from jaxpose.recipes import inputs
from jaxpose.recipes.stage import Stage, State, Task
from jaxpose.train import mesh as meshes

_POSES = 1000  # training records whose mean is the mean pose


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
        self,
        stage: Stage,
        task: Task,
        metrics: Sequence[Metric],
        mesh: Mesh,
        batch_size: int,
        mean_pose: np.ndarray,
    ):
        self._metrics, self._mesh, self._batch_size = tuple(metrics), mesh, batch_size
        self._groups = task.skeleton.group_indices
        self._groups |= {JOINT + joint: np.array([i], np.int32) for i, joint in enumerate(task.skeleton.joints)}
        self._mean_pose = jax.device_put(mean_pose, meshes.replicated(mesh))
        everywhere, split = meshes.replicated(mesh), meshes.by_row(mesh)
        self._step = jax.jit(
            meshes.made_for(mesh, lambda state, batch, pose: _evaluate(stage, self._metrics, state, batch, pose)),
            out_shardings=(everywhere, split),
        )

    def __call__(self, state: State, crops: Crops, *, clips: bool = False) -> Scores:
        """Evaluates a split; with `clips`, every clip too, where the records say which they belong to."""
        total, parts, broken = None, [], []
        batches = evaluation_batches(
            crops, batch_size=self._batch_size, process=jax.process_index(), processes=jax.process_count()
        )
        for batch in batches:
            broken += [crops.name(int(i)) for i in batch.pop("broken") if i >= 0]
            batch.pop("index")
            sums, per_row = self._step(state, meshes.to_devices(self._mesh, batch), self._mean_pose)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            parts.append(per_row)
        assert total is not None
        on_host = [meshes.to_host(part) for part in parts]
        points, per_row = jax.tree.map(lambda *rows: np.concatenate(rows)[: len(crops)], *on_host)
        names = (sequences_of(crops.source) or ()) if clips else ()
        rows, floor = (
            [
                dict(row)
                for metric, sums, values in zip(self._metrics, total[who], per_row[who], strict=True)
                for row in metric.rows(sums, values, self._groups, names)
            ]
            for who in ("found", "floor")
        )
        return Scores(rows=rows, floor=floor, keypoints=points, broken=broken)


def metrics_of(config: Config, task: Task, *, pixels_per_unit: float = 1.0) -> tuple[Metric, ...]:
    """The metrics of a configuration, and the error in pixels.

    Args:
      config: which.
      task: of the run.
      pixels_per_unit: crop pixels per unit of the data's own labels.
    """

    def label_maps(keypoints: jax.Array, visible: jax.Array) -> jax.Array:
        return inputs.released_labels(keypoints, visible, task)[0]

    chosen: dict[str, Metric] = {
        "pck": PCK(size=task.image_size, thresholds=tuple(config.pck_thresholds)),
        "tllib_pck": TllibPCK(stride=task.stride, label_maps=label_maps),
        "mae": MAE(pixels_per_unit=pixels_per_unit),
    }
    return *(chosen[name] for name in config.metrics), PixelError()


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
    stage: Stage, metrics: Sequence[Metric], state: State, batch: dict[str, jax.Array], pose: jax.Array
) -> tuple[dict[str, Any], tuple[jax.Array, dict[str, Any]]]:
    """Sums of the detector and of the mean pose, points, and what is known of each row."""
    assert stage.predict is not None
    found = stage.predict(state, augment.normalize(batch["image"].astype(jnp.float32)))
    constant = jnp.broadcast_to(pose, found.points.shape)
    predicted = {"found": found, "floor": Predictions(points=constant, peaks=constant)}
    measured = {who: [metric.update(p, batch) for metric in metrics] for who, p in predicted.items()}
    sums, per_row = ({who: [m[i] for m in of] for who, of in measured.items()} for i in (0, 1))
    return sums, (found.points, per_row)
