"""Networks that translate images into pictures of skeletons and back, and judge such pictures.

Source: Jakab et al. 2020 (KeypointGAN), arXiv:1907.02055, and its released code. What we do not know of their layers
is that of the works that they follow: Jakab et al. 2018, arXiv:1806.07823, and, of the discriminator, Wang et al. 2018
(pix2pixHD), arXiv:1711.11585.
"""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.models.pose_reader import DEVIATION, Encoder, feature_channels
from jaxpose.models.stylegan import leaky
from jaxpose.ops.activation import relu

Images = Float[Array, "b h w 3"]
Pictures = Float[Array, "b h w c"]


class SkeletonNetwork(nnx.Module):
    """Images to pictures of skeletons; Phi, a U-Net.

    Attributes:
      down0, down1, ...: pairs of 3x3 convolutions, from fine to coarse, with 32, 64, 128 and 256 channels.
      fusion0, fusion1, ...: 1x1, of what comes from below, doubled, beside what had its size before.
      up0, up1, ...: pairs, by the size that they are at, up0 the finest.
      last: 1x1.
    """

    def __init__(
        self,
        *,
        outputs: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        width: float = 1.0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        wide = [layers.scaled(count, width) for count in channels]
        self.halvings = len(wide) - 1
        options = {"init": layers.normal(DEVIATION), "dtype": dtype, "rngs": rngs}
        for level, (before, after) in enumerate(itertools.pairwise([3, *wide])):
            setattr(self, f"down{level}", _pair(before, after, options))
        for level, (fine, coarse) in enumerate(itertools.pairwise(wide)):
            setattr(self, f"fusion{level}", layers.conv_norm(coarse + fine, fine, 1, **options))
            setattr(self, f"up{level}", _pair(fine, fine, options))
        self.last = layers.Conv(wide[0], outputs, 1, use_bias=True, **options)

    def __call__(self, x: Images, train: bool) -> Pictures:
        """Pictures, float32, whose values nothing limits; those of `ops.sketches` are from -1 to 1.

        Raises:
          ValueError: height or width cannot be halved as often as there are sizes.
        """
        _check(x, 2**self.halvings, "skeleton network")
        skips, y = [], x
        for level in range(self.halvings + 1):
            y = _apply_pair(getattr(self, f"down{level}"), layers.halved(y) if level else y, train)
            skips.append(y)
        skips.pop()
        for level in reversed(range(self.halvings)):
            y = jnp.concatenate([layers.blurred(layers.doubled(y)), skips.pop()], axis=-1)
            y = relu(layers.apply_conv_norm(getattr(self, f"fusion{level}"), y, train))
            y = _apply_pair(getattr(self, f"up{level}"), y, train)
        return self.last(y).astype(jnp.float32)


class Painter(nnx.Module):
    """A picture of a skeleton and another frame of the clip to the frame of that pose; Psi.

    The pose says where, the other frame says what.

    Attributes:
      pose, frame: encoders to an eighth of the size.
      up0, ..., up3: pairs of 3x3 convolutions to 256, 128, 64 and 32 channels, a doubling before all but the first.
      last: 3x3.
    """

    def __init__(self, *, inputs: int, width: float = 1.0, dtype: DTypeLike, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.pose = Encoder(inputs=inputs, norm=layers.BatchNorm, width=width, **options)
        self.frame = Encoder(inputs=3, norm=layers.BatchNorm, width=width, **options)
        options["init"] = layers.normal(DEVIATION)
        wide = [2 * feature_channels(width), *(layers.scaled(count, width) for count in (256, 128, 64, 32))]
        for level, (before, after) in enumerate(itertools.pairwise(wide)):
            setattr(self, f"up{level}", _pair(before, after, options))
        self.last = layers.Conv(wide[-1], 3, 3, use_bias=True, **options)

    def __call__(self, x: tuple[Pictures, Images], train: bool) -> Images:
        """Frames, float32, whose values nothing limits, of pictures and other frames of the same clips.

        Raises:
          ValueError: height or width cannot be halved three times.
        """
        picture, frame = x
        y = jnp.concatenate([self.pose(picture, train), self.frame(frame, train)], axis=-1)
        for level in range(4):
            y = layers.blurred(layers.doubled(y)) if level else y
            y = _apply_pair(getattr(self, f"up{level}"), y, train)
        return self.last(y).astype(jnp.float32)


class PatchDiscriminator(nnx.Module):
    """Pictures to scores of their patches, at several scales, each half as large as the one before.

    Attributes:
      scales: "0" and on, the full size first; of each "first", which is not normalised, "convs" and "last". Kernels are
        4x4 and paddings 2, so that no size is too small.
    """

    def __init__(
        self, *, inputs: int, scales: int = 3, depth: int = 3, width: float = 1.0, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        options = {"init": layers.normal(DEVIATION), "dtype": dtype, "rngs": rngs}
        channels = [layers.scaled(min(64 << level, 512), width) for level in range(depth + 1)]
        made = {}
        for scale in range(scales):
            convs = {}
            for level, (before, after) in enumerate(itertools.pairwise(channels)):
                stride = 1 if level == depth - 1 else 2
                norm = layers.InstanceNorm
                convs[str(level)] = layers.conv_norm(before, after, 4, stride=stride, norm=norm, **options)
            first = layers.Conv(inputs, channels[0], 4, stride=2, use_bias=True, **options)
            last = layers.Conv(channels[-1], 1, 4, use_bias=True, **options)
            made[str(scale)] = nnx.Dict({"first": first, "convs": nnx.Dict(convs), "last": last})
        self.scales, self.depth = nnx.Dict(made), depth

    def __call__(self, x: Pictures, train: bool) -> tuple[Float[Array, "b _ _"], ...]:
        """Scores, float32, of each scale.

        Raises:
          ValueError: height or width cannot be halved for the next scale.
        """
        _check(x, 2 ** (len(self.scales) - 1), "patch discriminator")
        scores = []
        for scale in range(len(self.scales)):
            x = layers.halved(x) if scale else x
            made = self.scales[str(scale)]
            y = leaky(made["first"](x))
            for level in range(self.depth):
                y = leaky(layers.apply_conv_norm(made["convs"][str(level)], y, train))
            scores.append(made["last"](y)[..., 0].astype(jnp.float32))
        return tuple(scores)


def _pair(before: int, after: int, options: dict) -> layers.Layers:
    first = layers.conv_norm(before, after, 3, **options)
    return nnx.Dict({"0": first, "1": layers.conv_norm(after, after, 3, **options)})


def _apply_pair(made: layers.Layers, x: Float[Array, "b h w i"], train: bool) -> Float[Array, "b h w o"]:
    y = relu(layers.apply_conv_norm(made["0"], x, train))
    return relu(layers.apply_conv_norm(made["1"], y, train))


def _check(x: Float[Array, "b h w c"], step: int, name: str) -> None:
    height, width = x.shape[1:3]
    if height % step or width % step:
        raise ValueError(f"{name}: found images of {height}x{width} pixels, expected multiples of {step}")
