"""What follows a backbone in a heatmap detector: upsampling and the heads.

Source: Xiao et al. 2018, arXiv:1804.06208 ("SimpleBaseline"); the two-layer regressor is RegDA's (Jiang et al. 2021).
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops.activation import relu


class Upsampling(nnx.Module):
    """Feature maps of a backbone's layers, of which it reads the last, to feature maps of 2**layers times its size.

    Attributes:
      deconv0, bn0, deconv1, bn1, ...: one pair per doubling.
    """

    def __init__(self, *, inputs: int, width: int, layers: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.layers = layers
        for index in range(layers):
            deconv, norm = _doubling(width if index else inputs, width, dtype=dtype, rngs=rngs)
            setattr(self, f"deconv{index}", deconv)
            setattr(self, f"bn{index}", norm)

    def __call__(self, features: tuple[Float[Array, "*b _ _ _"], ...], train: bool) -> Float[Array, "*b h2 w2 o"]:
        """Features of `width` channels."""
        x = features[-1]
        for index in range(self.layers):
            x = getattr(self, f"deconv{index}")(x)
            x = relu(getattr(self, f"bn{index}")(x, train))
        return x


class KeypointHead(nnx.Module):
    """Feature maps to one heatmap of logits per joint, computed in float32 by one 1x1 convolution."""

    def __init__(self, *, inputs: int, joints: int, dtype: DTypeLike, rngs: nnx.Rngs):
        del dtype
        self.conv = _output(inputs, joints, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w i"], train: bool) -> Float[Array, "*b h w k"]:
        """Heatmaps, float32."""
        return self.conv(x)


class Regressor(nnx.Module):
    """Feature maps to one heatmap of logits per joint by a 3x3 convolution, normalisation, ReLU and a 1x1 convolution.

    Attributes:
      conv1, bn1: as many channels as the input, computed in `dtype`.
      conv2: the output, computed in float32.
    """

    def __init__(self, *, inputs: int, joints: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv1 = layers.Conv(inputs, inputs, 3, use_bias=True, init=_SMALL, dtype=dtype, rngs=rngs)
        self.bn1 = layers.BatchNorm(inputs, dtype=dtype)
        self.conv2 = _output(inputs, joints, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w i"], train: bool) -> Float[Array, "*b h w k"]:
        """Heatmaps, float32."""
        return self.conv2(relu(self.bn1(self.conv1(x), train)))


_SMALL = layers.normal(0.001)


def _doubling(inputs, outputs, *, dtype, rngs):
    deconv = layers.Deconv(inputs, outputs, init=_SMALL, dtype=dtype, rngs=rngs)
    return deconv, layers.BatchNorm(outputs, dtype=dtype)


def _output(inputs, joints, *, rngs):
    return layers.Conv(inputs, joints, 1, use_bias=True, init=_SMALL, dtype=jnp.float32, rngs=rngs)
