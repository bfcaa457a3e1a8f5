"""Distances between distributions by kernels."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Samples = Float[Array, "n c"]
Scalar = Float[Array, ""]


def mean_bandwidth(squared: Float[Array, " m"]) -> Scalar:
    """The mean squared distance."""
    return jnp.mean(squared)


def median_bandwidth(squared: Float[Array, " m"]) -> Scalar:
    """The median squared distance."""
    return jnp.median(squared)


def mmd(
    x: Samples,
    y: Float[Array, "m c"],
    *,
    factors: Sequence[float] = (0.125, 0.25, 0.5, 1.0, 2.0),
    bandwidth: Callable[[Float[Array, " m"]], Scalar] = mean_bandwidth,
    unbiased: bool = False,
) -> Scalar:
    """Squared maximum mean discrepancy of two samples of vectors under a sum of Gaussian kernels.

    The kernels are exp(-d^2 / (2 f b)) with a bandwidth b of the pooled sample's squared distances, through which no
    gradient flows, and one f per factor.

    Args:
      x, y: vectors of two distributions; of one there may be more.
      factors: of the bandwidth.
      bandwidth: from the squared distances of different vectors to one number.
      unbiased: the U-statistic, without the kernels of vectors with themselves, which may be negative; else the
        V-statistic.

    Source: Gretton et al. 2012, Eqs. 3 and 5; Long et al. 2015 (DAN).
    """
    n, m = len(x), len(y)
    both = jnp.concatenate([x, y]).astype(jnp.float32)
    squared = jnp.sum(jnp.square(both[:, None] - both[None]), axis=-1)
    upper = jnp.triu_indices(n + m, k=1)
    width = jnp.maximum(jax.lax.stop_gradient(bandwidth(squared[upper])), 1e-12)
    widths = 2 * width * jnp.asarray(factors)[:, None, None]
    kernel = jnp.sum(jnp.exp(-squared[None] / widths), axis=0)
    within_x, within_y, between = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if not unbiased:
        return jnp.mean(within_x) + jnp.mean(within_y) - 2 * jnp.mean(between)
    return _without_itself(within_x) + _without_itself(within_y) - 2 * jnp.mean(between)


def _without_itself(kernel: Float[Array, "n n"]) -> Scalar:
    """The mean of the kernels of different vectors."""
    n = len(kernel)
    return (jnp.sum(kernel) - jnp.trace(kernel)) / (n * (n - 1))
