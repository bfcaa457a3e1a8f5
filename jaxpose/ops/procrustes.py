"""The similarity that brings one point set closest to another."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def aligned(
    points: Float[Array, "*b k d"], targets: Float[Array, "*b k d"], mask: Bool[Array, "*b k"], *, rotate: bool = True
) -> Float[Array, "*b k d"]:
    """Points moved, scaled and, with `rotate`, rotated to be closest to their targets in the mean square.

    Reflections are no rotations. Points and targets where `mask` is False may hold anything but count for nothing; so
    does what is returned there. Without a single distance between points, they come to lie on the targets' mean.

    Source: Umeyama 1991; without rotation, the scale of N-MPJPE (Rhodin et al. 2018).
    """
    weight = mask[..., None].astype(points.dtype)
    count = jnp.maximum(jnp.sum(weight, axis=-2, keepdims=True), 1)

    def centred(x: Array) -> tuple[Array, Array]:
        known = jnp.where(mask[..., None], x, 0)
        mean = jnp.sum(known, axis=-2, keepdims=True) / count
        return (known - mean) * weight, mean

    (x, _), (y, middle) = centred(points), centred(targets)
    if rotate:
        u, singular, vt = jnp.linalg.svd(jnp.swapaxes(x, -1, -2) @ y)
        proper = jnp.ones_like(singular).at[..., -1].set(jnp.sign(jnp.linalg.det(u @ vt)))
        x, fit = x @ (u * proper[..., None, :]) @ vt, jnp.sum(singular * proper, axis=-1)
    else:
        fit = jnp.sum(x * y, axis=(-1, -2))
    size = jnp.sum(jnp.square(x), axis=(-1, -2))
    scale = jnp.where(size > 0, fit / jnp.where(size > 0, size, 1), 0)
    return scale[..., None, None] * x + middle
