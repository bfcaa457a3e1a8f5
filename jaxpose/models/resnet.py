"""Residual networks with torchvision's shapes, names and meaning, without the classifier.

Source: He et al. 2016, arXiv:1512.03385, in the variant with the stride in the bottleneck's 3x3 convolution ("v1.5").
"""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops import convolution
from jaxpose.ops.activation import relu


class ResNet(nnx.Module):
    """Images to feature maps at 1/32 of their size.

    `norm` makes what follows each convolution; with `layers.Bias` nothing is normalised.

    Attributes:
      conv1, bn1, layer1 .. layer4: as in torchvision; a layer's blocks are named "0", "1", ...
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        norm: layers.Norm = layers.BatchNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        all_layers: bool = False,
    ):
        block, counts = _architecture(depth)
        options = {"norm": norm, "dtype": dtype, "rngs": rngs}
        self.all_layers = all_layers
        self.conv1 = layers.Conv(3, width, 7, stride=2, init=layers.he_normal, dtype=dtype, rngs=rngs)
        self.bn1 = norm(width, dtype=dtype)
        outputs = width * block.expansion
        self.layer1 = blocks(block, width, width, 1, counts[0], **options)
        self.layer2 = blocks(block, outputs, 2 * width, 2, counts[1], **options)
        self.layer3 = blocks(block, 2 * outputs, 4 * width, 2, counts[2], **options)
        self.layer4 = blocks(block, 4 * outputs, 8 * width, 2, counts[3], **options)

    def __call__(
        self, x: Float[Array, "*b h w 3"], train: bool
    ) -> Float[Array, "*b h2 w2 c"] | tuple[Float[Array, "*b _ _ _"], ...]:
        """Features of normalised images: of the last layer, or with `all_layers` of the four of them."""
        x = relu(self.bn1(self.conv1(x), train))
        x = layers.of_images(convolution.max_pool_3x3_s2, x)
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage.values():
                x = block(x, train)
            outputs.append(x)
        return tuple(outputs) if self.all_layers else x


def output_channels(depth: int, width: int) -> int:
    """Channels of the feature map of `ResNet(depth=depth, width=width)`."""
    return 8 * width * _architecture(depth)[0].expansion


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int,
        *,
        norm: layers.Norm = layers.BatchNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv1 = layers.Conv(inputs, channels, 3, stride=stride, init=layers.he_normal, dtype=dtype, rngs=rngs)
        self.bn1 = norm(channels, dtype=dtype)
        self.conv2 = layers.Conv(channels, channels, 3, init=layers.he_normal, dtype=dtype, rngs=rngs)
        self.bn2 = norm(channels, dtype=dtype)
        self.downsample = _downsample(inputs, channels, stride, norm=norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w i"], train: bool) -> Float[Array, "*b h2 w2 o"]:
        """Features at 1/stride of the size."""
        y = relu(self.bn1(self.conv1(x), train))
        y = self.bn2(self.conv2(y), train)
        return relu(y + _shortcut(self.downsample, x, train))


class Bottleneck(nnx.Module):
    """A 3x3 convolution between two 1x1 convolutions that reduce and expand, around a shortcut."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int,
        *,
        norm: layers.Norm = layers.BatchNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        outputs = channels * self.expansion
        self.conv1 = layers.Conv(inputs, channels, 1, init=layers.he_normal, dtype=dtype, rngs=rngs)
        self.bn1 = norm(channels, dtype=dtype)
        self.conv2 = layers.Conv(channels, channels, 3, stride=stride, init=layers.he_normal, dtype=dtype, rngs=rngs)
        self.bn2 = norm(channels, dtype=dtype)
        self.conv3 = layers.Conv(channels, outputs, 1, init=layers.he_normal, dtype=dtype, rngs=rngs)
        self.bn3 = norm(outputs, dtype=dtype)
        self.downsample = _downsample(inputs, outputs, stride, norm=norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w i"], train: bool) -> Float[Array, "*b h2 w2 o"]:
        """Features at 1/stride of the size."""
        y = relu(self.bn1(self.conv1(x), train))
        y = relu(self.bn2(self.conv2(y), train))
        y = self.bn3(self.conv3(y), train)
        return relu(y + _shortcut(self.downsample, x, train))


def blocks(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    channels: int,
    stride: int,
    count: int,
    *,
    norm: layers.Norm = layers.BatchNorm,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> layers.Layers:
    """Blocks "0", "1", ... one after the other, of which the first changes the shape."""
    first = block(inputs, channels, stride, norm=norm, dtype=dtype, rngs=rngs)
    outputs = channels * block.expansion
    others = [block(outputs, channels, 1, norm=norm, dtype=dtype, rngs=rngs) for _ in range(count - 1)]
    return nnx.Dict({str(index): made for index, made in enumerate([first, *others])})


def _architecture(depth: int) -> tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]:
    known = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }
    if depth not in known:
        raise ValueError(f"model.depth: found {depth}, expected one of {sorted(known)}")
    return known[depth]


def _downsample(inputs, outputs, stride, *, norm, dtype, rngs):
    """The 1x1 convolution and normalisation on the shortcut where the shape changes, else None."""
    if stride == 1 and inputs == outputs:
        return None
    return layers.conv_norm(inputs, outputs, 1, stride=stride, norm=norm, dtype=dtype, rngs=rngs)


def _shortcut(downsample, x, train):
    return x if downsample is None else layers.apply_conv_norm(downsample, x, train)
