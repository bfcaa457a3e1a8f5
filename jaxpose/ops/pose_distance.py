"""How far two sets of poses in images are from each other, as distributions.

Poses are (N, K, 2), all of whose joints are known; of one set there may be more than of the other. Position and size in
the image, which are the crop's, are taken out by `normalized`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxpose.ops import kernels
from jaxpose.ops.trees import Tree

Poses = Float[Array, "n k 2"]
Others = Float[Array, "m k 2"]
Scalar = Float[Array, ""]
Histograms = Float[Array, "e bins"]

LONGEST = 3.0  # of normalised bones that a histogram tells apart


def normalized(poses: Poses) -> Poses:
    """Poses about the mean of their joints, whose root mean square distance from it is 1; one without a size is 0."""
    centred = poses - jnp.mean(poses, axis=1, keepdims=True)
    square = jnp.mean(jnp.sum(jnp.square(centred), axis=-1), axis=1)[:, None, None]
    return jnp.where(square > 0, centred / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def mmd(poses: Poses, others: Others, *, squared_width: Float[Array, ""] | float) -> Scalar:
    """Squared maximum mean discrepancy of poses as vectors, by the U-statistic, which may be negative.

    The memory is that of all pairs of poses.

    Args:
      poses, others: two sets, normalised.
      squared_width: of the middle one of the kernels, see `squared_width`. Values compare by one width alone.

    Source: see `kernels.mmd`.
    """
    width = jnp.asarray(squared_width, jnp.float32)
    x, y = _vectors(poses), _vectors(others)
    return kernels.mmd(x, y, factors=(0.25, 0.5, 1.0, 2.0, 4.0), bandwidth=lambda _: width, unbiased=True)


def squared_width(poses: Poses) -> Scalar:
    """The median squared distance of different poses, of the set to which others are compared, normalised."""
    x = _vectors(poses)
    squared = jnp.sum(jnp.square(x[:, None] - x[None]), axis=-1)
    return kernels.median_bandwidth(squared[jnp.triu_indices(len(x), k=1)])


def sliced_wasserstein(poses: Poses, others: Others, key: PRNGKeyArray, *, directions: int = 128) -> Scalar:
    """Mean over random directions of the first Wasserstein distance of two sets of poses, as vectors, along them.

    Args:
      poses, others: two sets, normalised.
      key: of the directions. Values compare by one key alone.
      directions: how many, uniform on the sphere.

    Source: Bonneel et al. 2015, Sliced and Radon Wasserstein barycenters, with the distance itself for its square.
    """
    x, y = _vectors(poses), _vectors(others)
    axes = jax.random.normal(key, (x.shape[1], directions))
    axes = axes / jnp.linalg.norm(axes, axis=0, keepdims=True)
    x, y = (jnp.matmul(vectors, axes, precision=jax.lax.Precision.HIGHEST) for vectors in (x, y))
    return jnp.mean(_wasserstein(x, y))


def length_histograms(poses: Poses, tree: Tree, *, bins: int = 30) -> Histograms:
    """Shares of the lengths of every bone, from 0 to `LONGEST` and above in the last bin, of normalised poses."""
    along = poses[:, tree[:, 1]] - poses[:, tree[:, 0]]
    lengths = jnp.sqrt(jnp.sum(jnp.square(along), axis=-1))
    return _shares(lengths / LONGEST, jnp.ones_like(lengths), bins)


def angle_histograms(poses: Poses, tree: Tree, *, bins: int = 36) -> Histograms:
    """Shares of the directions of every bone in the image, from -pi to pi; bones without a length do not count."""
    along = poses[:, tree[:, 1]] - poses[:, tree[:, 0]]
    x, y = along[..., 0], along[..., 1]
    seen = (x != 0) | (y != 0)
    turns = jnp.arctan2(jnp.where(seen, y, 0.0), jnp.where(seen, x, 1.0)) / (2 * jnp.pi)
    return _shares(jnp.mod(turns + 0.5, 1.0), seen.astype(jnp.float32), bins)


def total_variation(histograms: Histograms, others: Histograms) -> Float[Array, " e"]:
    """Of every bone, the share that would have to move from bin to bin: 0 where histograms are alike, 1 at the most."""
    return jnp.sum(jnp.abs(histograms - others), axis=-1) / 2


def _vectors(poses: Poses) -> Float[Array, "n c"]:
    return poses.reshape(len(poses), -1).astype(jnp.float32)


def _wasserstein(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, " d"]:
    """The area between the cumulative distributions of two samples of numbers, column by column."""
    values = jnp.concatenate([x, y])
    weights = jnp.concatenate([jnp.full_like(x, 1 / len(x)), jnp.full_like(y, -1 / len(y))])
    order = jnp.argsort(values, axis=0)
    values, weights = (jnp.take_along_axis(each, order, axis=0) for each in (values, weights))
    return jnp.sum(jnp.abs(jnp.cumsum(weights, axis=0)[:-1]) * jnp.diff(values, axis=0), axis=0)


def _shares(places: Float[Array, "n e"], weights: Float[Array, "n e"], bins: int) -> Histograms:
    """Histograms of columns of places of 0 to 1; what is beyond counts in the last bin."""
    count, bones = places.shape
    index = jnp.minimum((places * bins).astype(jnp.int32), bins - 1)
    bone = jnp.broadcast_to(jnp.arange(bones)[None], (count, bones))
    found = jnp.zeros((bones, bins)).at[bone, index].add(weights)
    return found / jnp.maximum(jnp.sum(found, axis=1, keepdims=True), 1.0)
