"""Convolution, transposed convolution and max-pooling in the lowerings that are fast on every backend."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.ops.correlation import Padding, correlate, pads_of, precision, strided, transposed
from jaxpose.ops.cpu import convolution as cpu
from jaxpose.ops.platform import platform


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
    pads = pads_of(padding)
    if platform() == "cpu":
        return cpu.conv2d(x, kernel, stride, pads)
    if kernel.shape[:2] == (1, 1) and pads == pads_of(0) and stride == 1:
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0], precision=precision(x))
    return correlate(x, kernel, stride, pads, "HWIO")


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _deconv(x, kernel, stride, padding):
    return (cpu.phases if platform() == "cpu" else transposed)(x, kernel, stride, padding)


def _deconv_forward(x, kernel, stride, padding):
    return _deconv(x, kernel, stride, padding), (x, kernel)


def _deconv_backward(stride, padding, saved, dy):
    x, kernel = saved
    if platform() == "cpu":
        dx = cpu.deconv2d_input_gradient(dy, x, kernel, stride, padding)
    else:
        dx = strided(dy, kernel, stride, padding)
    (dkernel,) = jax.linear_transpose(lambda k: strided(dy, k, stride, padding), kernel)(x)
    return dx, dkernel


_deconv.defvjp(_deconv_forward, _deconv_backward)
