"""Losses on heatmaps; maps are (B, H, W, K), values one per sample and joint (B, K), in float32."""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float

Maps = Float[Array, "b h w k"]
Values = Float[Array, "b k"]


def spatial_kl(target: Maps, logits: Maps, *, eps: float = 0.0) -> Values:
    """KL divergence of the spatial softmax of `logits` from the normalised `target` maps (>= 0, any scale).

    `eps` is added to every pixel of the target first. A map without mass (a joint outside the image) has value and
    gradient 0; it belongs masked out by the caller.

    Source: RegDA Eqs. 6-8, 11; the released code's `eps` is 0 for labels and 1e-7 for disparities.
    """
    target = target.astype(jnp.float32) + eps
    logits = logits.astype(jnp.float32)
    mass = jnp.sum(target, axis=(1, 2))
    empty = mass <= 0
    p = target / jnp.where(empty, 1.0, mass)[:, None, None, :]
    # One reduction over p * (log p - z); as p sums to one, the log-partition adds once.
    divergence = jnp.sum(xlogy(p, p) - p * logits, axis=(1, 2)) + jax.nn.logsumexp(logits, axis=(1, 2))
    return jnp.where(empty, 0.0, divergence)


def l2(target: Maps, maps: Maps) -> Values:
    """Half the squared difference, averaged over pixels.

    Source: SimpleBaseline's loss, as RegDA's source-only model uses it.
    """
    return 0.5 * jnp.mean(jnp.square(maps.astype(jnp.float32) - target.astype(jnp.float32)), axis=(1, 2))


def summed_l2(target: Maps, maps: Maps) -> Values:
    """The squared difference, summed over pixels: 12.6 for a map without the peak of deviation 2 that it should have.

    Source: Xu & Zou 2020, Eqs. 12-13.
    """
    return jnp.sum(jnp.square(maps.astype(jnp.float32) - target.astype(jnp.float32)), axis=(1, 2))


def temporal_l2(maps: Float[Array, "b t h w k"], mask: Bool[Array, "b t k"]) -> Values:
    """Half the squared difference between the maps of neighbouring frames, summed over pixels, averaged over pairs.

    `maps` are those of T >= 2 frames of each clip. A pair counts where `mask` holds in both of its frames; the value is
    0 where there is none. The gradient goes to both frames.
    """
    maps = maps.astype(jnp.float32)
    both = mask[:, 1:] & mask[:, :-1]
    squares = 0.5 * jnp.sum(jnp.square(maps[:, 1:] - maps[:, :-1]), axis=(2, 3))
    return jnp.sum(jnp.where(both, squares, 0.0), axis=1) / jnp.maximum(jnp.sum(both, axis=1), 1).astype(jnp.float32)


def masked_mean(values: Values, mask: Bool[Array, "b k"]) -> Float[Array, ""]:
    """The mean over the joints in the mask; 0 if it is empty."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)


def mean_with_zeros(values: Values, mask: Bool[Array, "b k"]) -> Float[Array, ""]:
    """The mean over all joints, with those outside the mask counted as 0, as in the released code."""
    return jnp.mean(jnp.where(mask, values, 0.0))
