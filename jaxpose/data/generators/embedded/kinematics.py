"""Articulated rigs with anatomical joint limits, and their forward kinematics.

Every node turns by a swing about an axis across its bone and a twist along it. Angles are (swing x, swing z, twist)
in radians. A body stands along y, x is the person's left, z the front; a right hand points along y, x is its thumb's
side, z where the palm looks. Nodes of the right side of a body are given as their mirror images: the same angles on
both sides are a symmetric pose.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rig:
    """A tree of N nodes, parents before children.

    Attributes:
      nodes: names.
      parents: parent of each node, -1 for the root, shape (N,).
      offsets: position in the parent's frame in metres, shape (N, 3).
      rest: orientation in the parent's frame when all angles are zero, shape (N, 3, 3).
      lower: smallest angles, shape (N, 3).
      upper: largest angles, shape (N, 3).
      cone: largest swing, shape (N,).
      groups: nodes of one group share a proportion, shape (N,).
      coupled: rows of (node, angle, driver): the angle follows the driver's.
      ratios: how far a coupled angle follows.
      sides: -1 where the angles are mirrored, otherwise 1, shape (N,).
      levels: nodes by distance from the root, the root left out.
    """

    nodes: tuple[str, ...]
    parents: np.ndarray
    offsets: np.ndarray
    rest: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    cone: np.ndarray
    groups: np.ndarray
    coupled: np.ndarray
    ratios: np.ndarray
    sides: np.ndarray
    levels: tuple[np.ndarray, ...]

    def index(self, node: str) -> int:
        """The position of a node by its name."""
        return self.nodes.index(node)


def clamp(rig: Rig, angles: np.ndarray) -> np.ndarray:
    """The nearest angles within the limits, coupled angles following their drivers; shape (..., N, 3)."""
    node, angle, driver = rig.coupled.T
    angles = angles.copy()
    angles[..., node, angle] = rig.ratios * np.clip(
        angles[..., driver, angle], rig.lower[driver, angle], rig.upper[driver, angle]
    )
    angles = np.clip(angles, rig.lower, rig.upper)
    swing = np.hypot(angles[..., 0], angles[..., 1])
    angles[..., :2] *= np.minimum(1.0, rig.cone / np.maximum(swing, 1e-9))[..., None]
    return angles


def forward(rig: Rig, angles: np.ndarray, offsets: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, N, 3) relative to the root and orientations (T, N, 3, 3) of all nodes.

    Args:
      rig: the tree.
      angles: shape (T, N, 3).
      offsets: the person's own offsets in metres, shape (N, 3).
      root: orientation of the frame in which the root turns, shape (T, 3, 3).
    """
    turned = np.stack((angles[..., 0], rig.sides * angles[..., 1], rig.sides * angles[..., 2]))
    orientations = rig.rest @ swing_twist(*turned)
    positions = np.zeros(angles.shape)
    orientations[:, 0] = root @ orientations[:, 0]
    for nodes in rig.levels:
        parents = rig.parents[nodes]
        frame = orientations[:, parents]
        positions[:, nodes] = positions[:, parents] + (frame @ offsets[nodes, :, None])[..., 0]
        orientations[:, nodes] = frame @ orientations[:, nodes]
    return positions, orientations


def swing_twist(x: np.ndarray, z: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3): a twist about y, then a swing by the rotation vector (x, 0, z)."""
    angle = np.sqrt(x * x + z * z) + 1e-12
    cos, s = np.cos(angle), np.sin(angle) / angle
    c = (1 - cos) / angle**2
    first = np.stack((cos + c * x * x, s * z, c * x * z), axis=-1)
    second = np.stack((-s * z, cos, s * x), axis=-1)
    third = np.stack((c * x * z, -s * x, cos + c * z * z), axis=-1)
    cos_twist, sin_twist = np.cos(twist)[..., None], np.sin(twist)[..., None]
    columns = (cos_twist * first - sin_twist * third, second, sin_twist * first + cos_twist * third)
    return np.stack(columns, axis=-1)


def _rig(rows: list[tuple], coupled: list[tuple[str, int, str, float]], rest: dict | None = None) -> Rig:
    nodes = tuple(row[0] for row in rows)
    parents = np.array([nodes.index(row[1]) if row[1] else -1 for row in rows])
    depth = np.zeros(len(rows), dtype=int)
    for i, parent in enumerate(parents[1:], start=1):
        depth[i] = depth[parent] + 1
    limits = np.radians([row[3] for row in rows]).reshape(-1, 3, 2)
    names = sorted({row[4] for row in rows})
    return Rig(
        nodes=nodes,
        parents=parents,
        offsets=np.array([row[2] for row in rows], dtype=float),
        rest=np.stack([np.eye(3) if rest is None else rest.get(node, np.eye(3)) for node in nodes]),
        lower=limits[..., 0],
        upper=limits[..., 1],
        cone=np.radians([_CONES.get(node.split("_")[-1], 180.0) for node in nodes]),
        groups=np.array([names.index(row[4]) for row in rows]),
        coupled=np.array([(nodes.index(n), angle, nodes.index(d)) for n, angle, d, _ in coupled]),
        ratios=np.array([ratio for *_, ratio in coupled]),
        sides=np.array([-1 if node.startswith("right_") else 1 for node in nodes]),
        levels=tuple(np.flatnonzero(depth == d) for d in range(1, depth.max() + 1)),
    )


_CONES = {"shoulder": 170.0, "hip": 120.0}
_FIXED = ((0, 0), (0, 0), (0, 0))


def _body() -> Rig:
    # name, parent, offset in metres, limits in degrees of (swing x, swing z, twist), group. The head and trunk lean
    # forward with positive x; arms and thighs, which hang, with negative x.
    rows: list[tuple] = [
        ("pelvis", "", (0, 0, 0), ((-30, 50), (-30, 30), (-25, 25)), "trunk"),
        ("chest", "pelvis", (0, 0, 0), ((-22, 60), (-28, 28), (-35, 35)), "trunk"),
        ("thorax", "chest", (0, 0.50, 0), ((-15, 25), (-15, 15), (-30, 30)), "trunk"),
        ("neck", "thorax", (0, 0.09, 0.01), ((-25, 25), (-15, 15), (-40, 40)), "head"),
        ("head_top", "neck", (0, 0.225, 0), _FIXED, "head"),
    ]
    limbs = (
        ("clavicle", "chest", (0, 0.50, 0), ((0, 0), (-5, 22), (0, 0)), "trunk"),
        ("shoulder", "clavicle", (0.185, -0.03, 0), ((-170, 45), (-35, 170), (-80, 60)), "girdle"),
        ("elbow", "shoulder", (0, -0.29, 0), ((-145, 0), (0, 0), (-70, 70)), "arm"),
        ("wrist", "elbow", (0, -0.26, 0), ((-50, 50), (-20, 20), (0, 0)), "arm"),
        ("hip", "pelvis", (0.10, 0, 0), ((-120, 25), (-20, 50), (-35, 40)), "girdle"),
        ("knee", "hip", (0, -0.43, 0), ((0, 145), (0, 0), (0, 0)), "leg"),
        ("ankle", "knee", (0, -0.42, 0), ((-25, 45), (0, 0), (-15, 15)), "leg"),
    )
    for side, sign in (("left", 1), ("right", -1)):
        for name, parent, (x, y, z), limits, group in limbs:
            parent = parent if parent in ("chest", "pelvis") else f"{side}_{parent}"
            rows.append((f"{side}_{name}", parent, (sign * x, y, z), limits, group))
    return _rig(rows, [(f"{s}_clavicle", 1, f"{s}_shoulder", 0.13) for s in ("left", "right")])


def _hand() -> Rig:
    rows: list[tuple] = [
        ("wrist", "", (0, 0, 0), _FIXED, "palm"),
        ("forearm", "wrist", (0, 0, 0), ((-45, 45), (-20, 20), (0, 0)), "palm"),
        ("thumb_cmc", "wrist", (0.022, 0.022, 0.008), ((-15, 35), (-20, 25), (-10, 25)), "palm"),
        ("thumb_mcp", "thumb_cmc", (0, 0.043, 0), ((-5, 55), (0, 0), (0, 0)), "thumb"),
        ("thumb_ip", "thumb_mcp", (0, 0.034, 0), ((-10, 75), (0, 0), (0, 0)), "thumb"),
        ("thumb_tip", "thumb_ip", (0, 0.027, 0), _FIXED, "thumb"),
    ]
    fingers = (
        ("index", (0.027, 0.090, 0.002), (0.043, 0.026, 0.022), -6),
        ("middle", (0.005, 0.094, -0.002), (0.048, 0.030, 0.023), 0),
        ("ring", (-0.015, 0.088, 0.000), (0.044, 0.028, 0.023), 5),
        ("little", (-0.033, 0.077, 0.004), (0.034, 0.021, 0.020), 11),
    )
    rest = {"thumb_cmc": _frame(along=(0.58, 0.76, 0.30), front=(-0.60, 0.10, 0.80))}
    for finger, base, (proximal, middle, distal), splay in fingers:
        rest[f"{finger}_mcp"] = swing_twist(*np.radians(((0,), (splay,), (0,))))[0]
        rows += [
            (f"{finger}_mcp", "wrist", base, ((-20, 90), (-16, 16), (0, 0)), "palm"),
            (f"{finger}_pip", f"{finger}_mcp", (0, proximal, 0), ((0, 105), (0, 0), (0, 0)), finger),
            (f"{finger}_dip", f"{finger}_pip", (0, middle, 0), ((0, 72), (0, 0), (0, 0)), finger),
            (f"{finger}_tip", f"{finger}_dip", (0, distal, 0), _FIXED, finger),
        ]
    return _rig(rows, [(f"{f[0]}_dip", 0, f"{f[0]}_pip", 0.65) for f in fingers], rest)


def _frame(*, along: tuple[float, ...], front: tuple[float, ...]) -> np.ndarray:
    y = np.array(along) / np.linalg.norm(along)
    z = np.array(front) - y * (y @ front)
    z /= np.linalg.norm(z)
    return np.stack((np.cross(y, z), y, z), axis=1)


RIGS = {"body": _body(), "hand": _hand()}
