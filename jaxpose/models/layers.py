"""Layers that the networks share: convolution, transposed convolution, batch normalisation."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.ops import convolution

Initializer = Callable[..., jax.Array]


def normal(deviation: float) -> Initializer:
    """Draws weights from N(0, deviation**2).

    Sizes are rounded up to powers of two and cut, so that layers share the compiled draw: compiling one for every shape
    takes longer than training a small network.
    """

    def init(key, shape, dtype=jnp.float32):
        count = math.prod(shape)
        drawn = jax.random.normal(key, (1 << (count - 1).bit_length(),), dtype)
        return drawn[:count].reshape(shape) * jnp.asarray(deviation, dtype)

    return init


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Draws a kernel (h, w, in, out) from N(0, 2 / (h * w * out)). Source: He et al. 2015, arXiv:1502.01852, Eq. 14."""
    height, width, _, outputs = shape
    return normal(math.sqrt(2 / (height * width * outputs)))(key, shape, dtype)


class Conv(nnx.Module):
    """A convolution with zero padding; parameters float32, computed in `dtype`.

    Attributes:
      kernel: (size, size, inputs, outputs).
      bias: (outputs,), zero at the start; absent without `use_bias`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        init: Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.stride, self.padding, self.dtype = stride, size // 2, dtype
        self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs)) if use_bias else None

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Convolves images."""
        kernel = self.kernel[...].astype(self.dtype)
        y = convolution.conv2d(x.astype(self.dtype), kernel, stride=self.stride, padding=self.padding)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)


class Deconv(nnx.Module):
    """A 4x4 transposed convolution that doubles height and width, without bias.

    Attributes:
      kernel: (4, 4, inputs, outputs).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        init: Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), (4, 4, inputs, outputs), jnp.float32))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        """Upsamples feature maps."""
        return convolution.deconv2d(x.astype(self.dtype), self.kernel[...].astype(self.dtype))


class BatchNorm(nnx.Module):
    """Normalises channels by the statistics of the whole batch, over every axis but the last.

    Under `jax.jit` with a sharded batch the statistics are those of the global batch. They are float32 whatever the
    compute dtype. The running variance is the biased one, where torch's is `n / (n - 1)` times larger.

    Attributes:
      scale, bias: (channels,).
      mean, var: running statistics (channels,), an average that forgets 10 % per training step.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        """Normalises, with the batch's statistics if `train`, which also updates the running ones."""
        wide = x.astype(jnp.float32)
        if train:
            mean, var = _moments(wide, self.mean[...])
            # Not `self.mean[...] = ...`: that compares shardings, which makes tracing quadratic in depth.
            self.mean.set_value(_forget(self.mean[...], mean))
            self.var.set_value(_forget(self.var[...], var))
        else:
            mean, var = self.mean[...], self.var[...]
        gain = self.scale[...] * lax.rsqrt(var + _EPSILON)
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = (wide - mean.reshape(shape)) * gain.reshape(shape) + self.bias[...].reshape(shape)
        return y.astype(self.dtype)


MOMENTUM = 0.9
_EPSILON = 1e-5


def _forget(running: jax.Array, batch: jax.Array) -> jax.Array:
    return MOMENTUM * running + (1 - MOMENTUM) * lax.stop_gradient(batch)


def _moments(x: jax.Array, pivot: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance in one pass; the closer `pivot` is to the mean, the less the variance loses to rounding."""
    axes = tuple(range(x.ndim - 1))
    shifted = x - pivot.reshape((1,) * len(axes) + (-1,))
    mean = shifted.mean(axes)
    variance = jnp.square(shifted).mean(axes) - jnp.square(mean)
    return mean + pivot, lax.max(variance, jnp.zeros_like(variance))
