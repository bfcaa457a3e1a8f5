"""How released codes find a point between the pixels of a heatmap.

Maps are (B, H, W, K) and points (B, K, 2) in heatmap pixels, as in `heatmaps`, whose own way is `subpixel_points`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxpose.ops.heatmaps import Maps, Points, argmax_points


def quarter_points(maps: Maps) -> Points:
    """The largest pixel, moved by a quarter towards its larger neighbour on either axis.

    Only where there are two pixels before it and one after it on both axes. Of the values, only the order matters.

    Source: SimpleBaselines' `get_final_preds`.
    """
    at, values = _at(maps, argmax_points(maps))
    slope = jnp.stack([values(1, 0) - values(-1, 0), values(0, 1) - values(0, -1)], axis=-1)
    return at + jnp.where(_inside(at, maps, 2, 1), 0.25 * jnp.sign(slope), 0.0)


def dark_points(maps: Maps, *, kernel: int = 11) -> Points:
    """The extremum of a second-order expansion of the blurred maps' logarithm about their largest pixel.

    That pixel is of the maps before they are blurred; it is left as it is where there are not two pixels on every side
    of it, or where the expansion has no extremum. Second differences are over two pixels.

    Args:
      maps: that are positive where there is something.
      kernel: pixels of the blur, see `blurred`: 11 for labels with a sigma of 2, 17 for 3.

    Source: Zhang et al., CVPR 2020, Eqs. 6-9, and its code.
    """
    smooth = jnp.log(jnp.maximum(blurred(maps, kernel), 1e-10))
    at, v = _at(smooth, argmax_points(maps))
    gradient = jnp.stack([v(1, 0) - v(-1, 0), v(0, 1) - v(0, -1)], axis=-1) / 2
    dxx, dyy = ((v(2, 0) - 2 * v(0, 0) + v(-2, 0)) / 4, (v(0, 2) - 2 * v(0, 0) + v(0, -2)) / 4)
    dxy = (v(1, 1) - v(1, -1) - v(-1, 1) + v(-1, -1)) / 4
    return jnp.where(_inside(at, maps, 2, 2), _extremum(at, gradient, dxx, dyy, dxy), at)


def udp_points(maps: Maps, *, kernel: int = 11) -> Points:
    """As `dark_points`, with second differences over one pixel, values limited to 0.001 to 50, and also at borders,
    beyond which the logarithm goes on as it is there.

    Source: Huang et al., CVPR 2020, and its code (`post`).
    """
    smooth = jnp.log(jnp.clip(blurred(maps, kernel), 1e-3, 50.0))
    at, v = _at(smooth, argmax_points(maps))
    gradient = jnp.stack([v(1, 0) - v(-1, 0), v(0, 1) - v(0, -1)], axis=-1) / 2
    dxx, dyy = (v(1, 0) - 2 * v(0, 0) + v(-1, 0), v(0, 1) - 2 * v(0, 0) + v(0, -1))
    dxy = (v(1, 1) - v(1, 0) - v(0, 1) + 2 * v(0, 0) - v(-1, 0) - v(0, -1) + v(-1, -1)) / 2
    return _extremum(at, gradient, dxx, dyy, dxy)


def separable_soft_argmax(maps: Maps) -> Points:
    """The mean place of a map's columns and of its rows, weighted by the softmax of their mean logits.

    In unit coordinates, as those of `bones`: -1 and 1 are the centres of the first and the last pixel of an axis.

    Args:
      maps: logits, float32.

    Source: Jakab et al. 2018, arXiv:1806.07823, Eq. 1, and its code, which averages before the softmax.
    """
    means = []
    for axis, other in ((2, 1), (1, 2)):
        shares = jax.nn.softmax(jnp.mean(maps, axis=other), axis=1)
        where = jnp.linspace(-1, 1, maps.shape[axis], dtype=maps.dtype)
        means.append(jnp.sum(shares * where[None, :, None], axis=1))
    return jnp.stack(means, axis=-1)


def blurred(maps: Maps, kernel: int) -> Maps:
    """Maps after a Gaussian blur, 0 outside.

    The standard deviation is that which OpenCV takes for a kernel of so many pixels: 2.0 for 11, 2.9 for 17.
    """
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    taps = np.exp(-np.square(np.arange(kernel) - kernel // 2) / (2 * sigma**2))
    taps /= taps.sum()
    for axis in (1, 2):
        size = maps.shape[axis]
        widths = [(kernel // 2, kernel // 2) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(maps, widths)
        maps = sum(
            (float(tap) * padded[(slice(None),) * axis + (slice(i, i + size),)] for i, tap in enumerate(taps)),
            start=jnp.zeros_like(maps),
        )
    return maps


class _Values:
    """The values of maps at a distance from one pixel of each, those at a border beyond it."""

    def __init__(self, maps: Maps, pixel: Int[Array, "b k 2"]) -> None:
        self.shape, self.pixel = maps.shape, pixel
        self.flat = maps.reshape(maps.shape[0], -1, maps.shape[3])

    def __call__(self, right: int, down: int) -> Float[Array, "b k"]:
        _, h, w, _ = self.shape
        x, y = jnp.clip(self.pixel[..., 0] + right, 0, w - 1), jnp.clip(self.pixel[..., 1] + down, 0, h - 1)
        return jnp.take_along_axis(self.flat, (y * w + x)[:, None, :], axis=1)[:, 0]


def _at(maps: Maps, points: Points) -> tuple[Points, _Values]:
    return points, _Values(maps, points.astype(jnp.int32))


def _inside(points: Points, maps: Maps, before: int, after: int) -> Array:
    """Whether there are so many pixels before and after points on both axes."""
    last = jnp.array([maps.shape[2] - 1, maps.shape[1] - 1], jnp.float32)[None, None]
    return jnp.all((points >= before) & (points <= last - after), axis=-1, keepdims=True)


def _extremum(
    at: Points, gradient: Points, dxx: Float[Array, "b k"], dyy: Float[Array, "b k"], dxy: Float[Array, "b k"]
) -> Points:
    """Where a quadratic function has no slope, given its derivatives at a point; the point itself if there is none."""
    determinant = dxx * dyy - dxy * dxy
    x, y = gradient[..., 0], gradient[..., 1]
    step = jnp.stack([dyy * x - dxy * y, dxx * y - dxy * x], axis=-1)
    safe = jnp.where(determinant == 0, 1.0, determinant)[..., None]
    return jnp.where((determinant == 0)[..., None], at, at - step / safe)
