"""Pseudo-labels that several views of an image agree on, and the frame before it where there are clips.

Source: CC-SSL (Mu et al., CVPR 2020), Sec. 3.3, and its released code.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxpose.ops import affine, augment, flow, heatmaps, warp
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import views
from jaxpose.recipes.views import Maps, Points, Values

Predict = Callable[[jax.Array], jax.Array]  # images -> maps that can be averaged, see `views.ConfidenceMaps`
ReadMaps = Callable[[Maps, Grid], tuple[Points, Values]]  # averaged maps -> points in crop pixels, and confidences


@dataclasses.dataclass(kw_only=True)
class RandomViews:
    """Views of an image besides the image as it is.

    Attributes:
      count: how many.
      scale_deviation, scale_limit: of the part of the image that a view shows, normal around 1; what it shows is
        magnified by the inverse.
      rotation_deviation, rotation_limit: of a view's rotation, in degrees.
    """

    count: int = 4
    scale_deviation: float = 0.25
    scale_limit: float = 0.25
    rotation_deviation: float = 30.0
    rotation_limit: float = 60.0


def of_views(
    key: Array,
    images: Array,
    records: Int[Array, " b"],
    grid: Grid,
    settings: RandomViews,
    predict: Predict,
    read: ReadMaps = views.read,
) -> tuple[Points, Values]:
    """Points in crop pixels (B, K, 2) and confidences (B, K), from the mean of heatmaps of several views.

    The views of all images (B, S, S, 3) pass through the network together. A record draws its own views, so that where
    it appears in a batch does not matter.
    """
    b, s, count = images.shape[0], images.shape[1], settings.count + 1
    matrix = _views(key, records, s, settings).reshape(b * count, 2, 3)
    repeated = jnp.broadcast_to(images[:, None], (b, count, s, s, 3)).reshape(b * count, s, s, 3)
    maps = predict(augment.normalize(warp.warp(repeated, matrix)))
    back = warp.warp_maps(maps, affine.invert(affine.on_heatmaps(matrix, grid.stride)))
    return read(jnp.mean(back.reshape(b, count, *back.shape[1:]), axis=1), grid)


def of_frames(
    key: Array,
    pairs: Array,
    records: Int[Array, " b"],
    grid: Grid,
    settings: RandomViews,
    predict: Predict,
    read: ReadMaps = views.read,
    *,
    ratio: float,
) -> tuple[Points, Values]:
    """As `of_views`, of the second frames of pairs (B, 2, S, S, 3), whose labels come from the first where sure there.

    Both frames are seen in the same views, so that their confidences compare. The released code lets a label travel on
    from frame to frame, also into the next clip, also where the flow has lost it but not moved it far, and forgets the
    label of a frame from which it moved far; here it travels by one frame, where the flow has found it.
    """
    b = pairs.shape[0]
    frames = pairs.reshape(2 * b, *pairs.shape[2:])
    estimates = of_views(key, frames, jnp.repeat(records, 2), grid, settings, predict, read)
    points, confidence = (values.reshape(b, 2, *values.shape[1:]) for values in estimates)
    grey = jnp.sum(pairs.astype(jnp.float32) * jnp.asarray(_LUMA)[None, None, None, None], axis=-1)
    limit = _LONGEST_MOTION * pairs.shape[2]
    tracked, trackable = flow.track(grey[:, 0], grey[:, 1], points[:, 0], limit=limit)
    return temporally_consistent(points[:, 1], confidence[:, 1], tracked, confidence[:, 0], trackable, ratio=ratio)


def temporally_consistent(
    points: Points,
    confidence: Values,
    tracked: Points,
    previous_confidence: Values,
    trackable: Bool[Array, "b k"],
    *,
    ratio: float = 0.9,
) -> tuple[Points, Values]:
    """A frame's labels, from the previous frame where confidence has fallen.

    Args:
      points, confidence: of the frame.
      tracked, trackable: where optical flow takes the previous frame's points, and whether it could; see
        `ops.flow.track`.
      previous_confidence: of the previous frame.
      ratio: below that ratio of confidences the tracked point takes over, with the previous confidence times it.
    """
    fallen = trackable & (previous_confidence > 0) & (confidence < ratio * previous_confidence)
    return (
        jnp.where(fallen[..., None], tracked, points),
        jnp.where(fallen, ratio * previous_confidence, confidence),
    )


def read_quarters(maps: Maps, grid: Grid) -> tuple[Points, Values]:
    """The released code's reading: the largest pixel, moved a quarter of one towards the larger neighbour on each axis.

    At the border of a map nothing is moved.

    Source: CC-SSL's released `final_preds`.
    """
    b, h, w, k = maps.shape
    peak = heatmaps.argmax_points(maps)
    x, y = (peak[..., i].astype(jnp.int32) for i in (0, 1))
    flat = maps.reshape(b, h * w, k)

    def at(dx: int, dy: int) -> jax.Array:
        index = jnp.clip((y + dy) * w + x + dx, 0, h * w - 1)
        return jnp.take_along_axis(flat, index[:, None, :], axis=1)[:, 0]

    inside = (x > 0) & (x < w - 1) & (y > 0) & (y < h - 1)
    towards = jnp.stack([jnp.sign(at(1, 0) - at(-1, 0)), jnp.sign(at(0, 1) - at(0, -1))], axis=-1)
    points = peak + jnp.where(inside[..., None], 0.25 * towards, 0.0)
    return heatmaps.heatmap_to_image(points, grid.stride), jnp.max(maps, axis=(1, 2))


_LUMA = (0.299, 0.587, 0.114)
_LONGEST_MOTION = 15 / 256  # of the image's side


def _views(key: Array, records: Int[Array, " b"], size: int, settings: RandomViews) -> Float[Array, "b v 2 3"]:
    """The image as it is and the random views of each record."""
    draw = jax.vmap(lambda record: jax.random.normal(jax.random.fold_in(key, record), (settings.count, 2)))
    scale, rotation = (draw(records)[..., i] for i in (0, 1))
    scale = 1 + jnp.clip(settings.scale_deviation * scale, -settings.scale_limit, settings.scale_limit)
    rotation = jnp.clip(settings.rotation_deviation * rotation, -settings.rotation_limit, settings.rotation_limit)
    scale, rotation = (
        jnp.pad(draws, ((0, 0), (1, 0)), constant_values=unchanged)
        for draws, unchanged in ((scale, 1.0), (rotation, 0.0))
    )
    n = scale.size
    matrix = affine.similarity(
        rotation=jnp.deg2rad(rotation.ravel()),
        scale=1 / scale.ravel(),
        translation=jnp.zeros((n, 2), jnp.float32),
        mirror=jnp.ones((n,), jnp.float32),
        size=size,
    )
    return matrix.reshape(*scale.shape, 2, 3)
