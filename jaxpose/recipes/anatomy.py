"""What poses of a skeleton can be like, learned from the source's labels while training, and poses made so.

Source: Lin et al. 2023 (POST), Sec. 3.3.1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.data.joints.skeletons import HAND21, Skeleton
from jaxpose.ops import kinematics, lifting, pose_statistics, trees

# Roots and reference bones of hands and bodies; the first that a skeleton has.
_REFERENCES = (
    ("middle_mcp", ("wrist", "middle_mcp")),
    ("pelvis", ("pelvis", "thorax")),
    ("pelvis", ("pelvis", "neck")),
)

_DEVIATIONS = 3.0  # of the source's bones from their mean length, by which lengths are bounded
_LIMITS = kinematics.Limits(palm=0.1)  # a centimetre of a hand: people's palms differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What depths of a skeleton are relative to: the root joint, and the two joints of the bone of length 1."""

    root: int
    bone: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Body:
    """A skeleton's bones, and how its poses are corrected.

    Attributes:
      reference: what lengths and depths are in.
      tree: bones (E, 2), parent and child.
      hand: whether it is a hand, whose fingers bend only so far.
    """

    reference: Reference
    tree: trees.Tree
    hand: bool

    @property
    def one(self) -> trees.Tree:
        """The reference bone alone."""
        return np.array([self.reference.bone], np.int32)

    def initial(self) -> dict[str, Any]:
        """Statistics of no poses, for `State.extra`."""
        trees_of = {"lengths": self.tree, "metres": self.one}
        found: dict[str, Any] = {name: pose_statistics.initial_lengths(tree) for name, tree in trees_of.items()}
        return found | ({"palm": pose_statistics.initial_palm()} if self.hand else {})

    def updated(self, statistics: dict[str, Any], points3d: jax.Array, mask: jax.Array) -> dict[str, Any]:
        """Statistics with those of a batch of poses (B, K, 3) in metres, of which the joints in a mask (B, K) count."""
        update = pose_statistics.updated_lengths
        metres = update(statistics["metres"], points3d, mask, tree=self.one)
        poses = points3d / lifting.bone_length(points3d, self.reference.bone)[:, None, None]
        mask &= jnp.all(mask[:, self.one[0]], axis=1, keepdims=True)
        found = {"metres": metres, "lengths": update(statistics["lengths"], poses, mask, tree=self.tree)}
        if self.hand:
            found["palm"] = pose_statistics.updated_palm(statistics["palm"], poses, mask, mirrored=is_left(poses))
        return found

    def corrected(self, pose: jax.Array, statistics: dict[str, Any]) -> jax.Array:
        """Poses (B, K, 3) in lengths of the reference bone, made possible."""
        lengths = pose_statistics.bounds(statistics["lengths"], _DEVIATIONS)
        if not self.hand:
            return trees.corrected_lengths(pose, tree=self.tree, lengths=lengths)
        palm = statistics["palm"]
        return kinematics.corrected_hand(
            pose,
            palm=palm["palm"],
            lengths=lengths,
            mirrored=is_left(pose),
            limits=_LIMITS,
            neutral=pose_statistics.neutral(palm),
        )


def length(statistics: dict[str, Any]) -> jax.Array:
    """Of the reference bone in metres, on average."""
    return statistics["metres"]["mean"][0]


def body_of(skeleton: Skeleton) -> Body:
    """The bones of a skeleton from its root on, and which rules its poses follow.

    Raises:
      ValueError: see `reference_of`.
    """
    tree = trees.tree(skeleton.joints, skeleton.bones)
    return Body(reference=reference_of(skeleton), tree=tree, hand=skeleton.joints == HAND21.joints)


def reference_of(skeleton: Skeleton) -> Reference:
    """The middle finger's first joint and the bone to it from the wrist; of bodies the pelvis and the trunk.

    Of other skeletons, the first bone and where it begins.

    Raises:
      ValueError: if there is no bone.
    """
    for root, bone in _REFERENCES:
        if set(skeleton.joints).issuperset((root, *bone)):
            first, second = skeleton.indices(bone).tolist()
            return Reference(root=skeleton.joints.index(root), bone=(first, second))
    if not skeleton.bones:
        raise ValueError(f"skeleton {skeleton.name}: found no bones, expected one that depths are measured in")
    first, second = skeleton.bone_indices[0].tolist()
    return Reference(root=first, bone=(first, second))


def is_left(hands: jax.Array) -> jax.Array:
    """Which hands (B, 21, 3) are left ones, (B,): as right ones, their fingers would be bent backwards."""
    flexion = kinematics.angles(hands, mirrored=jnp.zeros(len(hands), bool)).flexion
    return jnp.sum(flexion, axis=(1, 2)) < 0
