"""Bones as pictures and how they move: the geometry by which one frame of a clip is made of another.

Points are (x, y) in *unit coordinates*: -1 and 1 are the centres of the first and the last pixel of an axis, whatever
the size of the map, so that a map of places can be resized and an identity stays one. A bone is a pair of points,
parent and child.

Source: Lin et al. 2023 (POST), Sec. 3.3.2, and Siarohin et al. 2021 (articulated animation), whose motion it takes up.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Bones = Float[Array, "b j 2"]  # one end of J bones
Frames = Float[Array, "b j 3 3"]  # homogeneous matrices: from a bone's own coordinates to the map's
Scales = Callable[[Float[Array, "b j"], float], tuple[Float[Array, "b j"], Float[Array, "b j"]]]

_ALONG_X = np.array((1, 0), np.float32)
_SHORTEST = 1e-3  # a bone that is seen from its end has this length and lies along x


def unit(points: Float[Array, "*b 2"], size: tuple[int, int]) -> Float[Array, "*b 2"]:
    """Pixels of a map of `size` (H, W) in unit coordinates."""
    return 2 * points / _last(points, size) - 1


def pixels(points: Float[Array, "*b 2"], size: tuple[int, int]) -> Float[Array, "*b 2"]:
    """Unit coordinates in pixels of a map of `size` (H, W); inverse of `unit`."""
    return (points + 1) * _last(points, size) / 2


def places(size: tuple[int, int]) -> Float[np.ndarray, "h w 2"]:
    """The unit coordinates of a map's own pixels."""
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def bone_maps(parents: Bones, children: Bones, size: tuple[int, int], *, decay: float) -> Float[Array, "b h w j"]:
    """Pictures exp(-d / decay) of bones, by the distance d of a pixel to the segment.

    `decay` is sigma^2 of Eq. 6, whose distance is not squared; 0.04 where sigma is 0.2. Only reverse mode is defined.

    Source: Eq. 6.
    """
    return _faded(size, decay, parents, children)


def by_moments(length: Float[Array, "b j"], decay: float) -> tuple[Float[Array, "b j"], Float[Array, "b j"]]:
    """Roots of a bone map's second moments about its middle, along the bone and across; as it is printed.

    They are sums over the plane in closed form, so that nothing depends on the map's pixels or border.

    Source: Eq. 7, integrated: a bone of length L is a strip and two half discs that fade by exp(-d / s).
    """
    _, along, across = moments(length, decay)
    return jnp.sqrt(along), jnp.sqrt(across)


def by_normalized_moments(length: Float[Array, "b j"], decay: float) -> tuple[Float[Array, "b j"], Float[Array, "b j"]]:
    """As `by_moments`, of a map whose sum is 1, as articulated animation has it."""
    mass, along, across = moments(length, decay)
    return jnp.sqrt(along / mass), jnp.sqrt(across / mass)


def by_ends(length: Float[Array, "b j"], decay: float) -> tuple[Float[Array, "b j"], Float[Array, "b j"]]:
    """The bone's length, and 1 across: the ends of one bone come to lie on those of another, and none gets thicker."""
    del decay
    return length, jnp.ones_like(length)


def moments(
    length: Float[Array, "b j"], decay: float
) -> tuple[Float[Array, "b j"], Float[Array, "b j"], Float[Array, "b j"]]:
    """Mass of a bone's map and its second moments about the middle, along the bone and across."""
    s, pi = decay, np.pi
    mass = 2 * length * s + 2 * pi * s**2
    across = 4 * length * s**3 + 6 * pi * s**4
    along = s * length**3 / 6 + pi / 2 * length**2 * s**2 + 8 * length * s**3 + 6 * pi * s**4
    return mass, along, across


def frames(parents: Bones, children: Bones, *, decay: float, scales: Scales = by_ends) -> Frames:
    """Every bone's own coordinates: its middle is their origin, their first axis points to the child.

    Both axes are turned alike, never mirrored, and their directions are the bone's own; a singular value decomposition
    leaves the sign of each open, and where bones turn by more than a right angle, no rule on the matrix alone finds it.

    Args:
      parents, children: the ends.
      decay: of `bone_maps`.
      scales: lengths of the axes, of a bone's length and decay.

    Source: Eq. 7, A_j = [U_j S_j^(1/2), mu_j].
    """
    along = children - parents
    square = jnp.sum(jnp.square(along), axis=-1)
    seen = square > _SHORTEST**2
    length = jnp.sqrt(jnp.where(seen, square, _SHORTEST**2))
    direction = jnp.where(seen[..., None], along / length[..., None], jnp.broadcast_to(_ALONG_X, along.shape))
    first, second = scales(length, decay)
    return _frame(direction, first, second, (parents + children) / 2)


def frames_of_maps(maps: Float[Array, "b h w j"], parents: Bones, children: Bones) -> Frames:
    """As `frames` with the scales of `by_moments`, measured on pictures of bones.

    The eigenvectors of a symmetric 2x2 matrix in closed form, which are differentiable wherever it is not round; the
    bone's direction gives them their signs. What a map's border cuts off is missing.

    Source: Eq. 7.
    """
    _, h, w, _ = maps.shape
    middle = (parents + children) / 2
    offsets = jnp.asarray(places((h, w)))[None, :, :, None] - middle[:, None, None]
    area = 4 / ((h - 1) * (w - 1))
    matrix = area * jnp.einsum("bhwj,bhwjx,bhwjy->bjxy", maps, offsets, offsets)
    (a, c), slant = (matrix[..., 0, 0], matrix[..., 1, 1]), matrix[..., 0, 1]
    round_ = jnp.square((a - c) / 2) + jnp.square(slant) <= 1e-12 * jnp.square(a + c)
    half, slant = jnp.where(round_, 1.0, (a - c) / 2), jnp.where(round_, 0.0, slant)
    radius = jnp.where(round_, 0.0, jnp.sqrt(jnp.square(half) + jnp.square(slant)))
    angle = jnp.arctan2(slant, half) / 2
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    sign = jnp.where(jnp.sum(direction * (children - parents), axis=-1) < 0, -1.0, 1.0)
    first, second = jnp.sqrt((a + c) / 2 + radius), jnp.sqrt(jnp.maximum((a + c) / 2 - radius, 1e-12))
    return _frame(sign[..., None] * direction, first, second, middle)


def motion(base: Frames, driving: Frames) -> Frames:
    """Where in the base image lies what the driving image shows at a place, bone by bone: A_base A_drive^-1.

    The paper prints A_drive A_base^-1, which says where the base's places go: to sample by it moves limbs backwards.
    """
    return jnp.matmul(base, _inverse(driving), precision="highest")


def sampling_grid(
    motions: Frames, masks: Float[Array, "b h w j1"], *, background: Float[Array, "b 3 3"] | None = None
) -> Float[Array, "b h w 2"]:
    """The places in the base image (absolute, in unit coordinates) that every place of the driving image shows.

    Args:
      motions: of J bones.
      masks: how much a place belongs to the background, first, and to each bone; they add up to 1.
      background: its motion; None: it stays where it is.

    Source: Eq. 8.
    """
    size = masks.shape[1], masks.shape[2]
    if background is None:
        background = jnp.broadcast_to(jnp.eye(3), (len(motions), 3, 3))
    every = jnp.concatenate([background[:, None], motions], axis=1)[:, :, :2]
    where = jnp.asarray(np.concatenate([places(size), np.ones((*size, 1), np.float32)], axis=-1))
    return jnp.einsum("bhwj,bjxc,hwc->bhwx", masks, every, where, precision="highest")


def sample(images: Float[Array, "b h w c"], grid: Float[Array, "b h2 w2 2"]) -> Float[Array, "b h2 w2 c"]:
    """What images show at places in unit coordinates, between pixels bilinearly, 0 outside."""
    b, h, w, c = images.shape
    where = pixels(grid, (h, w))
    low = jnp.floor(where)
    flat, out = images.reshape(b, h * w, c), grid.shape[1:3]
    total = jnp.zeros((b, *out, c), jnp.float32)
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at = low + jnp.broadcast_to(jnp.asarray(corner, jnp.float32), low.shape)
        weight = jnp.prod(1 - jnp.abs(where - at), axis=-1)
        x, y = at[..., 0], at[..., 1]
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        index = jnp.clip(y, 0, h - 1).astype(jnp.int32) * w + jnp.clip(x, 0, w - 1).astype(jnp.int32)
        found = jnp.take_along_axis(flat, index.reshape(b, -1, 1), axis=1, mode="promise_in_bounds")
        total += jnp.where(inside, weight, 0.0)[..., None] * found.reshape(b, *out, c).astype(jnp.float32)
    return total


def resize(maps: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Maps of another size, between pixels linearly; the first and last pixels of an axis stay where they are."""
    rows, columns = (_between(n, m) for n, m in zip(maps.shape[1:3], size, strict=True))
    return jnp.einsum("bhwc,yh,xw->byxc", maps, rows, columns, precision="highest")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _faded(size, decay, parents, children):
    return _fade(size, decay, parents, children)[0]


def _forward(size, decay, parents, children):
    return _faded(size, decay, parents, children), (parents, children)


def _backward(size, decay, saved, dy):
    """In closed form: moving the nearest point along the bone changes no distance, so its share counts as fixed."""
    maps, distance, share, away = _fade(size, decay, *saved)
    pull = dy * maps / (decay * distance)
    slopes = [pull * d * weight for weight in (1 - share, share) for d in away]
    slopes = jnp.sum(jnp.stack(slopes), axis=(2, 3))  # (4, B, J)
    return jnp.stack([slopes[0], slopes[1]], axis=-1), jnp.stack([slopes[2], slopes[3]], axis=-1)


_faded.defvjp(_forward, _backward)


def _fade(size: tuple[int, int], decay: float, parents: Bones, children: Bones):
    """Maps, the distances that they are made of, and the nearest points: their share of the bone and the way there.

    Axes are apart, as sums over a last axis of two are a hundred times slower on CPU.
    """
    x, y = np.moveaxis(places(size), -1, 0)[:, None, :, :, None]  # (1, H, W, 1) each
    (start_x, start_y), (along_x, along_y) = (
        (ends[:, None, None, :, 0], ends[:, None, None, :, 1]) for ends in (parents, children - parents)
    )
    square = jnp.square(along_x) + jnp.square(along_y)
    share = (x - start_x) * along_x + (y - start_y) * along_y
    share = jnp.clip(share / jnp.where(square > 0, square, 1.0), 0.0, 1.0)
    away = x - start_x - share * along_x, y - start_y - share * along_y
    # The root's slope is finite where a pixel lies on the bone.
    distance = jnp.sqrt(jnp.square(away[0]) + jnp.square(away[1]) + 1e-6)
    return jnp.exp(-distance / decay), distance, share, away


def _between(before: int, after: int) -> Float[np.ndarray, "n m"]:
    """The matrix that interpolates a line of `before` pixels at `after` places from its first to its last."""
    where = np.linspace(0, before - 1, after)[:, None]
    return np.maximum(1 - np.abs(where - np.arange(before)[None, :]), 0).astype(np.float32)


def _last(points: Float[Array, "*b 2"], size: tuple[int, int]) -> Float[Array, "*b 2"]:
    """The last pixel of each axis."""
    return jnp.broadcast_to(jnp.asarray((size[1] - 1, size[0] - 1), jnp.float32), points.shape)


def _frame(direction: Bones, first: Float[Array, "b j"], second: Float[Array, "b j"], middle: Bones) -> Frames:
    """The map whose axes have these lengths, the first in a direction, the second at a right angle to it."""
    x, y = direction[..., 0], direction[..., 1]
    return _affine(((x * first, -y * second, middle[..., 0]), (y * first, x * second, middle[..., 1])))


def _inverse(matrix: Frames) -> Frames:
    """The inverse of affine maps, whose linear part has a determinant other than 0."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    x, y, determinant = matrix[..., 0, 2], matrix[..., 1, 2], a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return _affine(((a, b, -(a * x + b * y)), (c, d, -(c * x + d * y))))


def _affine(rows: tuple[tuple[Array, ...], tuple[Array, ...]]) -> Frames:
    last = jnp.broadcast_to(jnp.asarray((0.0, 0.0, 1.0)), (*rows[0][0].shape, 3))
    return jnp.stack([*(jnp.stack(row, axis=-1) for row in rows), last], axis=-2)
