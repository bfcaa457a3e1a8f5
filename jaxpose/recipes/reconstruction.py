"""A frame of a clip made of another one: if keypoints are where the body's parts are, moving these is enough.

What joints two frames show says how bones move between them. A network shares the image out between the bones and the
background; another one warps the first frame's features accordingly, and paints what cannot be seen there. What the
second frame looks like then tells where its keypoints should be, without any label.

Source: Lin et al. 2023 (POST), Sec. 3.3.2; networks and loss are those of Siarohin et al. 2021 (articulated animation).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.limits import AT_LEAST_1, POSITIVE, limited
from jaxpose.losses import perceptual
from jaxpose.models import functional, generator, motion, vgg
from jaxpose.ops import augment, bones
from jaxpose.recipes.detector import Trees
from jaxpose.recipes.stage import State

MOTION, GENERATOR, FEATURES = "motion", "generator", "perceptual"
TRAINED = (MOTION, GENERATOR)
_SMALLEST = 16  # side of an image of which VGG's last block still sees a pixel


@dataclasses.dataclass(kw_only=True)
class Reconstruction:
    """Networks and loss; the defaults are small, `published_settings` has the sizes of articulated animation.

    Attributes:
      coarse: image pixels per pixel of the motion network's maps.
      width, depth, most: channels of the motion network's first features, how often it halves them, and the most
        channels it has.
      generator_width, blocks: channels of the generator's first features, and its residual blocks.
      decay: how fast bones fade in their pictures, see `bones.bone_maps`.
      scales: lengths of a bone's own axes, see `bones.frames`.
      vgg: torchvision's file of VGG-19; None: random features, and blurred pixels beside them.
      vgg_width: channels of random features' first convolution; with `vgg` it is 64.
      learning_rate: of Adam, constant; the default is for hundreds of steps, the published one for hundreds of
        thousands.
    """

    coarse: int = limited(4, *AT_LEAST_1)
    width: int = limited(8, *AT_LEAST_1)
    depth: int = limited(3, *AT_LEAST_1)
    most: int = limited(64, *AT_LEAST_1)
    generator_width: int = limited(8, *AT_LEAST_1)
    blocks: int = limited(2, *AT_LEAST_1)
    decay: float = limited(0.04, *POSITIVE)
    scales: bones.Scales = bones.by_ends
    vgg: str | None = None
    vgg_width: int = limited(8, *AT_LEAST_1)
    learning_rate: float = limited(2e-3, *POSITIVE)


def published_settings(vgg_file: str | None) -> Reconstruction:
    """The sizes of articulated animation for 256 pixels."""
    return Reconstruction(width=64, depth=5, most=1024, generator_width=64, blocks=6, vgg=vgg_file, learning_rate=2e-4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstructor:
    """The networks for a skeleton's bones, and what they make.

    Attributes:
      networks: by name.
      bones: joints of both ends (J, 2).
      settings: see `Reconstruction`.
    """

    networks: Mapping[str, functional.Network]
    bones: np.ndarray
    settings: Reconstruction

    def __call__(
        self, params: Trees, stats: Trees, frames: jax.Array, points: jax.Array, *, train: bool
    ) -> tuple["Made", Trees]:
        """The second of two frames made of the first.

        Args:
          params, stats: by network.
          frames: normalised (B, 2, S, S, 3).
          points: of both, (B, 2, K, 2) in pixels.
          train: whether the batch is normalised by itself.

        Returns:
          what is made, and all statistics.
        """
        size = (frames.shape[2], frames.shape[3])
        coarse = (size[0] // self.settings.coarse, size[1] // self.settings.coarse)
        pixels = augment.to_unit(frames.reshape(-1, *size, 3)).reshape(frames.shape)
        base, wanted = pixels[:, 0], pixels[:, 1]
        # Places are those of the image at any size: the first and last pixel's centres.
        where = bones.unit(points, size)
        ends = [(where[:, i, self.bones[:, 0]], where[:, i, self.bones[:, 1]]) for i in (0, 1)]
        maps = [bones.bone_maps(*of, coarse, decay=self.settings.decay) for of in ends]
        axes = [bones.frames(*of, decay=self.settings.decay, scales=self.settings.scales) for of in ends]
        (small,) = perceptual.pyramid(base, (1 / self.settings.coarse,))
        seen = jnp.concatenate([small, *maps], axis=-1)
        (masks, inpainting), moved = self._applied(MOTION, params, stats, seen, train)
        grid = bones.sampling_grid(bones.motion(*axes), masks)
        image, painted = self._applied(GENERATOR, params, stats, (base, grid, inpainting), train)
        made = Made(base=base, wanted=wanted, grid=grid, inpainting=inpainting, image=image)
        return made, stats | {MOTION: moved, GENERATOR: painted}

    def loss(self, params: Trees, made: "Made") -> jax.Array:
        """How what is made differs from what is wanted, (B,); to the eye of a network, and where there is none of
        weights, to a blurred eye."""

        def features_of(images: jax.Array) -> tuple[jax.Array, ...]:
            fixed = jax.lax.stop_gradient(params[FEATURES])
            return self.networks[FEATURES].apply(fixed, {}, images, train=False)[0]

        side = min(made.image.shape[1:3])
        scales = tuple(scale for scale in perceptual.SCALES if scale * side >= _SMALLEST)
        value = perceptual.perceptual(features_of, made.image, made.wanted, scales=scales)
        if self.settings.vgg is None:
            value += perceptual.blurred_pixels(made.image, made.wanted, scales=scales)
        return value

    @property
    def files(self) -> tuple[str, ...]:
        """That `load` reads."""
        return () if self.settings.vgg is None else (self.settings.vgg,)

    def load(self, state: State) -> State:
        """A state with the weights of the file, if there is one."""
        if self.settings.vgg is None:
            return state
        found = vgg.load_vgg(self.settings.vgg, state.params[FEATURES])
        return dataclasses.replace(state, params=state.params | {FEATURES: found})

    def _applied(self, name: str, params: Trees, stats: Trees, x: Any, train: bool) -> tuple[Any, Trees]:
        return self.networks[name].apply(params[name], stats[name], x, train=train)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """Images in [0, 1] (B, S, S, 3) with what they were made by.

    Attributes:
      base, wanted: the first and second frame.
      grid: where in the base lies what the second frame shows, (B, h, w, 2), see `bones.sampling_grid`.
      inpainting: how much of it can be seen there, (B, h, w, 1).
      image: the second frame as it was made.
    """

    base: Any  # Any: JAX also fills pytrees with shapes and placeholders
    wanted: Any
    grid: Any
    inpainting: Any
    image: Any

    @property
    def warped(self) -> jax.Array:
        """The base, moved alone."""
        return bones.sample(self.base, bones.resize(self.grid, self.base.shape[1:3]))


def build(bone_indices: np.ndarray, image_size: int, settings: Reconstruction, dtype: Any) -> Reconstructor:
    """The networks for a skeleton's bones (J, 2).

    Raises:
      ValueError: if there is no bone, or the images cannot be halved as often as the networks want.
    """
    if not len(bone_indices):
        raise ValueError("reconstruction: found a skeleton without bones, expected some that move")
    smallest = settings.coarse * 2**settings.depth
    if image_size % smallest:
        raise ValueError(
            f"config.data.image_size: found {image_size}, expected a multiple of {smallest}, which is "
            "config.method.networks.coarse * 2 ** config.method.networks.depth"
        )
    make: dict[str, Callable[..., Any]] = {
        MOTION: functools.partial(
            motion.MotionNetwork,
            bones=len(bone_indices),
            width=settings.width,
            depth=settings.depth,
            most=settings.most,
        ),
        GENERATOR: functools.partial(generator.Generator, width=settings.generator_width, blocks=settings.blocks),
        FEATURES: functools.partial(vgg.VGG, width=64 if settings.vgg else settings.vgg_width),
    }
    networks = {name: functional.network(module, dtype=dtype) for name, module in make.items()}
    return Reconstructor(networks=networks, bones=bone_indices, settings=settings)
