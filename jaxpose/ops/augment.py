"""Augmentation on the device: one composed affine warp, colour, blur and noise, drawn anew for every image."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval, Predicate
from jaxtyping import Array, Float, Int, UInt8

from jaxpose.limits import AT_LEAST_0, SHARE, limited
from jaxpose.ops import affine, warp

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_MAGNIFICATIONS = ("two magnifications of more than 0, the smaller one first", Predicate(lambda s: 0 < s[0] <= s[1]))
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Images = Float[Array, "b h w 3"]


@dataclasses.dataclass(kw_only=True)
class Augmentation:
    """How strongly images are varied; each value is the half-width of a uniform distribution around "unchanged".

    Attributes:
      rotation: degrees.
      scale: smallest and largest magnification.
      translation: fraction of the image side.
      shear: degrees by which columns lean, before the rotation.
      area: the least share of the image's area that is cut out as a square, anywhere, and magnified to the whole,
        before all else; 1 cuts nothing.
      mirror: probability of a left-right flip; flips exchange left and right joints.
      brightness, contrast, saturation: relative.
      blur: largest standard deviation in pixels.
      noise: largest standard deviation of the pixel noise, in grey levels of 255.
    """

    rotation: float = limited(30.0, "0 to 180 degrees", Interval(ge=0, le=180))
    scale: tuple[float, float] = limited((0.8, 1.25), *_MAGNIFICATIONS)
    translation: float = limited(0.05, *SHARE)
    shear: float = limited(0.0, "0 to less than 90 degrees", Interval(ge=0, lt=90))
    area: float = limited(1.0, "a fraction of more than 0, 1 at most", Interval(gt=0, le=1))
    mirror: float = limited(0.0, *SHARE)
    brightness: float = limited(0.25, *SHARE)
    contrast: float = limited(0.25, *SHARE)
    saturation: float = limited(0.25, *SHARE)
    blur: float = limited(0.8, *AT_LEAST_0)
    noise: float = limited(0.0, *AT_LEAST_0)


def normalize(images: Images) -> Images:
    """0-255 to the zero-mean, unit-variance range of ImageNet-trained networks."""
    return (images / 255.0 - _MEAN[None, None, None]) / _STD[None, None, None]


def to_unit(images: Images) -> Images:
    """The inverse of `normalize`, as pixels of 0 to 1."""
    return images * _STD[None, None, None] + _MEAN[None, None, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is done to the images of a batch: drawn once, applied to all frames and labels of a row.

    Attributes:
      matrix: from the given to the augmented images, (B, 2, 3).
      mirrored: which exchange left and right, (B,).
      colours: uniform numbers for colour, blur and noise, (B, 14), of which the first eight are for the matrix.
      noise: keys, (B,).
    """

    matrix: Any  # Any: JAX also fills pytrees with shapes and placeholders
    mirrored: Any
    colours: Any
    noise: Any


def draw(
    key: Array,
    positions: Int[Array, " b"],
    size: int,
    settings: Augmentation,
    cuts: affine.Affine | None = None,
) -> Drawn:
    """Draws for every row from `fold_in(key, position)`, its place in the global batch, so that the result does not
    depend on how the batch is spread over devices and processes.

    `cuts` are what `random_cuts` makes, for views that share them; without, every call cuts anew.
    """
    own = jax.vmap(lambda position: jax.random.split(jax.random.fold_in(key, position)))(positions)
    draws = jax.vmap(lambda k: jax.random.uniform(k, (14,)))(own[:, 0])
    signed = 2 * draws - 1
    mirrored = draws[:, 0] < settings.mirror
    low, high = np.log(np.asarray(settings.scale, np.float32))
    matrix = affine.similarity(
        rotation=signed[:, 1] * float(np.deg2rad(settings.rotation)),
        scale=jnp.exp(low + draws[:, 2] * (high - low)),
        translation=signed[:, 3:5] * (settings.translation * size),
        mirror=jnp.where(mirrored, -1.0, 1.0),
        size=size,
    )
    if settings.shear:
        matrix = affine.compose(matrix, affine.shear(signed[:, 10] * float(np.deg2rad(settings.shear)), size))
    if cuts is None and settings.area < 1:
        cuts = _cuts(draws[:, 11:], size, settings.area)
    if cuts is not None:
        matrix = affine.compose(matrix, cuts)
    return Drawn(matrix=matrix, mirrored=mirrored, colours=draws, noise=own[:, 1])


def images_of(drawn: Drawn, images: UInt8[Array, "*b h w 3"], settings: Augmentation) -> Float[Array, "*b h w 3"]:
    """The augmented, normalised images (B, H, W, 3), or frames (B, T, H, W, 3) of which each row's are alike."""
    if images.ndim == 5:
        return _of_frames(drawn, images, lambda rows, flat: images_of(rows, flat, settings))
    # The barriers here and below keep XLA from computing pixels, from the warp on, anew for every use.
    pixels = jax.lax.optimization_barrier(warp.warp(images, drawn.matrix, similar=not settings.shear))
    return normalize(_recoloured(drawn, pixels, settings))


def recoloured(drawn: Drawn, images: Float[Array, "*b h w 3"], settings: Augmentation) -> Float[Array, "*b h w 3"]:
    """Normalised images (B, H, W, 3), or frames (B, T, H, W, 3) of which each row's are alike, in other colours,
    blurred and with noise; nothing is moved."""
    if images.ndim == 5:
        return _of_frames(drawn, images, lambda rows, flat: recoloured(rows, flat, settings))
    return normalize(_recoloured(drawn, 255.0 * to_unit(images), settings))


def augment(
    key: Array,
    images: UInt8[Array, "*b h w 3"],
    positions: Int[Array, " b"],
    settings: Augmentation,
    cuts: affine.Affine | None = None,
) -> tuple[Float[Array, "*b h w 3"], Drawn]:
    """Augmented, normalised images, see `images_of`, and what was drawn for them, see `draw`."""
    drawn = draw(key, positions, images.shape[-2], settings, cuts)
    return images_of(drawn, images, settings), drawn


def random_cuts(key: Array, positions: Int[Array, " b"], size: int, area: float) -> affine.Affine | None:
    """Squares of `area` of an image's area or more, as affine maps to the whole image; None where nothing is cut."""
    if area >= 1:
        return None
    draws = jax.vmap(lambda position: jax.random.uniform(jax.random.fold_in(key, position), (3,)))(positions)
    return _cuts(draws, size, area)


def keypoints_of(
    drawn: Drawn, keypoints: Float[Array, "b *t k 2"], flip_permutation: np.ndarray
) -> Float[Array, "b *t k 2"]:
    """The keypoints of augmented images, with left and right exchanged in mirrored ones."""
    flat = keypoints.reshape(len(keypoints), -1, 2)
    return _exchanged(drawn, affine.apply(drawn.matrix, flat).reshape(keypoints.shape), flip_permutation)


def visible_of(drawn: Drawn, visible: UInt8[Array, "b *t k"], flip_permutation: np.ndarray) -> UInt8[Array, "b *t k"]:
    """The visibility of the keypoints of augmented images."""
    return _exchanged(drawn, visible[..., None], flip_permutation)[..., 0]


def keypoints3d_of(
    drawn: Drawn, points: Float[Array, "b *t k 3"], flip_permutation: np.ndarray
) -> Float[Array, "b *t k 3"]:
    """The 3D joints of augmented images, in the frame of the camera that `intrinsics_of` describes.

    What is done to the image is done to the camera's intrinsics, and the joints stay; but in mirrored images they are
    mirrored in x, as no camera sees a mirrored world, and left and right are exchanged.
    """
    mirrored = drawn.mirrored.reshape(-1, *(1 for _ in points.shape[1:]))
    x_only = np.array([True, False, False]).reshape(*(1 for _ in points.shape[1:]), 3)
    return _exchanged(drawn, jnp.where(mirrored & x_only, -points, points), flip_permutation)


def poses_of(drawn: Drawn, points: Float[Array, "b *t k 3"], flip_permutation: np.ndarray) -> Float[Array, "b *t k 3"]:
    """3D joints of augmented images, in the frame of an upright camera: what is done to the image is done to them.

    They are turned about the line of sight and mirrored in x as the image is, with left and right exchanged, and keep
    their size: as far as perspective can be left out of account, which is how poses are found without intrinsics.
    """
    linear = drawn.matrix[:, :, :2]
    size = jnp.sqrt(jnp.abs(linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]))
    turned = linear / size[:, None, None]
    flat = points.reshape(len(points), -1, 3)
    across = jnp.einsum("bij,bnj->bni", turned, flat[..., :2], precision="highest")
    return _exchanged(drawn, jnp.concatenate([across, flat[..., 2:]], axis=-1).reshape(points.shape), flip_permutation)


def intrinsics_of(drawn: Drawn, intrinsics: Float[Array, "b *t 3 3"]) -> Float[Array, "b *t 3 3"]:
    """The intrinsics of augmented images: with `keypoints3d_of` they project onto `keypoints_of`."""
    last = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), (len(drawn.matrix), 1, 3))
    to_augmented = jnp.concatenate([drawn.matrix, last], axis=1)
    mirror = jnp.where(drawn.mirrored[:, None], jnp.asarray([[-1.0, 1.0, 1.0]]), 1.0)
    middle = tuple(range(1, intrinsics.ndim - 2))
    product = jnp.matmul(jnp.expand_dims(to_augmented, middle), intrinsics, precision=jax.lax.Precision.HIGHEST)
    return product * jnp.expand_dims(mirror[:, None], middle)


def _of_frames(drawn: Drawn, images: Array, function: Callable[[Drawn, Array], Array]) -> Array:
    """What a function makes of all frames (B, T, H, W, 3), given what was drawn for the row of each."""
    row = np.repeat(np.arange(images.shape[0]), images.shape[1])
    flat = images.reshape(-1, *images.shape[2:])
    return function(jax.tree.map(lambda x: x[row], drawn), flat).reshape(images.shape)


def _recoloured(drawn: Drawn, pixels: Images, settings: Augmentation) -> Images:
    draws, signed = drawn.colours, 2 * drawn.colours - 1
    if settings.brightness or settings.contrast or settings.saturation:
        pixels = _colour(pixels, signed[:, 5:8], settings)
    if settings.blur:
        pixels = _blur(pixels, draws[:, 8] * settings.blur)
    if settings.noise:
        noise = jax.vmap(lambda k: jax.random.normal(k, pixels.shape[1:]))(drawn.noise)
        pixels += noise * (draws[:, 9] * settings.noise)[:, None, None, None]
    return jnp.clip(pixels, 0.0, 255.0)


def _exchanged(drawn: Drawn, values: Array, flip_permutation: np.ndarray) -> Array:
    mirrored = drawn.mirrored.reshape(-1, *(1 for _ in values.shape[1:]))
    return jnp.where(mirrored, values[..., flip_permutation, :], values)


def _cuts(draws: Float[Array, "b 3"], size: int, area: float) -> affine.Affine:
    side = jnp.sqrt(area + (1 - area) * draws[:, 0])
    corner = (1 - side)[:, None] * draws[:, 1:] * size  # the middle of its first pixel is half a pixel further
    linear = jnp.eye(2, dtype=jnp.float32)[None] / side[:, None, None]
    offset = (0.5 - corner) / side[:, None] - 0.5
    return jnp.concatenate([linear, offset[..., None]], axis=-1)


def _colour(pixels: Images, signed: Float[Array, "b 3"], settings: Augmentation) -> Images:
    strength = np.array([settings.brightness, settings.contrast, settings.saturation], np.float32)
    factors = 1 + signed * strength[None, :]
    brightness, contrast, saturation = (factors[:, i, None, None, None] for i in range(3))
    pixels = pixels * brightness
    grey = jnp.sum(pixels * _LUMA[None, None, None], axis=-1, keepdims=True)
    mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
    return mean + contrast * (grey + saturation * (pixels - grey) - mean)


def _blur(pixels: Images, sigma: Float[Array, " b"]) -> Images:
    """A Gaussian of five taps; sigma up to about one pixel."""
    taps = jnp.arange(-2, 3, dtype=jnp.float32)[None, :]
    weights = jnp.exp(-jnp.square(taps) / (2 * jnp.square(jnp.maximum(sigma, 1e-3))[:, None]))
    weights = (weights / jnp.sum(weights, axis=1, keepdims=True))[:, :, None, None, None]
    for axis, n in ((1, pixels.shape[1]), (2, pixels.shape[2])):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(jax.lax.optimization_barrier(pixels), padding, mode="edge")
        pixels = sum(
            (weights[:, i] * jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(5)),
            start=jnp.zeros_like(pixels),
        )
    return pixels
