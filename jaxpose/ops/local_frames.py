"""Poses as directions of bones, each in the frame of the bone before it, on a body whose bones have known lengths.

Joints are in the camera's frame, metres: x right, y down, z forward. The frame of the torso is the camera's own, so
that the direction of view is part of a pose.

Source: Akhter and Black 2015, as Kundu et al. 2021 (arXiv:2204.01971) use it; lengths are those of their released code.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Points = Float[Array, "*b k 3"]
Local = Float[Array, "*b e 3"]  # of all joints but the first, the bone that leads there
Frames = Float[Array, "*b n 3 3"]  # whose columns are axes

_METRES = 0.105  # of a unit of the released code, in which a thigh has 4.2
# Joint -> its parent and the length of the bone between them; of both sides, and a head on a neck.
_CENTRE = {"pelvis": ("", 0.0), "thorax": ("pelvis", 4.75), "neck": ("thorax", 0.8), "head_top": ("neck", 1.2)}
_SIDE = {
    "shoulder": ("thorax", 1.37),
    "elbow": ("shoulder", 2.8),
    "wrist": ("elbow", 2.4),
    "hip": ("pelvis", 1.05),
    "knee": ("hip", 4.2),
    "ankle": ("knee", 3.6),
    "foot": ("ankle", 2.0),
}
_OPTIONAL = ("neck", "head_top", "left_foot", "right_foot")
_BOTH = ("right", "left")
_SHORTEST = 1e-6  # below it a vector has no direction
_DOWN = np.array((0.0, 1.0, 0.0), np.float32)  # what it then has
_ASIDE = np.array((0.0, 0.6, 0.8), np.float32)  # what a bone's frame is turned to: bones seldom point there


@dataclasses.dataclass(frozen=True)
class BodyTree:
    """A body's joints, the pelvis first and every one after its parent.

    Attributes:
      joints: names of the K joints.
      parents: of each, -1 of the pelvis.
      lengths: of the bone that leads to each, metres.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    lengths: tuple[float, ...]

    @functools.cached_property
    def flip_permutation(self) -> np.ndarray:
        """Which joint each one is in a mirror, (K,)."""
        other = {"right": "left", "left": "right"}
        parts = [joint.split("_", 1) for joint in self.joints]
        names = ["_".join([other.get(first, first), *rest]) for first, *rest in parts]
        return np.array([self.joints.index(name) for name in names])

    @functools.cached_property
    def paths(self) -> np.ndarray:
        """Metres of the E bones on the way from the pelvis to each joint, float32 (K, E)."""
        found = np.zeros((len(self.joints), len(self.joints)), np.float32)
        for joint, parent in enumerate(self.parents[1:], start=1):
            found[joint] = found[parent]
            found[joint, joint] = self.lengths[joint]
        return found[:, 1:]

    @functools.cached_property
    def torso(self) -> np.ndarray:
        """The bones (E) to the thorax, the shoulders and the hips."""
        names = ("thorax", *(f"{side}_{joint}" for joint in ("shoulder", "hip") for side in _BOTH))
        return np.array([self.joints.index(name) - 1 for name in names])

    @functools.cached_property
    def limbs(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """The other bones by how many of them come before: which they are, and where their frames come from.

        That is, of the first ones whether from the hips (1) or the shoulders (0), of others which of those before.
        """
        parents = np.array(self.parents[1:]) - 1  # bones, by the bone before; -1 from the pelvis
        bones, found = self.torso, []
        while True:
            last, others = bones, np.setdiff1d(np.arange(len(parents)), self.torso)
            bones = others[np.isin(parents[others], last)]
            if not len(bones):
                return tuple(found)
            hips = [self.joints[bone + 1].endswith("_knee") for bone in bones]
            origin = np.array(hips, int) if not found else np.array([list(last).index(p) for p in parents[bones]])
            found.append((bones, origin))


def body_tree(joints: Sequence[str]) -> BodyTree:
    """The body that some joints are of; others are left out.

    Where there is no neck, the head's top is as far from the thorax as over it.

    Raises:
      ValueError: if there are no arms or legs.
    """
    known = dict(_CENTRE)
    for side in _BOTH:
        for name, (parent, length) in _SIDE.items():
            known[f"{side}_{name}"] = (parent if parent in _CENTRE else f"{side}_{parent}", length)
    if missing := [joint for joint in known if joint not in joints and joint not in _OPTIONAL]:
        raise ValueError(f"found no joint {', '.join(missing)}, expected those of a body")
    if "neck" not in joints:
        known["head_top"] = ("thorax", known["neck"][1] + known["head_top"][1])
    names = tuple(joint for joint in known if joint in joints)
    parents = tuple(names.index(known[name][0]) if known[name][0] else -1 for name in names)
    return BodyTree(joints=names, parents=parents, lengths=tuple(_METRES * known[name][1] for name in names))


def to_local(points: Points, tree: BodyTree) -> Local:
    """Unit vectors along the bones, in the frames of the bones before them.

    Those of the torso are in the camera's frame; upper arms and the neck in that of shoulders and spine, thighs in that
    of hips and spine. A bone without length points down.
    """
    bones = _unit(points[..., 1:, :] - points[..., np.array(tree.parents[1:]), :])
    parts, frames = [bones[..., tree.torso, :]], _torso_frames(bones, tree)
    for which, origin in tree.limbs:
        frames = frames[..., origin, :, :]
        parts.append(jnp.einsum("...nji,...nj->...ni", frames, bones[..., which, :], precision="highest"))
        frames = _next_frames(frames, parts[-1])
    return _in_order(parts, tree)


def to_global(local: Local, tree: BodyTree) -> Points:
    """Joints of a body of the tree's lengths, the pelvis at 0: the inverse of `to_local` for such bodies.

    Vectors of any length are directions.
    """
    local = _unit(local)
    parts, frames = [local[..., tree.torso, :]], _torso_frames(local, tree)
    for which, origin in tree.limbs:
        frames = frames[..., origin, :, :]
        parts.append(jnp.einsum("...nij,...nj->...ni", frames, local[..., which, :], precision="highest"))
        frames = _next_frames(frames, local[..., which, :])
    return jnp.einsum("ke,...ei->...ki", jnp.asarray(tree.paths), _in_order(parts, tree), precision="highest")


def fitted(points: Points, tree: BodyTree) -> Points:
    """The pose of a body of the tree's lengths, the pelvis at 0."""
    return to_global(to_local(points, tree), tree)


def mirrored(points: Points, tree: BodyTree) -> Points:
    """The pose in the mirror image: x is negated, left and right change places."""
    signs = np.array((-1, 1, 1), np.float32).reshape((1,) * (points.ndim - 1) + (3,))
    return points[..., tree.flip_permutation, :] * signs


def _torso_frames(bones: Local, tree: BodyTree) -> Frames:
    """The frames of shoulders and hips, given the torso's bones: across, and up or down along the spine."""
    spine, right_shoulder, left_shoulder, right_hip, left_hip = (bones[..., bone, :] for bone in tree.torso.tolist())
    across = jnp.stack([right_shoulder - left_shoulder, right_hip - left_hip], axis=-2)
    return _frame(_unit(across), jnp.broadcast_to(spine[..., None, :], across.shape))


def _next_frames(frames: Frames, local: Local) -> Frames:
    """The frames of what follows bones, along these and aside."""
    aside = jnp.broadcast_to(jnp.asarray(_ASIDE).reshape((1,) * (local.ndim - 1) + (3,)), local.shape)
    return jnp.einsum("...ij,...jk->...ik", frames, _frame(local, aside), precision="highest")


def _frame(along: Array, aside: Array) -> Array:
    """Axes along a unit vector, from it to another, and across both; where these are one line, to a third."""
    first, second = (np.eye(3, dtype=np.float32)[i].reshape((1,) * (along.ndim - 1) + (3,)) for i in (0, 1))
    third = jnp.where(jnp.abs(along[..., :1]) < 0.8, first, second)
    to, other = (x - jnp.sum(x * along, axis=-1, keepdims=True) * along for x in (aside, third))
    far = jnp.sum(jnp.square(to), axis=-1, keepdims=True) > 1e-4
    up = _unit(jnp.where(far, to, other))
    return jnp.stack([along, up, jnp.cross(along, up)], axis=-1)


def _in_order(parts: Sequence[Array], tree: BodyTree) -> Local:
    order = np.concatenate([tree.torso, *(which for which, _ in tree.limbs)])
    return jnp.concatenate(parts, axis=-2)[..., np.argsort(order), :]


def _unit(x: Array) -> Array:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    there = square > _SHORTEST**2
    down = jnp.asarray(_DOWN).reshape((1,) * (x.ndim - 1) + (3,))
    return jnp.where(there, x / jnp.sqrt(jnp.where(there, square, 1.0)), down)
