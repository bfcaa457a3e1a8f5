"""Average precision and recall of poses, as COCO measures them."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
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
    is the number of people.

    Every row is one person and, from the crop around it, one detection, which may be taken for any person of the same
    image. Its score is the mean of its joints' scores, or 1 where there are none. What differs from COCO's server: the
    boxes are those of the labels; people who are no records, such as crowds, take no detection; a joint whose label
    lies outside the crop counts as without label, and a person without label is left out.

    Source: Lin et al., ECCV 2014; pycocotools, to which a NaN is near everything: points that are not finite are far.

    Attributes:
      sigmas: of each of K joints; a distance of 2 sigma sqrt(area) has the similarity exp(-1/2).
    """

    sigmas: tuple[float, ...]
    scale: ClassVar[Scale] = FRACTION
    needs: ClassVar[str] = "points"
    fields: ClassVar[tuple[str, ...]] = ("keypoints", "visible", "crop", "scale", "area", "image_id")

    def update(self, predictions: Predictions, fields: Fields) -> tuple[None, PerRow]:
        """Points, labels and areas in pixels of the stored images, scores, and which image it is."""
        to_image = affine.invert(fields["crop"])
        scores = jnp.ones_like(fields["area"]) if predictions.scores is None else jnp.mean(predictions.scores, axis=-1)
        return None, {
            "points": affine.apply(to_image, predictions.points),
            "labels": affine.apply(to_image, fields["keypoints"]),
            "mask": label_mask(fields),
            "score": scores,
            "area": fields["area"] / jnp.square(fields["scale"]),
            "image": fields["image_id"],
        }

    def rows(self, sums: Any, per_row: PerRow, groups: Groups, clips: Sequence[str]) -> Iterator[Measurement]:
        """Of all people, then of those of a size; nothing where there are none."""
        people = per_row["mask"].any(axis=1) & np.isfinite(per_row["area"])
        if not people.any():
            return
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = _evaluated({name: x[people] for name, x in per_row.items()}, self.sigmas)
        area = per_row["area"][people]
        ranges = dict(zip(evaluation.params.areaRngLbl, evaluation.params.areaRng, strict=True))
        for number, metric, group in _RESULTS:
            low, high = ranges[group]
            if (count := int(np.sum((area >= low) & (area <= high)))) > 0:
                yield Measurement(metric=metric, group=group, value=float(evaluation.stats[number]), count=count)


def _evaluated(people: PerRow, sigmas: Sequence[float]) -> COCOeval:
    _, images = np.unique(people["image"], axis=0, return_inverse=True)
    images = images.reshape(-1).tolist()
    truth: Any = COCO()  # Any: its types ask for more than it reads
    truth.dataset = {
        "images": [{"id": image} for image in sorted(set(images))],
        "categories": [{"id": 1}],
        "annotations": [
            {
                "id": i + 1,  # 0 stands for no match
                "image_id": image,
                "category_id": 1,
                "keypoints": _flat(labels, 2 * known),
                "num_keypoints": int(known.sum()),
                "area": float(area),
                "bbox": [0, 0, 0, 0],  # read of people without labels only
                "iscrowd": 0,
            }
            for i, (image, labels, known, area) in enumerate(
                zip(images, people["labels"], people["mask"], people["area"], strict=True)
            )
        ],
    }
    truth.createIndex()
    points = np.nan_to_num(people["points"], nan=_FAR, posinf=_FAR, neginf=-_FAR)
    detections = truth.loadRes(
        [
            {"image_id": image, "category_id": 1, "keypoints": _flat(pose, np.ones(len(pose))), "score": float(score)}
            for image, pose, score in zip(images, points, np.nan_to_num(people["score"]), strict=True)
        ]
    )
    evaluation = COCOeval(truth, detections, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _flat(points: np.ndarray, flags: np.ndarray) -> list[float]:
    return np.concatenate([points, flags[:, None]], axis=1).reshape(-1).tolist()
