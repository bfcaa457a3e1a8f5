"""Average precision and recall of poses, as COCO measures them."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxpose.metrics.metric import FRACTION, Fields, Groups, Measurement, PerRow, Predictions, Scale, label_mask
from jaxpose.ops import affine

# Where in COCO's summary of keypoints the results stand.
_RESULTS = (
    *((0, "ap", "all"), (3, "ap", "medium"), (4, "ap", "large"), (1, "ap@0.5", "all"), (2, "ap@0.75", "all")),
    *((5, "ar", "all"), (8, "ar", "medium"), (9, "ar", "large")),
)
_FAR = 1e6  # pixels; where a point lies that is not finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class OKSAP:
    """`ap`, `ap@0.5`, `ap@0.75` and `ar` of object keypoint similarity, by COCO's own evaluation.

    `ap` and `ar` are means over the thresholds 0.5, 0.55, ..., 0.95; besides `all` people, their groups are the
    `medium` (32 to 96 pixels squared) and `large` ones by the area of the label's segment in the stored image. `count`
    is the number of people to be found.

    Every row is one detection, which may be taken for any person of the same image. Its score is that of its box (1 for
    the box of a label) times the mean of its joints' scores above `seen`; of detections that are more similar than
    `nms`, the surest stays.

    Who is to be found is everyone who is annotated in the images, where their source knows that (`among`): then the
    result is that of COCO's evaluation on all annotations. People without a label of these joints, and crowds, take
    detections that count as nothing. Elsewhere it is the people whose rows have labels.

    Source: Lin et al., ECCV 2014; pycocotools, to which a NaN is near everything: points that are not finite are far.
    Scores and suppression: SimpleBaselines' evaluation, whose area of a detection is that of its crop.

    Attributes:
      sigmas: of each of K joints; a distance of 2 sigma sqrt(area) has the similarity exp(-1/2).
      size: side of the crops in pixels.
      seen: scores of joints from which on a joint is seen.
      nms: similarity from which on two detections are of one person; 1 keeps all.
      people: everyone, see `among`.

    Raises:
      ValueError: by `update`, if there is not one sigma for every joint.
    """

    sigmas: tuple[float, ...]
    size: int
    seen: float = 0.2
    nms: float = 0.9
    people: Mapping[str, np.ndarray] | None = dataclasses.field(default=None, compare=False, repr=False)
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "annotated", "crop", "scale", "area", "image_id", "score")

    def among(self, people: Mapping[str, np.ndarray]) -> "OKSAP":
        """The metric on images in which these people are annotated, see `elements.Crops.people`."""
        return dataclasses.replace(self, people=people)

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Points, labels and areas in pixels of the stored images, scores, and which image it is."""
        if len(self.sigmas) != (joints := predictions.points.shape[-2]):
            raise ValueError(f"ap: found {len(self.sigmas)} sigmas, expected {joints}, one for every joint")
        to_image = affine.invert(fields["crop"])
        ones = jnp.ones(predictions.points.shape[:-1], jnp.float32)
        return None, {
            "points": affine.apply(to_image, predictions.points),
            "scores": ones if predictions.scores is None else predictions.scores,
            "score": fields["score"],
            "crop_area": jnp.square(self.size / fields["scale"]),
            "row": fields["row"],
            "labels": affine.apply(to_image, fields["keypoints"]),
            "mask": label_mask(fields, "annotated"),
            "area": fields["area"] / jnp.square(fields["scale"]),
            "image": fields["image_id"],
        }

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """Of all people, then of those of a size; nothing where there are none."""
        people = self.people if self.people is not None else _of_rows(per_row)
        found = per_row["row"] if self.people is not None else per_row["row"] & _with_label(per_row)
        to_find = (people["visible"] > 0).any(axis=1) & ~people["crowd"]
        if not to_find.any():
            return
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluated(people, {name: x[found] for name, x in per_row.items()})
        area = people["area"][to_find]
        ranges = dict(zip(evaluation.params.areaRngLbl, evaluation.params.areaRng, strict=True))
        for number, metric, group in _RESULTS:
            low, high = ranges[group]
            if (count := int(np.sum((area >= low) & (area <= high)))) > 0:
                yield Measurement(metric=metric, group=group, value=float(evaluation.stats[number]), count=count)

    def _evaluated(self, people: Mapping[str, np.ndarray], rows: PerRow) -> COCOeval:
        numbers = {tuple(image): i for i, image in enumerate(people["images"].tolist())}
        truth: Any = COCO()  # Any: its types ask for more than it reads
        truth.dataset = {
            "images": [{"id": image} for image in numbers.values()],
            "categories": [{"id": 1}],
            "annotations": [
                {
                    "id": i + 1,  # 0 stands for no match
                    "image_id": numbers[tuple(image)],
                    "category_id": 1,
                    "keypoints": _flat(points, flags),
                    "num_keypoints": int(np.count_nonzero(flags)),
                    "area": float(area),
                    "bbox": box.tolist(),
                    "iscrowd": int(crowd),
                }
                for i, (image, points, flags, area, box, crowd) in enumerate(
                    zip(
                        people["image_id"].tolist(),
                        *(people[name] for name in ("keypoints", "visible", "area", "bbox", "crowd")),
                        strict=True,
                    )
                )
            ],
        }
        truth.createIndex()
        image = np.array([numbers[tuple(image)] for image in rows["image"].tolist()], np.int64)
        points = np.nan_to_num(rows["points"], nan=_FAR, posinf=_FAR, neginf=-_FAR).astype(np.float64)
        score = rescored(rows["score"], rows["scores"], self.seen)
        kept = suppressed(points, score, rows["crop_area"], image, sigmas=self.sigmas, threshold=self.nms)
        results = [
            {
                "image_id": int(image[i]),
                "category_id": 1,
                "keypoints": _flat(points[i], np.ones(len(self.sigmas))),
                "score": float(score[i]),
            }
            for i in np.flatnonzero(kept)
        ]
        evaluation = COCOeval(truth, truth.loadRes(results) if results else COCO(), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(self.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation


def rescored(box: Float[np.ndarray, " N"], joints: Float[np.ndarray, "N K"], seen: float) -> Float[np.ndarray, " N"]:
    """The scores of detections: those of their boxes times the mean of the joints' above `seen`, 0 if none is."""
    joints = np.nan_to_num(joints).astype(np.float64)
    above = joints > seen
    return box * np.where(above, joints, 0).sum(axis=1) / np.maximum(above.sum(axis=1), 1)


def suppressed(
    points: Float[np.ndarray, "N K 2"],
    score: Float[np.ndarray, " N"],
    area: Float[np.ndarray, " N"],
    image: np.ndarray,
    *,
    sigmas: Sequence[float],
    threshold: float,
) -> Bool[np.ndarray, " N"]:
    """Which detections stay where the surer of two of an image goes before all that are more similar than a threshold.

    Source: SimpleBaselines' `oks_nms`; the area between two is the mean of both.
    """
    kept = np.ones(len(points), bool)
    if threshold >= 1:
        return kept
    variance = np.square(2 * np.array(sigmas))
    order = np.lexsort((np.arange(len(score)), -score, image))
    for rows in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        for place, row in enumerate(rows):
            others = rows[place + 1 :]
            if kept[row] and len(others):
                squared = np.square(points[others] - points[row]).sum(axis=-1)
                size = (area[row] + area[others]) / 2 + np.spacing(1)
                similarity = np.exp(-squared / variance / size[:, None] / 2).mean(axis=1)
                kept[others] &= similarity <= threshold
    return kept


def _with_label(rows: PerRow) -> Bool[np.ndarray, " N"]:
    return rows["mask"].any(axis=1) & np.isfinite(rows["area"])


def _of_rows(per_row: PerRow) -> dict[str, np.ndarray]:
    """The people whose rows have labels."""
    rows = {name: x[_with_label(per_row)] for name, x in per_row.items()}
    count = len(rows["image"])
    return {
        "images": np.unique(rows["image"], axis=0),
        "image_id": rows["image"],
        "keypoints": rows["labels"],
        "visible": 2 * rows["mask"],
        "area": rows["area"],
        "bbox": np.zeros((count, 4)),  # read of people without labels only
        "crowd": np.zeros(count, bool),
    }


def _flat(points: np.ndarray, flags: np.ndarray) -> list[float]:
    return np.concatenate([points, flags[:, None]], axis=1).reshape(-1).tolist()
