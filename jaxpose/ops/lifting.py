"""2.5D poses: places in an image with depths relative to a root, and what they are in front of the camera.

Points in the image are (x, y) in its pixels, points in space (x, y, z) in the camera's frame: right, down, forward.
Intrinsics are those of the pixels that are meant, composed with crop and augmentation, and need not be upright. Depths
are relative to the root's and, as all lengths here, in units of a reference bone, so that neither depends on how large
or how far away the pose is.

Source: Iqbal et al. 2018, arXiv:1804.09534, Sec. 3, which Lin et al. 2023 (POST) lift by.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Points = Float[Array, "b k 2"]
Points3d = Float[Array, "b k 3"]
Intrinsics = Float[Array, "b 3 3"]
Bone = tuple[int, int]

_LEAST = 1e-6  # of what a root is taken of, and of what is divided by


def lift(points: Points, depths: Float[Array, "b k"], intrinsics: Intrinsics, *, bone: Bone) -> Points3d:
    """The pose in space of which the reference bone has length 1.

    Its distance is that at which the bone, seen as it is, has this length: the larger root of a quadratic equation.
    Where there is none, as the depths of its ends are further apart than it is long, the nearest that there is; a bone
    that is seen as a point leaves the distance open, and gets a large one.

    Args:
      points: image pixels.
      depths: relative to the root.
      intrinsics: of these pixels.
      bone: the reference, two joints.
    """
    rays = _rays(points, intrinsics)
    near, far = (rays[:, joint] for joint in bone)
    # The length of (r_1 (Z + z_1) - r_2 (Z + z_2)) is 1, where Z is the root's depth.
    across = near - far
    offset = near * depths[:, bone[0], None] - far * depths[:, bone[1], None]
    a = jnp.maximum(jnp.sum(jnp.square(across), axis=-1), _LEAST)
    half = jnp.sum(across * offset, axis=-1)
    rest = jnp.sum(jnp.square(offset), axis=-1) - 1
    discriminant = jnp.square(half) - a * rest
    there = discriminant > _LEAST * a
    root = (jnp.where(there, jnp.sqrt(jnp.where(there, discriminant, 1.0)), 0.0) - half) / a
    return rays * (root[:, None, None] + depths[..., None])


def relative_depths(points3d: Points3d, *, root: int, bone: Bone) -> Float[Array, "b k"]:
    """Depths relative to the root's in lengths of the reference bone, which the network learns."""
    length = bone_length(points3d, bone)
    return (points3d[..., 2] - points3d[:, root, None, 2]) / length[:, None]


def bone_length(points3d: Points3d, bone: Bone) -> Float[Array, " b"]:
    """The length of a bone."""
    square = jnp.sum(jnp.square(points3d[:, bone[0]] - points3d[:, bone[1]]), axis=-1)
    return jnp.sqrt(jnp.maximum(square, _LEAST**2))


def project(points3d: Points3d, intrinsics: Intrinsics) -> Points:
    """Where points in front of the camera are in the image; lengths may have any unit."""
    seen = jnp.einsum("bxc,bkc->bkx", intrinsics, points3d, precision="highest")
    return seen[..., :2] / jnp.maximum(seen[..., 2:], _LEAST)


def scale_of(points3d: Points3d, lengths: Float[Array, " e"], bones: Int[Array, "e 2"]) -> Float[Array, " b"]:
    """By what a pose has to be multiplied so that its bones come nearest to known lengths, in the mean square."""
    first, second = (points3d[:, bones[:, end]] for end in (0, 1))
    found = jnp.sqrt(jnp.sum(jnp.square(first - second), axis=-1) + _LEAST**2)
    known = jnp.broadcast_to(lengths[None], found.shape)
    return jnp.sum(known * found, axis=-1) / jnp.sum(jnp.square(found), axis=-1)


def _rays(points: Points, intrinsics: Intrinsics) -> Points3d:
    """Points at depth 1 that are seen at places in the image."""
    homogeneous = jnp.concatenate([points, jnp.ones_like(points[..., :1])], axis=-1)
    inverse = jnp.linalg.inv(intrinsics)
    return jnp.einsum("bxc,bkc->bkx", inverse, homogeneous, precision="highest")
