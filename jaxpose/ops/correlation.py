"""XLA's convolution as it is written everywhere, and its transpose."""

import jax
import jax.numpy as jnp
from jax import lax

Padding = int | tuple[tuple[int, int], tuple[int, int]]


def pads_of(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zero pixels at the top and bottom, and at the left and right."""
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def correlate(x, kernel, stride, pads, layout):
    """NHWC images with a kernel of a layout, at one stride for both axes."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", layout, "NHWC"),
        precision=precision(x),
    )


def precision(x):
    """Float32 is computed in float32: by default TPUs round it to bfloat16 and GPUs to TensorFloat-32."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def places(length, taps, stride, pads):
    """How many places a kernel has along one axis."""
    return (length + sum(pads) - taps) // stride + 1


def strided(y, kernel, stride, padding):
    """The convolution that `deconv2d` transposes: it reads deconv outputs and writes deconv inputs."""
    return correlate(y, kernel, stride, pads_of(padding), "HWOI")


def transposed(x, kernel, stride, padding):
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
    return jax.linear_transpose(lambda y: strided(y, kernel, stride, padding), output)(x)[0]
