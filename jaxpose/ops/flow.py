"""Sparse optical flow: where points of one frame lie in the next."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Grey = Float[Array, "b h w"]
Points = Float[Array, "b k 2"]

_ITERATIONS = 12
_LEAST_TEXTURE = 0.1  # mean squared slope along the flattest direction, in squared grey levels per pixel


def track(
    first: Grey,
    second: Grey,
    points: Points,
    *,
    window: int = 15,
    levels: int = 2,
    limit: float = 15.0,
) -> tuple[Points, Bool[Array, "b k"]]:
    """Follows points from one frame to the next by pyramidal Lucas-Kanade, all points of all images at once.

    Args:
      first, second: grey frames, 0-255.
      points: in pixels of the first frame.
      window: side of the square around a point that is compared, odd, in pixels of each level.
      levels: halvings of the frames above the full size.
      limit: the longest motion that is believed, in pixels.

    Returns:
      the points in the second frame; which were found: with texture in two directions around them, moved by no more
      than `limit` and still inside the frame.

    Source: Bouguet 1999, "Pyramidal implementation of the Lucas Kanade feature tracker"; window, levels and limit are
    CC-SSL's.
    """
    pyramid = [(first, second)]
    for _ in range(levels):
        a, b = pyramid[-1]
        pyramid.append((_halve(a), _halve(b)))
    motion, textured = jnp.zeros_like(points), jnp.zeros(points.shape[:2], bool)
    for level in reversed(range(levels + 1)):
        a, b = pyramid[level]
        motion, textured = _refine(a, b, points / 2**level, motion * (2.0 if level < levels else 1.0), window)
    moved = points + motion
    h, w = first.shape[1:]
    inside = jnp.all((moved >= 0) & (moved <= jnp.asarray([w - 1.0, h - 1.0])[None, None]), axis=-1)
    return moved, textured & inside & (jnp.linalg.norm(motion, axis=-1) <= limit)


def _refine(
    first: Grey, second: Grey, points: Points, motion: Points, window: int
) -> tuple[Points, Bool[Array, "b k"]]:
    """Newton steps for the motion at one level, and whether each point's surroundings determine it."""
    template = _windows(first, points, window + 2)
    slope_x = (template[..., 1:-1, 2:] - template[..., 1:-1, :-2]) / 2
    slope_y = (template[..., 2:, 1:-1] - template[..., :-2, 1:-1]) / 2
    template = template[..., 1:-1, 1:-1]

    def mean(product: jax.Array) -> jax.Array:
        return jnp.mean(product, axis=(-2, -1))

    xx, xy, yy = mean(slope_x * slope_x), mean(slope_x * slope_y), mean(slope_y * slope_y)
    flattest = (xx + yy) / 2 - jnp.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    textured = flattest > _LEAST_TEXTURE
    determinant = jnp.where(textured, xx * yy - xy * xy, 1.0)

    def newton(_: Any, motion: jax.Array) -> jax.Array:
        missing = template - _windows(second, points + motion, window)
        x, y = mean(missing * slope_x), mean(missing * slope_y)
        step = jnp.stack([yy * x - xy * y, xx * y - xy * x], axis=-1) / determinant[..., None]
        return motion + jnp.where(textured[..., None], step, 0.0)

    return jax.lax.fori_loop(0, _ITERATIONS, newton, motion), textured


def _windows(images: Grey, points: Points, side: int) -> Float[Array, "b k s s"]:
    """Squares around points, bilinear; the border pixels go on outside."""
    b, h, w = images.shape
    reach = np.arange(side, dtype=np.float32) - side // 2
    y, x = (
        points[..., i, None, None] + axis for i, axis in ((1, reach[None, None, :, None]), (0, reach[None, None, None]))
    )
    x, y = jnp.clip(x, 0, w - 1), jnp.clip(y, 0, h - 1)
    left, top = jnp.minimum(jnp.floor(x), w - 2), jnp.minimum(jnp.floor(y), h - 2)
    flat = images.reshape(b, h * w)

    def at(dy: int, dx: int) -> jax.Array:
        index = (top.astype(jnp.int32) + dy) * w + left.astype(jnp.int32) + dx
        found = jnp.take_along_axis(flat, index.reshape(b, -1), axis=1, mode="promise_in_bounds")
        return found.reshape(index.shape)

    right, below = x - left, y - top
    upper = (1 - right) * at(0, 0) + right * at(0, 1)
    lower = (1 - right) * at(1, 0) + right * at(1, 1)
    return (1 - below) * upper + below * lower


def _halve(images: Grey) -> Float[Array, "b h2 w2"]:
    """Every other pixel, from the first on, of smoothed images: pixel (x, y) becomes (x, y) / 2."""
    taps = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    for axis in (1, 2):
        n = images.shape[axis]
        padded = jnp.pad(images, [(2, 2) if a == axis else (0, 0) for a in range(3)], mode="edge")
        images = sum(
            (tap * jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i, tap in enumerate(taps)),
            start=jnp.zeros_like(images),
        )
    return images[:, ::2, ::2]
