"""Skeletons as pictures, by which networks of images learn what poses there are.

Points are (x, y) in unit coordinates, as in `ops.bones`: -1 and 1 are the centres of the first and the last pixel.

Source: Jakab et al. 2020 (KeypointGAN), whose pictures have one channel; FlexPose, Sec. 3.4 and Table 2, whose alpha
gives bones colours, and does not say which.
"""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxpose.ops import bones
from jaxpose.ops.trees import Tree

DECAY = 0.04  # sigma = 0.2

Points = Float[Array, "b k 2"]
Colours = Float[np.ndarray, "n c"]
Pictures = Float[Array, "b h w c"]
Ends = Float[Array, "e b 2 1 2"]  # of one bone after the other


def sketches(points: Points, tree: Tree, size: tuple[int, int], *, colours: Colours, decay: float = DECAY) -> Pictures:
    """Pictures of poses: every bone a line that fades by exp(-d / decay), in its colour, on a background of -1.

    Of several bones, a pixel shows in every channel the brightest, to which its gradient goes; of two that are equally
    bright, to the first. Bones are drawn one after the other, forwards and backwards, so that nothing is as large as
    the pictures times the bones. Only reverse mode is defined.

    Args:
      points: poses (B, K, 2). What lies outside the picture is cut off; a bone without a length is a dot.
      tree: the bones (E, 2), joints by number.
      size: height and width.
      colours: (E, C), from 0, which leaves a channel as it is, to 1; see `coloured` and `one_channel`.
      decay: sigma^2; d is not squared.

    Returns:
      (B, H, W, C), float32, with values of -1 to 1.

    Raises:
      ValueError: there are not as many colours as bones.
    """
    if len(colours) != len(tree):
        raise ValueError(f"sketches: found {len(colours)} colours, expected {len(tree)}, one per bone")
    ends = jnp.moveaxis(points.astype(jnp.float32)[:, tree], 0, 1)[:, :, :, None]
    return _brightest(size, decay, ends, jnp.asarray(colours, jnp.float32))


def coloured(count: int) -> Colours:
    """Colours of so many bones: full ones, whose hues go once around."""
    hues = [colorsys.hsv_to_rgb(bone / count, 1.0, 1.0) for bone in range(count)]
    return np.asarray(hues, np.float32)


def one_channel(count: int) -> Colours:
    """White, for so many bones, as in KeypointGAN."""
    return np.ones((count, 1), np.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _brightest(size, decay, ends, colours):
    return 2 * jnp.moveaxis(_drawn(size, decay, ends, colours)[0], 0, -1) - 1


def _forward(size, decay, ends, colours):
    picture, winner = _drawn(size, decay, ends, colours)
    return 2 * jnp.moveaxis(picture, 0, -1) - 1, (ends, colours, winner)


def _backward(size, decay, saved, dy):
    ends, colours, winner = saved
    dy = 2 * jnp.moveaxis(dy, -1, 0)

    def step(_, bone):
        number, place, colour = bone
        _, pull = jax.vjp(lambda place: _line(place, size, decay), place)
        # Not `jnp.sum`, which is four times slower on CPU.
        shares = [jnp.where(winner[c] == number, dy[c] * colour[c], 0.0) for c in range(len(dy))]
        own = functools.reduce(jnp.add, shares)
        return None, pull(own)[0]

    _, slopes = lax.scan(step, None, (_numbers(ends), ends, colours))
    return slopes, jnp.zeros_like(colours)


_brightest.defvjp(_forward, _backward)


def _drawn(
    size: tuple[int, int], decay: float, ends: Ends, colours: Float[Array, "e c"]
) -> tuple[Float[Array, "c b h w"], Int[Array, "c b h w"]]:
    """Pictures of 0 to 1 and which bone a pixel shows, -1 for none.

    Channels come first, as rows of three numbers are slow.
    """

    def step(best, bone):
        picture, winner = best
        number, place, colour = bone
        line = _line(place, size, decay)[None] * colour[:, None, None, None]
        ahead = line > picture
        return (jnp.where(ahead, line, picture), jnp.where(ahead, number, winner)), None

    shape = (colours.shape[1], ends.shape[1], *size)
    empty = jnp.zeros(shape, jnp.float32), jnp.full(shape, -1, jnp.int32)
    return lax.scan(step, empty, (_numbers(ends), ends, colours))[0]


def _line(place: Float[Array, "b 2 1 2"], size: tuple[int, int], decay: float) -> Float[Array, "b h w"]:
    return bones.bone_maps(place[:, 0], place[:, 1], size, decay=decay)[..., 0]


def _numbers(ends: Ends) -> Int[Array, " e"]:
    return jnp.arange(len(ends), dtype=jnp.int32)
