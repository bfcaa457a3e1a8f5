"""From a domain's part of the batch to network inputs and label maps, on the device."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.data import augment
from jaxpose.ops import heatmaps
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


LabelMaps = Callable[[jax.Array, jax.Array, Task], tuple[jax.Array, jax.Array]]


def unlabelled(key: jax.Array, fields: Fields, task: Task) -> jax.Array:
    """Augmented, normalised images."""
    return augment.augment(key, fields["image"], fields["position"], task.augmentation)[0]


def labelled(key: jax.Array, fields: Fields, task: Task, label_maps: LabelMaps) -> Labelled:
    """Augmented, normalised images with their label maps."""
    images, matrix, mirrored = augment.augment(key, fields["image"], fields["position"], task.augmentation)
    permutation = task.skeleton.flip_permutation
    keypoints = augment.move_keypoints(fields["keypoints"], matrix, mirrored, permutation)
    visible = jnp.where(mirrored[:, None], fields["visible"][:, permutation], fields["visible"]) > 0
    maps, mask = label_maps(keypoints, visible, task)
    return Labelled(images=images, maps=maps, mask=mask)


def clean_labels(keypoints: jax.Array, visible: jax.Array, task: Task) -> tuple[jax.Array, jax.Array]:
    """Gaussians at the exact place; a joint counts if it is labelled and inside the image."""
    points = heatmaps.image_to_heatmap(keypoints, task.stride)
    inside = jnp.all((keypoints > -0.5) & (keypoints < task.image_size - 0.5), axis=-1)
    return _maps(points, task), visible & inside


def released_labels(keypoints: jax.Array, visible: jax.Array, task: Task) -> tuple[jax.Array, jax.Array]:
    """The released code's label maps.

    Gaussians around whole pixels int(x / stride + 0.5), truncated towards zero, cut to a square; a joint counts if
    it is labelled and its square touches the map.

    Source: tllib's `generate_target`.
    """
    centre = jnp.trunc(keypoints / task.stride + 0.5)
    reach = 3 * task.sigma
    touches = jnp.all((centre - reach < task.heatmap_size) & (centre + reach + 1 >= 0), axis=-1)
    mask = visible & touches
    maps = _maps(centre, task, support="square")
    return jnp.where(mask[:, None, None, :], maps, 0.0), mask


def _maps(points: jax.Array, task: Task, support: heatmaps.Support = "full") -> jax.Array:
    size = (task.heatmap_size, task.heatmap_size)
    return heatmaps.gaussian_maps(points, size, sigma=task.sigma, support=support)
