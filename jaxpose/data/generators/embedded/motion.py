"""Motions of bodies and hands: key poses of known activities, joined smoothly, with gaits and gestures on top."""

import dataclasses
import functools

import numpy as np

from jaxpose.data.generators.embedded import kinematics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repertoire:
    """What the figures of one domain do.

    Attributes:
      means: typical pose of each of the A activities in radians, shape (A, N, 3).
      swings: amplitude of its periodic part, shape (A, N, 3).
      phases: phase of its periodic part, shape (A, N, 3).
      spread: standard deviation of the key poses, shape (N, 3).
    """

    means: np.ndarray
    swings: np.ndarray
    phases: np.ndarray
    spread: np.ndarray


def sample(rng: np.random.Generator, kind: str, style: str, length: int) -> np.ndarray:
    """Angles of one continuous motion within the limits of the rig, in radians, shape (length, N, 3)."""
    rig = kinematics.RIGS[kind]
    known = repertoire(kind, style)
    time = np.arange(length) * rng.uniform(0.22, 0.34) + rng.random()  # key poses follow each other at 0, 1, ...
    keys = int(time[-1]) + 2
    # Half of the clips pass between two activities, the others vary one.
    activity = rng.integers(len(known.means), size=2)[np.arange(keys) % rng.integers(1, 3)]
    shape = known.spread.shape
    deviation = 0.6 * rng.standard_normal(shape) + 0.8 * rng.standard_normal((keys, *shape))
    poses = known.means[activity] + known.spread * deviation
    # Raised cosines: the weights of two neighbouring keys sum to one.
    apart = np.minimum(abs(time[:, None] - np.arange(keys)), 1)
    weights = (0.5 + 0.5 * np.cos(np.pi * apart))[:, :, None, None]
    beat = (rng.uniform(2, 3) * time + rng.uniform(0, 2 * np.pi))[:, None, None, None]
    angles = (weights * (poses + known.swings[activity] * np.sin(beat + known.phases[activity]))).sum(axis=1)
    if kind == "body" and rng.random() < 0.5:
        swapped, signs = _mirror()
        angles = angles[:, swapped] * signs
    return kinematics.clamp(rig, angles)


@functools.cache
def repertoire(kind: str, style: str) -> Repertoire:
    """The activities of a domain."""
    rig = kinematics.RIGS[kind]
    if kind == "body":
        activities = [(*activity, "", "")[:3] for activity in _BODY[style]]
    else:
        activities = [(_gesture(*gesture), "", "") for gesture in _HAND[style]]
    means, swings, phases = (
        np.stack([_angles(rig, part) for part in parts]) for parts in zip(*activities, strict=True)
    )
    spread = _SPREAD_SCALE[style] * _angles(rig, _SPREAD[kind])
    return Repertoire(means=means, swings=swings, phases=phases, spread=spread)


@functools.cache
def _mirror() -> tuple[np.ndarray, np.ndarray]:
    """The node whose angles each node takes when left and right change places, and the signs they get."""
    rig = kinematics.RIGS["body"]
    swapped, signs = [], []
    for node in rig.nodes:
        side, _, name = node.partition("_")
        other = {"left": "right", "right": "left"}.get(side)
        swapped.append(rig.index(f"{other}_{name}" if other else node))
        signs.append((1, 1, 1) if other else (1, -1, -1))
    return np.array(swapped), np.array(signs)


def _angles(rig: kinematics.Rig, text: str) -> np.ndarray:
    """Degrees `node=x,z,twist`, a node without its side or finger meaning all of them, as radians (N, 3)."""
    pose = {node: value.split(",") for node, value in (entry.split("=") for entry in text.split())}
    angles = np.zeros((len(rig.nodes), 3))
    for i, node in enumerate(rig.nodes):
        value = pose.get(node) or pose.get(node.split("_")[-1], [])
        angles[i, : len(value)] = np.radians(np.array(value, dtype=float))
    return angles


def _gesture(curls: tuple[float, ...], spread: float) -> str:
    """A hand pose from the curl of thumb, index, middle, ring and little finger, 0 straight to 1 closed."""
    thumb, *fingers = curls
    text = f"thumb_cmc={-6 + 30 * thumb},{-10 * spread + 12 * thumb} thumb_mcp={45 * thumb} ip={55 * thumb}"
    for name, curl, splay in zip(("index", "middle", "ring", "little"), fingers, (-7, -1, 5, 9), strict=True):
        text += f" {name}_mcp={76 * curl},{splay * spread * (1 - curl)} {name}_pip={98 * curl}"
    return text


_SPREAD_SCALE = {"studio": 1.1, "street": 0.5}
_SPREAD = {
    "body": """
        pelvis=4,3,4 chest=5,5,8 thorax=6,4,8 neck=8,5,14 shoulder=14,12,16 elbow=18,0,20 wrist=12,6
        hip=6,5,6 knee=7 ankle=6,0,4
    """,
    "hand": "forearm=14,8 thumb_cmc=6,5,4 thumb_mcp=6 ip=8 mcp=7,3 pip=8",
}

# A stride: the legs in opposite phase, each knee bent most while its thigh swings forward, arms opposed to legs.
_STRIDE = """
    left_hip=180 right_hip=0 left_knee=90 right_knee=270 left_shoulder=0 right_shoulder=180
    pelvis=0,0,0 chest=0,0,180
"""
# Activities: pose, amplitudes and phases of the periodic part.
_BODY = {
    "studio": (
        ("shoulder=-3,10 elbow=-15 hip=-2,5,4 knee=5",),
        ("shoulder=5,16,-10 elbow=-30 hip=-2,8,6 knee=6",),
        (
            "shoulder=0,9 elbow=-25 hip=-8,2,2 knee=26",
            "shoulder=24 hip=26 knee=22 pelvis=0,0,6 chest=0,0,9",
            _STRIDE,
        ),
        (
            "shoulder=4,8,-10 elbow=-40 hip=-6,2,2 knee=22",
            "shoulder=18 hip=20 knee=18 pelvis=0,0,5 chest=0,0,7",
            _STRIDE,
        ),
        ("shoulder=-28,14,-20 elbow=-80 hip=-2,5,4 knee=5", "elbow=18"),
        (
            "left_shoulder=-45,10,-10 left_elbow=-60 right_shoulder=0,10 right_elbow=-20 hip=-3,6,4 knee=6",
            "left_shoulder=15,8,10 left_elbow=25",
        ),
        (
            "left_shoulder=-20,85,45 left_elbow=-85 right_shoulder=0,10 right_elbow=-15 hip=-2,6,4 knee=5",
            "left_shoulder=0,15,20 left_elbow=20",
        ),
        # arms up, arms out, reach, run, half crouch
        ("shoulder=-120,70,10 elbow=-30 hip=-3,10,6 knee=8", "shoulder=25,15"),
        ("shoulder=0,90,15 elbow=-20 hip=0,16,8 knee=8", "shoulder=0,25"),
        (
            "left_shoulder=-145,20 left_elbow=-15 right_shoulder=5,25 right_elbow=-30 left_hip=2,4 right_hip=-10,10"
            " right_knee=18",
        ),
        (
            "pelvis=6 chest=8 shoulder=0,12,-10 elbow=-80 hip=-18,2 knee=48",
            "shoulder=36 hip=36 knee=36 pelvis=0,0,8 chest=0,0,10",
            _STRIDE,
        ),
        ("pelvis=10 chest=12 shoulder=-40,15 elbow=-45 hip=-50,14,10 knee=62 ankle=-12",),
    ),
    "street": (
        # reach, both arms up, kick, lunge, half crouch
        (
            "chest=-4,8 left_shoulder=-150,25 left_elbow=-15 right_shoulder=5,30 right_elbow=-30"
            " left_hip=5,4 right_hip=-15,14 right_knee=25",
        ),
        ("shoulder=-120,80,10 elbow=-35 hip=-3,14,6 knee=8 neck=-12", "shoulder=25,15"),
        (
            "chest=-8 left_hip=-75,8 left_knee=20 right_hip=5,5 right_knee=12"
            " left_shoulder=20,50 right_shoulder=-50,45 elbow=-50",
            "left_hip=22 left_knee=22",
        ),
        ("left_hip=-65,8,5 left_knee=80 right_hip=18,6 right_knee=30 chest=12 shoulder=-30,35 elbow=-55",),
        ("pelvis=10 chest=12 shoulder=-60,25 elbow=-30 hip=-60,18,12 knee=75 ankle=-15",),
        # star, run, throw, guard, lean
        ("shoulder=0,100,20 elbow=-25 hip=0,30,8 knee=10", "shoulder=0,30 hip=0,10"),
        (
            "pelvis=8 chest=10 shoulder=0,14,-10 elbow=-88 hip=-22,2 knee=58",
            "shoulder=42 hip=42 knee=42 pelvis=0,0,8 chest=0,0,12",
            _STRIDE,
        ),
        (
            "chest=5,12,-20 left_shoulder=-10,110,50 left_elbow=-95 right_shoulder=-80,10 right_elbow=-15"
            " left_hip=8,8 right_hip=-35,6 right_knee=40",
            "left_shoulder=20,15,20",
        ),
        (
            "shoulder=-55,22,-35 elbow=-118 hip=-25,14,8 knee=35 chest=10,0,15",
            "left_shoulder=25 left_elbow=30",
        ),
        ("shoulder=-5,12 elbow=-20 hip=-2,6,4 knee=6 chest=4,20", "chest=10,6"),
        # stand, walk, talk
        ("shoulder=-3,12 elbow=-20 hip=-2,6,4 knee=6",),
        (
            "shoulder=0,10 elbow=-30 hip=-9,2,2 knee=28",
            "shoulder=28 hip=30 knee=25 pelvis=0,0,6 chest=0,0,9",
            _STRIDE,
        ),
        ("shoulder=-30,18,-20 elbow=-85 hip=-4,7,4 knee=8", "elbow=20"),
    ),
}

# Gestures: curls, spread of the fingers.
_HAND = {
    "studio": (
        ((0.1, 0.05, 0.05, 0.05, 0.05), 1.0),
        ((0.2, 0.12, 0.12, 0.14, 0.16), 0.3),
        ((0.25, 0.25, 0.3, 0.32, 0.34), 0.3),
        ((0.35, 0.35, 0.42, 0.45, 0.45), 0.1),
        ((0.1, 0.3, 0.2, 0.15, 0.1), 0.6),
    ),
    "street": (
        ((0.9, 0.95, 1.0, 1.0, 1.0), 0.0),
        ((0.8, 0.05, 0.95, 1.0, 1.0), 0.3),
        ((0.8, 0.05, 0.05, 0.95, 1.0), 1.2),
        ((0.8, 0.05, 0.05, 0.1, 0.95), 0.9),
        ((0.9, 0.05, 0.05, 0.08, 0.1), 1.0),
        ((0.0, 0.05, 0.05, 0.05, 0.05), 1.3),
        ((0.0, 0.9, 0.95, 1.0, 1.0), 0.0),
        ((0.0, 0.05, 0.95, 1.0, 0.1), 0.4),
        ((0.6, 0.55, 0.1, 0.12, 0.15), 0.8),
        ((0.4, 0.6, 0.65, 0.65, 0.6), 0.5),
        ((0.3, 0.3, 0.35, 0.4, 0.4), 0.3),
        ((0.2, 0.15, 0.15, 0.16, 0.18), 0.4),
    ),
}
