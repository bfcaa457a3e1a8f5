"""Losses on images as networks see them, at several sizes; images are (B, H, W, 3), values one per image (B,), float32.

Source: Johnson et al. 2016, arXiv:1603.08155, at the sizes and layers of Siarohin et al. 2021 (articulated animation),
arXiv:2104.11280, whose loss Lin et al. 2023 (POST) take.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxpose.ops import augment

SCALES = (1.0, 0.5, 0.25, 0.125)
WEIGHTS = (1.0,) * 5

Images = Float[Array, "b h w 3"]
Values = Float[Array, " b"]
FeaturesOf = Callable[[Images], tuple[Float[Array, "b _ _ _"], ...]]


def perceptual(
    features_of: FeaturesOf,
    images: Images,
    wanted: Images,
    *,
    scales: Sequence[float] = SCALES,
    weights: Sequence[float] = WEIGHTS,
) -> Values:
    """Mean absolute difference of every activation, weighted, summed over activations and scales.

    No gradient flows to what is wanted. The network runs on either image by itself: side by side, its backward pass
    would run on both, for zeros on one.

    Args:
      features_of: from normalised images to activations; of `models.vgg.VGG`, in published work.
      images, wanted: with values of 0 to 1.
      scales: of `pyramid`.
      weights: one per activation. The released code's are 10, to which nothing else in POST is matched.

    Raises:
      ValueError: there are not as many activations as weights.
    """
    total = jnp.zeros(len(images), jnp.float32)
    for small, target in zip(pyramid(images, scales), pyramid(wanted, scales), strict=True):
        found = features_of(_normalized(small))
        goal = jax.lax.stop_gradient(features_of(_normalized(jax.lax.stop_gradient(target))))
        if len(found) != len(weights):
            raise ValueError(f"perceptual: found {len(weights)} weights, expected {len(found)}, one per activation")
        for weight, x, y in zip(weights, found, goal, strict=True):
            total += weight * _mean_difference(x, y)
    return total


def blurred_pixels(images: Images, wanted: Images, *, scales: Sequence[float] = SCALES) -> Values:
    """Mean absolute difference of the pyramids' own pixels, summed over scales.

    It says where colours belong, which random features say badly: it is for where there are no trained ones. No
    gradient flows to what is wanted.
    """
    goal = pyramid(jax.lax.stop_gradient(wanted), scales)
    differences = [_mean_difference(x, y) for x, y in zip(pyramid(images, scales), goal, strict=True)]
    return jnp.sum(jnp.stack(differences), axis=0)


def pyramid(images: Float[Array, "b h w c"], scales: Sequence[float] = SCALES) -> tuple[Float[Array, "b _ _ c"], ...]:
    """Images at smaller sizes, blurred before they are thinned out: every nth pixel, from the first, at scale 1/n.

    The Gaussian's deviation is (n - 1) / 2; it ends 2 (n - 1) pixels away. Beyond the border the image's last pixels go
    on: with the released code's zeros it would get darker there, where the features of a network would see an edge.

    Args:
      images: of any channels.
      scales: each 1 over a whole number.

    Returns:
      One (B, ceil(H / n), ceil(W / n), C) for each scale, float32.

    Raises:
      ValueError: a scale is not 1 over a whole number.
    """
    return tuple(_smaller(images.astype(jnp.float32), _step(scale)) for scale in scales)


def _smaller(images: Float[Array, "b h w c"], step: int) -> Float[Array, "b h2 w2 c"]:
    if step == 1:
        return images
    # Matrix products, as a convolution of three channels leaves an accelerator idle.
    rows, columns = (_thinned(n, step) for n in images.shape[1:3])
    return jnp.einsum("bhwc,yh,xw->byxc", images, rows, columns, precision="highest")


def _thinned(n: int, step: int) -> Float[np.ndarray, "m n"]:
    """The matrix that blurs a line of `n` pixels and keeps every `step`th."""
    taps = np.arange(-2 * (step - 1), 2 * (step - 1) + 1)
    weights = np.exp(-0.5 * np.square(taps / ((step - 1) / 2)))
    kept = np.arange(0, n, step)
    matrix = np.zeros((len(kept), n))
    read = np.clip(kept[:, None] + taps[None], 0, n - 1)
    np.add.at(matrix, (np.arange(len(kept))[:, None], read), weights / weights.sum())
    return matrix.astype(np.float32)


def _step(scale: float) -> int:
    step = round(1 / scale)
    if abs(step * scale - 1) > 1e-6:
        raise ValueError(f"pyramid: found a scale of {scale}, expected 1 over a whole number")
    return step


def _normalized(images: Images) -> Images:
    return augment.normalize(255 * images)


def _mean_difference(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Values:
    difference = x.astype(jnp.float32) - y.astype(jnp.float32)
    # Not `jnp.abs`, whose slope at 0 is 1: what is as it should be would be pushed.
    return jnp.mean(jax.lax.stop_gradient(jnp.sign(difference)) * difference, axis=(1, 2, 3))
