"""Skeletons: named joints, bones, left/right pairs and report groups. Data sets are joined by joint name."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skeleton:
    """The joints of a data set, in the order of its label arrays.

    Attributes:
      name: for messages and reports.
      joints: one name per joint.
      bones: pairs of joint names, drawn and used by bone losses.
      flips: (left, right) pairs of joint names that change places when an image is mirrored.
      groups: report groups: name -> joint names. The group `all` (every joint) is always reported.
      sigmas: per-joint constants of object keypoint similarity, empty where the data set defines none.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...] = ()
    flips: tuple[tuple[str, str], ...] = ()
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"skeleton {self.name}: joint names are not unique: {self.joints}")
        known = set(self.joints)
        pairs = [joint for pair in (*self.bones, *self.flips) for joint in pair]
        unknown = {j for j in (*pairs, *(j for group in self.groups.values() for j in group)) if j not in known}
        if unknown:
            raise ValueError(f"skeleton {self.name}: bones, flips or groups name unknown joints {sorted(unknown)}")
        if self.sigmas and len(self.sigmas) != len(self.joints):
            raise ValueError(f"skeleton {self.name}: {len(self.sigmas)} sigmas for {len(self.joints)} joints")

    def __len__(self) -> int:
        return len(self.joints)

    def indices(self, joints: Sequence[str]) -> np.ndarray:
        """The positions of `joints`, shape (len(joints),)."""
        return np.array([self.joints.index(joint) for joint in joints], dtype=np.int32)

    @property
    def bone_indices(self) -> np.ndarray:
        """Joint indices of the bones, shape (bones, 2)."""
        return np.array([self.indices(bone) for bone in self.bones], dtype=np.int32).reshape(-1, 2)

    @property
    def flip_permutation(self) -> np.ndarray:
        """Where each joint finds its mirrored label, shape (K,): `keypoints[flip_permutation]`."""
        permutation = np.arange(len(self), dtype=np.int32)
        for left, right in self.flips:
            i, j = self.indices((left, right))
            permutation[i], permutation[j] = j, i
        return permutation

    @property
    def group_indices(self) -> dict[str, np.ndarray]:
        """Joint indices per report group, `all` first."""
        groups = {"all": np.arange(len(self), dtype=np.int32)}
        return groups | {name: self.indices(joints) for name, joints in self.groups.items()}

    def rename(self, names: Mapping[str, str]) -> "Skeleton":
        """The skeleton with some of its joints called otherwise."""

        def new(joints: Sequence[str]) -> tuple[str, ...]:
            return tuple(names.get(joint, joint) for joint in joints)

        return dataclasses.replace(
            self,
            joints=new(self.joints),
            bones=tuple((names.get(a, a), names.get(b, b)) for a, b in self.bones),
            flips=tuple((names.get(a, a), names.get(b, b)) for a, b in self.flips),
            groups={group: new(members) for group, members in self.groups.items()},
        )

    def restrict(self, joints: Sequence[str], name: str | None = None) -> "Skeleton":
        """The skeleton of a subset of the joints, in the order given."""
        kept = set(joints)
        groups = {g: tuple(j for j in members if j in kept) for g, members in self.groups.items()}
        return Skeleton(
            name=name or self.name,
            joints=tuple(joints),
            bones=tuple(b for b in self.bones if kept.issuperset(b)),
            flips=tuple(f for f in self.flips if kept.issuperset(f)),
            groups={g: members for g, members in groups.items() if members},
            sigmas=tuple(self.sigmas[i] for i in self.indices(joints)) if self.sigmas else (),
        )


def _sides(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"left_{name}", f"right_{name}") for name in names)


def _body_groups(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {name: (f"left_{name}", f"right_{name}") for name in names}


_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_LIMB_BONES = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("right", "left")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)

MPII16 = Skeleton(
    name="mpii16",
    joints=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
    bones=(
        *_LIMB_BONES,
        *(("pelvis", "right_hip"), ("pelvis", "left_hip"), ("pelvis", "thorax"), ("thorax", "neck")),
        *(("neck", "head_top"), ("thorax", "right_shoulder"), ("thorax", "left_shoulder")),
    ),
    flips=_sides(_LIMBS),
    groups=_body_groups(_LIMBS) | {"head": ("neck", "head_top")},
)

LSP14 = Skeleton(
    name="lsp14",
    joints=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
        *("neck", "head_top"),
    ),
    bones=(
        *_LIMB_BONES,
        *(("neck", "head_top"), ("neck", "right_shoulder"), ("neck", "left_shoulder")),
        *(("right_shoulder", "right_hip"), ("left_shoulder", "left_hip"), ("right_hip", "left_hip")),
    ),
    flips=_sides(_LIMBS),
    groups=_body_groups(_LIMBS) | {"head": ("neck", "head_top")},
)

COCO17 = Skeleton(
    name="coco17",
    joints=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *(f"{side}_{limb}" for limb in _LIMBS for side in ("left", "right")),
    ),
    bones=(
        *_LIMB_BONES,
        *(("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")),
        *(("left_shoulder", "left_hip"), ("right_shoulder", "right_hip")),
        *(("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear")),
    ),
    flips=_sides(("eye", "ear", *_LIMBS)),
    groups=_body_groups(_LIMBS) | {"face": ("nose", "left_eye", "right_eye", "left_ear", "right_ear")},
    sigmas=(
        *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
        *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    ),
)

_FINGERS = ("index", "middle", "ring", "little")
_PHALANGES = ("mcp", "pip", "dip", "tip")
_THUMB = ("thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip")

HAND21 = Skeleton(
    name="hand21",
    joints=("wrist", *_THUMB, *(f"{finger}_{joint}" for finger in _FINGERS for joint in _PHALANGES)),
    bones=tuple(
        bone
        for chain in (_THUMB, *(tuple(f"{finger}_{joint}" for joint in _PHALANGES) for finger in _FINGERS))
        for bone in zip(("wrist", *chain[:-1]), chain, strict=True)
    ),
    # Source: tllib's hand groups, which count the thumb's joints by their place in the chain.
    groups={
        group: (_THUMB[i], *(f"{finger}_{joint}" for finger in _FINGERS))
        for i, (group, joint) in enumerate(zip(("MCP", "PIP", "DIP", "fingertip"), _PHALANGES, strict=True))
    },
)
