"""Skeletons as trees, and poses whose bones get lengths that they can have.

Points are (x, y, z) and lengths in units of a reference bone, so that a pose is the same whatever its size.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Points3d = Float[Array, "b k 3"]
Tree = Int[np.ndarray, "e 2"]  # bones: parent, child

_SHORTEST = 1e-6  # below it, a bone has no direction

# Shoulders at the neck, as the body's 15 bones are in the reference's order of joints.
_BODY = (
    *(("pelvis", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle")),
    *(("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle")),
    *(("pelvis", "thorax"), ("thorax", "neck"), ("neck", "head_top")),
    *(("neck", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")),
    *(("neck", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")),
)


def tree(joints: Sequence[str], bones: Sequence[tuple[str, str]]) -> Tree:
    """The bones of a skeleton by (parent, child), in order of the children.

    The root is pelvis or wrist, else the first joint. Joints that no bones link with it are in no bone of the tree. A
    body of MPII's joints has its own tree, which hangs the shoulders on the neck.
    """
    if set(joints) == {joint for bone in _BODY for joint in bone}:
        bones = _BODY
    root = next((joint for joint in ("pelvis", "wrist") if joint in joints), joints[0])
    return _from_root(joints, bones, root)


def spanning_tree(joints: Sequence[str], bones: Sequence[tuple[str, str]], root: str) -> Tree:
    """All bones of a skeleton by (parent, child), in order of the children.

    Raises:
      ValueError: if there is a joint that no bones link with the root, or that two ways lead to.
    """
    found = _from_root(joints, bones, root)
    missing = [joint for i, joint in enumerate(joints) if i not in found[:, 1] and joint != root]
    if missing:
        raise ValueError(f"found no bones from {root} to {missing[0]}, expected a tree of bones")
    kept = {frozenset((joints[a], joints[b])) for a, b in found.tolist()}
    if circles := [bone for bone in bones if frozenset(bone) not in kept]:
        raise ValueError(f"found two ways along bones to {' and '.join(circles[0])}, expected a tree of bones")
    return found


def corrected_lengths(points3d: Points3d, *, tree: Tree, lengths: Float[Array, "e 2"]) -> Points3d:
    """Poses whose bones have lengths within bounds and their own directions; the joints beyond a bone move with it.

    It stands for the correction of bodies, of which nothing is published. A bone without length has no direction, and
    is made to point down the image. Joints that are in no bone stay.

    Args:
      points3d: poses.
      tree: the bones, each child once, in any order.
      lengths: least and greatest of each bone.

    Raises:
      ValueError: if a joint is the child of two bones, or bones form a circle.
    """
    found = bone_lengths(points3d, tree=tree)
    wanted = jnp.clip(found, lengths[None, :, 0], lengths[None, :, 1])
    return given_lengths(points3d, wanted, tree=tree)


def given_lengths(points3d: Points3d, lengths: Float[Array, "b e"], *, tree: Tree) -> Points3d:
    """Poses whose bones have given lengths, as `corrected_lengths`.

    Raises:
      ValueError: as `corrected_lengths`.
    """
    bones, found = points3d[:, tree[:, 1]] - points3d[:, tree[:, 0]], bone_lengths(points3d, tree=tree)
    seen = found > 0
    down = jnp.broadcast_to(jnp.asarray((0.0, 1.0, 0.0)), bones.shape)
    direction = jnp.where(seen[..., None], bones, down) / jnp.where(seen, found, 1.0)[..., None]
    moved = direction * (lengths - found)[..., None]
    beyond = jnp.asarray(_beyond(points3d.shape[1], tree))
    return points3d + jnp.einsum("ke,bex->bkx", beyond, moved, precision="highest")


def bone_lengths(points3d: Points3d, *, tree: Tree) -> Float[Array, "b e"]:
    """How long the bones of poses are."""
    return length(points3d[:, tree[:, 1]] - points3d[:, tree[:, 0]])


def length(vectors: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """The length, 0 where it is next to nothing, with a finite slope everywhere."""
    square = jnp.sum(jnp.square(vectors), axis=-1)
    seen = square > _SHORTEST**2
    return jnp.where(seen, jnp.sqrt(jnp.where(seen, square, 1.0)), 0.0)


def unit(vectors: Float[Array, "*b d"], otherwise: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Vectors of length 1, and others for those that have next to none; the slope is finite everywhere."""
    found = length(vectors)[..., None]
    return jnp.where(found > 0, vectors / jnp.where(found > 0, found, 1.0), otherwise)


def _from_root(joints: Sequence[str], bones: Sequence[tuple[str, str]], root: str) -> Tree:
    parents, seen, reached = {}, {root}, [root]
    for joint in reached:  # breadth first: it grows
        ends = [b if a == joint else a for a, b in bones if joint in (a, b)]
        for end in ends:
            if end not in seen:
                seen.add(end)
                reached.append(end)
                parents[end] = joint
    place = {joint: i for i, joint in enumerate(joints)}
    found = [(place[parents[joint]], place[joint]) for joint in joints if joint in parents]
    return np.array(found, np.int32).reshape(-1, 2)


def _beyond(joints: int, tree: Tree) -> Float[np.ndarray, "k e"]:
    """Which joints (K) lie beyond which bones (E), 0 or 1."""
    bones = {int(child): (int(parent), bone) for bone, (parent, child) in enumerate(tree)}
    if len(bones) < len(tree):
        raise ValueError(f"found a joint that is the child of two bones in {tree.tolist()}, expected a tree")
    found = np.zeros((joints, len(tree)), np.float32)
    for joint in range(joints):
        at = joint
        while at in bones:
            at, bone = bones[at]
            if found[joint, bone]:
                raise ValueError(f"found bones in a circle in {tree.tolist()}, expected a tree")
            found[joint, bone] = 1
    return found
