"""Which predictions on the target are learned from: high maps, or poses that are possible as they are.

Source: Lin et al. 2023 (POST), Sec. 3.3.1; the first is UniFrame's rule (Kim et al. 2022), the second SemiHand's (Yang
et al. 2021).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.data.records import VISIBLE
from jaxpose.losses import heatmap
from jaxpose.ops import augment, lifting
from jaxpose.ops.augment import Drawn
from jaxpose.recipes import depths, supervised, views
from jaxpose.recipes.anatomy import Body
from jaxpose.recipes.depths import Found, PoseDetector
from jaxpose.recipes.stage import Metrics, Task
from jaxpose.recipes.views import View


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Taught:
    """What a teacher finds: maps (B, H, W, K), and depths of every pixel or None, of images as it views them."""

    view: Any  # View
    maps: Any
    depths: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """What a student learns, in its own view.

    Attributes:
      maps, mask: label maps (B, H, W, K), and which joints count (B, K).
      found: places and depths of corrected poses, or None.
      found_mask: which of these count (B, K).
      pixels: of a length of 1 at the root (B,).
    """

    maps: Any
    mask: Any
    found: Any = None
    found_mask: Any = None
    pixels: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trust:
    """How predictions become labels.

    Attributes:
      detector: whose predictions they are.
      share: of the joints of a batch, whose maps are highest.
      shift: fraction of the image's side by which a joint may move when its pose is corrected.
      body: corrects poses; None: none are lifted.
    """

    detector: PoseDetector
    share: float
    shift: float
    body: Body | None

    def labels(
        self, taught: Taught, student: View, intrinsics: jax.Array | None, statistics: Any, *, together: jax.Array
    ) -> tuple[PseudoLabels, Metrics]:
        """What is taught, in the student's view; with `together`, either trust counts for both losses."""
        points, confidence = self.detector.networks.read(self.detector.maps(taught.maps))
        sure = confidence > views.share_threshold(confidence, self.share)
        points, sure, inside = _carried(points, sure, taught.view, student, self.detector.task)
        metrics = {"pseudo_labels": jnp.mean(sure & inside), "confidence": jnp.mean(confidence)}
        if self.body is None or intrinsics is None:
            maps, mask = self._drawn(points, sure & inside)
            return PseudoLabels(maps=maps, mask=mask), metrics
        found, possible = self._corrected(taught, seen_by(taught.view, intrinsics), statistics)
        places, possible, there = _carried(found.points, possible, taught.view, student, self.detector.task)
        _, by_depth, _ = views.in_other_view(found.points, found.depths, taught.view, student, self.detector.task)
        both = sure | possible
        sure, possible = (jnp.where(together, both, mask) for mask in (sure, possible))
        maps, mask = self._drawn(points, sure & inside)
        camera = seen_by(student, intrinsics)
        pose = depths.lifted(Found(points=places, depths=by_depth), camera, self.body.reference)
        focal = jnp.sqrt(jnp.abs(jnp.linalg.det(camera[:, :2, :2])))
        metrics |= {"possible": jnp.mean(possible & there), "both": jnp.mean(sure & possible & inside & there)}
        learned = PseudoLabels(
            maps=maps,
            mask=mask,
            found=Found(points=places, depths=by_depth),
            found_mask=possible & there,
            pixels=focal / jnp.maximum(pose[:, self.body.reference.root, 2], 1e-3),
        )
        return learned, metrics

    def _corrected(self, taught: Taught, camera: jax.Array, statistics: Any) -> tuple[Found, jax.Array]:
        """Places and depths of corrected poses, and which joints hardly moved."""
        body = self.body
        assert body is not None
        found = self.detector.expected(taught.maps, taught.depths)
        assert found is not None
        pose = body.corrected(depths.lifted(found, camera, body.reference), statistics)
        places = lifting.project(pose, camera)
        moved = jnp.linalg.norm(places - found.points, axis=-1)
        by_depth = pose[..., 2] - pose[:, body.reference.root, 2, None]
        return Found(points=places, depths=by_depth), moved <= self.shift * self.detector.task.image_size

    def _drawn(self, points: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.detector.networks.draw(points, mask.astype(jnp.uint8) * VISIBLE)


def loss(
    maps: jax.Array,
    found: Found | None,
    learned: PseudoLabels,
    *,
    of_maps: supervised.Loss,
    mean: supervised.Reduction,
    weight: float,
) -> tuple[jax.Array, Metrics]:
    """What a student's maps, and the places and depths that it finds, differ from its labels (Eq. 3).

    Places and depths are compared in lengths of the reference bone, squared; `weight` is theirs.
    """
    value = mean(of_maps(learned.maps, maps), learned.mask)
    metrics = {"loss/target": value}
    if found is None or learned.found is None:
        return value, metrics
    offset = (found.points - learned.found.points) / learned.pixels[:, None, None]
    error = jnp.sum(jnp.square(offset), axis=-1) + jnp.square(found.depths - learned.found.depths)
    poses = heatmap.masked_mean(error, learned.found_mask)
    return value + weight * poses, metrics | {"loss/target_depth": poses}


def seen_by(view: View, intrinsics: jax.Array) -> jax.Array:
    """Intrinsics (B, 3, 3) of crops, in a view of them."""
    return augment.intrinsics_of(
        Drawn(matrix=view.matrix, mirrored=view.mirrored, colours=None, noise=None), intrinsics
    )


def _carried(
    points: jax.Array, mask: jax.Array, teacher: View, student: View, task: Task
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Points and a mask of joints in the student's view, and which of them it shows."""
    points, values, inside = views.in_other_view(points, mask.astype(jnp.float32), teacher, student, task)
    return points, values > 0, inside
