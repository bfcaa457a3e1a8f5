"""VGG-19's convolutions, whose activations describe content and style, and the decoder that inverts them.

Source: Simonyan and Zisserman 2015, arXiv:1409.1556, configuration E; the decoder is that of Huang and Belongie 2017,
arXiv:1703.06868.
"""

import math
import os
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers, torch_import

Tree = dict[str, Any]
Borders = Literal["zeros", "reflected"]

# Convolutions of each block, and the width of each relative to the first.
_DEPTHS = (2, 2, 4, 4, 4)
_WIDTHS = (1, 2, 4, 8, 8)


class VGG(nnx.Module):
    """Normalised images to the first activations of each block.

    torchvision pads with zeros. Where images are made from the activations, `reflected` borders keep the edge of the
    image out of them; Huang and Belongie 2017 have them in encoder and decoder.

    Attributes:
      features: the convolutions under torchvision's numbers, "0", "2", "5", ... as far as they are needed.
    """

    def __init__(
        self, *, width: int = 64, blocks: int = 5, borders: Borders = "zeros", dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.blocks, self.dtype = blocks, dtype
        made, inputs = {}, 3
        for block, names in enumerate(_names(blocks)):
            for name in names:
                outputs = width * _WIDTHS[block]
                init = _contrast if made else _keep_scale
                made[name] = _Conv(inputs, outputs, borders, init, dtype=dtype, rngs=rngs)
                inputs = outputs
        self.features = nnx.Dict(made)

    def __call__(self, x: Float[Array, "b h w 3"], train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """relu1_1, relu2_1, ... of the blocks, each at half the size; `width` * 1, 2, 4, 8, 8 channels.

        Raises:
          ValueError: the last block would have no pixels.
        """
        del train  # no batch statistics
        height, width, least = *x.shape[1:3], 2 ** (self.blocks - 1)
        if min(height, width) < least:
            raise ValueError(f"vgg: found images of {height}x{width} pixels, expected at least {least}x{least}")
        outputs = []
        for block, names in enumerate(_names(self.blocks)):
            x = x if block == 0 else _max_pool(x)
            for name in names:
                x = jax.nn.relu(self.features[name](x))
                if name == names[0]:
                    outputs.append(x)
        return tuple(outputs)


class Decoder(nnx.Module):
    """relu4_1 back to images: the encoder's convolutions mirrored, nearest-neighbour upsampling where it pools.

    Borders are reflected.

    Attributes:
      convs: "0" to "8".
    """

    def __init__(self, *, width: int = 64, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dtype = dtype
        made = {}
        for i, (inputs, outputs, _) in enumerate(_decoder_layers(width)):
            made[str(i)] = _Conv(inputs, outputs, "reflected", _keep_scale, dtype=dtype, rngs=rngs)
        self.convs = nnx.Dict(made)
        self.upsampled = tuple(up for _, _, up in _decoder_layers(width))

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b 8*h 8*w 3"]:
        """Normalised images, float32, not limited to the range of pixels."""
        del train
        last = len(self.convs) - 1
        for i, up in enumerate(self.upsampled):
            x = self.convs[str(i)](x)
            if i == last:
                break
            x = jax.nn.relu(x)
            if up:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return x.astype(jnp.float32)


def load_vgg(path: str | os.PathLike[str], params: Tree) -> Tree:
    """Parameters of a `VGG` from a torchvision file of VGG-19; see `vgg_from_torch`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or of another network.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"vgg: no file {path}; vgg=None encodes by random weights")
    return vgg_from_torch(torch_import.load_torch_weights(path), params)


def vgg_from_torch(state_dict: dict[str, np.ndarray], params: Tree) -> Tree:
    """Puts torchvision-named weights of VGG-19 into the places of a `VGG`.

    Keys may begin with `module.`. `classifier.*` and the convolutions behind the last block are ignored.

    Args:
      state_dict: torch's names and layouts.
      params: what the network's `init` returned; only names and shapes matter, `jax.ShapeDtypeStruct` will do.

    Returns:
      Parameters, float32.

    Raises:
      ValueError: a key is missing or of another shape, or convolutions lie where VGG-19 has none.
    """
    found = {key.removeprefix("module."): value for key, value in state_dict.items()}
    known = {name for names in _names(5, complete=True) for name in names}
    foreign = sorted({k for k in found if k.startswith("features.") and k.split(".")[1] not in known})
    if foreign:
        raise ValueError(f"vgg: found {foreign[0]}, expected torchvision's VGG-19 without batch normalisation")
    return {"features": {name: _filled(found, name, conv) for name, conv in params["features"].items()}}


class _Conv(layers.Conv):
    """A 3x3 convolution with biases that keeps height and width."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        borders: Borders,
        init: layers.Initializer,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(inputs, outputs, 3, use_bias=True, init=init, dtype=dtype, rngs=rngs)
        self.reflected = borders == "reflected"
        if self.reflected:
            self.padding = 0

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        if self.reflected:
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        return super().__call__(x)


def _filled(found: dict[str, np.ndarray], name: str, conv: Tree) -> Tree:
    filled = {}
    for leaf, torch_name in (("kernel", "weight"), ("bias", "bias")):
        key = f"features.{name}.{torch_name}"
        if key not in found:
            raise ValueError(f"vgg: found no {key}, expected torchvision's VGG-19")
        array, shape = np.asarray(found[key]), tuple(conv[leaf].shape)
        expected = tuple(shape[i] for i in (3, 2, 0, 1)) if leaf == "kernel" else shape
        if array.shape != expected:
            raise ValueError(f"vgg: {key} has shape {array.shape}, expected {expected}: is it VGG-19, of width 64?")
        array = array.transpose(2, 3, 1, 0) if leaf == "kernel" else array
        filled[leaf] = jnp.asarray(array.astype(np.float32))
    return filled


def _names(blocks: int, *, complete: bool = False) -> list[list[str]]:
    """torchvision's numbers of the convolutions by block; of the last block only the first, unless `complete`."""
    names, number = [], 0
    for depth in _DEPTHS[:blocks]:
        names.append([str(number + 2 * i) for i in range(depth)])
        number += 2 * depth + 1
    return names if complete else [*names[:-1], names[-1][:1]]


def _decoder_layers(width: int) -> list[tuple[int, int, bool]]:
    """Inputs, outputs and whether the result is upsampled, of each convolution."""
    channels = [8, 4, 4, 4, 4, 2, 2, 1, 1]
    outputs = [*(c * width for c in channels[1:]), 3]
    return [(c * width, o, i in (0, 4, 6)) for i, (c, o) in enumerate(zip(channels, outputs, strict=True))]


def _keep_scale(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Draws a kernel (h, w, in, out) from N(0, 2 / (h * w * in)): activations keep their size from layer to layer."""
    return layers.normal(math.sqrt(2 / math.prod(shape[:3])))(key, shape, dtype)


def _contrast(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Kernels of sum zero, for an encoder that stays random.

    Rectified features have a mean that grows from layer to layer beside their variation over the image; in relu4_1 it
    would leave a tenth of this variation. What such a kernel keeps of N(0, 1) rectified is its variance, (1 - 1/pi)/2.
    """
    kernel = layers.normal(math.sqrt(2 / (1 - 1 / math.pi) / math.prod(shape[:3])))(key, shape, dtype)
    return kernel - kernel.mean((0, 1, 2), keepdims=True)


def _max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 2x2 windows; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    x = x[:, : 2 * rows, : 2 * columns].reshape(batch, rows, 2, columns, 2, channels)
    return x.max((2, 4))
