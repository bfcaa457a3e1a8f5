"""Relations: what is done to images, and what it does to the poses in them.

A relation takes two sequences out of a window of frames. It does so with images and with poses alike, so that nothing
that is random can be different on the two sides: a window is cut by numbers that are known when a program is compiled.

Source: Kundu et al. 2021, arXiv:2204.01971, Sec. 3.2; the released code cut windows of 30 frames for the slow relation,
and reversed either side of its pairs by chance.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.ops import affine, augment, local_frames, warp
from jaxpose.ops.local_frames import BodyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spatial:
    """What is done to every frame.

    Attributes:
      images: normalised (N, H, W, 3) -> the same.
      poses: camera-frame joints (..., K, 3) of a tree -> the same.
    """

    images: Callable[[jax.Array], jax.Array]
    poses: Callable[[jax.Array, BodyTree], jax.Array]


def same_images(images: jax.Array) -> jax.Array:
    """As they are."""
    return images


def same_poses(poses: jax.Array, tree: BodyTree) -> jax.Array:
    """As they are."""
    del tree
    return poses


def mirrored_images(images: jax.Array) -> jax.Array:
    """With left and right exchanged."""
    return images[..., ::-1, :]


# Functions with names, by which a work directory knows them.
KEPT = Spatial(images=same_images, poses=same_poses)
MIRRORED = Spatial(images=mirrored_images, poses=local_frames.mirrored)


def turned(degrees: float) -> Spatial:
    """A turn about the line of sight, clockwise in the image."""
    angle = float(np.deg2rad(degrees))

    def images(frames: jax.Array) -> jax.Array:
        count, size = frames.shape[0], frames.shape[1]
        matrix = affine.similarity(
            rotation=jnp.full((count,), angle),
            scale=jnp.ones((count,)),
            translation=jnp.zeros((count, 2)),
            mirror=jnp.ones((count,)),
            size=size,
        )
        pixels = jnp.clip(jnp.round(255.0 * augment.to_unit(frames)), 0, 255).astype(jnp.uint8)
        return augment.normalize(warp.warp(pixels, matrix))

    def poses(points: jax.Array, tree: BodyTree) -> jax.Array:
        cos, sin = np.cos(angle), np.sin(angle)
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        return jnp.stack([float(cos) * x - float(sin) * y, float(sin) * x + float(cos) * y, z], axis=-1)

    return Spatial(images=images, poses=poses)


Cut = tuple[slice, slice]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
    """Two sequences of one window.

    Attributes:
      name: as in logs and the state.
      of_motion: whether sequences are related as a whole; else frame by frame.
      spatial: what is done to the frames of the second sequence.
      span: how many times T frames the window has.
      cut: T -> which of the window's frames are the first and the second sequence.
    """

    name: str
    of_motion: bool
    spatial: Spatial
    span: int = 1
    cut: Callable[[int], Cut]

    def of_images(self, windows: jax.Array, frames: int) -> tuple[jax.Array, jax.Array]:
        """Both sequences (B, T, H, W, 3) of windows (B, span * T, H, W, 3)."""
        first, second = (windows[:, cut] for cut in self.cut(frames))
        flat = self.spatial.images(second.reshape(-1, *second.shape[2:]))
        return first, flat.reshape(second.shape)

    def of_poses(self, windows: jax.Array, frames: int, tree: BodyTree) -> tuple[jax.Array, jax.Array]:
        """Both sequences (B, T, K, 3) of windows (B, span * T, K, 3)."""
        first, second = self.cut(frames)
        return windows[:, first], self.spatial.poses(windows[:, second], tree)


def _same(frames: int) -> Cut:
    return slice(frames), slice(frames)


def _backward(frames: int) -> Cut:
    return slice(frames), slice(frames - 1, None, -1)


def _slow_backward(frames: int) -> Cut:
    """Every second frame of a window of twice the length, and its middle half backwards: as in slow motion."""
    start = frames // 2
    return slice(0, 2 * frames, 2), slice(start + frames - 1, start - 1 if start else None, -1)


def _fast_forward(frames: int) -> Cut:
    return slice(frames // 2, frames // 2 + frames), slice(0, 2 * frames, 2)


FLIP = Relation(name="flip", of_motion=False, spatial=MIRRORED, cut=_same)
TURN = Relation(name="turn", of_motion=False, spatial=turned(5.0), cut=_same)
FLIP_FORWARD = Relation(name="flip_forward", of_motion=True, spatial=MIRRORED, cut=_same)
BACKWARD = Relation(name="backward", of_motion=True, spatial=KEPT, cut=_backward)
FLIP_BACKWARD = Relation(name="flip_backward", of_motion=True, spatial=MIRRORED, cut=_backward)
SLOW_BACKWARD = Relation(name="slow_backward", of_motion=True, spatial=KEPT, span=2, cut=_slow_backward)
FAST_FORWARD = Relation(name="fast_forward", of_motion=True, spatial=KEPT, span=2, cut=_fast_forward)
TURN_FORWARD = Relation(name="turn_forward", of_motion=True, spatial=turned(5.0), cut=_same)

# What the paper chooses from by how far a relation leads away, see `pose_priors.non_localness`.
CANDIDATES = (FLIP, TURN, FLIP_FORWARD, TURN_FORWARD, BACKWARD, FLIP_BACKWARD, SLOW_BACKWARD, FAST_FORWARD)
