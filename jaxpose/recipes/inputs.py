"""From a domain's part of the batch to network inputs and label maps, on the device."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.data.records import MISSING, OCCLUDED
from jaxpose.ops import augment, decoding, heatmaps
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
      mirror_shift: pixels by which maps of mirrored images, mirrored back, are moved to the right before they are
        compared with those of the image. Where a map's pixel i stands for the image's pixel i * stride, mirroring the
        image moves its maps 1 - 1 / stride pixels to the left of where mirroring the maps does: released codes move
        them back by a whole one. Where pixels' centres are mapped to each other, nothing is to be moved.
    """

    draw: LabelMaps
    read: Reading
    peaks: Reading | None = None
    mirror_shift: int = 0


def unlabelled(key: jax.Array, fields: Fields, task: Task) -> jax.Array:
    """Augmented, normalised images, or frames (B, T, S, S, 3) of which each row's are augmented alike."""
    return augment.augment(key, fields["image"], fields["position"], task.augmentation)[0]


def labelled(key: jax.Array, fields: Fields, task: Task, draw: Draw) -> Labelled:
    """Augmented, normalised images with their label maps, as a detector draws them."""
    images, drawn = augment.augment(key, fields["image"], fields["position"], task.augmentation)
    return labels_of(images, drawn, fields, task, draw)


def labels_of(images: jax.Array, drawn: augment.Drawn, fields: Fields, task: Task, draw: Draw) -> Labelled:
    """Augmented images with their label maps, given what was drawn for them."""
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


def msra_labels(keypoints: jax.Array, visible: jax.Array, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """SimpleBaselines' label maps: as `released_labels`, but occluded joints count, and all of which a part is seen.

    Source: `JointsDataset.generate_target` of SimpleBaselines and HRNet.
    """
    centre = jnp.trunc(keypoints / grid.stride + 0.5)
    mask = (visible > MISSING) & _reaches(centre, grid)
    return _masked(grid.gaussians(centre, support="square"), mask), mask


def msra_points(logits: jax.Array, grid: Grid) -> jax.Array:
    """As SimpleBaselines reads its maps, to a quarter of a pixel."""
    return decoding.quarter_points(logits) * grid.stride


def dark_labels(keypoints: jax.Array, visible: jax.Array, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """As `msra_labels`, but Gaussians at the exact place.

    Source: Zhang et al., CVPR 2020, Eqs. 11-12.
    """
    points = keypoints / grid.stride
    mask = (visible > MISSING) & _reaches(jnp.trunc(points + 0.5), grid)
    return _masked(grid.gaussians(points), mask), mask


def dark_points(logits: jax.Array, grid: Grid) -> jax.Array:
    """Where `dark_labels` have their peaks, see `decoding.dark_points`."""
    return decoding.dark_points(_values(logits), kernel=_kernel(grid)) * grid.stride


def udp_labels(keypoints: jax.Array, visible: jax.Array, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """As `dark_labels`, where the outermost pixels' centres of image and map lie on each other.

    The released code cuts the Gaussians to a square; here they are whole.

    Source: Huang et al., CVPR 2020, Sec. 3.2: sizes are measured in distances between pixels.
    """
    points = keypoints / _unbiased_stride(grid)
    mask = (visible > MISSING) & _reaches(jnp.trunc(points + 0.5), grid)
    return _masked(grid.gaussians(points), mask), mask


def udp_points(logits: jax.Array, grid: Grid) -> jax.Array:
    """Where `udp_labels` have their peaks, see `decoding.udp_points`."""
    return decoding.udp_points(_values(logits), kernel=_kernel(grid)) * _unbiased_stride(grid)


CLEAN = Coding(draw=clean_labels, read=clean_points)
RELEASED = Coding(draw=released_labels, read=released_points, peaks=released_peaks, mirror_shift=1)
MSRA = Coding(draw=msra_labels, read=msra_points, mirror_shift=1)
DARK = Coding(draw=dark_labels, read=dark_points, mirror_shift=1)
UDP = Coding(draw=udp_labels, read=udp_points)

# Those of top-down people, as the words of configurations call them.
CODINGS = {"msra": MSRA, "dark": DARK, "udp": UDP}


def mirrored_back(maps: jax.Array, permutation: Sequence[int], coding: Coding) -> jax.Array:
    """Maps (B, H, W, K) of mirrored images as maps of the images; `permutation` gives joints their other side's name.

    What is moved, see `Coding.mirror_shift`, leaves the columns at the border as they were.
    """
    maps = maps[:, :, ::-1, np.asarray(permutation)]
    shift = coding.mirror_shift
    return maps if not shift else jnp.concatenate([maps[:, :, :shift], maps[:, :, :-shift]], axis=2)


def _reaches(centre: jax.Array, grid: Grid) -> jax.Array:
    """Whether a square of three sigmas around whole pixels (B, K, 2) has one on the map."""
    reach = int(3 * grid.sigma)
    return jnp.all((centre - reach < grid.size) & (centre + reach + 1 >= 0), axis=-1)


def _masked(maps: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask[:, None, None, :], maps, 0.0)


def _unbiased_stride(grid: Grid) -> float:
    return (grid.size * grid.stride - 1) / (grid.size - 1)


def _kernel(grid: Grid) -> int:
    """Pixels of the blur that belong to a sigma: 11 to 2 and 17 to 3."""
    return 2 * round(3 * grid.sigma) - 1


def _values(logits: jax.Array) -> jax.Array:
    """Maps of peak 1 with these logarithms; where the peak lies does not depend on how high it is."""
    return jnp.exp(logits - jnp.max(logits, axis=(1, 2), keepdims=True))
