"""The network that finds what moves with which bone between two frames of a clip, and what has to be invented.

Source: Lin et al. 2023 (POST), Sec. 3.3.2; its shape is that of Siarohin et al. 2021 (articulated animation),
arXiv:2104.11280, of which the input differs: POST's has the base image once and no copies of it that each bone moved.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops.activation import relu


class MotionNetwork(nnx.Module):
    """A small base image and the bone maps of the base and of the driving frame to masks and an inpainting map.

    An hourglass: `depth` halvings, of width * 2, 4, 8, ... channels but `most` at most, and as many doublings, each of
    which is put beside what had its size before. The defaults are the published network.

    Attributes:
      down0, down1, ...: convolutions and their normalisations, from fine to coarse.
      up0, up1, ...: likewise, by the size that they make, up0 the finest.
      heads: one 7x7 convolution for both outputs, as they read the same; the inpainting map is its last channel.
    """

    def __init__(
        self, *, bones: int, width: int = 64, depth: int = 5, most: int = 1024, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.depth, self.dtype = depth, dtype
        inputs = 3 + 2 * bones
        channels = [inputs, *(min(width << level, most) for level in range(1, depth + 1))]
        for level in range(depth):
            made = layers.conv_norm(channels[level], channels[level + 1], 3, dtype=dtype, rngs=rngs)
            setattr(self, f"down{level}", made)
        found = channels[depth]
        for level in reversed(range(depth)):
            outputs = min(width << level, most)
            setattr(self, f"up{level}", layers.conv_norm(found, outputs, 3, dtype=dtype, rngs=rngs))
            found = outputs + channels[level]
        self.heads = layers.Conv(found, bones + 2, 7, use_bias=True, init=layers.lecun_normal, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w i"], train: bool
    ) -> tuple[Float[Array, "b h w j1"], Float[Array, "b h w 1"]]:
        """What belongs to what, and where the base image shows what the driving frame does.

        Args:
          x: the base image, with values of 0 to 1, its J bone maps and the driving frame's, side by side.
          train: whether to normalise by the batch.

        Returns:
          Float32: masks (B, h, w, J + 1) of the background, first, and of the bones, which add up to 1; and the
          inpainting map (B, h, w, 1), from 0, where everything has to be invented, to 1.

        Raises:
          ValueError: height or width cannot be halved `depth` times. Nothing is padded or left out, as maps of places
            would no longer fit the pictures that they were made of.
        """
        height, width, step = *x.shape[1:3], 2**self.depth
        if height % step or width % step:
            raise ValueError(f"motion: found maps of {height}x{width} pixels, expected multiples of {step}")
        skips = [x.astype(self.dtype)]
        for level in range(self.depth):
            made = layers.apply_conv_norm(getattr(self, f"down{level}"), skips[-1], train)
            skips.append(layers.halved(relu(made)))
        found = skips.pop()
        for level in reversed(range(self.depth)):
            made = layers.apply_conv_norm(getattr(self, f"up{level}"), layers.doubled(found), train)
            found = jnp.concatenate([relu(made), skips.pop()], axis=-1)
        logits = self.heads(found).astype(jnp.float32)
        return jax.nn.softmax(logits[..., :-1], axis=-1), jax.nn.sigmoid(logits[..., -1:])
