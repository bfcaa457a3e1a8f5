"""Recorded rigs in terms of jaxpose's joint names, and common frame rates."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from jaxpose.data.joints.skeletons import MPII16
from jaxpose.data.records import Motion

# Canonical name -> the rig's joint, or several whose mean it is. A name that a rig lacks is left out.
Rig = Mapping[str, str | tuple[str, ...]]

FEET = ("left_foot", "right_foot")
CANONICAL = (*MPII16.joints, "left_collar", "right_collar", *FEET)

_LIMBS = tuple(
    f"{side}_{limb}" for limb in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist") for side in ("left", "right")
)


def to_canonical(motion: Motion, rig: Rig | None = None) -> Motion:
    """The motion with the joints of `CANONICAL` that its rig has, in that order.

    The pelvis is the middle of the hips for every rig, since where rigs put their root differs by up to 10 cm.
    `thorax` is the base of the neck, `neck` the joint below the head, `head_top` the end of the head's bone, which
    lies below the crown in CMU's rigs. Bandai-Namco's and SMPL's rigs have no `head_top`, Human3.6M's no `neck`. A foot
    is the joint before the toes, of Human3.6M their end; motions may lack both.

    Args:
      motion: of any rig.
      rig: the user's own map from canonical names to the motion's joints; None: `detect`.

    Raises:
      ValueError: if the rig is unknown, or a map names joints that are not there or not canonical.
    """
    if rig is None:
        rig = detect(motion.joints, where=motion.name)
    sources = {name: (found,) if isinstance(found, str) else tuple(found) for name, found in rig.items()}
    if unknown := sorted(set(sources) - set(CANONICAL)):
        raise ValueError(f"{motion.name}: the rig maps {', '.join(unknown)}; expected names of {', '.join(CANONICAL)}")
    missing = sorted({joint for found in sources.values() for joint in found} - set(motion.joints))
    if missing or not sources or not all(sources.values()):
        expected = f"no joint {', '.join(missing)}" if missing else "no joint for some name"
        raise ValueError(f"{motion.name}: {expected} of the rig; found {', '.join(motion.joints)}")
    joints = tuple(name for name in CANONICAL if name in sources)
    positions = [
        motion.positions[:, [motion.joints.index(joint) for joint in sources[name]]].mean(axis=1) for name in joints
    ]
    return dataclasses.replace(motion, joints=joints, positions=np.stack(positions, axis=1).astype(np.float32))


def detect(joints: Collection[str], *, where: str = "motion") -> Rig:
    """The known rig whose joints are all among `joints`; those of Human3.6M and canonical motions name themselves.

    Raises:
      ValueError: if there is none.
    """
    if (rig := known(joints)) is not None:
        return {name: found for name, found in rig.items() if name not in FEET or found in joints}
    if {*_LIMBS, "thorax"} <= set(joints):
        feet = {foot: toe for foot, toe in zip(FEET, ("left_toe", "right_toe"), strict=True) if toe in joints}
        return feet | {name: name for name in CANONICAL if name in joints} | {"pelvis": ("left_hip", "right_hip")}
    raise ValueError(f"{where}: unknown rig with joints {', '.join(joints)}; expected one of jaxpose's or a map")


def known(joints: Collection[str]) -> Rig | None:
    """The first rig of this module whose joints, but for the feet, are all among `joints`."""
    for rig in (CMU_BVH, CMU_BVH_MOTIONBUILDER, CMU_ASF, BANDAI_NAMCO, SMPL22):
        needed = [found for name, found in rig.items() if name not in FEET]
        if {joint for found in needed for joint in ((found,) if isinstance(found, str) else found)} <= set(joints):
            return rig
    return None


def resample(motion: Motion, rate: float) -> Motion:
    """The motion at another frame rate, by linear interpolation between the two frames around each moment.

    The first frame stays the first; the last one is the last that the recording reaches. Any two rates work: 50 to 30
    takes every 5/3rd frame.

    Raises:
      ValueError: if a rate is not above 0.
    """
    if not (rate > 0 and motion.rate > 0):
        raise ValueError(f"{motion.name}: {motion.rate} to {rate} frames per second, expected more than 0")
    last = len(motion.positions) - 1
    count = int(last * rate / motion.rate + 1e-6) + 1
    return dataclasses.replace(
        motion, positions=at(motion.positions, np.arange(count) * (motion.rate / rate)), rate=float(rate)
    )


def at(positions: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Where joints are at some moments, float32 (N, K, 3), by linear interpolation between the frames around each.

    Args:
      positions: recorded, (T, K, 3).
      moments: in frames of the recording, (N,); those after its end are its end.
    """
    last = len(positions) - 1
    moments = np.minimum(moments, last)
    before = np.minimum(moments.astype(np.int64), max(last - 1, 0))
    weight = (moments - before)[:, None, None]
    found = (1 - weight) * positions[before] + weight * positions[np.minimum(before + 1, last)]
    return found.astype(np.float32)


def _sides(left: Mapping[str, str], right: Mapping[str, str], **trunk: str) -> Rig:
    """A rig from the joints of its two sides and of its trunk; the pelvis is the middle of the hips."""
    return {
        **{f"left_{name}": joint for name, joint in left.items()},
        **{f"right_{name}": joint for name, joint in right.items()},
        "pelvis": (left["hip"], right["hip"]),
        **trunk,
    }


def _side(pattern: str, *joints: str) -> dict[str, str]:
    """Hip, knee, ankle, foot, collar, shoulder, elbow and wrist of one side, as the rig names them."""
    names = ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
    return {name: pattern.format(joint) for name, joint in zip(names, joints, strict=True)}


_PLAIN = ("Hip", "Knee", "Ankle", "Toe", "Collar", "Shoulder", "Elbow", "Wrist")
_BUILDER = ("UpLeg", "Leg", "Foot", "ToeBase", "Shoulder", "Arm", "ForeArm", "Hand")
_BANDAI = ("UpperLeg", "LowerLeg", "Foot", "Toes", "Shoulder", "UpperArm", "LowerArm", "Hand")
_SMPL = ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")

CMU_BVH = _sides(_side("Left{}", *_PLAIN), _side("Right{}", *_PLAIN), thorax="Neck", neck="Head", head_top="Head_end")
# Cgspeed's MotionBuilder release: Neck starts the lower neck and Neck1 the upper one.
CMU_BVH_MOTIONBUILDER = _sides(
    _side("Left{}", *_BUILDER), _side("Right{}", *_BUILDER), thorax="Neck1", neck="Head", head_top="Head_end"
)
# A joint of an ASF is the far end of the bone of that name. The collars start where the thorax ends.
CMU_ASF = _sides(
    {"hip": "lhipjoint", "knee": "lfemur", "ankle": "ltibia", "foot": "lfoot"}
    | {"collar": "thorax", "shoulder": "lclavicle", "elbow": "lhumerus", "wrist": "lradius"},
    {"hip": "rhipjoint", "knee": "rfemur", "ankle": "rtibia", "foot": "rfoot"}
    | {"collar": "thorax", "shoulder": "rclavicle", "elbow": "rhumerus", "wrist": "rradius"},
    thorax="lowerneck",
    neck="upperneck",
    head_top="head",
)
BANDAI_NAMCO = _sides(_side("{}_L", *_BANDAI), _side("{}_R", *_BANDAI), thorax="Neck", neck="Head")
# SMPL's neck is the base of the neck, its head the joint between neck and skull.
SMPL22 = _sides(_side("left_{}", *_SMPL), _side("right_{}", *_SMPL), thorax="neck", neck="head")
