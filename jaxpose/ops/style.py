"""Style as statistics: what one picture or feature map lends to another, row by row of two batches."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Images = Float[Array, "b h w 3"]


def adain(content: Float[Array, "b h w c"], style: Float[Array, "b h2 w2 c"], eps: float = 1e-5) -> Array:
    """Content features with the channel means and deviations of the style's: adaptive instance normalisation.

    Args:
      content: features (B, H, W, C).
      style: features (B, H', W', C).
      eps: added to variances; a result's moments are the style's up to `eps` over the content's variance.

    Returns:
      float32 features (B, H, W, C).

    Source: Huang and Belongie 2017, arXiv:1703.06868, Eq. 8. Their variance is the biased one (Eq. 6), where torch
    codes divide by n - 1.
    """
    mean, deviation = channel_moments(content, eps)
    style_mean, style_deviation = channel_moments(style, eps)
    return (content.astype(jnp.float32) - mean) / deviation * style_deviation + style_mean


def channel_moments(features: Float[Array, "b h w c"], eps: float = 1e-5) -> tuple[Array, Array]:
    """Mean and deviation sqrt(variance + eps) of every channel, both float32 (B, 1, 1, C)."""
    wide = features.astype(jnp.float32)
    mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=(1, 2), keepdims=True)
    return mean, jnp.sqrt(variance + eps)


def statistics_transfer(content: Images, style: Images, eps: float = 1e-4) -> Images:
    """Content images in the style's colours: mean and deviation of one lightness and two opponent channels.

    The channels are (R+G+B)/sqrt 3, (R-B)/sqrt 2 and (R-2G+B)/sqrt 6, which are nearly uncorrelated in natural images
    (Ohta et al. 1980, "Color information for region segmentation"), so that moving them one by one is nearly the same
    as moving the whole colour distribution; in RGB it gives hues that neither image has. Reinhard et al. 2001, "Color
    transfer between images", match moments in a logarithmic space for the same reason. This one is a rotation of RGB:
    it is its own transpose's inverse, has no logarithm of black, and needs no eigenvectors of the images themselves,
    whose signs and order are undefined for grey ones.

    Args:
      content, style: values from 0 to 1.
      eps: added to variances; keeps the noise of grey images from becoming colour.

    Returns:
      values from 0 to 1, float32.
    """
    rotated = adain(_rotate(content.astype(jnp.float32), _OPPONENT), _rotate(style.astype(jnp.float32), _OPPONENT), eps)
    return jnp.clip(_rotate(rotated, _OPPONENT.T), 0.0, 1.0)


def fourier_transfer(content: Images, style: Images, share: float) -> Images:
    """Content images with the style's amplitudes at low frequencies; phases stay.

    Args:
      content, style: values from 0 to 1, of one size.
      share: frequencies of up to floor(share * min(H, W)) cycles per image are replaced, in each direction; 0 replaces
        only the mean of each channel.

    Returns:
      values from 0 to 1, float32.

    Source: Yang and Soatto 2020, arXiv:2004.05498, Eq. 2-3; `share` is their beta. A coefficient of zero has phase 0.
    """
    height, width = content.shape[1:3]
    reach = int(np.floor(share * min(height, width)))
    rows = np.abs(np.fft.fftfreq(height) * height) <= reach + 0.5
    columns = np.fft.rfftfreq(width) * width <= reach + 0.5
    low = (rows[:, None] & columns[None, :])[None, :, :, None]
    own = jnp.fft.rfft2(content.astype(jnp.float32), axes=(1, 2))
    other = jnp.fft.rfft2(style.astype(jnp.float32), axes=(1, 2))
    amplitude, other_amplitude = jnp.abs(own), jnp.abs(other)
    # What rounding leaves of a coefficient that is zero has no phase.
    known = amplitude > 1e-6 * height * width
    gain = jnp.where(known, other_amplitude / jnp.where(known, amplitude, 1.0), 0.0)
    moved = jnp.where(known, own * gain.astype(own.dtype), other_amplitude.astype(own.dtype))
    mixed = jnp.fft.irfft2(jnp.where(low, moved, own), s=(height, width), axes=(1, 2))
    return jnp.clip(mixed, 0.0, 1.0)


_OPPONENT = (
    np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float32) / np.sqrt(np.array([[3], [2], [6]], np.float32))
).astype(np.float32)


def _rotate(images: Array, matrix: np.ndarray) -> Array:
    # Three products of scalars and no matrix unit, whose default precision on accelerators is bfloat16.
    channels = [sum(images[..., j] * float(row[j]) for j in range(3)) for row in matrix]
    return jnp.stack(channels, axis=-1)
