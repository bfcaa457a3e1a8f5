"""Convolution and transposed convolution as CPUs are fast at them; numbers in docs/performance.md."""

import jax
import jax.numpy as jnp

from jaxpose.ops.correlation import correlate, pads_of, places, precision, strided, transposed
from jaxpose.ops.cpu import winograd

_FEW_PIXELS = 16
_MANY_CHANNELS, _MUCH_WORK = 64, 65536


def conv2d(x, kernel, stride, pads):
    """See `ops.convolution.conv2d`; what is no better in another form is left to XLA."""
    if kernel.shape[:2] == (1, 1) and pads == pads_of(0):
        return jnp.einsum("bhwi,io->bhwo", x[:, ::stride, ::stride], kernel[0, 0], precision=precision(x))
    if _pixels(x, kernel, stride, pads) <= _FEW_PIXELS:
        return _product(x, kernel, stride, pads)
    if _pays_transforms(x, kernel, stride, pads):
        return winograd.conv3x3(x, kernel)
    return correlate(x, kernel, stride, pads, "HWIO")


def deconv2d_input_gradient(dy, x, kernel, stride, padding):
    """The gradient of `phases` by its input."""
    if min(kernel.shape[2:]) < _MANY_CHANNELS:
        return strided(dy, kernel, stride, padding)
    (dx,) = jax.linear_transpose(lambda z: phases(z, kernel, stride, padding), x)(dy)
    return dx


def phases(x, kernel, stride, padding):
    """One small convolution for each place of an output pixel between input pixels: no input is dilated with zeros."""
    batch, height, width, _ = x.shape
    rows, columns, _, channels = kernel.shape
    if rows % stride or columns % stride or (rows - 2 * padding) % stride or (columns - 2 * padding) % stride:
        return transposed(x, kernel, stride, padding)
    down, across = (_taps(n, k, stride, padding) for n, k in ((height, rows), (width, columns)))
    phases = [
        [
            correlate(x, kernel[first::stride, left::stride][::-1, ::-1], 1, (pads, sides), "HWIO")
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


def _pixels(x, kernel, stride, pads):
    rows, columns = (places(n, k, stride, p) for n, k, p in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True))
    return rows * columns


def _pays_transforms(x, kernel, stride, pads):
    (_, height, width, _), (rows, columns, *channels) = x.shape, kernel.shape
    fits = (rows, columns, stride, pads) == (3, 3, 1, pads_of(1)) and not (
        height % winograd.TILE or width % winograd.TILE
    )
    return fits and min(channels) >= _MANY_CHANNELS and min(channels) * height * width >= _MUCH_WORK


def _product(x, kernel, stride, pads):
    """The convolution as one matrix product with all shifted views of the images side by side."""
    height, width, inputs, outputs = kernel.shape
    rows, columns = (places(n, k, stride, p) for n, k, p in zip(x.shape[1:3], kernel.shape[:2], pads, strict=True))
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    views = [
        padded[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(views, axis=-1)
    return jnp.einsum("bhwi,io->bhwo", patches, kernel.reshape(height * width * inputs, outputs))
