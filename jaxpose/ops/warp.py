"""Warps of images and maps by affine matrices: by gathers, or where those are dear, by shears."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxpose.ops import affine
from jaxpose.ops.platform import platform


def warp(images: UInt8[Array, "b h w 3"], matrix: affine.Affine, *, similar: bool = True) -> Float[Array, "b h w 3"]:
    """Warps images to images of the same size, values 0-255, black outside.

    `matrix` maps input to output pixels. Carries no gradient to the images. Bilinear, and exact; on TPU, where gathers
    are dear, by `shears`, in bfloat16: half a grey level off on average, and as sharp as cubic interpolation leaves
    them; unless the matrix is not `similar`, that is sheared.
    """
    if platform() == "tpu" and similar:
        return shears(images.astype(jnp.bfloat16), matrix)
    b, h, w, _ = images.shape
    # The three channels travel through the gathers as one 32-bit word, which is what makes this cheap on CPU.
    words = images.astype(jnp.uint32)
    words = (words[..., 0] | words[..., 1] << 8 | words[..., 2] << 16).reshape(b, h * w)

    def pixels(index: jax.Array) -> jax.Array:
        word = jnp.take_along_axis(words, index, axis=1, mode="promise_in_bounds")
        return jnp.stack([word & 255, word >> 8 & 255, word >> 16 & 255], axis=-1).astype(jnp.float32)

    return _bilinear(pixels, (b, h, w, 3), matrix)


def warp_maps(maps: Float[Array, "b h w k"], matrix: affine.Affine) -> Float[Array, "b h w k"]:
    """As `warp`, for float32 maps, which stay so: 0 outside, and on TPU down to -7 % of the peak beside one."""
    if platform() == "tpu":
        return shears(maps, matrix)
    b, h, w, k = maps.shape
    flat = maps.reshape(b, h * w, k)

    def pixels(index: jax.Array) -> jax.Array:
        return jnp.take_along_axis(flat, index[..., None], axis=1, mode="promise_in_bounds")

    return _bilinear(pixels, maps.shape, matrix)


def nearest_maps(maps: Float[Array, "b h w k"], matrix: affine.Affine) -> Float[Array, "b h w k"]:
    """As `warp_maps`, but of the nearest pixel, so that peaks keep their height; gathers everywhere."""
    b, h, w, k = maps.shape
    x, y = (jnp.round(place) for place in _places(h, w, matrix))
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    index = jnp.clip(y, 0, h - 1).astype(jnp.int32) * w + jnp.clip(x, 0, w - 1).astype(jnp.int32)
    found = jnp.take_along_axis(maps.reshape(b, h * w, k), index.reshape(b, h * w, 1), axis=1, mode="promise_in_bounds")
    return jnp.where(inside[..., None], found.reshape(maps.shape), 0.0)


def shears(images: Float[Array, "b s s c"], matrix: affine.Affine) -> Float[Array, "b s s c"]:
    """Warps square images by a similarity (rotation, scale, mirror, translation) without gathering pixels.

    Rows first, then columns: each pass scales by a product with one matrix for all lines of an image (linear
    interpolation) and then shifts every line by itself, by whole pixels in powers of two and by the rest (Catmull-Rom).
    Images that are turned by more than 45 degrees are transposed before, so that no line is shifted by more than half
    of the image. Computed in the dtype of the images; float32 returned.

    Source: Catmull and Smith 1980, "3-D transformations of images in scanline order".
    """
    size = images.shape[1]
    inverse = affine.invert(matrix)
    lying = jnp.abs(inverse[:, 1, 0]) > jnp.abs(inverse[:, 1, 1])
    rows = jnp.where(lying[:, None, None], inverse[:, ::-1], inverse)
    planes = images.transpose(0, 3, 1, 2)
    planes = jnp.where(lying[:, None, None, None], planes.swapaxes(2, 3), planes)
    (a, b, x0), (c, d, y0) = (tuple(rows[:, i, j] for j in range(3)) for i in range(2))
    # Output (X, Y) shows input (a X + b Y + x0, c X + d Y + y0). Where it lies in input row y, Y follows from y, and
    # the input x is stretch X + (b / d) y + ...; `row` is what the middle of the output shows.
    middle = (size - 1) / 2
    row = c * middle + d * middle + y0
    stretch, slant = (a * d - b * c) / d, b / d
    lines = jnp.arange(size, dtype=jnp.float32)[None, :]
    start = x0 - slant * y0 + slant * row
    planes = _resampled(planes, stretch, start, (slant / stretch)[:, None] * (lines - row[:, None]))
    planes = planes.astype(images.dtype).swapaxes(2, 3)
    planes = _resampled(planes, d, y0 + c * middle, (c / d)[:, None] * (lines - middle))
    return planes.transpose(0, 3, 2, 1)


def _resampled(planes: jax.Array, scale: jax.Array, start: jax.Array, shift: jax.Array) -> jax.Array:
    """Lines (B, C, lines, S) at `scale (X + shift) + start` for X from 0 to S - 1.

    `shift` is (B, lines), at most S / 2 to either side; the others are (B,).
    """
    size = planes.shape[-1]
    bits = math.ceil(math.log2(size))
    least, reach = size // 2, 2**bits - 1  # whole pixels: the shifts lie between -least and reach - least
    places = jnp.arange(size + reach + 3, dtype=jnp.float32)[None, :] - (least + 1)
    distance = scale[:, None, None] * places[:, :, None] + start[:, None, None]
    distance = distance - jnp.arange(size, dtype=jnp.float32)[None, None, :]
    weights = jnp.maximum(1 - jnp.abs(distance), 0.0).astype(planes.dtype)
    precision = jax.lax.Precision.HIGHEST if planes.dtype == jnp.float32 else None
    planes = jnp.einsum("bcls,bxs->bclx", planes, weights, precision=precision, preferred_element_type=planes.dtype)
    amount = shift + least
    whole = jnp.clip(jnp.floor(amount), 0, reach)
    rest, whole = (amount - whole)[:, None, :, None], whole.astype(jnp.int32)[:, None, :, None]
    for bit in reversed(range(bits)):
        step = 1 << bit
        width = size + step + 2
        planes = jnp.where(whole & step != 0, planes[..., step : step + width], planes[..., :width])
    return sum(
        (weight * planes[..., i : i + size].astype(jnp.float32) for i, weight in enumerate(_catmull_rom(rest))),
        start=jnp.zeros((), jnp.float32),
    )


def _catmull_rom(t: jax.Array) -> tuple[jax.Array, ...]:
    """The weights of four neighbours for a place t (0 to 1) between the inner two."""
    return (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )


def _bilinear(pixels, shape, matrix):
    """Bilinear interpolation of `pixels`, which finds (B, N, C) at N places, by row in the image, of each image."""
    b, h, w, c = shape
    source_x, source_y = _places(h, w, matrix)
    x0, y0 = jnp.floor(source_x), jnp.floor(source_y)
    total = jnp.zeros(shape, jnp.float32)
    for corner_y, corner_x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        px, py = x0 + corner_x, y0 + corner_y
        weight = (1 - jnp.abs(source_x - px)) * (1 - jnp.abs(source_y - py))
        inside = (px >= 0) & (px < w) & (py >= 0) & (py < h)
        index = jnp.clip(py, 0, h - 1).astype(jnp.int32) * w + jnp.clip(px, 0, w - 1).astype(jnp.int32)
        found = pixels(index.reshape(b, h * w)).reshape(b, h, w, c)
        total += jnp.where(inside, weight, 0.0)[..., None] * found
    return total


def _places(h: int, w: int, matrix: affine.Affine) -> tuple[jax.Array, jax.Array]:
    """Where in the input every pixel of the output lies, x and y, each (B, H, W)."""
    inverse = affine.invert(matrix)
    x = jnp.arange(w, dtype=jnp.float32)[None, None, :]
    y = jnp.arange(h, dtype=jnp.float32)[None, :, None]
    row, column = (inverse[:, i, :, None, None] for i in (0, 1))
    return row[:, 0] * x + row[:, 1] * y + row[:, 2], column[:, 0] * x + column[:, 1] * y + column[:, 2]
