"""The network that finds the joints in a picture of a skeleton.

Source: Jakab et al. 2020 (KeypointGAN), whose eta it is; FlexPose's beta, Sec. 3.4, is said to be a regressor and no
more. Layers and soft-argmax are those of Jakab et al. 2018 (conditional image generation), arXiv:1806.07823.
"""

import itertools

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops import decoding
from jaxpose.ops.activation import relu

STEP = 8  # pixels of an image, on either axis, to one of what `Encoder` makes of it


class PoseReader(nnx.Module):
    """Pictures of skeletons (`ops.sketches`) to the points that they were drawn by.

    Attributes:
      encoder: pictures to features.
      maps: features to one map per joint, by a 1x1 convolution.
    """

    def __init__(self, *, inputs: int, joints: int, width: float = 1.0, dtype: DTypeLike, rngs: nnx.Rngs):
        self.encoder = Encoder(inputs=inputs, norm=layers.InstanceNorm, width=width, dtype=dtype, rngs=rngs)
        wide, init = feature_channels(width), layers.normal(DEVIATION)
        self.maps = layers.Conv(wide, joints, 1, use_bias=True, init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b j 2"]:
        """Points (x, y) in unit coordinates, float32, from pictures of values of -1 to 1.

        Raises:
          ValueError: height or width cannot be halved three times.
        """
        return decoding.separable_soft_argmax(self.maps(self.encoder(x, train)).astype(jnp.float32))


class Encoder(nnx.Module):
    """Images to features of an eighth of their size, of 256 channels.

    Attributes:
      convs: "0" to "7", with their normalisations: 7x7 and 3x3 to 32 channels, then pairs of 3x3 to 64, 128 and 256, of
        which the first halves the size.
    """

    def __init__(self, *, inputs: int, norm: layers.Norm, width: float = 1.0, dtype: DTypeLike, rngs: nnx.Rngs):
        channels = [inputs, *(layers.scaled(wide, width) for wide in (32, 64, 128, 256) for _ in range(2))]
        made = {}
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            size, stride = 3 if i else 7, 2 if i in (2, 4, 6) else 1
            options = {"stride": stride, "norm": norm, "init": layers.normal(DEVIATION), "dtype": dtype, "rngs": rngs}
            made[str(i)] = layers.conv_norm(before, after, size, **options)
        self.convs = nnx.Dict(made)

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b h2 w2 c"]:
        """Features; see `feature_channels`.

        Raises:
          ValueError: height or width cannot be halved three times.
        """
        height, width = x.shape[1:3]
        if height % STEP or width % STEP:
            raise ValueError(f"encoder: found images of {height}x{width} pixels, expected multiples of {STEP}")
        for made in self.convs.values():
            x = relu(layers.apply_conv_norm(made, x, train))
        return x


def feature_channels(width: float) -> int:
    """Channels of what `Encoder` makes: 256 as published."""
    return layers.scaled(256, width)


DEVIATION = 0.02  # of the weights of all KeypointGAN's networks at the start
