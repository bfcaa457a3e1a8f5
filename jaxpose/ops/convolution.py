"""Convolution, transposed convolution and max-pooling in the lowerings that are fast on every backend."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.ops import winograd
from jaxpose.ops.platform import platform

_FEW_PIXELS = 16
_MANY_CHANNELS, _MUCH_WORK = 64, 65536

Padding = int | tuple[tuple[int, int], tuple[int, int]]


def conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 1, padding: Padding = 0
) -> Float[Array, "b h2 w2 o"]:
    """Correlates images with a kernel (what torch calls Conv2d); zeros outside the image.

    A 1x1 convolution is computed as a matrix product; with a stride only on CPU, as XLA's compiler for GPUs aborts
    where it fuses a product with a strided slice. On CPU products are also convolutions of maps of a few pixels, and
    3x3 convolutions of many channels go through Winograd's transform; docs/performance.md has the measurements.

    Args:
      x: images, NHWC.
      kernel: HWIO, of the same dtype as `x`; torch's (out, in, h, w) is `weight.transpose(2, 3, 1, 0)`.
      stride: step between output pixels.
      padding: zero pixels on every side, or ((top, bottom), (left, right)).

    Returns:
      NHWC, `(h + top + bottom - kh) // stride + 1` rows and likewise columns.
    """
    pads = _pads(padding)
    if kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)) and (stride == 1 or _on_cpu()):
        return jnp.einsum("bhwi,io->bhwo", x[:, ::stride, ::stride], kernel[0, 0], precision=_precision(x))
    if _on_cpu():
        if _pixels(x, kernel, stride, pads) <= _FEW_PIXELS:
            return _product(x, kernel, stride, pads)
        if _pays_transforms(x, kernel, stride, pads):
            return winograd.conv3x3(x, kernel)
    return _correlate(x, kernel, stride, pads, "HWIO")


def cast_kernel(kernel: Float[Array, "kh kw i o"], dtype: DTypeLike) -> Float[Array, "kh kw i o"]:
    """A kernel in the type that a convolution is computed in. Only reverse mode is defined."""
    return _cast(kernel, dtype)


def deconv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 2, padding: int = 1
) -> Float[Array, "b h2 w2 o"]:
    """Transposed convolution (what torch calls ConvTranspose2d): every input pixel adds a scaled kernel.

    Output pixel `stride * p + q - padding` collects `x[p] @ kernel[q]`. It is written as the transpose of the strided
    convolution whose input it produces, with a derivative that is again made of plain strided convolutions:
    differentiating XLA's input-dilated convolution instead gives a weight gradient that is tens of times slower.
    Only reverse mode is defined.

    Args:
      x: images, NHWC.
      kernel: (h, w, in, out), not flipped; torch's (in, out, h, w) is `weight.transpose(2, 3, 0, 1)`.
      stride: step between the output places of neighbouring input pixels.
      padding: rows and columns that are cut from every side of the output.

    Returns:
      NHWC, `stride * (h - 1) + kh - 2 * padding` rows and likewise columns.
    """
    return _deconv(x, kernel, stride, padding)


def max_pool_3x3_s2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 3x3 windows at stride 2 with one pixel of padding; `(h + 1) // 2` rows and likewise columns.

    The gradient goes to the first maximum of a window in row order, and NaN wins, as in torch. A chain of selections
    over nine shifted views has a gradient without scatter, several times faster than that of `lax.reduce_window`.
    """
    height, width = x.shape[1:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    views = [padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
    return functools.reduce(lambda best, view: jnp.where((view > best) | jnp.isnan(view), view, best), views)


def _pads(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def _correlate(x, kernel, stride, pads, layout):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", layout, "NHWC"),
        precision=_precision(x),
    )


def _precision(x):
    """Float32 is computed in float32: by default TPUs round it to bfloat16 and GPUs to TensorFloat-32."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def _on_cpu() -> bool:
    return platform() == "cpu"


def _pixels(x, kernel, stride, pads):
    rows, columns = (_outputs(n, k, stride, p) for n, k, p in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True))
    return rows * columns


def _pays_transforms(x, kernel, stride, pads):
    (_, height, width, _), (rows, columns, *channels) = x.shape, kernel.shape
    fits = (rows, columns, stride, pads) == (3, 3, 1, _pads(1)) and not (
        height % winograd.TILE or width % winograd.TILE
    )
    return fits and min(channels) >= _MANY_CHANNELS and min(channels) * height * width >= _MUCH_WORK


def _outputs(length, taps, stride, pads):
    return (length + sum(pads) - taps) // stride + 1


def _product(x, kernel, stride, pads):
    """The convolution as one matrix product with all shifted views of the images side by side."""
    height, width, inputs, outputs = kernel.shape
    rows, columns = (_outputs(n, k, stride, p) for n, k, p in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True))
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    views = [
        padded[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(views, axis=-1)
    return jnp.einsum("bhwi,io->bhwo", patches, kernel.reshape(height * width * inputs, outputs))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _cast(kernel, dtype):
    return kernel.astype(dtype)


def _cast_forward(kernel, dtype):
    return _cast(kernel, dtype), jnp.zeros((), kernel.dtype)


def _cast_backward(dtype, stored, gradient):
    if platform() == "gpu" and gradient.shape[:2] != (1, 1):
        # cuDNN returns (o, kh, kw, i). Where XLA's GPU compiler fuses the transposition with the optimizer's update,
        # that cannot be done in place and both of its results are copied. Flat, the gradient is transposed first.
        gradient = lax.optimization_barrier(gradient.reshape(-1)).reshape(gradient.shape)
    return (gradient.astype(stored.dtype),)


_cast.defvjp(_cast_forward, _cast_backward)


def _strided(y, kernel, stride, padding):
    """The convolution that `deconv2d` transposes: it reads deconv outputs and writes deconv inputs."""
    return _correlate(y, kernel, stride, _pads(padding), "HWOI")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _deconv(x, kernel, stride, padding):
    return (_phases if _on_cpu() else _transposed)(x, kernel, stride, padding)


def _deconv_forward(x, kernel, stride, padding):
    return _deconv(x, kernel, stride, padding), (x, kernel)


def _deconv_backward(stride, padding, saved, dy):
    x, kernel = saved
    if _on_cpu() and min(kernel.shape[2:]) >= _MANY_CHANNELS:
        (dx,) = jax.linear_transpose(lambda z: _phases(z, kernel, stride, padding), x)(dy)
    else:
        dx = _strided(dy, kernel, stride, padding)
    (dkernel,) = jax.linear_transpose(lambda k: _strided(dy, k, stride, padding), kernel)(x)
    return dx, dkernel


_deconv.defvjp(_deconv_forward, _deconv_backward)


def _transposed(x, kernel, stride, padding):
    """The transpose of the strided convolution, which GPU libraries know as the gradient of its input."""
    batch, height, width, _ = x.shape
    rows, columns, _, channels = kernel.shape
    shape = (
        batch,
        stride * (height - 1) + rows - 2 * padding,
        stride * (width - 1) + columns - 2 * padding,
        channels,
    )
    output = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda y: _strided(y, kernel, stride, padding), output)(x)[0]


def _phases(x, kernel, stride, padding):
    """One small convolution for each place of an output pixel between input pixels: no input is dilated with zeros."""
    batch, height, width, _ = x.shape
    rows, columns, _, channels = kernel.shape
    if rows % stride or columns % stride or (rows - 2 * padding) % stride or (columns - 2 * padding) % stride:
        return _transposed(x, kernel, stride, padding)
    down, across = (_taps(n, k, stride, padding) for n, k in ((height, rows), (width, columns)))
    phases = [
        [
            _correlate(x, kernel[first::stride, left::stride][::-1, ::-1], 1, (pads, sides), "HWIO")
            for left, sides in across
        ]
        for first, pads in down
    ]
    interleaved = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    return interleaved.reshape(batch, interleaved.shape[1] * stride, interleaved.shape[3] * stride, channels)


def _taps(length, size, stride, padding):
    """For every phase along one axis: its first tap of the kernel, and the padding of its convolution."""
    count = length + (size - 2 * padding) // stride - 1  # outputs of a phase
    found = []
    for phase in range(stride):
        ahead, first = divmod(phase + padding, stride)
        before = size // stride - 1 - ahead
        found.append((first, (before, count - length + ahead)))
    return found
