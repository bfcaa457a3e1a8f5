"""A generator of pictures by style, in the three parts between which a distribution can be transferred.

Latent vectors z go through `Mapping` to w, w through `Affine` to the styles of every layer, and styles through
`Synthesis` to pictures; `Transfer` stands between the last two. The layers of style are counted from 1, two for every
resolution: with the third, the first at 8x8, FlexPose transfers.

Source: Karras et al. 2019 (StyleGAN), arXiv:1812.04948, at one resolution: instead of growing, every resolution adds
colours, as of Karras et al. 2020 (StyleGAN2), arXiv:1912.04958, Sec. 4.1. FlexPose, Eqs. 3, 4 and 6.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops import convolution, normalization, style

LATENT = 512

Latents = Float[Array, "b z"]
Layered = Float[Array, "b l z"]
Styles = tuple[Float[Array, "b _"], ...]  # of layer after layer: gains and offsets (B, 2C) of its channels
Noise = tuple[Float[Array, "b _ _ 1"], ...]
Features = Float[Array, "b h w c"]


class Mapping(nnx.Module):
    """Latent vectors z, of which only the direction counts, to w: eight affine layers.

    The published learning rate of these layers is a hundredth of that of all others.

    Attributes:
      denses: "0" to "7".
    """

    def __init__(self, *, latent: int = LATENT, depth: int = 8, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype  # float32: vectors are small
        self.denses = nnx.Dict({str(i): Dense(latent, latent, gain=_GAIN, rngs=rngs) for i in range(depth)})

    def __call__(self, x: Latents, train: bool) -> Latents:
        """w of z."""
        x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-8)
        for number in range(len(self.denses)):
            x = leaky(self.denses[str(number)](x))
        return x


class Affine(nnx.Module):
    """w to the styles of every layer; A of the papers.

    Attributes:
      styles: by layer, "1" and on. Gains start at 1 and offsets at 0, moved by w.
    """

    def __init__(
        self,
        *,
        size: int,
        latent: int = LATENT,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        self.styles = nnx.Dict()
        for number, wide in enumerate(style_channels(size, width), start=1):
            made = Dense(latent, 2 * wide, gain=1.0, rngs=rngs)
            made.bias.set_value(jnp.concatenate([jnp.ones(wide), jnp.zeros(wide)]))
            self.styles[str(number)] = made

    def __call__(self, x: Layered, train: bool) -> Styles:
        """Styles of (B, L, Z), a w for each of the L layers; see `spread` and `mixed`.

        Raises:
          ValueError: there are not as many as layers.
        """
        if x.shape[1] != len(self.styles):
            raise ValueError(f"affine: found w for {x.shape[1]} layers, expected {len(self.styles)}")
        # By number: a network's dicts come in the order of their keys, and "10" before "2".
        return tuple(self.styles[str(i + 1)](x[:, i]) for i in range(len(self.styles)))


class Transfer(nnx.Module):
    """Styles of one distribution to those of another: U = I + D on some layers, where D starts at zero.

    At the start the styles, and so the pictures, are those that come in, bit for bit.

    Attributes:
      moves: by layer; "all" is D, or its factors are "down" and "up", of which up starts at zero.

    Source: FlexPose, Eq. 6, which is linear, without an offset.
    """

    def __init__(
        self,
        *,
        size: int,
        layers: Sequence[int] = (3,),
        rank: int | None = None,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        channels = style_channels(size, width)
        wrong = [number for number in layers if not 1 <= number <= len(channels)]
        if wrong:
            raise ValueError(f"transfer: found layer {wrong[0]}, expected 1 to {len(channels)} at {size} pixels")
        self.moves = nnx.Dict()
        for number in layers:
            self.moves[str(number)] = _move(2 * channels[number - 1], rank, rngs)

    def __call__(self, x: Styles, train: bool) -> Styles:
        """The styles, those of the named layers moved."""
        moved = list(x)
        for number, move in self.moves.items():
            before = x[int(number) - 1]
            after = before
            for name in ("all",) if "all" in move else ("down", "up"):
                after = jnp.matmul(after, move[name][...], precision=lax.Precision.HIGHEST)
            moved[int(number) - 1] = before + after
        return tuple(moved)


class Synthesis(nnx.Module):
    """Styles to pictures: a learned 4x4 map that is doubled up to the size, and styled twice at every resolution.

    Attributes:
      constant: (4, 4, C).
      convs: by layer, from "2": the first layer styles the constant.
      noises: by layer, how strong noise is in each channel; zero at the start.
      colours: by resolution, "4", "8", ..., 1x1.
    """

    def __init__(
        self, *, size: int, outputs: int = 3, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        self.dtype = dtype
        channels = style_channels(size, width)
        self.constant = nnx.Param(layers.normal(1.0)(rngs.params(), (4, 4, channels[0])))
        self.convs, self.noises, self.colours = nnx.Dict(), nnx.Dict(), nnx.Dict()
        for number, wide in enumerate(channels, start=1):
            if number > 1:
                before = channels[number - 2]
                self.convs[str(number)] = Conv(before, wide, 3, gain=_GAIN, dtype=dtype, rngs=rngs)
            self.noises[str(number)] = nnx.Param(jnp.zeros(wide))
            if number % 2 == 0:
                made = Conv(wide, outputs, 1, gain=1.0, dtype=dtype, rngs=rngs)
                self.colours[str(_resolution(number))] = made

    def __call__(self, x: tuple[Styles, Noise | None], train: bool) -> Float[Array, "b h w o"]:
        """Pictures, float32, whose values nothing limits, of styles and of noise (see `noise`; None: without any)."""
        styles, noise = x
        batch = len(styles[0])
        y = jnp.broadcast_to(self.constant[...][None], (batch, *self.constant.shape)).astype(self.dtype)
        picture = None
        for number, own in enumerate(styles, start=1):
            if number > 1:
                doubles = number % 2 == 1
                y = self.convs[str(number)](layers.doubled(y) if doubles else y)
                y = layers.blurred(y) if doubles else y
            if noise is not None:
                strength = self.noises[str(number)][...][None, None, None]
                y = y + (noise[number - 1] * strength).astype(self.dtype)
            y = _styled(leaky(y), own).astype(self.dtype)
            if number % 2 == 0:
                colours = self.colours[str(_resolution(number))](y).astype(jnp.float32)
                picture = colours if picture is None else layers.blurred(layers.doubled(picture)) + colours
        assert picture is not None  # there are two layers at least
        return picture


class Discriminator(nnx.Module):
    """Pictures to one logit, positive for true ones: the synthesis backwards.

    Attributes:
      colours: 1x1, to the channels of the full size.
      convs: by resolution, "0" and, at half the size, "1"; at 4x4 one, which also sees how much a batch varies.
      hidden, logit: of all pixels.
    """

    def __init__(
        self, *, size: int, inputs: int = 3, width: float = 1.0, group: int = 4, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.size, self.group = size, group
        options = {"gain": _GAIN, "dtype": dtype, "rngs": rngs}
        channels = style_channels(size, width)[::-2]  # by resolution, the full size first
        self.colours = Conv(inputs, channels[0], 1, **options)
        self.convs = nnx.Dict()
        for level, wide in enumerate(channels[:-1]):
            pair = {"0": Conv(wide, wide, 3, **options), "1": Conv(wide, channels[level + 1], 3, **options)}
            self.convs[str(size >> level)] = nnx.Dict(pair)
        last = channels[-1]
        self.convs["4"] = nnx.Dict({"0": Conv(last + 1, last, 3, **options)})
        self.hidden = Dense(16 * last, last, gain=_GAIN, rngs=rngs)
        self.logit = Dense(last, 1, gain=1.0, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], train: bool) -> Float[Array, " b"]:
        """Logits, float32.

        Raises:
          ValueError: the batch is larger than a group and no multiple of it.
        """
        y = leaky(self.colours(x))
        for level in range(len(self.convs) - 1):
            pair = self.convs[str(self.size >> level)]
            y = layers.blurred(leaky(pair["0"](y)))
            y = leaky(layers.halved(pair["1"](y)))
        y = leaky(self.convs["4"]["0"](_with_variation(y, self.group)))
        return self.logit(leaky(self.hidden(y.reshape(len(y), -1))))[:, 0]


class Conv(nnx.Module):
    """A convolution whose weights are equally large in every layer, and so are changed equally fast.

    Attributes:
      kernel: (size, size, inputs, outputs) from N(0, 1); it counts gain / sqrt(size * size * inputs) times.
      bias: (outputs,), zero at the start.

    Source: Karras et al. 2018 (progressive growing), arXiv:1710.10196, Sec. 4.1.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, gain: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.scale, self.dtype = gain / math.sqrt(size * size * inputs), dtype
        self.kernel = nnx.Param(layers.normal(1.0)(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        """Convolves images, with zeros around them."""
        kernel = convolution.cast_kernel(self.kernel[...] * self.scale, self.dtype)
        y = convolution.conv2d(x.astype(self.dtype), kernel, padding=kernel.shape[0] // 2)
        return y + self.bias[...].astype(self.dtype)[None, None, None]


class Dense(nnx.Module):
    """As `Conv`, of vectors, in float32.

    Attributes:
      kernel: (inputs, outputs).
      bias: (outputs,), zero at the start.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float, rngs: nnx.Rngs):
        self.scale = gain / math.sqrt(inputs)
        self.kernel = nnx.Param(layers.normal(1.0)(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        """Maps vectors."""
        y = jnp.matmul(x.astype(jnp.float32), self.kernel[...] * self.scale, precision=lax.Precision.HIGHEST)
        return y + self.bias[...][None]


def style_channels(size: int, width: float = 1.0) -> list[int]:
    """Channels of every layer of style of pictures of `size` pixels, two for each of the resolutions 4, 8, ..., size.

    512 at the most, and 16384 over the resolution, times `width`.

    Raises:
      ValueError: the size is no power of two, or less than 4.
    """
    if size < 4 or size & (size - 1):
        raise ValueError(f"stylegan: found a size of {size} pixels, expected 4, 8, 16, ...")
    resolutions = [4 << level for level in range(size.bit_length() - 2)]
    return [layers.scaled(min(512, 16384 // resolution), width) for resolution in resolutions for _ in range(2)]


def spread(w: Latents, count: int) -> Layered:
    """One w for all of so many layers."""
    return jnp.broadcast_to(w[:, None], (len(w), count, w.shape[1]))


def mixed(key: jax.Array, first: Latents, second: Latents, count: int, *, share: float = 0.9) -> Layered:
    """w for each of so many layers: the first up to a random layer and from there the second, in a share of the rows.

    So layers learn not to count on each other.

    Source: Karras et al. 2019, Sec. 3.1.
    """
    chosen, place = jax.random.split(key)
    crossover = jax.random.randint(place, (len(first), 1), 1, count)
    crossover = jnp.where(jax.random.bernoulli(chosen, share, (len(first), 1)), crossover, count)
    return jnp.where((jnp.arange(count)[None] < crossover)[..., None], first[:, None], second[:, None])


def noise(key: jax.Array, batch: int, size: int) -> Noise:
    """Standard normal noise for every layer of so many pictures."""
    keys = jax.random.split(key, len(style_channels(size)))
    sides = [_resolution(number) for number in range(1, len(keys) + 1)]
    return tuple(jax.random.normal(k, (batch, n, n, 1)) for k, n in zip(keys, sides, strict=True))


def leaky(x: jax.Array) -> jax.Array:
    """The positive part and a fifth of the negative one."""
    return jax.nn.leaky_relu(x, 0.2)


_GAIN = math.sqrt(2)  # He et al. 2015: what a rectifier makes of it is as large as what came in


def _resolution(number: int) -> int:
    return 4 << (number - 1) // 2


def _move(size: int, rank: int | None, rngs: nnx.Rngs) -> layers.Layers:
    if rank is None:
        return nnx.Dict({"all": nnx.Param(jnp.zeros((size, size)))})
    down = layers.normal(1 / math.sqrt(size))(rngs.params(), (size, rank))
    return nnx.Dict({"down": nnx.Param(down), "up": nnx.Param(jnp.zeros((rank, size)))})


def _styled(x: Features, own: Float[Array, "b s"]) -> Features:
    """Features with the gains and offsets of a style in the place of their own; float32."""
    mean, deviation = style.channel_moments(x, normalization.EPSILON)
    gain, offset = jnp.split(own[:, None, None], 2, axis=-1)
    return gain * ((x.astype(jnp.float32) - mean) / deviation) + offset


def _with_variation(x: Features, group: int) -> Float[Array, "b h w c1"]:
    """Features and beside them, at every pixel, the mean deviation of features within a group of images.

    Source: Karras et al. 2018, arXiv:1710.10196, Sec. 3, in groups as its code.
    """
    batch, height, width, channels = x.shape
    group = min(group, batch)
    if batch % group:
        raise ValueError(f"discriminator: found a batch of {batch}, expected a multiple of {group}")
    grouped = x.astype(jnp.float32).reshape(-1, group, height, width, channels)
    deviation = jnp.sqrt(jnp.mean(jnp.square(grouped - jnp.mean(grouped, axis=1, keepdims=True)), axis=1) + 1e-8)
    variation = jnp.repeat(jnp.mean(deviation, axis=(1, 2, 3)), group)
    plane = jnp.broadcast_to(variation[:, None, None, None], (batch, height, width, 1))
    return jnp.concatenate([x, plane.astype(x.dtype)], axis=-1)
