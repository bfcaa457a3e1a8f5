"""2x3 affine matrices over (x, y): composed once, applied once."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

Affine = Float[Array, "b 2 3"]


def similarity(
    *,
    rotation: Float[Array, " b"],
    scale: Float[Array, " b"],
    translation: Float[Array, "b 2"],
    mirror: Float[Array, " b"],
    size: int,
) -> Affine:
    """Mirrors (where -1, not 1), rotates (radians) and scales about the image centre, then translates (pixels)."""
    cos, sin = jnp.cos(rotation) * scale, jnp.sin(rotation) * scale
    linear = jnp.stack([jnp.stack([cos * mirror, -sin], -1), jnp.stack([sin * mirror, cos], -1)], axis=-2)
    centre = jnp.full((2,), (size - 1) / 2, jnp.float32)
    offset = centre[None, :] + translation - linear @ centre
    return jnp.concatenate([linear, offset[..., None]], axis=-1)


def invert(matrix: Affine) -> Affine:
    """The inverse map."""
    (a, b), (c, d) = (tuple(matrix[:, i, j] for j in (0, 1)) for i in (0, 1))
    determinant = a * d - b * c
    linear = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], axis=-2) / determinant[:, None, None]
    return jnp.concatenate([linear, -linear @ matrix[:, :, 2:]], axis=-1)


def apply(matrix: Affine, points: Float[Array, "b n 2"]) -> Float[Array, "b n 2"]:
    """Maps points."""
    return points @ jnp.swapaxes(matrix[:, :, :2], 1, 2) + matrix[:, None, :, 2]


def warp(images: UInt8[Array, "b h w 3"], matrix: Affine) -> Float[Array, "b h w 3"]:
    """Bilinear warp to images of the same size, values 0-255, black outside.

    `matrix` maps input to output pixels. Carries no gradient to the images. The three channels travel through the
    gathers as one 32-bit word, which is what makes this cheap where gathers are dear.
    """
    b, h, w, _ = images.shape
    words = images.astype(jnp.uint32)
    words = (words[..., 0] | words[..., 1] << 8 | words[..., 2] << 16).reshape(b, h * w)
    inverse = invert(matrix)
    x = jnp.arange(w, dtype=jnp.float32)[None, None, :]
    y = jnp.arange(h, dtype=jnp.float32)[None, :, None]
    row, column = (inverse[:, i, :, None, None] for i in (0, 1))
    source_x = row[:, 0] * x + row[:, 1] * y + row[:, 2]
    source_y = column[:, 0] * x + column[:, 1] * y + column[:, 2]
    x0, y0 = jnp.floor(source_x), jnp.floor(source_y)
    total = jnp.zeros((b, h, w, 3), jnp.float32)
    for corner_y, corner_x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        px, py = x0 + corner_x, y0 + corner_y
        weight = (1 - jnp.abs(source_x - px)) * (1 - jnp.abs(source_y - py))
        inside = (px >= 0) & (px < w) & (py >= 0) & (py < h)
        index = jnp.clip(py, 0, h - 1).astype(jnp.int32) * w + jnp.clip(px, 0, w - 1).astype(jnp.int32)
        word = jnp.take_along_axis(words, index.reshape(b, h * w), axis=1, mode="promise_in_bounds")
        word = word.reshape(b, h, w)
        channels = jnp.stack([word & 255, word >> 8 & 255, word >> 16 & 255], axis=-1).astype(jnp.float32)
        total += jnp.where(inside, weight, 0.0)[..., None] * channels
    return total
