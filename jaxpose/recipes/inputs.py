"""From a domain's part of the batch to network inputs and label maps, on the device."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.data.records import MISSING, OCCLUDED
from jaxpose.ops import augment, heatmaps
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes.stage import Task

Fields = Mapping[str, jax.Array]

LABELLED = ("image", "keypoints", "visible")
UNLABELLED = ("image",)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
    """Augmented images (B, S, S, 3) with label maps (B, H, W, K) and which of them count (B, K)."""

    images: Any  # Any: JAX also fills pytrees with shapes and placeholders
    maps: Any
    mask: Any


# (keypoints (B, K, 2) in pixels, visible (B, K) uint8) -> (maps (B, H, W, K), which of them count (B, K))
Draw = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
LabelMaps = Callable[[jax.Array, jax.Array, Grid], tuple[jax.Array, jax.Array]]  # the same, given the maps' pixels
Reading = Callable[[jax.Array, Grid], jax.Array]  # (maps whose logarithm is a parabola, as logits, grid) -> (B, K, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coding:
    """How keypoints become maps, and maps keypoints again: read another way, maps are up to half a stride away.

    Attributes:
      draw: label maps, and which joints count.
      read: points in image pixels, between heatmap pixels where the logits say so.
      peaks: points in image pixels, as the evaluation reads them that belongs to the way of drawing, of the network's
        own maps; None: as `read` does.
    """

    draw: LabelMaps
    read: Reading
    peaks: Reading | None = None


def unlabelled(key: jax.Array, fields: Fields, task: Task) -> jax.Array:
    """Augmented, normalised images, or frames (B, T, S, S, 3) of which each row's are augmented alike."""
    return augment.augment(key, fields["image"], fields["position"], task.augmentation)[0]


def labelled(key: jax.Array, fields: Fields, task: Task, draw: Draw) -> Labelled:
    """Augmented, normalised images with their label maps, as a detector draws them."""
    images, drawn = augment.augment(key, fields["image"], fields["position"], task.augmentation)
    permutation = task.skeleton.flip_permutation
    keypoints = augment.keypoints_of(drawn, fields["keypoints"], permutation)
    visible = augment.visible_of(drawn, fields["visible"], permutation)
    maps, mask = draw(keypoints, visible)
    return Labelled(images=images, maps=maps, mask=mask)


def clean_labels(keypoints: jax.Array, visible: jax.Array, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """Gaussians at the exact place; a joint counts if it is labelled, occluded or not, and inside the image."""
    points = heatmaps.image_to_heatmap(keypoints, grid.stride)
    inside = jnp.all((keypoints > -0.5) & (keypoints < grid.size * grid.stride - 0.5), axis=-1)
    return grid.gaussians(points), (visible > MISSING) & inside


def clean_points(logits: jax.Array, grid: Grid) -> jax.Array:
    """Where `clean_labels` have their peaks."""
    return heatmaps.heatmap_to_image(heatmaps.subpixel_points(logits), grid.stride)


def released_labels(keypoints: jax.Array, visible: jax.Array, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """The released code's label maps.

    Gaussians around whole pixels int(x / stride + 0.5), truncated towards zero, cut to a square; a joint counts if it
    is seen (occluded ones do not count) and its whole pixel lies on the map.

    Source: tllib's `generate_target`, and its data sets' weights.
    """
    centre = jnp.trunc(keypoints / grid.stride + 0.5)
    mask = (visible > OCCLUDED) & jnp.all((centre >= 0) & (centre < grid.size), axis=-1)
    maps = grid.gaussians(centre, support="square")
    return jnp.where(mask[:, None, None, :], maps, 0.0), mask


def released_points(logits: jax.Array, grid: Grid) -> jax.Array:
    """Where `released_labels` have their peaks: a whole pixel stands for the image's pixels around its first one."""
    return heatmaps.subpixel_points(logits) * grid.stride


def released_peaks(maps: jax.Array, grid: Grid) -> jax.Array:
    """The released evaluation's points: whole pixels, the first one where no value is positive."""
    return heatmaps.argmax_points_released(maps) * grid.stride


CLEAN = Coding(draw=clean_labels, read=clean_points)
RELEASED = Coding(draw=released_labels, read=released_points, peaks=released_peaks)
