"""Labels for a student's view of images, from the maps that a teacher made of its own view of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxpose.data.records import VISIBLE
from jaxpose.ops import affine, heatmaps
from jaxpose.recipes import views
from jaxpose.recipes.detector import Detector
from jaxpose.recipes.stage import Task
from jaxpose.recipes.views import Maps, View


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """What a teacher says.

    Attributes:
      maps: label maps (B, H, W, K).
      mask: which of them count (B, K).
      confidence: of all joints (B, K).
      points: (B, K, 2) in pixels of the student's view.
      known: which points may be hidden from the student (B, K).
      align: brings the student's maps to where the label maps lie.
    """

    maps: Any
    mask: Any
    confidence: Any
    points: Any
    known: Any
    align: Callable[[Maps], Maps]


# (the teacher's maps, its view, the student's view, share of the joints that become labels, the detector, task)
MakePseudoLabels = Callable[[Maps, View, View, float, Detector, Task], PseudoLabels]


def in_the_students_view(
    maps: Maps, teacher_view: View, student_view: View, share: float, networks: Detector, task: Task
) -> PseudoLabels:
    """Points are carried into the student's view and drawn there; those that it does not show are no labels."""
    points, confidence = networks.read(maps)
    points, confidence, inside = views.in_other_view(points, confidence, teacher_view, student_view, task)
    chosen = (confidence > views.share_threshold(confidence, share)) & inside
    truth, mask = networks.draw(points, chosen.astype(jnp.uint8) * VISIBLE)
    return PseudoLabels(
        maps=truth, mask=mask, confidence=confidence, points=points, known=chosen, align=lambda maps: maps
    )


def in_the_crop(
    maps: Maps, teacher_view: View, student_view: View, share: float, networks: Detector, task: Task
) -> PseudoLabels:
    """The released form: the maps of both views are brought back to the crop, and compared there.

    Confidences and points, whole pixels, are those of the maps that were brought back; a joint whose maximum is not
    positive lies in the corner. What the student's view does not show is zero where its maps are brought back, so that
    the loss of such a joint has a value but no gradient.

    Source: UniFrame's released code, `train` and `rectify`.
    """
    grid = networks.grid
    back = views.on_crop(maps, teacher_view, grid, task)
    confidence, peaks = jnp.max(back, axis=(1, 2)), heatmaps.argmax_points_released(back)
    return PseudoLabels(
        maps=grid.gaussians(peaks, support="square"),
        mask=confidence > views.share_threshold(confidence, share, least=-jnp.inf),
        confidence=confidence,
        points=affine.apply(student_view.matrix, peaks * grid.stride),
        known=jnp.ones(confidence.shape, bool),
        align=lambda maps: views.on_crop(maps, student_view, grid, task),
    )
