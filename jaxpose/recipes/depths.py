"""Poses in 2.5D: a second head beside the heatmaps finds depths, and both are lifted to a pose before the camera.

Depths are relative to a root joint's and in lengths of a reference bone, see `ops.lifting`.

Source: Iqbal et al. 2018, arXiv:1804.09534, Sec. 3, as Lin et al. 2023 (POST), Sec. 3.2, take it up.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.metrics.metric import Predictions
from jaxpose.ops import augment, heatmaps, lifting
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import inputs, views
from jaxpose.recipes.detector import Detector
from jaxpose.recipes.inputs import Fields
from jaxpose.recipes.stage import Evaluation, State, Task

HEAD = "depth"  # the network
POSED = (*inputs.LABELLED, "keypoints3d", "intrinsics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What depths of a skeleton are relative to: the root joint, and the two joints of the bone of length 1."""

    root: int
    bone: tuple[int, int]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Points (B, K, 2) in image pixels and depths (B, K)."""

    points: Any  # Any: JAX also fills pytrees with shapes and placeholders
    depths: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Posed:
    """Labelled images with depths (B, K), which of them count (B, K), and the poses (B, K, 3) in metres, if known.

    Where the mask is False, depths are 0, and poses may be.
    """

    labels: Any  # Labelled
    depths: Any = None
    mask: Any = None
    points3d: Any = None


# Roots and reference bones of hands and bodies; the first that a skeleton has.
_REFERENCES = (
    ("middle_mcp", ("wrist", "middle_mcp")),
    ("pelvis", ("pelvis", "thorax")),
    ("pelvis", ("pelvis", "neck")),
)


def reference_of(skeleton: Skeleton) -> Reference:
    """The middle finger's first joint and the bone to it from the wrist; of bodies the pelvis and the trunk.

    Of other skeletons, the first bone and where it begins.

    Raises:
      ValueError: if there is no bone.
    """
    for root, bone in _REFERENCES:
        if set(skeleton.joints).issuperset((root, *bone)):
            first, second = skeleton.indices(bone).tolist()
            return Reference(root=skeleton.joints.index(root), bone=(first, second))
    if not skeleton.bones:
        raise ValueError(f"skeleton {skeleton.name}: found no bones, expected one that depths are measured in")
    first, second = skeleton.bone_indices[0].tolist()
    return Reference(root=first, bone=(first, second))


def posed(key: jax.Array, fields: Fields, task: Task, draw: inputs.Draw, reference: Reference) -> Posed:
    """Augmented images with label maps and depths; joints without a finite place in space have no depth."""
    images, drawn = augment.augment(key, fields["image"], fields["position"], task.augmentation)
    points3d = augment.keypoints3d_of(drawn, fields["keypoints3d"], task.skeleton.flip_permutation)
    labels = inputs.labels_of(images, drawn, fields, task, draw)
    finite = jnp.all(jnp.isfinite(points3d), axis=-1)
    ends = (reference.root, *reference.bone)
    known = finite & jnp.all(finite[:, jnp.asarray(ends)], axis=-1, keepdims=True)
    points3d = jnp.where(known[..., None], points3d, 0.0)
    depths = lifting.relative_depths(points3d, root=reference.root, bone=reference.bone)
    return Posed(labels=labels, depths=jnp.where(known, depths, 0.0), mask=labels.mask & known, points3d=points3d)


def read(maps: jax.Array, depths: jax.Array, grid: Grid, probabilities: views.ConfidenceMaps) -> Found:
    """The places and depths that are expected, given maps (B, H, W, K) of both; differentiable.

    Args:
      maps: the heatmaps' head's.
      depths: of every pixel.
      grid: the pixels.
      probabilities: makes maps that add up to 1 out of `maps`.

    Source: POST, Sec. 3.2.
    """
    p = probabilities(maps)
    return Found(points=places(p, grid), depths=jnp.sum(p * depths.astype(jnp.float32), axis=(1, 2)))


def places(probabilities: jax.Array, grid: Grid) -> jax.Array:
    """The points (B, K, 2) in image pixels that are expected, given maps (B, H, W, K) that add up to 1 (Eq. 5)."""
    pixels = jnp.arange(grid.size, dtype=jnp.float32)[None, :, None]
    x, y = (jnp.sum(pixels * jnp.sum(probabilities, axis=axis), axis=1) for axis in (1, 2))
    return heatmaps.heatmap_to_image(jnp.stack([x, y], axis=-1), grid.stride)


def sharpened_maps(maps: jax.Array) -> jax.Array:
    """Probabilities of maps that were trained by `l2` on Gaussians of peak 1.

    The paper has no temperature: of a peak of 1, the expectation then is the image's middle. With 20 it is the peak to
    a hundredth of a pixel.
    """
    return jax.nn.softmax(20 * maps.astype(jnp.float32), axis=(1, 2))


def lifted(found: Found, intrinsics: jax.Array, reference: Reference) -> jax.Array:
    """The pose (B, K, 3) before the camera, in lengths of the reference bone."""
    return lifting.lift(found.points, found.depths, intrinsics, bone=reference.bone)


def evaluation(
    of_points: Evaluation,
    networks: Detector,
    reference: Reference,
    probabilities: views.ConfidenceMaps,
    *,
    length: Callable[[State], jax.Array],
    evaluated: views.Evaluated,
) -> Evaluation:
    """What an evaluation of points finds, and the poses in metres.

    Nothing in an image says how large somebody is: the reference bone is as long as it is in the source's poses on
    average, whatever the target's labels say.

    Args:
      of_points: finds points.
      networks: of which both heads read.
      reference: the bone.
      probabilities: as for `read`.
      length: of the reference bone in metres.
      evaluated: see `views.Evaluated`.
    """

    def find(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
        found = of_points.predict(state, fields)
        chosen = evaluated(state)
        images = augment.normalize(fields["image"].astype(jnp.float32))
        # The pass is that of the points, and compiled once.
        features, _ = networks.features(chosen.params, chosen.stats, images, train=False)
        maps, by_pixel = (
            networks.head(name, chosen.params[name], chosen.stats, features.up, train=False)[0]
            for name in ("head", HEAD)
        )
        expected = read(maps, by_pixel, networks.grid, probabilities)
        pose = lifted(dataclasses.replace(expected, points=found.points), fields["intrinsics"], reference)
        return dataclasses.replace(found, points3d=pose * length(state))

    return dataclasses.replace(of_points, predict=find, fields=(*of_points.fields, "intrinsics"))
