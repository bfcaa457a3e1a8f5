"""Losses that make the structure of poses alike; values per joint or pair, reduction is the caller's.

Maps are (B, H, W, K) >= 0, features (B, H, W, C); the first of two batches has A rows, the second B.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxpose.ops import heatmaps

Maps = Float[Array, "b h w k"]
Pairs = Float[Array, "a b"]
Joints = Float[Array, "b k c"]

_HIGHEST = jax.lax.Precision.HIGHEST


def cosines(x: Float[Array, "a k c"], y: Float[Array, "b k c"]) -> Float[Array, "a b k"]:
    """Cosines between the vectors of each joint, of all pairs of rows; 0 where one is zero."""
    return jnp.einsum("akc,bkc->abk", _unit(x), _unit(y), precision=_HIGHEST)


def whole(maps: Maps) -> Joints:
    """Every map as a vector: maps are alike where their joints are at the same places."""
    return jnp.moveaxis(maps.reshape(len(maps), -1, maps.shape[-1]), 2, 1)


def around_peaks(maps: Maps, *, reach: int) -> Joints:
    """The part of every map within `reach` pixels of its largest value, zero outside the map, as a vector.

    Such parts are alike where joints are found equally clearly, wherever they are. No gradient flows through the choice
    of the peak.
    """
    height, width = maps.shape[1:3]
    peaks = heatmaps.argmax_points(jax.lax.stop_gradient(maps)).astype(jnp.int32)  # (B, K, 2): x, y
    places = jnp.arange(-reach, reach + 1)[None, None, :, None]
    columns, rows = (
        (peaks[..., axis, None, None] + places == jnp.arange(size)[None, None, None]).astype(maps.dtype)
        for axis, size in ((0, width), (1, height))
    )
    # Products with zeros and ones instead of a gather, which is slow on TPUs.
    parts = jnp.einsum("bkph,bhwk,bkqw->bkpq", rows, maps, columns, precision=_HIGHEST)
    return parts.reshape(*parts.shape[:2], -1)


def nearest_rows(x: Float[Array, "a k 2"], y: Float[Array, "b k 2"]) -> Bool[Array, "a b"]:
    """Which pose of the first batch is nearest to each of the second, by the mean distance of joints."""
    distance = jnp.mean(jnp.linalg.norm(x[:, None] - y[None], axis=-1), axis=-1)
    return jnp.arange(len(x))[:, None] == jnp.argmin(distance, axis=0)[None]


def keypoint_features(features: Float[Array, "b h w c"], maps: Maps, *, pooled: bool = False) -> Joints:
    """The features where a joint is: their mean weighted by its map.

    With `pooled` the mean over all pixels of features times map, as it is printed, whose size is that of the map's
    mass. A map without mass has features 0.

    Source: Xu & Zou 2020 (IHTA), Eq. 5.
    """
    features, maps = (x.astype(jnp.float32) for x in (features, maps))
    total = jnp.einsum("bhwc,bhwk->bkc", features, maps, precision=_HIGHEST)
    if pooled:
        return total / (maps.shape[1] * maps.shape[2])
    return total / (jnp.sum(maps, axis=(1, 2))[..., None] + 1e-6)


def pair_similarity(
    alike: Float[Array, "a b k"], x: Float[Array, "a k"], y: Float[Array, "b k"], *, over_all: bool = False
) -> Pairs:
    """Mean similarity of the joints of two poses, weighted by the geometric mean of their confidences.

    With `over_all` it is divided by the number of joints instead of by the weights, as it is printed: two unsure poses
    are never similar then. Source: Xu & Zou 2020 (IHTA), Eq. 8, of which the difference is replaced by `alike`, as
    pairs are kept where the value is *large*.
    """
    weights = jnp.sqrt(jnp.maximum(x[:, None] * y[None], 1e-12))
    divisor = alike.shape[-1] if over_all else jnp.sum(weights, axis=-1)
    return jnp.sum(weights * alike, axis=-1) / divisor


def mean_of_pairs(values: Float[Array, "a b k"], chosen: Bool[Array, "a b"]) -> Float[Array, ""]:
    """The mean over joints and chosen pairs; 0, and without a gradient, if there are none."""
    total = jnp.sum(jnp.where(chosen[..., None], values, 0.0))
    return total / jnp.maximum(jnp.sum(chosen) * values.shape[-1], 1).astype(jnp.float32)


def entropy(maps: Maps) -> Float[Array, "b k"]:
    """Entropy of maps as distributions over pixels, divided by that of a flat one; 0 for a map without mass.

    Source: Xu & Zou 2020, Eq. 15, with maps that are divided by their sum: a softmax of maps of peak 1 is nearly flat
    whatever they show.
    """
    maps = maps.astype(jnp.float32)
    mass = jnp.sum(maps, axis=(1, 2))
    empty = mass <= 0
    p = maps / jnp.where(empty, 1.0, mass)[:, None, None, :]
    pixels = maps.shape[1] * maps.shape[2]
    found = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-20)), axis=(1, 2))
    return jnp.where(empty, 0.0, found) / jnp.log(float(pixels))


def _unit(x: Joints) -> Joints:
    x = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
