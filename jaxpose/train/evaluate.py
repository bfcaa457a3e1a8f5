"""Evaluation: every record of a split once, exact over batches, padded rows and processes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpose.data.host.elements import Crops, Elements
from jaxpose.data.host.pipeline import evaluation_batches
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import BrokenImageError
from jaxpose.metrics.metric import JOINT, Metric, OfPeople, Predictions
from jaxpose.recipes.stage import Evaluation, State, Task
from jaxpose.train import mesh as meshes

_POSES = 1000  # training records whose mean is the mean pose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What an evaluation found.

    Attributes:
      rows: `{metric, group, value, count}`: report groups, then single joints as `joint:NAME` and, of most metrics,
        single clips as `clip:NAME`; `error_px` is in pixels of the stored image.
      floor: the same rows for the mean pose, which every image is given as its prediction.
      points: predictions by name: `points` (N, K, 2) in crop pixels, `points3d` (N, K, 3); of windows
        `points_of_windows` (N, T, K, 2) and `points3d_of_windows`.
      broken: names of records whose images cannot be decoded.
    """

    rows: list[dict[str, Any]]
    floor: list[dict[str, Any]]
    points: dict[str, np.ndarray]
    broken: list[str]

    def beside(self, before: "Scores | None") -> "Scores":
        """Those of another evaluation of the same split, and these."""
        if before is None:
            return self
        return Scores(
            rows=before.rows + self.rows,
            floor=before.floor + self.floor,
            points=before.points | self.points,
            broken=list(dict.fromkeys(before.broken + self.broken)),
        )


class Evaluator:
    """Evaluates what a stage finds, and the mean pose (K, 2) in crop pixels beside its points, if there is one.

    Compiled once.

    Attributes:
      evaluation: what is evaluated.

    Raises:
      ValueError: when called, if a metric that the evaluation names has nothing to measure.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        task: Task,
        metrics: Sequence[Metric],
        mesh: Mesh,
        batch_size: int,
        mean_pose: np.ndarray | None,
    ):
        self.evaluation, self._mesh, self._batch_size = evaluation, mesh, batch_size
        self._metrics = tuple(metrics if evaluation.metrics is None else evaluation.metrics)
        self._skeleton = task.skeleton
        self._mean_pose = None if mean_pose is None else jax.device_put(mean_pose, meshes.replicated(mesh))
        everywhere, split = meshes.replicated(mesh), meshes.by_row(mesh)
        self._step = jax.jit(
            meshes.with_mesh(mesh, lambda state, batch, pose: self._evaluate(state, batch, pose)),
            out_shardings=(everywhere, split),
        )

    def __call__(
        self, state: State, elements: Elements, *, skeleton: Skeleton | None = None, clips: bool = False
    ) -> Scores:
        """Evaluates elements.

        Args:
          state: of the stage.
          elements: of the fields.
          skeleton: of their joints; None: the task's. The mean pose is only of that.
          clips: whether every clip is evaluated, too, where the elements say which they belong to.
        """
        skeleton = skeleton or self._skeleton
        pose = self._mean_pose if skeleton == self._skeleton else None
        total, parts, broken = None, [], []
        batches = evaluation_batches(
            elements,
            elements.fields,
            batch_size=self._batch_size,
            process=jax.process_index(),
            processes=jax.process_count(),
        )
        for batch in batches:
            broken += [elements.name(int(i)) for i in batch.pop("broken") if i >= 0]
            batch.pop("index")
            sums, per_row = self._step(state, meshes.to_devices(self._mesh, batch), pose)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            parts.append(per_row)
        assert total is not None
        on_host = [meshes.to_host(part) for part in parts]
        frames = 1 if self.evaluation.window is None else self.evaluation.window.frames
        points, per_row = jax.tree.map(lambda *rows: np.concatenate(rows)[: len(elements) * frames], *on_host)
        if self.evaluation.window is not None:
            points = {f"{name}_of_windows": x.reshape(len(elements), -1, *x.shape[1:]) for name, x in points.items()}
        names = [name for name in (elements.clips() if clips else None) or () for _ in range(frames)]
        groups = skeleton.group_indices
        groups |= {JOINT + joint: np.array([i], np.int32) for i, joint in enumerate(skeleton.joints)}
        people = elements.people if isinstance(elements, Crops) else None
        metrics = [
            metric if people is None or not isinstance(metric, OfPeople) else metric.among(people)
            for metric in self._metrics
        ]
        rows, floor = (
            [
                dict(row)
                for number, sums in total[who].items()
                for row in metrics[number].rows(sums, per_row[who][number], groups, names)
            ]
            for who in ("found", "floor")
        )
        return Scores(rows=rows, floor=floor, points=points, broken=broken)

    def _evaluate(
        self, state: State, batch: dict[str, jax.Array], pose: jax.Array | None
    ) -> tuple[dict[str, Any], tuple[dict[str, jax.Array], dict[str, Any]]]:
        """Sums of the detector and of the mean pose, points, and what is known of each row."""
        predictions = self.evaluation.predict(state, batch)
        if self.evaluation.window is not None:  # of which every frame is measured as a row
            frames = self.evaluation.window.frames
            row = batch.pop("row")
            predictions, batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (predictions, batch))
            batch["row"] = jnp.repeat(row, frames)
        points = {name: x for name in ("points", "points3d") if (x := getattr(predictions, name)) is not None}
        predicted = {"found": predictions, "floor": Predictions()}
        if predictions.points is not None and pose is not None:
            constant = jnp.broadcast_to(pose, predictions.points.shape)
            predicted["floor"] = Predictions(points=constant, peaks=None if predictions.peaks is None else constant)
        known = {n: m for n, m in enumerate(self._metrics) if batch.keys() >= set(m.fields)}
        measured = {
            who: {n: m.update(p, batch) for n, m in known.items() if _there(p, m)} for who, p in predicted.items()
        }
        for metric in self.evaluation.metrics or ():
            if not _there(predictions, metric):
                raise ValueError(f"{type(metric).__name__}: found no {metric.needs} in the predictions")
        sums, per_row = ({who: {n: m[i] for n, m in of.items()} for who, of in measured.items()} for i in (0, 1))
        return sums, (points, per_row)


def fields_of(
    evaluation: Evaluation, metrics: Sequence[Metric], known: Sequence[str], *, labelled: bool = True
) -> tuple[str, ...]:
    """The fields that `predict` and the evaluation's metrics read; of others, those for which there are labels.

    Where something is to be measured, as it is `labelled`, and there are labels for no metric, all are asked for, so
    that what is missing is said.
    """
    chosen = evaluation.metrics
    if chosen is None or not labelled:
        asked = metrics if chosen is None else chosen
        chosen = [metric for metric in asked if set(known).issuperset(metric.fields)] or (metrics if labelled else ())
    return tuple(dict.fromkeys((*evaluation.fields, *(field for metric in chosen for field in metric.fields))))


def _there(found: Predictions, metric: Metric) -> bool:
    """Whether there is something that a metric measures; scalars are several by name, or none."""
    part = getattr(found, metric.needs)
    return part is not None and (not isinstance(part, dict) or bool(part))


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
