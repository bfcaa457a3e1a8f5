"""The network that paints a frame of a clip from another frame and how everything moved in between.

Source: Lin et al. 2023 (POST), Sec. 3.3.2; its shape is that of Siarohin et al. 2021 (articulated animation),
arXiv:2104.11280, and of Johnson et al. 2016, arXiv:1603.08155, before it. Places are those of `ops.bones`, whose first
and last pixels stay where they are at every size; the released code mixes two conventions, by which even an unmoved
picture is shifted and loses its border.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops import bones
from jaxpose.ops.activation import relu

Images = Float[Array, "b h w 3"]
Places = Float[Array, "b h2 w2 2"]
Inpainting = Float[Array, "b h2 w2 1"]
Features = Float[Array, "b _ _ c"]


class Generator(nnx.Module):
    """A base image, the places in it that the driving frame shows, and an inpainting map, to the driving frame.

    Between the encoder and the decoder, and on every size on the decoder's way, features are moved as the image is and
    count as far as the inpainting map says that they show what is wanted; so does at last the image itself. The
    defaults are the published network.

    Attributes:
      first: 7x7, to `width` channels, with its normalisation.
      down0, down1, ...: halvings, each to twice as many channels.
      block0, block1, ...: residual blocks of the smallest size.
      up0, up1, ...: doublings, by the size that they make, up0 the finest.
      last: 7x7, to colours.
    """

    def __init__(self, *, width: int = 64, halvings: int = 2, blocks: int = 6, dtype: DTypeLike, rngs: nnx.Rngs):
        self.halvings, self.blocks, self.dtype = halvings, blocks, dtype
        self.first = layers.conv_norm(3, width, 7, dtype=dtype, rngs=rngs)
        for level in range(halvings):
            fine, coarse = width << level, width << level + 1
            setattr(self, f"down{level}", layers.conv_norm(fine, coarse, 3, dtype=dtype, rngs=rngs))
            setattr(self, f"up{level}", layers.conv_norm(coarse, fine, 3, dtype=dtype, rngs=rngs))
        for number in range(blocks):
            setattr(self, f"block{number}", Block(channels=width << halvings, dtype=dtype, rngs=rngs))
        self.last = layers.Conv(width, 3, 7, use_bias=True, init=layers.lecun_normal, dtype=dtype, rngs=rngs)

    def __call__(self, x: tuple[Images, Places, Inpainting], train: bool) -> Images:
        """The driving frame.

        Args:
          x: base images (B, H, W, 3) with values of 0 to 1; where in them lies what the driving frame shows, in unit
            coordinates (B, h, w, 2); and how much of it they show, 0 to 1, (B, h, w, 1).
          train: whether to normalise by the batch.

        Returns:
          Images (B, H, W, 3), float32, with values of 0 to 1. Where everything is shown, it is what the base image
          shows there; where nothing is, the base image has no say.

        Raises:
          ValueError: height or width cannot be halved `halvings` times.
        """
        base, places, inpainting = x
        height, width, step = *base.shape[1:3], 2**self.halvings
        if height % step or width % step:
            raise ValueError(f"generator: found images of {height}x{width} pixels, expected multiples of {step}")
        # The places and how far they count are resized together.
        flow = jnp.concatenate([places, inpainting], axis=-1)
        skips = [relu(layers.apply_conv_norm(self.first, base, train))]
        for level in range(self.halvings):
            made = layers.apply_conv_norm(getattr(self, f"down{level}"), skips[-1], train)
            skips.append(layers.halved(relu(made)))
        shown, hidden = zip(*(_moved(skip, flow) for skip in skips), strict=True)
        y = shown[-1].astype(self.dtype)
        for number in range(self.blocks):
            y = getattr(self, f"block{number}")(y, train)
        for level in reversed(range(self.halvings)):
            y = layers.doubled(_blended(shown[level + 1], hidden[level + 1], y))
            y = relu(layers.apply_conv_norm(getattr(self, f"up{level}"), y, train))
        y = self.last(_blended(shown[0], hidden[0], y))
        return _blended(*_moved(base, flow), jax.nn.sigmoid(y.astype(jnp.float32)))


class Block(nnx.Module):
    """Two 3x3 convolutions, each behind a normalisation and a ReLU, whose result is added to the input.

    Attributes:
      norm1, conv1, norm2, conv2: in this order; conv2 has a bias, as no normalisation follows it.
    """

    def __init__(self, *, channels: int, dtype: DTypeLike, rngs: nnx.Rngs):
        options = {"init": layers.he_normal, "dtype": dtype, "rngs": rngs}
        self.norm1 = layers.BatchNorm(channels, dtype=dtype)
        self.conv1 = layers.Conv(channels, channels, 3, **options)
        self.norm2 = layers.BatchNorm(channels, dtype=dtype)
        self.conv2 = layers.Conv(channels, channels, 3, use_bias=True, **options)

    def __call__(self, x: Features, train: bool) -> Features:
        """Features."""
        y = self.conv1(relu(self.norm1(x, train)))
        return x + self.conv2(relu(self.norm2(y, train)))


def _moved(features: Features, flow: Float[Array, "b h2 w2 3"]) -> tuple[Features, Float[Array, "b _ _ 1"]]:
    """What the places of a driving frame show of features, as far as they count, and how far they do not; float32."""
    size = features.shape[1], features.shape[2]
    flow = bones.resize(flow, size)
    return flow[..., 2:] * bones.sample(features, flow[..., :2]), 1 - flow[..., 2:]


def _blended(shown: Features, hidden: Float[Array, "b _ _ 1"], made: Features) -> Features:
    """What is shown, and what was made in the place of the rest, in the latter's type."""
    return (shown + hidden * made.astype(jnp.float32)).astype(made.dtype)
