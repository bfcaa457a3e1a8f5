"""Poses in 2.5D: a second head beside the heatmaps finds depths, and both are lifted to a pose before the camera.

Depths are relative to a root joint's and in lengths of a reference bone, see `ops.lifting`.

Source: Iqbal et al. 2018, arXiv:1804.09534, Sec. 3, as Lin et al. 2023 (POST), Sec. 3.2, take it up.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.losses import heatmap
from jaxpose.metrics.metric import Predictions
from jaxpose.ops import augment, heatmaps, lifting
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import anatomy, inputs, supervised, views
from jaxpose.recipes.detector import WHOLE, Detector, Trees
from jaxpose.recipes.inputs import Fields
from jaxpose.recipes.stage import Evaluation, Metrics, State, Task

HEAD = "depth"  # the network
POSED = (*inputs.LABELLED, "keypoints3d", "intrinsics")


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


def posed(key: jax.Array, fields: Fields, task: Task, draw: inputs.Draw, reference: anatomy.Reference) -> Posed:
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


def lifted(found: Found, intrinsics: jax.Array, reference: anatomy.Reference) -> jax.Array:
    """The pose (B, K, 3) before the camera, in lengths of the reference bone."""
    return lifting.lift(found.points, found.depths, intrinsics, bone=reference.bone)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseDetector:
    """A detector of points and, where it has a body, of poses in space.

    Attributes:
      task: of the run.
      networks: with a head `depth` if there is a body.
      body: what poses can be like; None: nothing is found in depth.
      loss, mean: of maps against labels, and the mean over joints.
      maps: makes maps whose peak is the confidence; belongs to the loss.
      probabilities: makes maps that add up to 1, to expect places and depths by.
      weight: of the loss of depths.
    """

    task: Task
    networks: Detector
    body: anatomy.Body | None
    loss: supervised.Loss
    mean: supervised.Reduction
    maps: views.ConfidenceMaps
    probabilities: views.ConfidenceMaps
    weight: float

    @property
    def names(self) -> tuple[str, ...]:
        """Its networks."""
        return (*WHOLE, HEAD) if self.body else WHOLE

    @property
    def fields(self) -> tuple[str, ...]:
        """Of labelled images."""
        return POSED if self.body else inputs.LABELLED

    def labelled(self, key: jax.Array, fields: Fields) -> Posed:
        """Augmented images with their labels."""
        if self.body is None:
            return Posed(labels=inputs.labelled(key, fields, self.task, self.networks.draw))
        return posed(key, fields, self.task, self.networks.draw, self.body.reference)

    def find(
        self, params: Trees, stats: Trees, up: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array | None, Trees]:
        """Heatmaps and depths of every pixel that features show, and all statistics with those of `head` updated."""
        maps, moved = self.networks.head("head", params["head"], stats, up, train=train)
        if self.body is None:
            return maps, None, moved
        return maps, self.networks.head(HEAD, params[HEAD], stats, up, train=train)[0], moved

    def expected(self, maps: jax.Array, depths: jax.Array | None) -> Found | None:
        """Places and depths."""
        return None if depths is None else read(maps, depths, self.networks.grid, self.probabilities)

    def supervision(
        self, params: Trees, stats: Trees, up: jax.Array, labels: Posed
    ) -> tuple[jax.Array, tuple[Trees, Metrics]]:
        """The loss of labels, heatmaps and depths, with all statistics after it (POST, Eq. 1)."""
        maps, by_pixel, stats = self.find(params, stats, up, train=True)
        value = self.mean(self.loss(labels.labels.maps, maps), labels.labels.mask)
        found = self.expected(maps, by_pixel)
        if found is None:
            return value, (stats, {"loss/source": value})
        error = heatmap.masked_mean(jnp.square(found.depths - labels.depths), labels.mask)
        return value + self.weight * error, (stats, {"loss/source": value, "loss/depth": error})

    def evaluation(self, *, statistics: Callable[[State], Any], evaluated: views.Evaluated) -> Evaluation:
        """Points, and poses in metres.

        Nothing in an image says how large somebody is: the reference bone is as long as it is in the source's poses on
        average, whatever the target's labels say.

        Args:
          statistics: of the body, in a state.
          evaluated: see `views.Evaluated`.
        """
        of_points = self.networks.evaluation(normal=self.maps, evaluated=evaluated)
        if self.body is None:
            return of_points
        reference = self.body.reference

        def find(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
            found, chosen = of_points.predict(state, fields), evaluated(state)
            images = augment.normalize(fields["image"].astype(jnp.float32))
            # The pass is that of the points, and compiled once.
            features, _ = self.networks.features(chosen.params, chosen.stats, images, train=False)
            maps, by_pixel, _ = self.find(chosen.params, chosen.stats, features.up, train=False)
            expected = self.expected(maps, by_pixel)
            assert expected is not None
            pose = lifted(dataclasses.replace(expected, points=found.points), fields["intrinsics"], reference)
            return dataclasses.replace(found, points3d=pose * anatomy.length(statistics(state)))

        return dataclasses.replace(of_points, predict=find, fields=(*of_points.fields, "intrinsics"))
