"""Sets of joints that data sets share, and sources seen in them: joints by name, some derived from others."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxpose.data.joints.skeletons import COCO17, MPII16, Skeleton
from jaxpose.data.records import MISSING, Record, Source
from jaxpose.data.wrappers import Wrapper, people_of

# For a joint, sets of joints whose mean can stand for it, the best first.
Derivations = Mapping[str, Sequence[tuple[str, ...]]]

COMMON12 = MPII16.restrict(
    tuple(joint for joint in MPII16.joints if joint.startswith(("left_", "right_"))), name="common12"
)

UNION21 = Skeleton(
    name="union21",
    joints=(*COCO17.joints, "pelvis", "thorax", "neck", "head_top"),
    bones=tuple(dict.fromkeys((*COCO17.bones, *MPII16.bones))),
    flips=COCO17.flips,
    groups={**COCO17.groups, **MPII16.groups},
)

_ARM, _LEG = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")

FLEXPOSE15 = Skeleton(
    name="flexpose15",
    joints=(
        *("head", "neck", "pelvis"),
        *(f"{side}_{joint}" for limb in (_ARM, _LEG) for side in ("right", "left") for joint in limb),
    ),
    bones=(
        *(("neck", "head"), ("neck", "pelvis")),
        *(
            bone
            for root, limb in (("neck", _ARM), ("pelvis", _LEG))
            for side in ("right", "left")
            for bone in itertools.pairwise((root, *(f"{side}_{joint}" for joint in limb)))
        ),
    ),
    flips=tuple((f"left_{joint}", f"right_{joint}") for joint in (*_ARM, *_LEG)),
    groups={"head": ("head", "neck")} | {joint: (f"left_{joint}", f"right_{joint}") for joint in (*_ARM, *_LEG)},
)


def _face(*points: int) -> tuple[str, ...]:
    return tuple(f"face_{point:02d}" for point in points)


def _line(first: int, last: int, *, closed: bool = False) -> tuple[tuple[str, str], ...]:
    names = _face(*range(first, last + 1))
    return (*itertools.pairwise(names), *(((names[-1], names[0]),) if closed else ()))


# The right of the person is on the left of the image; the points of 300-W start there.
_FACE_FLIPS = (
    *((16 - i, i) for i in range(8)),
    *((26 - i, 17 + i) for i in range(5)),
    *((35, 31), (34, 32)),
    *((45, 36), (44, 37), (43, 38), (42, 39), (47, 40), (46, 41)),
    *((54, 48), (53, 49), (52, 50), (55, 59), (56, 58), (64, 60), (63, 61), (65, 67)),
)

FACE68 = Skeleton(
    name="face68",
    joints=_face(*range(68)),
    bones=(
        *(*_line(0, 16), *_line(17, 21), *_line(22, 26), *_line(27, 30), *_line(31, 35)),
        *(*_line(36, 41, closed=True), *_line(42, 47, closed=True)),
        *(*_line(48, 59, closed=True), *_line(60, 67, closed=True)),
    ),
    flips=tuple((left, right) for left, right in (_face(*pair) for pair in _FACE_FLIPS)),
    groups={
        "jaw": _face(*range(17)),
        "brows": _face(*range(17, 27)),
        "nose": _face(*range(27, 36)),
        "eyes": _face(*range(36, 48)),
        "mouth": _face(*range(48, 68)),
    },
)

# Source: UniFrame's transfer from synthetic animals to Animal Pose, which leaves out chin, tail and shoulders.
ANIMAL14 = Skeleton(
    name="animal14",
    joints=(
        *("left_eye", "right_eye"),
        *(
            f"{side}_{leg}_{joint}"
            for joint in ("paw", "knee", "elbow")
            for leg in ("front", "back")
            for side in ("left", "right")
        ),
    ),
    bones=tuple(
        (f"{side}_{leg}_{a}", f"{side}_{leg}_{b}")
        for side in ("left", "right")
        for leg in ("front", "back")
        for a, b in (("elbow", "knee"), ("knee", "paw"))
    ),
    flips=(
        ("left_eye", "right_eye"),
        *(
            (f"left_{leg}_{joint}", f"right_{leg}_{joint}")
            for joint in ("paw", "knee", "elbow")
            for leg in ("front", "back")
        ),
    ),
    groups={
        "eye": ("left_eye", "right_eye"),
        **{
            joint: tuple(f"{side}_{leg}_{joint}" for leg in ("front", "back") for side in ("left", "right"))
            for joint in ("paw", "knee", "elbow")
        },
    },
)

MIDPOINTS: Derivations = {
    "pelvis": (("pelvis",), ("left_hip", "right_hip")),
    "thorax": (("thorax",), ("left_shoulder", "right_shoulder")),
}

# Which joint a head is taken from. Data sets mean different points by it: the tip of the nose, a joint inside the
# skull, its top.
HEADS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "head": (("head",),),
    "nose": (("nose",), ("jaw",)),  # the jaw of Human3.6M is called nose elsewhere
    "top": (("head_top",),),
    "any": (("head",), ("nose",), ("jaw",), ("head_top",)),
    "none": (),
}


def common12(source: Source) -> "InJointSet":
    """Shoulders, elbows, wrists, hips, knees and ankles: what COCO, MPII, LSP, Human3.6M and others label alike."""
    return InJointSet(source=source, joint_set=COMMON12)


def mpii16(source: Source, *, head_mode: str = "top") -> "InJointSet":
    """MPII's joints; pelvis and thorax are made from hips and shoulders where a data set lacks them.

    Args:
      source: of any skeleton with some of the names.
      head_mode: what stands for `head_top`, a key of `HEADS`. With the default only a head's top does, and
        `neck` (the upper neck) is never made up: both are missing in COCO.

    Raises:
      ValueError: if there is no such mode, or no joint.
    """
    return InJointSet(source=source, joint_set=MPII16, derivations={**MIDPOINTS, "head_top": _heads(head_mode)})


def union21(source: Source) -> "InJointSet":
    """COCO's 17 joints and MPII's pelvis, thorax, neck and head top, so that one network learns from both.

    Pelvis and thorax are made from hips and shoulders; what a data set does not label is missing and gives no loss.
    """
    return InJointSet(source=source, joint_set=UNION21, derivations=MIDPOINTS)


def flexpose15(source: Source, *, head_mode: str = "any") -> "InJointSet":
    """Head, neck, pelvis and the joints of the limbs. Source: FlexPose, section 4.

    The neck is the base of the neck: `thorax`, else `neck`, else the middle of the shoulders.

    Args:
      source: of any skeleton with some of the names.
      head_mode: what stands for the head, a key of `HEADS`; part of the gap between data sets comes from this.

    Raises:
      ValueError: if there is no such mode, or no joint.
    """
    neck = (("thorax",), ("neck",), ("left_shoulder", "right_shoulder"))
    return InJointSet(
        source=source,
        joint_set=FLEXPOSE15,
        derivations={**MIDPOINTS, "neck": neck, "head": _heads(head_mode)},
    )


def face68(source: Source) -> "InJointSet":
    """The landmarks of 300-W and 300-VW, which WFLW contains."""
    return InJointSet(source=source, joint_set=FACE68)


def animal14(source: Source) -> "InJointSet":
    """Eyes, paws, knees and elbows of four-legged animals."""
    return InJointSet(source=source, joint_set=ANIMAL14)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InJointSet(Wrapper):
    """A source with the joints of another skeleton, found by name.

    A joint takes the first of its derivations whose joints the source's skeleton has, or else the joint of its own
    name. It is their mean, in 2D and 3D; it is missing where one of them is, and as visible as the least visible.
    A joint without any is always missing.

    Attributes:
      source: what is seen.
      joint_set: the skeleton it is seen in.
      derivations: see `Derivations`.

    Raises:
      ValueError: if no joint of the set can be had.
    """

    joint_set: Skeleton
    derivations: Derivations = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self._mixing.any():
            raise ValueError(
                f"joint set {self.joint_set.name}: found none of its joints in skeleton {self.source.skeleton.name}: "
                f"{', '.join(self.source.skeleton.joints)}"
            )

    @functools.cached_property
    def _mixing(self) -> np.ndarray:
        """What each joint takes of each joint of the source, (K, source's K)."""
        known = self.source.skeleton.joints
        parents = [
            next((way for way in self.derivations.get(joint, ((joint,),)) if set(way) <= set(known)), ())
            for joint in self.joint_set.joints
        ]
        mixing = np.zeros((len(parents), len(known)), np.float64)
        for row, way in zip(mixing, parents, strict=True):
            row[[known.index(joint) for joint in way]] = 1 / max(len(way), 1)
        return mixing

    @property
    def skeleton(self) -> Skeleton:
        """The joint set."""
        return self.joint_set

    def people(self) -> Source | None:
        """With the same joints."""
        found = people_of(self.source)
        return None if found is None else dataclasses.replace(self, source=found)

    def __getitem__(self, index: int) -> Record:
        fields: dict[str, Any] = dict(self.source[index])
        mixing, labelled = self._mixing, fields["visible"] > MISSING
        made = (mixing > 0).any(axis=1) & ~((mixing > 0) & ~labelled).any(axis=1)
        least = np.where(mixing > 0, fields["visible"], np.iinfo(np.uint8).max).min(axis=1)
        fields["visible"] = np.where(made, least, MISSING).astype(np.uint8)
        for field in ("keypoints", "keypoints3d"):
            if field in fields:
                # Missing joints may hold anything, such as NaN, which a zero weight does not silence.
                points = np.where(labelled[:, None], fields[field], 0)
                fields[field] = np.where(made[:, None], mixing @ points, 0).astype(np.float32)
        return Record(**fields)


def _heads(head_mode: str) -> Sequence[tuple[str, ...]]:
    if head_mode not in HEADS:
        raise ValueError(f"found head_mode {head_mode!r}, expected one of {', '.join(HEADS)}")
    return HEADS[head_mode]
