"""3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering on tiles of 4x4 outputs.

A tile of 6x6 inputs and the kernel are transformed, multiplied place by place, and transformed back. The products over
channels of each of the 36 places are one matrix product, which is what CPUs do best. The transforms cost additions and
some accuracy: the result differs from the direct sum by about 3e-6 of its norm in float32.

Source: Lavin and Gray 2016, arXiv:1509.09308, F(4x4, 3x3), whose letters the matrices bear.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TILE = 4
_WINDOW = 6
_BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


@jax.custom_vjp
def conv3x3(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h w o"]:
    """Correlates images with a 3x3 kernel at stride 1, one pixel of zeros around them; H and W are multiples of 4.

    Only reverse mode is defined. The gradients are of the same kind: the kernel's costs as many multiplications as the
    forward pass.
    """
    products = [tile @ weight for tile, weight in zip(_input_tiles(x), _weights(kernel), strict=True)]
    return _assemble(products, (*x.shape[:3], kernel.shape[-1]))


def _forward(x, kernel):
    return conv3x3(x, kernel), (x, kernel)


def _backward(saved, dy):
    x, kernel = saved
    turned = _weights(kernel[::-1, ::-1])
    products = [tile @ weight.T for tile, weight in zip(_input_tiles(dy), turned, strict=True)]
    dx = _assemble(products, x.shape)
    # The transpose of `_assemble`, the products, then the transpose of `_weights`.
    outputs = _both_axes(_AT.T, [[dy[:, i::TILE, j::TILE] for j in range(TILE)] for i in range(TILE)])
    pairs = zip(_input_tiles(x), (_rows(part) for row in outputs for part in row), strict=True)
    dweights = [tile.T @ part for tile, part in pairs]
    dkernel = _both_axes(_G.T, [dweights[i : i + _WINDOW] for i in range(0, len(dweights), _WINDOW)])
    return dx, jnp.stack([jnp.stack(row) for row in dkernel])


conv3x3.defvjp(_forward, _backward)


def _input_tiles(x):
    """B^T d B of every tile d: for each of the 36 places the tiles as rows, (B * H/4 * W/4, C)."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = x.shape[1] // TILE, x.shape[2] // TILE
    windows = [
        [
            padded[:, i : i + TILE * (rows - 1) + 1 : TILE, j : j + TILE * (columns - 1) + 1 : TILE]
            for j in range(_WINDOW)
        ]
        for i in range(_WINDOW)
    ]
    return [_rows(place) for row in _both_axes(_BT, windows) for place in row]


def _weights(kernel):
    """G g G^T: for each of the 36 places the weights between channels, (I, O)."""
    taps = [[kernel[i, j] for j in range(3)] for i in range(3)]
    return [place for row in _both_axes(_G, taps) for place in row]


def _assemble(products, shape):
    """A^T m A of the products: the tiles of 4x4 outputs, put together to images of a shape."""
    batch, height, width, channels = shape
    tiles = [product.reshape(batch, height // TILE, width // TILE, channels) for product in products]
    outputs = _both_axes(_AT, [tiles[i : i + _WINDOW] for i in range(0, len(tiles), _WINDOW)])
    images = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2).reshape(shape)
    return jax.lax.optimization_barrier(images)  # else XLA transforms anew for every use


def _both_axes(matrix, grid):
    """matrix @ grid @ matrix.T for a grid of arrays."""
    halfway = _transform(matrix, grid)
    return [list(row) for row in zip(*_transform(matrix, list(zip(*halfway, strict=True))), strict=True)]


def _transform(matrix: np.ndarray, grid: Sequence[Sequence[jax.Array]]) -> list[list[jax.Array]]:
    """matrix @ grid, written out without its zeros."""
    return [[_weighted_sum(row, column) for column in zip(*grid, strict=True)] for row in matrix]


def _weighted_sum(weights, arrays):
    terms = [a if w == 1 else a * jnp.asarray(w, a.dtype) for w, a in zip(weights, arrays, strict=True) if w]
    return sum(terms[1:], terms[0])


def _rows(tiles):
    return tiles.reshape(-1, tiles.shape[-1])
