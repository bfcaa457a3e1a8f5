"""Layers that the networks share: convolution, transposed convolution, affine map, normalisations."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.ops import convolution, normalization, style

Initializer = Callable[..., jax.Array]
Layers = Mapping[str, Any]  # nnx.Dict, whose own type beartype does not take
Norm = Callable[..., nnx.Module]  # (channels, dtype=dtype) -> a module called as (x, train): the three below


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


def lecun_normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Draws a kernel (*k, in, out) from N(0, 1 / (k * in)): what it makes is no larger than its inputs.

    For a network's last layer, whose few outputs `he_normal` would make so large that a sigmoid's slope vanishes.

    Source: LeCun et al. 1998, Efficient BackProp, Eq. 16.
    """
    return normal(1 / math.sqrt(math.prod(shape[:-1])))(key, shape, dtype)


def he_normal_forward(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Draws a kernel (*k, in, out) from N(0, 2 / (k * in)): what a ReLU makes of it is no larger than its inputs.

    For layers that are not normalised, and of which each has fewer channels than the one before: `he_normal`, which
    keeps gradients as large as they are, would double the variance with each halving.

    Source: He et al. 2015, arXiv:1502.01852, Eq. 10.
    """
    return normal(math.sqrt(2 / math.prod(shape[:-1])))(key, shape, dtype)


def scaled(size: int, width: float) -> int:
    """So many channels of a network that is `width` times as wide as published, at least one."""
    return max(1, round(size * width))


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

    def __call__(self, x: Float[Array, "*b h w i"]) -> Float[Array, "*b h2 w2 o"]:
        """Convolves images."""
        kernel = convolution.cast_kernel(self.kernel[...], self.dtype)
        y = of_images(
            lambda images: convolution.conv2d(images, kernel, stride=self.stride, padding=self.padding),
            x.astype(self.dtype),
        )
        return y if self.bias is None else y + self.bias[...].astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


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

    def __call__(self, x: Float[Array, "*b h w i"]) -> Float[Array, "*b 2*h 2*w o"]:
        """Upsamples feature maps."""
        kernel = convolution.cast_kernel(self.kernel[...], self.dtype)
        return of_images(lambda images: convolution.deconv2d(images, kernel), x.astype(self.dtype))


class Dense(nnx.Module):
    """An affine map of vectors in float32, whatever the images around it are computed in: vectors are small.

    Attributes:
      kernel: (inputs, outputs).
      bias: (outputs,), zero at the start.
    """

    def __init__(self, inputs: int, outputs: int, *, init: Initializer = he_normal_forward, rngs: nnx.Rngs):
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Maps vectors."""
        y = jnp.matmul(x.astype(jnp.float32), self.kernel[...], precision=lax.Precision.HIGHEST)
        return y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))


class BatchNorm(nnx.Module):
    """Normalises channels by the statistics of the whole batch, over every axis but the last.

    Under `jax.jit` with a sharded batch the statistics are those of the global batch. They are float32 whatever the
    compute dtype. The running variance is the biased one, where torch's is `n / (n - 1)` times larger. Of domains side
    by side (`normalization.stack_domains`) each is normalised by itself, and the running statistics become (D,
    channels): those of each domain if it were alone.

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
        if train:
            y, mean, var = normalization.batch_norm(x, self.scale[...], self.bias[...])
            # Not `self.mean[...] = ...`: that compares shardings, which makes tracing quadratic in depth.
            self.mean.set_value(_forget(self.mean[...], mean))
            self.var.set_value(_forget(self.var[...], var))
            return y.astype(self.dtype)
        gain = self.scale[...] * lax.rsqrt(self.var[...] + normalization.EPSILON)
        mean, gain, bias = (
            value.reshape((1,) * (x.ndim - 1) + (-1,)) for value in (self.mean[...], gain, self.bias[...])
        )
        return ((x.astype(jnp.float32) - mean) * gain + bias).astype(self.dtype)


class InstanceNorm(nnx.Module):
    """Normalises the channels of every image by its own statistics, in float32; nothing is learned or remembered.

    Source: Ulyanov et al. 2016, arXiv:1607.08022, as it is in torch by default.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike):
        del channels
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Normalises; `train` is ignored."""
        mean, deviation = style.channel_moments(x, normalization.EPSILON)
        return ((x.astype(jnp.float32) - mean) / deviation).astype(self.dtype)


class Bias(nnx.Module):
    """What stands in the place of a normalisation in networks that have none: it adds a number to each channel.

    Attributes:
      bias: (channels,), zero at the start.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike):
        self.dtype = dtype
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        """Adds the bias; `train` is ignored."""
        bias = self.bias[...].astype(self.dtype)
        return x.astype(self.dtype) + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def conv_norm(
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    norm: Norm = BatchNorm,
    init: Initializer = he_normal,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Layers:
    """A convolution "0" and its normalisation "1", as they are called in torch's Sequential; see `apply_conv_norm`."""
    conv = Conv(inputs, outputs, size, stride=stride, init=init, dtype=dtype, rngs=rngs)
    return nnx.Dict({"0": conv, "1": norm(outputs, dtype=dtype)})


def apply_conv_norm(made: Layers, x: Float[Array, "*b h w i"], train: bool) -> Float[Array, "*b h2 w2 o"]:
    """Convolves and normalises images."""
    return made["1"](made["0"](x), train)


def of_images(function: Callable[[jax.Array], jax.Array], x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c2"]:
    """A function of images (B, H, W, C) that treats each by itself, for any number of axes in the place of B."""
    y = function(x.reshape(-1, *x.shape[-3:]))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def doubled(x: Float[Array, "*b h w c"]) -> Float[Array, "*b 2*h 2*w c"]:
    """Every pixel four times; a broadcast, which is fused with what reads it and whose gradient is one sum."""
    *batch, height, width, channels = x.shape
    spread = jnp.broadcast_to(x[..., :, None, :, None, :], (*batch, height, 2, width, 2, channels))
    return spread.reshape(*batch, 2 * height, 2 * width, channels)


def halved(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h//2 w//2 c"]:
    """The mean of every four pixels of images of even height and width."""
    *batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(*batch, height // 2, 2, width // 2, 2, channels), axis=(-4, -2))


def blurred(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Images by a (1, 2, 1) / 4 filter on either axis; beyond the border the last pixels go on.

    What was `doubled` becomes its bilinear interpolation.
    """
    for axis in (1, 2):
        widths = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded, size = jnp.pad(x, widths, mode="edge"), x.shape[axis]
        before, own, after = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        x = (before + 2 * own + after) / 4
    return x


MOMENTUM = 0.9


def _forget(running: jax.Array, batch: jax.Array) -> jax.Array:
    if batch.ndim == 2:
        return jnp.stack([_forget(running, domain) for domain in batch])
    return MOMENTUM * running + (1 - MOMENTUM) * batch
