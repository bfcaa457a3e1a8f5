"""Heatmaps: where a keypoint lies on them, how they are rendered and decoded.

Maps are (B, H, W, K). Points are (x, y) with the centre of the top-left pixel at (0, 0).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Points = Float[Array, "b k 2"]
Maps = Float[Array, "b h w k"]
Support = Literal["full", "square", "circle"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The pixels of a detector's heatmaps.

    Attributes:
      size: side of the heatmaps in pixels.
      stride: image pixels per heatmap pixel.
      sigma: of label heatmaps, in heatmap pixels.
    """

    size: int
    stride: float
    sigma: float

    def gaussians(self, points: Points, support: Support = "full") -> Maps:
        """Maps of points in heatmap pixels, see `gaussian_maps`."""
        return gaussian_maps(points, (self.size, self.size), sigma=self.sigma, support=support)


def image_to_heatmap(points: Float[Array, "*b 2"], stride: float) -> Float[Array, "*b 2"]:
    """Image pixels to heatmap pixels; a heatmap pixel covers `stride` x `stride` image pixels."""
    return (points + 0.5) / stride - 0.5


def heatmap_to_image(points: Float[Array, "*b 2"], stride: float) -> Float[Array, "*b 2"]:
    """Heatmap pixels to image pixels; inverse of `image_to_heatmap`."""
    return (points + 0.5) * stride - 0.5


def gaussian_maps(
    points: Points,
    size: tuple[int, int],
    *,
    sigma: float,
    support: Support = "full",
) -> Maps:
    """Unnormalised Gaussians of peak 1 around points in heatmap pixels, on maps of `size` (H, W).

    `support` cuts them off: not at all, to the square of half-width 3 sigma, or where they fall to 0.01. The cut
    forms are those of the released code, which draws them around whole pixels.

    Source: RegDA Sec. 4.1, H(y).
    """
    dy = jnp.arange(size[0], dtype=jnp.float32)[None, :, None] - points[:, None, :, 1]
    dx = jnp.arange(size[1], dtype=jnp.float32)[None, :, None] - points[:, None, :, 0]
    column, row = (jnp.exp(-jnp.square(d) / (2 * sigma**2)) for d in (dy, dx))
    if support == "square":
        column, row = (jnp.where(jnp.abs(d) <= 3 * sigma, g, 0.0) for d, g in ((dy, column), (dx, row)))
    maps = column[:, :, None, :] * row[:, None, :, :]
    return jnp.where(maps > 0.01, maps, 0.0) if support == "circle" else maps


def ground_false_maps(maps: Maps, *, clip: bool = False) -> Maps:
    """The sum of the other joints' maps: where a wrong prediction is likely to lie.

    `clip` limits the sum to 1, as the released code does and the paper does not.

    Source: RegDA Eq. 9.
    """
    false = jnp.sum(maps, axis=-1, keepdims=True) - maps
    return jnp.clip(false, 0.0, 1.0) if clip else jnp.maximum(false, 0.0)


def area_false_maps(maps: Maps, area: tuple[float, float], *, sigma: float) -> Maps:
    """Ground-false maps for skeletons with one joint: Gaussians at every other pixel of a square area.

    `area` is the first and the last pixel, on both axes, of the area in which keypoints can lie. With `maps` drawn
    around whole pixels, subtracting the joint's own map leaves it out of the sum over the area.

    Source: RegDA Eq. 15.
    """
    height, width = maps.shape[1:3]

    def box(n: int) -> Float[Array, " n"]:
        pixels, centres = jnp.arange(n, dtype=jnp.float32)[:, None], jnp.arange(n, dtype=jnp.float32)[None, :]
        inside = (centres >= area[0]) & (centres <= area[1])
        return jnp.sum(jnp.where(inside, jnp.exp(-jnp.square(pixels - centres) / (2 * sigma**2)), 0.0), axis=1)

    total = box(height)[:, None] * box(width)[None, :]
    return jnp.maximum(total[None, :, :, None] - maps, 0.0)


def argmax_points(maps: Maps) -> Points:
    """The pixel of each map's maximum.

    Source: RegDA Sec. 4.1, J(h).
    """
    b, _, w, k = maps.shape
    index = jnp.argmax(maps.reshape(b, -1, k), axis=1)
    return jnp.stack([index % w, index // w], axis=-1).astype(jnp.float32)


def argmax_points_released(maps: Maps) -> Points:
    """`argmax_points`, but (0, 0) wherever the maximum is not positive, as in the released code."""
    positive = jnp.max(maps, axis=(1, 2))[..., None] > 0
    return jnp.where(positive, argmax_points(maps), 0.0)


def subpixel_points(logits: Maps) -> Points:
    """The maximum of a parabola through each map's largest pixel and its neighbours, at most half a pixel from it.

    Exact for the logits of a Gaussian, also at the border, where the parabola goes through the two pixels inside.
    """
    b, h, w, _ = logits.shape
    peak = argmax_points(logits)
    middle = [jnp.clip(peak[..., i].astype(jnp.int32), 1, n - 2) for i, n in ((0, w), (1, h))]
    flat = logits.reshape(b, h * w, -1)

    def along(axis: int) -> Float[Array, "b k"]:
        if (w, h)[axis] < 3:
            return peak[..., axis]
        x, y = (middle[i] if i == axis else peak[..., i].astype(jnp.int32) for i in (0, 1))
        before, at, after = (
            jnp.take_along_axis(flat, (y * w + x + d * (1, w)[axis])[:, None, :], axis=1)[:, 0] for d in (-1, 0, 1)
        )
        curvature = 2 * at - before - after
        vertex = middle[axis].astype(jnp.float32) + (after - before) / (2 * jnp.where(curvature > 0, curvature, 1.0))
        return jnp.where(curvature > 0, jnp.clip(vertex, peak[..., axis] - 0.5, peak[..., axis] + 0.5), peak[..., axis])

    return jnp.stack([along(0), along(1)], axis=-1)
