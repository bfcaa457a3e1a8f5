"""How bodies and hands move: key poses of known activities within anatomical limits, joined smoothly."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping

import numpy as np

from jaxpose.data.generators.embedded import kinematics
from jaxpose.synth.body import FINGERS, SIDES, Body, hand_axes

RIG = kinematics.RIGS["body"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """T frames of one motion.

    Attributes:
      angles: of the nodes of `RIG` in radians, shape (T, N, 3).
      root: rotation of the whole body in the world, shape (T, 3, 3).
      fingers: by side, radians (T, 5, 4) of each finger: flexion of its three joints and spread of the first.
    """

    angles: np.ndarray
    root: np.ndarray
    fingers: Mapping[str, np.ndarray]


def sample_body(rng: np.random.Generator, length: int) -> Pose:
    """A person in motion: one activity, or two and the way between them."""
    for _ in range(8):
        activity = rng.choice(len(_means()), size=2, p=_WEIGHTS / _WEIGHTS.sum())
        angles = _keyed(rng, length, activity, spread=rng.uniform(0.5, 1.3))
        if not _collides(angles):
            break
    fingers = {side: relaxed(rng, length) for side, _, _ in SIDES}
    root = np.broadcast_to(np.eye(3), (length, 3, 3))
    if rng.random() < 0.06:  # lying, falling, tumbling
        axis = rng.standard_normal(3) * (1, 1, 0.2)
        root = np.broadcast_to(rotation(axis / np.linalg.norm(axis), rng.uniform(0.6, 1.6)), (length, 3, 3))
    return Pose(angles=angles, root=root, fingers=fingers)


def sample_hand(rng: np.random.Generator, side: str, length: int) -> Pose:
    """A person who holds one hand before the chest and gestures with it; the other arm hangs or does likewise."""
    reach = _angles(
        f"{side}_shoulder={rng.uniform(-75, -5)},{rng.uniform(-5, 55)},{rng.uniform(-45, 15)} "
        f"{side}_elbow={rng.uniform(-115, -35)},0,{rng.uniform(-65, 65)}"
    )
    if rng.random() < 0.3:
        swapped, signs = _mirror()
        reach += (reach + rng.normal(0, 0.2, reach.shape) * (reach != 0))[swapped] * signs
    else:
        reach += _angles(f"{'right' if side == 'left' else 'left'}_shoulder=5,12 elbow=0")
    angles = np.repeat(reach[None], length, axis=0)
    wrist = RIG.index(f"{side}_wrist")
    sway = _smooth(rng, length, rng.normal(0, 1, (2, 5)) * np.radians((22, 10, 5, 5, 8)))
    angles[:, wrist, :2] += sway[:, :2]
    angles[:, RIG.index(f"{side}_shoulder"), :2] += sway[:, 2:4]
    angles[:, RIG.index(f"{side}_elbow"), 0] += sway[:, 4]
    fingers = {s: relaxed(rng, length) for s, _, _ in SIDES}
    fingers[side] = _gestures(rng, length)
    root = np.broadcast_to(np.eye(3), (length, 3, 3))
    return Pose(angles=kinematics.clamp(RIG, angles), root=root, fingers=fingers)


def orientations(body: Body, heads: np.ndarray, pose: Pose) -> np.ndarray:
    """Rotations (T, B, 3, 3) of all bones from their place at rest, in the world.

    Args:
      body: the mesh.
      heads: where the person's bones begin at rest, shape (B, 3).
      pose: the motion.
    """
    length = len(pose.angles)
    identity = np.broadcast_to(np.eye(3), (length, 3, 3))
    _, nodes = kinematics.forward(RIG, pose.angles, RIG.offsets, identity)
    # From the rig's frame (y up, z front) to the body's (z up, y back).
    frame = np.array(((1.0, 0, 0), (0, 0, -1), (0, 1, 0)))
    nodes = pose.root[:, None] @ (frame @ nodes @ frame.T)
    turn = {node: nodes[:, i] for i, node in enumerate(RIG.nodes)}
    head = {label: heads[i] for i, label in enumerate(body.labels)}

    def untwisted(node: str, parent: str, kept: float) -> np.ndarray:
        """The node's orientation with only a part of its twist."""
        x, z, twist = pose.angles[:, RIG.index(node)].T
        sign = RIG.sides[RIG.index(node)]
        local = kinematics.swing_twist(x, sign * z, sign * kept * twist)
        return turn[parent] @ (frame @ local @ frame.T)

    out = trunk(turn["pelvis"], turn["chest"], turn["thorax"], turn["neck"])
    down = np.array((0.0, 0, -1))
    for side, s, _ in SIDES:
        shoulder, elbow, wrist = (head[f"{b}_{s}"] for b in ("upperarm01", "lowerarm01", "wrist"))
        hip, knee, ankle = (head[f"{b}_{s}"] for b in ("upperleg01", "lowerleg01", "foot"))
        upper = onto(elbow - shoulder, down)
        lower = onto(upper @ (wrist - elbow), down) @ upper
        thigh = onto(knee - hip, down)
        shin = onto(thigh @ (ankle - knee), down) @ thigh
        out[f"clavicle_{s}"] = out[f"shoulder01_{s}"] = turn[f"{side}_clavicle"]
        out[f"upperarm01_{s}"] = untwisted(f"{side}_shoulder", f"{side}_clavicle", 0.5) @ upper
        out[f"upperarm02_{s}"] = turn[f"{side}_shoulder"] @ upper
        out[f"lowerarm01_{s}"] = untwisted(f"{side}_elbow", f"{side}_shoulder", 0.35) @ lower
        out[f"lowerarm02_{s}"] = untwisted(f"{side}_elbow", f"{side}_shoulder", 0.8) @ lower
        out[f"wrist_{s}"] = turn[f"{side}_wrist"] @ lower
        out[f"upperleg01_{s}"] = untwisted(f"{side}_hip", "pelvis", 0.5) @ thigh
        out[f"upperleg02_{s}"] = turn[f"{side}_hip"] @ thigh
        out[f"lowerleg01_{s}"] = turn[f"{side}_knee"] @ shin
        out[f"lowerleg02_{s}"] = turn[f"{side}_knee"] @ shin
        out[f"foot_{s}"] = turn[f"{side}_ankle"]
    return complete(out, body, head, pose.fingers)


def trunk(pelvis: np.ndarray, chest: np.ndarray, neck: np.ndarray, skull: np.ndarray) -> dict[str, np.ndarray]:
    """Orientations (T, 3, 3) by bone of a spine that bends evenly from pelvis to chest and from neck to skull."""
    out = {bone: pelvis for bone in ("root", "pelvis_L", "pelvis_R")}
    for bone, part in {"spine05": 0.15, "spine04": 0.4, "spine03": 0.65, "spine02": 0.85, "spine01": 1.0}.items():
        out[bone] = between(pelvis, chest, part)
    out["neck01"], out["neck02"], out["neck03"] = between(chest, neck, 0.6), neck, between(neck, skull, 0.5)
    out["head"] = out["eye_L"] = out["eye_R"] = skull
    return out


def complete(
    out: dict[str, np.ndarray], body: Body, head: Mapping[str, np.ndarray], fingers: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Orientations of all bones (T, B, 3, 3): adds fingers, and others follow their parents.

    Args:
      out: orientations (T, 3, 3) by bone; wrists among them.
      body: the mesh.
      head: where bones begin at rest.
      fingers: angles by side, shape (T, 5, 4).
    """
    for side, s, _ in SIDES:
        _bend_fingers(out, body, head, s, fingers[side])
    for i, label in enumerate(body.labels):
        if label not in out:
            out[label] = out[body.labels[body.parents[i]]]
    return np.stack([out[label] for label in body.labels], axis=1)


def forward(body: Body, heads: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where bones begin (T, B, 3) and what moves points at rest there (T, B, 3, 4), the root staying at rest.

    Args:
      body: the mesh.
      heads: at rest, shape (B, 3).
      turned: orientations, shape (T, B, 3, 3).
    """
    places = np.repeat(heads[None].astype(float), len(turned), axis=0)
    for i, parent in enumerate(body.parents):
        if parent >= 0:
            places[:, i] = places[:, parent] + turned[:, parent] @ (heads[i] - heads[parent])
    shift = places - (turned @ heads[:, :, None])[..., 0]
    return places, np.concatenate((turned, shift[..., None]), axis=-1)


def onto(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotations (..., 3, 3) that turn the directions a (..., 3) into b."""
    a = a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12)
    b = b / np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), 1e-12)
    x, y, z = np.moveaxis(np.cross(a, b), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), axis=-1).reshape(*x.shape, 3, 3)
    cos = (a * b).sum(axis=-1)[..., None, None]
    return np.eye(3) + cross + cross @ cross / np.maximum(1 + cos, 1e-6)


def rotation(axis: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Rotations (..., 3, 3) about one unit axis by angles (...)."""
    x, y, z = axis
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    angle = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def between(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Rotations (T, 3, 3) the fraction t of the way from a to b."""
    from scipy.spatial.transform import Rotation

    step = Rotation.from_matrix(np.swapaxes(a, -1, -2) @ b).as_rotvec()
    return a @ Rotation.from_rotvec(t * step).as_matrix()


def _bend_fingers(out: dict, body: Body, head: Mapping[str, np.ndarray], s: str, angles: np.ndarray) -> None:
    """Adds the orientations of one hand's fingers; zero angles are a flat hand."""
    along, across, back = hand_axes(head, s)
    hand = out[f"wrist_{s}"]
    side = "left" if s == "L" else "right"
    for k, finger in enumerate(FINGERS):
        points = [head[f"finger{k + 1}-{j}_{s}"] for j in (1, 2, 3)]
        tip = _rest_tip(body, side, k, points[2])
        bones = np.diff(np.stack((*points, tip)), axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        if finger == "thumb":
            # The thumb bends across the palm; its nail looks away from the little finger and a little backwards.
            nail = 0.75 * across + 0.66 * back
        else:
            nail = back
        nail = nail - bones[0] * (nail @ bones[0])
        nail /= np.linalg.norm(nail)
        axis = np.cross(bones[0], -nail)
        bent = [np.arctan2(np.cross(a, b) @ axis, a @ b) for a, b in itertools.pairwise(bones)]
        first, splay = 0.0, nail
        if finger != "thumb":
            first = np.arctan2(-bones[0] @ back, np.hypot(bones[0] @ along, bones[0] @ across))
            splay = back
        splay = splay * np.sign(np.cross(splay, bones[0]) @ across)  # spreads towards the thumb's side
        turn = hand @ rotation(splay, angles[:, k, 3]) @ rotation(axis, angles[:, k, 0] - first)
        out[f"finger{k + 1}-1_{s}"] = turn
        for j in (1, 2):
            turn = turn @ rotation(axis, angles[:, k, j] - bent[j - 1])
            out[f"finger{k + 1}-{j + 1}_{s}"] = turn


def _rest_tip(body: Body, side: str, k: int, last: np.ndarray) -> np.ndarray:
    """The fingertip at rest; the person's own mesh may differ from the template, the direction hardly does."""
    s = "L" if side == "left" else "R"
    template = body.heads[body.index(f"finger{k + 1}-3_{s}")]
    return last + body.template[body.tips[side][k]].mean(axis=0) - template


def _keyed(rng: np.random.Generator, length: int, activity: np.ndarray, spread: float) -> np.ndarray:
    """Angles (T, N, 3): key poses of the activities, each varied, with raised cosines between them."""
    time = np.arange(length) * rng.uniform(0.15, 0.34) + rng.random()
    keys = int(time[-1]) + 2
    order = activity[np.arange(keys) % rng.integers(1, 3)]
    common, own = rng.standard_normal((1, *_SPREAD.shape)), rng.standard_normal((keys, *_SPREAD.shape))
    means, swings, phases = _means()[order], _swings()[order], _PHASES
    poses = means + spread * _SPREAD * (0.75 * common + 0.45 * own)
    apart = np.minimum(np.abs(time[:, None] - np.arange(keys)), 1)
    weights = (0.5 + 0.5 * np.cos(np.pi * apart))[:, :, None, None]
    beat = (rng.uniform(2, 3) * time + rng.uniform(0, 2 * np.pi))[:, None, None, None]
    angles = (weights * (poses + swings * np.sin(beat + phases))).sum(axis=1)
    if rng.random() < 0.5:
        swapped, signs = _mirror()
        angles = angles[:, swapped] * signs
    return kinematics.clamp(RIG, angles)


def _smooth(rng: np.random.Generator, length: int, ends: np.ndarray) -> np.ndarray:
    """From one row of `ends` (2, n) to the other, starting anywhere between them, shape (T, n)."""
    start, stop = rng.uniform(0, 0.5), rng.uniform(0.5, 1)
    t = np.linspace(start, stop, length)[:, None]
    t = 0.5 - 0.5 * np.cos(np.pi * t)
    return ends[0] * (1 - t) + ends[1] * t


def _collides(angles: np.ndarray) -> bool:
    """Whether arms or legs pass through the trunk, the head or each other in any frame."""
    identity = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    places, turned = kinematics.forward(RIG, angles, RIG.offsets, identity)
    at = {node: places[:, i] for i, node in enumerate(RIG.nodes)}
    upright = turned[:, RIG.index("chest")]
    chest = at["chest"] + 0.3 * upright[..., 1]
    for side in ("left", "right"):
        hand = at[f"{side}_wrist"] + 0.09 * turned[:, RIG.index(f"{side}_wrist")] @ np.array((0, -1.0, 0))
        middle = 0.5 * (at[f"{side}_wrist"] + at[f"{side}_elbow"])
        for point, free in ((hand, 1.0), (at[f"{side}_wrist"], 1.0), (middle, 0.9), (at[f"{side}_elbow"], 0.8)):
            # the trunk is an ellipsoid, wide, deep and long, the head and the thighs are balls and capsules
            local = np.einsum("tji,tj->ti", upright, point - chest)
            if (np.linalg.norm(local / (0.21 * free, 0.36, 0.165 * free), axis=1) < 1).any():
                return True
            if (np.linalg.norm(point - 0.5 * (at["neck"] + at["head_top"]), axis=1) < 0.12).any():
                return True
            for other in ("left", "right"):
                if (_distance(point, at[f"{other}_hip"], at[f"{other}_knee"]) < 0.1).any():
                    return True
    return bool(
        (np.linalg.norm(at["left_knee"] - at["right_knee"], axis=1) < 0.11).any()
        or (np.linalg.norm(at["left_ankle"] - at["right_ankle"], axis=1) < 0.09).any()
        or (np.linalg.norm(at["left_wrist"] - at["right_wrist"], axis=1) < 0.08).any()
    )


def _distance(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    t = np.clip(((point - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
    return np.linalg.norm(point - a - t[:, None] * (b - a), axis=1)


def relaxed(rng: np.random.Generator, length: int) -> np.ndarray:
    """Fingers of a hand that does nothing in particular, radians (T, 5, 4)."""
    curl = np.clip(rng.normal(0.28, 0.12) + rng.normal(0, 0.06, 5) + np.array((0, -0.05, 0, 0.04, 0.06)), 0, 0.9)
    if rng.random() < 0.15:
        curl = rng.uniform(0.75, 0.95) + np.zeros(5)
    return np.repeat(_curled(curl, rng.uniform(0, 0.5))[None], length, axis=0)


def _gestures(rng: np.random.Generator, length: int) -> np.ndarray:
    """Fingers that pass between two gestures or vary one, radians (T, 5, 4)."""
    ends = []
    first = rng.integers(len(_GESTURES))
    for k in range(2):
        if k == 0 or rng.random() < 0.5:
            curls, spread = _GESTURES[first if k == 0 else rng.integers(len(_GESTURES))]
            if rng.random() < 0.3:
                curls, spread = rng.beta(0.8, 1.0, 5), rng.uniform(0, 1.2)
                curls[2:4] = 0.5 * curls[2:4] + 0.5 * curls[2:4].mean()
        angles = _curled(np.clip(np.array(curls) + rng.normal(0, 0.05, 5), 0, 1), spread + rng.normal(0, 0.15))
        angles += rng.normal(0, np.radians(5), angles.shape) * (1, 1, 0.5, 0.5)
        ends.append(angles)
    angles = _smooth(rng, length, np.stack(ends).reshape(2, -1)).reshape(length, 5, 4)
    return np.clip(angles, _FINGER_LOW, _FINGER_HIGH)


def _curled(curl: np.ndarray, spread: float) -> np.ndarray:
    """Angles (5, 4) of thumb to little finger: 0 straight to 1 closed."""
    angles = np.zeros((5, 4))
    angles[1:, 0] = np.radians(82) * curl[1:]
    angles[1:, 1] = np.radians(100) * curl[1:]
    angles[1:, 2] = np.radians(62) * curl[1:]
    # Fingers gather when they close.
    angles[1:, 3] = np.radians((11, 2, -7, -15)) * (spread - 0.45) * (1 - 0.8 * curl[1:])
    angles[0] = np.radians((-8 + 30 * curl[0], 5 + 38 * curl[0], 55 * curl[0], 14 * spread - 4))
    return angles


@functools.cache
def _mirror() -> tuple[np.ndarray, np.ndarray]:
    """The node whose angles each node takes when left and right change places, and the signs they get."""
    swapped, signs = [], []
    for node in RIG.nodes:
        side, _, name = node.partition("_")
        other = {"left": "right", "right": "left"}.get(side)
        swapped.append(RIG.index(f"{other}_{name}" if other else node))
        signs.append((1, 1, 1) if other else (1, -1, -1))
    return np.array(swapped), np.array(signs)


def _angles(text: str) -> np.ndarray:
    """Degrees `node=x,z,twist`, a node without its side meaning both, as radians (N, 3)."""
    pose = {node: value.split(",") for node, value in (entry.split("=") for entry in text.split())}
    angles = np.zeros((len(RIG.nodes), 3))
    for i, node in enumerate(RIG.nodes):
        value = pose.get(node) or pose.get(node.split("_")[-1], [])
        angles[i, : len(value)] = np.radians(np.array(value, dtype=float))
    return angles


@functools.cache
def _means() -> np.ndarray:
    return np.stack([_angles(pose) for _, pose, _ in _ACTIVITIES])


@functools.cache
def _swings() -> np.ndarray:
    return np.stack([_angles(swing) for _, _, swing in _ACTIVITIES])


_STRIDE = "shoulder=26 hip=28 knee=24 pelvis=0,0,6 chest=0,0,9"
_SPREAD = _angles(
    "pelvis=4,3,5 chest=5,4,8 thorax=5,4,8 neck=8,6,18 shoulder=14,11,14 elbow=18,0,25 wrist=14,7 "
    "hip=7,5,6 knee=8 ankle=6,0,4"
)
# A stride: the legs in opposite phase, each knee bent most while its thigh swings forward, arms opposed to legs.
_PHASES = _angles(
    "left_hip=180 right_hip=0 left_knee=90 right_knee=270 left_shoulder=0 right_shoulder=180 chest=0,0,180"
)
# How often, the pose, the amplitudes of its periodic part.
_ACTIVITIES = (
    (6, "shoulder=-3,12 elbow=-18 hip=-2,6,4 knee=5", ""),
    (4, "shoulder=5,16,-10 elbow=-32 hip=-2,8,6 knee=6", ""),
    (8, "shoulder=0,11 elbow=-25 hip=-9,2,2 knee=27", _STRIDE),
    (5, "pelvis=8 chest=9 shoulder=0,15,-10 elbow=-85 hip=-20,2 knee=55", "shoulder=40 hip=40 knee=40 chest=0,0,10"),
    (3, "shoulder=-28,20,-20 elbow=-80 hip=-2,6,4 knee=5", "elbow=18"),
    (
        3,
        "left_shoulder=-45,15,-10 left_elbow=-60 right_shoulder=0,12 right_elbow=-20 hip=-3,7,4 knee=6",
        "left_shoulder=15,8,10 left_elbow=25",
    ),
    (
        2,
        "left_shoulder=-20,85,45 left_elbow=-85 right_shoulder=0,12 right_elbow=-15 hip=-2,7,4 knee=5",
        "left_shoulder=0,15,20 left_elbow=20",
    ),
    (3, "shoulder=-120,70,10 elbow=-30 hip=-3,10,6 knee=8", "shoulder=25,15"),
    (3, "shoulder=0,90,15 elbow=-20 hip=0,16,8 knee=8", "shoulder=0,25"),
    (
        2,
        "left_shoulder=-145,22 left_elbow=-15 right_shoulder=5,25 right_elbow=-30 left_hip=2,6 right_hip=-10,12 "
        "right_knee=18",
        "",
    ),
    (3, "pelvis=10 chest=12 shoulder=-45,20 elbow=-45 hip=-60,18,12 knee=72 ankle=-15", ""),
    (2, "pelvis=15 chest=15 shoulder=-70,18 elbow=-30 hip=-105,24,14 knee=132 ankle=-24", ""),
    (
        2,
        "chest=-8 left_hip=-75,8 left_knee=20 right_hip=5,6 right_knee=12 left_shoulder=20,50 "
        "right_shoulder=-50,45 elbow=-50",
        "left_hip=22 left_knee=22",
    ),
    (2, "left_hip=-70,9,5 left_knee=85 right_hip=20,8 right_knee=35 chest=8 shoulder=-30,35 elbow=-55", ""),
    (
        2,
        "left_hip=-88,6 left_knee=92 right_hip=12,6 right_knee=92 right_ankle=35 chest=4 shoulder=-20,16 elbow=-50",
        "",
    ),
    (2, "shoulder=0,105,20 elbow=-20 hip=0,30,8 knee=8", "shoulder=0,30 hip=0,10"),
    (
        2,
        "chest=5,12,-20 left_shoulder=-10,110,50 left_elbow=-95 right_shoulder=-80,15 right_elbow=-15 left_hip=8,10 "
        "right_hip=-35,8 right_knee=40",
        "left_shoulder=20,15,20",
    ),
    (2, "shoulder=-55,26,-35 elbow=-118 hip=-25,16,8 knee=35 chest=10,0,15", "left_shoulder=25 left_elbow=30"),
    (2, "pelvis=35 chest=32 shoulder=-75,10 elbow=-12 hip=-30,7,4 knee=12 thorax=-8", "shoulder=12"),
    (2, "left_shoulder=-120,40 left_elbow=-80 right_shoulder=-40,25 right_elbow=-95 hip=-4,10,6 knee=10 neck=-12", ""),
    (2, "shoulder=20,32,-18 elbow=-95 hip=-2,9,6 knee=5", ""),
    (2, "shoulder=-85,12 elbow=-10 hip=-8,8,4 knee=14", "shoulder=10,8"),
    (2, "hip=-92,14,10 knee=88 shoulder=-25,14 elbow=-60 chest=6", ""),
    (1, "left_hip=-25,10 left_knee=110 right_hip=2,4 left_shoulder=20,30 right_shoulder=0,60 elbow=-30", ""),
    (1, "left_hip=5,48 right_hip=-4,8 left_knee=8 chest=0,-22 left_shoulder=0,60 right_shoulder=0,110", ""),
)
_WEIGHTS = np.array([weight for weight, _, _ in _ACTIVITIES], dtype=float)

# Curls of thumb, index, middle, ring and little finger, spread of the fingers.
_GESTURES = (
    ((0.1, 0.05, 0.05, 0.05, 0.05), 1.0),
    ((0.2, 0.12, 0.12, 0.14, 0.16), 0.4),
    ((0.25, 0.25, 0.3, 0.32, 0.34), 0.4),
    ((0.35, 0.35, 0.42, 0.45, 0.45), 0.3),
    ((0.4, 0.6, 0.65, 0.65, 0.6), 0.4),
    ((0.7, 0.95, 1.0, 1.0, 1.0), 0.0),
    ((0.7, 0.05, 0.95, 1.0, 1.0), 0.3),
    ((0.7, 0.05, 0.05, 0.95, 1.0), 1.2),
    ((0.7, 0.05, 0.05, 0.1, 0.95), 0.9),
    ((0.8, 0.05, 0.05, 0.08, 0.1), 1.0),
    ((0.0, 0.05, 0.05, 0.05, 0.05), 1.4),
    ((0.0, 0.9, 0.95, 1.0, 1.0), 0.0),
    ((0.0, 0.05, 0.95, 1.0, 0.1), 0.4),
    ((0.55, 0.5, 0.1, 0.12, 0.15), 0.8),
    ((0.45, 0.45, 0.5, 0.85, 0.9), 0.4),
    ((0.2, 0.4, 0.2, 0.15, 0.1), 0.6),
)
_FINGER_LOW = np.radians(((-15, -5, -10, -20), *[(-20, 0, 0, -18)] * 4))
_FINGER_HIGH = np.radians(((35, 55, 75, 25), *[(90, 108, 72, 18)] * 4))
