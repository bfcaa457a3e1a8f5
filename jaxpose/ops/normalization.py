"""Batch normalisation with the reductions that a step cannot do without: one over the batch in each direction."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxpose.ops.platform import devices, everywhere, platform

EPSILON = 1e-5
_CHUNK = 256  # pixels that are summed first

Statistics = Float[Array, "*d c"]


@jax.custom_vjp
def batch_norm(
    x: Float[Array, "b *s c"], scale: Float[Array, " c"], bias: Float[Array, " c"]
) -> tuple[Float[Array, "b *s c"], Statistics, Statistics]:
    """Normalises channels by the statistics of the batch, then scales and shifts them; computed in float32.

    Args:
      x: vectors (B, C), images (B, H, W, C), or images of D domains (N, D, B / N, H, W, C), each of which is
        normalised by itself, on N devices.
      scale, bias: of each channel.

    Returns:
      of the dtype of `x`, the normalised batch; float32, its means and (biased) variances, (C,) or (D, C), which carry
      no gradient. Only reverse mode is defined.

    The variance is found in one pass over the differences to one pixel of the batch: it loses to rounding what that
    pixel differs from the mean, in standard deviations and squared, however far both are from zero. On a mesh every
    device does so for its rows, and the devices' statistics are put together (Chan et al. 1979, Eq. 2.1).
    """
    (y, mean, variance), _ = _forward(x, scale, bias)
    return y, mean, variance


def stack_domains(*batches: Float[Array, "b h w c"]) -> Float[Array, "n d m h w c"]:
    """Batches of D domains as one that `batch_norm` tells apart, (N, D, B / N, ...) on N devices.

    Every device keeps its rows.
    """
    parts = devices()
    return jnp.stack([batch.reshape(parts, -1, *batch.shape[1:]) for batch in batches], axis=1)


def unstack_domains(x: Float[Array, "n d m h w c"]) -> tuple[Float[Array, "b h w c"], ...]:
    """The inverse of `stack_domains`."""
    return tuple(x[:, d].reshape(-1, *x.shape[3:]) for d in range(x.shape[1]))


def _forward(x, scale, bias):
    mean, variance = _moments(_wide(x))
    inverse = lax.rsqrt(variance + EPSILON)
    y = (_wide(x) - _spread(mean)) * _spread(inverse * scale[None]) + bias[None, None, None]
    found = y.astype(x.dtype).reshape(x.shape), _shaped(mean, x), _shaped(variance, x)
    return found, (x, mean, inverse, scale)


def _backward(saved, gradients):
    x, mean, inverse, scale = saved
    dy, apart = _wide(gradients[0]), _wide(x) - _spread(mean)
    total, along = (_added(part) for part in _sums(dy, dy * apart))  # (d, c)
    count = dy.shape[0] * dy.shape[2]
    slope = along * jnp.square(inverse) / count
    dx = _spread(inverse * scale[None]) * (dy - _spread(total / count) - apart * _spread(slope))
    return dx.astype(x.dtype).reshape(x.shape), _added(along * inverse), _added(total)


batch_norm.defvjp(_forward, _backward)


def _wide(x):
    """The batch as (devices, domains, pixels of all rows, channels), at least float32."""
    if x.ndim == 6:
        parts, domains = x.shape[:2]
    else:
        parts, domains = devices() if x.shape[0] % devices() == 0 else 1, 1
    folded = x.reshape(parts, domains, -1, x.shape[-1])
    return folded.astype(jnp.float32 if x.dtype.itemsize < 4 else x.dtype)


def _spread(statistics):
    """(d, c) beside a folded batch."""
    return statistics[None, :, None, :]


def _shaped(statistics, x):
    return statistics if x.ndim == 6 else statistics[0]


def _moments(x):
    pixel = x[:, :, x.shape[2] // 2]
    shifted = x - pixel[:, :, None]
    first, second = (part / x.shape[2] for part in _sums(shifted, jnp.square(shifted)))
    mean, variance = pixel + first, jnp.maximum(second - jnp.square(first), 0.0)
    if x.shape[0] == 1:
        return mean[0], variance[0]
    means, variances = everywhere(jnp.stack([mean, variance]))
    mean = jnp.mean(means, axis=0)
    return mean, jnp.mean(variances, axis=0) + jnp.mean(jnp.square(means - mean[None]), axis=0)


def _sums(a, b):
    """Sums over each device's pixels, (n, d, c)."""
    if platform() != "gpu":
        axes = (1, 2) if a.shape[1] == 1 else (2,)  # XLA's CPU code is 40 times slower where an axis of one is left
        return tuple(jnp.sum(value, axis=axes).reshape(*a.shape[:2], -1) for value in (a, b))
    # One kernel reads both. In two steps, as XLA would else first write out what is summed.
    zero = jnp.zeros((), a.dtype)

    def add(x, y):
        return x[0] + y[0], x[1] + y[1]

    if a.shape[2] % _CHUNK == 0 and a.shape[2] >= 4 * _CHUNK:
        a, b = (value.reshape(*value.shape[:2], -1, _CHUNK, value.shape[3]) for value in (a, b))
        a, b = lax.reduce((a, b), (zero, zero), add, (3,))
    return lax.reduce((a, b), (zero, zero), add, (2,))


def _added(parts):
    """The sum over the first axis; written out where it is short, as XLA's GPU code then updates in place."""
    if parts.shape[0] == 1:
        return parts.reshape(parts.shape[1:])
    return parts[0] + parts[1] if parts.shape[0] == 2 else jnp.sum(parts, axis=0)
