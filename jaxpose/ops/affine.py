"""2x3 affine matrices over (x, y): composed once, applied once."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

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
    return about_middle(linear, size).at[:, :, 2].add(translation)


def shear(angle: Float[Array, " b"], size: int) -> Affine:
    """Leans columns by an angle (radians), so that what lies below the image's middle moves left."""
    none, one = jnp.zeros_like(angle), jnp.ones_like(angle)
    rows = (jnp.stack([one, -jnp.tan(angle)], -1), jnp.stack([none, one], -1))
    return about_middle(jnp.stack(rows, axis=-2), size)


def about_middle(linear: Float[Array, "b 2 2"], size: int) -> Affine:
    """A linear map that leaves the image's middle where it is."""
    middle = jnp.full((2, 1), (size - 1) / 2, jnp.float32)
    return jnp.concatenate([linear, middle[None] - _product(linear, middle)], axis=-1)


def invert(matrix: Affine) -> Affine:
    """The inverse map."""
    (a, b), (c, d) = (tuple(matrix[:, i, j] for j in (0, 1)) for i in (0, 1))
    determinant = a * d - b * c
    linear = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], axis=-2) / determinant[:, None, None]
    return jnp.concatenate([linear, -_product(linear, matrix[:, :, 2:])], axis=-1)


def apply(matrix: Affine, points: Float[Array, "b n 2"]) -> Float[Array, "b n 2"]:
    """Maps points."""
    return _product(points, jnp.swapaxes(matrix[:, :, :2], 1, 2)) + matrix[:, None, :, 2]


def compose(outer: Affine, inner: Affine) -> Affine:
    """The map that applies `inner` first."""
    linear = _product(outer[:, :, :2], inner)
    return linear.at[:, :, 2].add(outer[:, :, 2])


def on_heatmaps(matrix: Affine, stride: float) -> Affine:
    """A map of image pixels as a map of heatmap pixels."""
    # A heatmap pixel p is the image pixel s p + m: (A (s p + m) + t - m) / s.
    middle = jnp.full((2, 1), (stride - 1) / 2, jnp.float32)
    linear = matrix[:, :, :2]
    offset = (_product(linear, middle) + matrix[:, :, 2:] - middle[None]) / stride
    return jnp.concatenate([linear, offset], axis=-1)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """In float32 everywhere: TPUs round operands to bfloat16 unless told, two pixels of 256."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
