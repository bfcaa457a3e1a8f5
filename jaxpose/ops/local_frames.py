"""Bodies as the directions of their bones, each in a frame of the bone before it: what priors on poses learn from.

Points are (x, y, z) in the camera's frame, right, down and forward, in metres from the pelvis. A body's own frames have
the axes left, up and front, so that mirroring a body changes the sign of the first coordinate of every direction, in
whatever frame, and exchanges left and right.

Directions keep how a body is turned to the camera, but neither its size nor its proportions: those are of one fixed
skeleton. What is released builds the frames of outer bones from a table of one pose and an arbitrary vector, and a bone
along that vector has none; here they are turned with the bone by the smallest angle. All gradients are finite.

Source: the released code of Kundu et al. 2021 (relation distillation), arXiv:2204.01971, whose frames are those of
Akhter and Black 2015 (pose-conditioned joint angle limits), Sec. 4.1.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxpose.ops.trees import unit

Points3d = Float[Array, "*b k 3"]
Directions = Float[Array, "*b e 3"]
Frames = Float[Array, "*b n 3 3"]  # rows are axes


class Level(NamedTuple):
    """Bones that are as far from the torso as each other.

    Attributes:
      bones: which of the E.
      bases: of each bone, which of the frames that the level before makes its direction is given in: that of the
        shoulders (0) or of the hips (1), further out that of its parent. The torso's bones are given in the camera's.
      rest: directions of bones at rest, from which the frames beyond them turn; those without length have them.
    """

    bones: Int[np.ndarray, " n"]
    bases: Int[np.ndarray, " n"]
    rest: Float[np.ndarray, "n 3"]


@dataclasses.dataclass(frozen=True)
class BodyTree:
    """K joints of a body and the E = K - 1 bones to all of them but the first, the pelvis; see `body_tree`.

    Attributes:
      joints: names, parents before children.
      parents: of each joint; -1 of the pelvis.
      lengths: metres of the bone to each joint; 0 of the pelvis.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    lengths: tuple[float, ...]

    @functools.cached_property
    def flip_permutation(self) -> Int[np.ndarray, " k"]:
        """Where each joint finds its mirrored one: `points[flip_permutation]`."""
        return np.array([self.joints.index(_opposite(joint)) for joint in self.joints], np.int32)

    @functools.cached_property
    def rest(self) -> Float[np.ndarray, "e 3"]:
        """Directions of a body that faces the camera with its arms out, as `to_local` gives them."""
        return np.array([_BONES[joint].rest for joint in self.joints[1:]], np.float32)

    @functools.cached_property
    def levels(self) -> tuple[Level, ...]:
        """The bones from the torso outwards."""
        levels, last, found = [], [], [joint for joint in self.joints if joint in _TORSO]
        while found:
            places = [self.joints.index(joint) for joint in found]
            parents = [self.joints[self.parents[place]] for place in places]
            bases = [int("hip" in parent) if len(levels) < 2 else last.index(parent) for parent in parents]
            bones = np.array(places, np.int32) - 1
            levels.append(Level(bones=bones, bases=np.array(bases, np.int32), rest=self.rest[bones]))
            last, hung = found, list(zip(self.joints, self.parents, strict=True))[1:]
            found = [joint for joint, parent in hung if joint not in _TORSO and self.joints[parent] in last]
        return tuple(levels)


def body_tree(joints: Sequence[str]) -> BodyTree:
    """The tree of a body with those of its joints that are among `joints`, in whatever order; others are ignored.

    Neck, top of the head and both feet (toes) may be missing; a head without a neck hangs on the thorax. Lengths are
    the released ones by 0.105 m, which makes a thigh of 0.44 m. The bone that is released from thorax to the top of the
    head is one half neck, one half head, as in CMU's rigs.

    Raises:
      ValueError: if other joints are missing.
    """
    if missing := [joint for joint in ("pelvis", *_BONES) if joint not in joints and joint not in _OPTIONAL]:
        raise ValueError(f"found joints {', '.join(joints)}, expected also {', '.join(missing)}")
    one_footed = {joint for joint in _FEET if not set(_FEET) <= set(joints)}
    names = ("pelvis", *(joint for joint in _BONES if joint in joints and joint not in one_footed))
    parents, lengths = [-1], [0.0]
    for joint in names[1:]:
        parent, length = _BONES[joint].parent, _BONES[joint].length
        if parent not in names:
            parent, length = _BONES[parent].parent, length + _BONES[parent].length
        parents.append(names.index(parent))
        lengths.append(_UNIT * length)
    return BodyTree(joints=names, parents=tuple(parents), lengths=tuple(lengths))


def to_local(points: Points3d, tree: BodyTree) -> Directions:
    """Unit vectors of the bones, in the order of the joints that they lead to.

    Those to thorax, shoulders and hips are in the camera's frame, those that hang on them in frames of spine and
    shoulders or hips, all others in a frame that has turned with their parent. A bone without length has the direction
    that it has at rest: a limb goes straight on.

    Args:
      points: poses of any size, wherever they are.
      tree: their joints.
    """
    bones = points[..., 1:, :] - points[..., np.array(tree.parents[1:]), :]
    found, frames = [], None
    for level in tree.levels:
        along = bones[..., level.bones, :]
        if frames is not None:
            frames = frames[..., level.bases, :, :]
            along = jnp.sum(frames * along[..., None, :], axis=-1)
        found.append(unit(along, _like(along, level.rest)))
        frames = _frames(frames, found[-1], level)
    return _in_order(found, tree)


def to_global(local: Directions, tree: BodyTree) -> Points3d:
    """Poses in metres with the pelvis at 0 and the tree's lengths; inverse of `to_local` but for size and place.

    Args:
      local: directions, which need not be unit vectors.
      tree: the joints.
    """
    found, frames = [], None
    for level in tree.levels:
        along = local[..., level.bones, :]
        along = unit(along, _like(along, level.rest))
        if frames is None:
            found.append(along)
        else:
            frames = frames[..., level.bases, :, :]
            found.append(jnp.sum(frames * along[..., :, None], axis=-2))
        frames = _frames(frames, along, level)
    return jnp.einsum("ke,...ex->...kx", _reach(tree), _in_order(found, tree), precision="highest")


def fitted(points: Points3d, tree: BodyTree) -> Points3d:
    """Poses with their directions and the tree's lengths, with the pelvis at 0."""
    return to_global(to_local(points, tree), tree)


def completed(points: Points3d, tree: BodyTree) -> Points3d:
    """Poses whose neck, top of the head, hands or feet are somewhere where they are not finite, as data sets lack some.

    A neck is half way to the head's top, or where the spine points to; the last joint of a limb lies where the bone
    before it points to. Other joints stay as they are.
    """
    if "neck" in tree.joints:
        neck, thorax, pelvis = (points[..., tree.joints.index(joint), :] for joint in ("neck", "thorax", "pelvis"))
        guess = thorax + 0.2 * (thorax - pelvis)
        if "head_top" in tree.joints:
            guess = _finite(0.5 * (thorax + points[..., tree.joints.index("head_top"), :]), guess)
        points = points.at[..., tree.joints.index("neck"), :].set(_finite(neck, guess))
    last = np.setdiff1d(np.arange(1, len(tree.joints)), tree.parents)
    near = np.array(tree.parents)[last]
    beyond = 2 * points[..., near, :] - points[..., np.array(tree.parents)[near], :]
    return points.at[..., last, :].set(_finite(points[..., last, :], beyond))


def mirrored(points: Points3d, tree: BodyTree) -> Points3d:
    """Poses as an image shows them that is mirrored about the camera's axis: x negated, left and right exchanged.

    Source: the released relations negate the axis towards the camera instead, which turns the body by 180 degrees
    against what mirrored images show.
    """
    exchanged = points[..., tree.flip_permutation, :]
    return exchanged * _like(exchanged[..., :1, :], np.array([[-1, 1, 1]], np.float32))


def _finite(points: Points3d, otherwise: Points3d) -> Points3d:
    return jnp.where(jnp.all(jnp.isfinite(points), axis=-1, keepdims=True), points, otherwise)


class _Bone(NamedTuple):
    """Its parent joint, its length in the released unit and its direction at rest, in its own or the camera's frame."""

    parent: str
    length: float
    rest: tuple[float, float, float]


_OUT, _UP, _DOWN, _FRONT = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)
_ARM = {
    "shoulder": _Bone("thorax", 1.37, _OUT),
    "elbow": _Bone("shoulder", 2.8, _OUT),
    "wrist": _Bone("elbow", 2.4, _OUT),
}
_LEG = {
    "hip": _Bone("pelvis", 1.05, _OUT),
    "knee": _Bone("hip", 4.2, _DOWN),
    "ankle": _Bone("knee", 3.6, _DOWN),
    "foot": _Bone("ankle", 2.0, _FRONT),
}


def _side(side: str, limb: dict[str, _Bone]) -> dict[str, _Bone]:
    sign = 1 if side == "left" else -1
    return {
        f"{side}_{joint}": _Bone(
            parent=f"{side}_{bone.parent}" if bone.parent in limb else bone.parent,
            length=bone.length,
            rest=(sign * bone.rest[0], *bone.rest[1:]),
        )
        for joint, bone in limb.items()
    }


_BONES = {
    "thorax": _Bone("pelvis", 4.75, (0.0, -1.0, 0.0)),  # the camera's y points down
    "neck": _Bone("thorax", 1.0, _UP),
    "head_top": _Bone("neck", 1.0, _UP),
    **_side("right", _ARM),
    **_side("left", _ARM),
    **_side("right", _LEG),
    **_side("left", _LEG),
}
_UNIT = 0.105  # metres
_FEET = ("right_foot", "left_foot")
_OPTIONAL = ("neck", "head_top", *_FEET)
# In order of the joints, on which `_torso_frames` relies.
_TORSO = ("thorax", "right_shoulder", "left_shoulder", "right_hip", "left_hip")


def _opposite(joint: str) -> str:
    side, _, name = joint.partition("_")
    return {"left": f"right_{name}", "right": f"left_{name}"}.get(side, joint)


def _frames(frames: Frames | None, local: Directions, level: Level) -> Frames:
    """What a level hands on: the torso two frames, all others one of each of its bones."""
    return _torso_frames(local) if frames is None else _turned(frames, local, level.rest)


def _torso_frames(torso: Float[Array, "*b 5 3"]) -> Float[Array, "*b 2 3 3"]:
    """Frames left, up, front by the spine and the lines through the shoulders and through the hips."""
    lines = torso[..., np.array((2, 4)), :] - torso[..., np.array((1, 3)), :]
    up = jnp.broadcast_to(torso[..., :1, :], lines.shape)
    # A line along the spine says nothing: any axis at a right angle.
    image = jnp.where(jnp.abs(up[..., :1]) < 0.7, _like(up, _OUT), _like(up, _FRONT))
    left = unit(_without(lines, up), unit(_without(image, up), image))
    return jnp.stack([left, up, jnp.cross(left, up)], axis=-2)


def _turned(frames: Frames, local: Directions, rest: Float[np.ndarray, "n 3"]) -> Frames:
    """Frames turned by the smallest angle that takes a bone from rest, which is along an axis, to where it is.

    These are two half turns, about the direction at rest, and then about what lies midway. Opposite directions have
    nothing between them; then it is the third axis, that no bone with others beyond it is along at rest.
    """
    midway = unit(local + _like(local, rest), _like(local, _FRONT))
    axis = jnp.sum(frames * midway[..., :, None], axis=-2)
    turned = 2 * midway[..., :, None] * axis[..., None, :] - frames
    return turned * _like(turned, (2 * rest**2 - 1)[:, :, None])


def _without(vectors: Directions, axis: Directions) -> Directions:
    return vectors - jnp.sum(vectors * axis, axis=-1, keepdims=True) * axis


def _in_order(levels: Sequence[Float[Array, "*b _ 3"]], tree: BodyTree) -> Directions:
    bones = np.concatenate([level.bones for level in tree.levels])
    return jnp.concatenate(levels, axis=-2)[..., np.argsort(bones), :]


def _reach(tree: BodyTree) -> Float[np.ndarray, "k e"]:
    """How far bones move joints: by their length if the joint lies beyond them, else 0."""
    found = np.zeros((len(tree.joints), len(tree.joints) - 1), np.float32)
    for joint in range(1, len(tree.joints)):
        found[joint] = found[tree.parents[joint]]
        found[joint, joint - 1] = tree.lengths[joint]
    return found


def _like(array: Array, values: Sequence[float] | np.ndarray) -> Array:
    """Values of the last axes, broadcast."""
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), array.shape)
