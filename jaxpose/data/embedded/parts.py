"""What bodies and hands are made of: hulls of four spheres, fixed to the nodes of their rig."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxpose.data.embedded import kinematics

_Sphere = tuple[str, float, float, float, float]  # node, x, y, z, radius in metres


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """P parts, each the convex hull of spheres 0 and 1 at one end and 2 and 3 at the other.

    Attributes:
      nodes: node that carries each sphere, shape (P, 4).
      local: centre in the node's frame in metres, shape (P, 4, 3).
      radii: in metres, shape (P, 4).
      materials: index into the materials of `MATERIALS`, shape (P,).
      strokes: rows of (part, shade) in the order of drawing within a part, shape (Q, 2).
      capsules: pairs of spheres, as indices into P * 4, whose capsules fill the parts that hide joints, shape (C, 2).
      margins: how deep under a surface a joint of each node still counts as visible, in metres, shape (N,).
    """

    nodes: np.ndarray
    local: np.ndarray
    radii: np.ndarray
    materials: np.ndarray
    strokes: np.ndarray
    capsules: np.ndarray
    margins: np.ndarray


# Shades 0 to 2 are nested strokes from the rim to the highlight; 3 is a flat detail.
SHADES = 4
MATERIALS = {
    "body": ("skin", "hair", "shirt", "forearm", "trousers", "shin", "shoe", "trim", "eye", "lip", "nose"),
    "hand": ("skin", "palm", "nail", "sleeve"),
}


def _parts(kind: str, table: Iterable[tuple], margins: dict[str, float]) -> Parts:
    rig, rows = kinematics.RIGS[kind], list(table)
    spheres = [(*first, *last) if len(first) == 2 else (*first * 2, *last * 2) for _, first, last, _ in rows]
    capsules = []
    for i, (_, first, _, shades) in enumerate(rows):
        if shades == "solid":
            ends = ((0, 2), (1, 3), (0, 3), (1, 2), (0, 1)) if len(first) == 2 else ((0, 2),)
            capsules += [(4 * i + a, 4 * i + b) for a, b in ends]
    levels = {"solid": (0, 1, 2), "plain": (0, 1), "flat": (3,)}
    return Parts(
        nodes=np.array([[rig.index(sphere[0]) for sphere in hull] for hull in spheres]),
        local=np.array([[sphere[1:4] for sphere in hull] for hull in spheres]),
        radii=np.array([[sphere[4] for sphere in hull] for hull in spheres]),
        materials=np.array([MATERIALS[kind].index(row[0]) for row in rows]),
        strokes=np.array([(i, shade) for i, row in enumerate(rows) for shade in levels[row[3]]]),
        capsules=np.array(capsules),
        margins=np.array([margins.get(n, margins.get(n.split("_")[-1], 0.0)) for n in rig.nodes]),
    )


def _body() -> Iterable[tuple]:
    def pair(node: str, x: float, y: float, z: float, radius: float) -> tuple[_Sphere, _Sphere]:
        return (node, x, y, z, radius), (node, -x, y, z, radius)

    def one(node: str, x: float, y: float, z: float, radius: float) -> tuple[_Sphere]:
        return ((node, x, y, z, radius),)

    yield "trousers", pair("chest", 0.065, 0.10, 0, 0.098), pair("pelvis", 0.075, -0.01, 0, 0.098), "solid"
    yield "shirt", pair("chest", 0.125, 0.42, 0, 0.075), pair("chest", 0.070, 0.10, 0, 0.105), "solid"
    yield "trim", one("chest", 0, 0.44, 0.075, 0.014), one("chest", 0, 0.10, 0.105, 0.014), "flat"
    yield "skin", pair("chest", 0.045, 0.49, 0.035, 0.014), pair("chest", 0.006, 0.40, 0.078, 0.012), "flat"
    yield "trim", one("chest", 0.06, 0.36, 0.082, 0.02), one("chest", 0.09, 0.36, 0.08, 0.02), "flat"
    yield "skin", one("thorax", 0, 0.02, 0.004, 0.05), one("neck", 0, 0.02, 0, 0.048), "solid"
    yield "hair", one("neck", 0, 0.13, -0.012, 0.094), one("neck", 0, 0.07, -0.022, 0.078), "solid"
    yield "skin", one("neck", 0, 0.11, 0.030, 0.074), one("neck", 0, 0.045, 0.036, 0.052), "solid"
    yield "nose", one("neck", 0, 0.10, 0.106, 0.012), one("neck", 0, 0.075, 0.113, 0.017), "flat"
    yield "lip", one("neck", 0.022, 0.042, 0.088, 0.010), one("neck", -0.022, 0.042, 0.088, 0.010), "flat"
    for side, s in (("left", 1), ("right", -1)):

        def limb(joint: str, side: str = side) -> str:
            return f"{side}_{joint}"

        yield (
            "eye",
            one("neck", s * 0.034, 0.115, 0.094, 0.015),
            one("neck", s * 0.034, 0.11, 0.094, 0.015),
            "flat",
        )
        yield "shirt", one(limb("shoulder"), 0, 0, 0, 0.062), one(limb("elbow"), 0, 0, 0, 0.045), "solid"
        yield "forearm", one(limb("elbow"), 0, 0, 0, 0.043), one(limb("wrist"), 0, 0, 0, 0.031), "solid"
        yield (
            "skin",
            one(limb("wrist"), 0, -0.03, 0, 0.034),
            one(limb("wrist"), 0, -0.12, 0.01, 0.026),
            "solid",
        )
        yield (
            "skin",
            one(limb("wrist"), 0, -0.03, 0.02, 0.016),
            one(limb("wrist"), 0, -0.085, 0.055, 0.013),
            "flat",
        )
        yield "trousers", one(limb("hip"), 0, 0, 0, 0.088), one(limb("knee"), 0, 0, 0, 0.060), "solid"
        yield "shin", one(limb("knee"), 0, 0, 0, 0.057), one(limb("ankle"), 0, 0.02, 0, 0.040), "solid"
        yield (
            "shoe",
            one(limb("ankle"), 0, -0.035, -0.035, 0.045),
            one(limb("ankle"), s * 0.015, -0.05, 0.15, 0.032),
            "solid",
        )


def _hand() -> Iterable[tuple]:
    def one(node: str, radius: float, z: float = 0.0, y: float = 0.0, x: float = 0.0) -> tuple[_Sphere]:
        return ((node, x, y, z, radius),)

    yield "skin", one("forearm", 0.026), one("forearm", 0.031, y=-0.07), "solid"
    yield "sleeve", one("forearm", 0.034, y=-0.06), one("forearm", 0.042, y=-0.30), "solid"
    heel = (("wrist", 0.017, 0.012, 0.0, 0.015), ("wrist", -0.017, 0.012, 0.0, 0.015))
    yield "skin", (*one("index_mcp", 0.0125), *one("little_mcp", 0.0115)), heel, "solid"
    pad = tuple((node, x, y, 0.006, 0.011) for node, x, y, *_ in heel)
    knuckles = (*one("index_mcp", 0.009, z=0.007, y=-0.006), *one("little_mcp", 0.008, z=0.007, y=-0.006))
    yield "palm", knuckles, pad, "plain"
    yield "skin", one("thumb_cmc", 0.016), one("thumb_mcp", 0.0115), "solid"
    yield "palm", one("thumb_cmc", 0.012, z=0.006), one("thumb_mcp", 0.0085, z=0.005), "flat"
    sizes = {"thumb": 0.0112, "index": 0.0096, "middle": 0.0098, "ring": 0.0093, "little": 0.0082}
    for finger, radius in sizes.items():
        chain = ("mcp", "ip", "tip") if finger == "thumb" else ("mcp", "pip", "dip", "tip")
        for start, end in zip(chain[:-1], chain[1:], strict=True):
            a, b = f"{finger}_{start}", f"{finger}_{end}"
            yield "skin", one(a, radius), one(b, 0.92 * radius), "solid"
            yield (
                "palm",
                one(a, 0.72 * radius, z=0.35 * radius),
                one(b, 0.66 * radius, z=0.35 * radius),
                "flat",
            )
            radius *= 0.93
        nail = f"{finger}_tip"
        yield (
            "nail",
            one(nail, 0.55 * radius, z=-0.6 * radius, y=-0.008),
            one(nail, 0.55 * radius, z=-0.6 * radius),
            "flat",
        )


_BODY_MARGINS = {
    "pelvis": 0.30,
    "thorax": 0.16,
    "neck": 0.14,
    "head_top": 0.10,
    "shoulder": 0.12,
    "elbow": 0.08,
    "wrist": 0.06,
    "hip": 0.15,
    "knee": 0.10,
    "ankle": 0.08,
}
_HAND_MARGINS = {
    "wrist": 0.04,
    "cmc": 0.022,
    "mcp": 0.019,
    "pip": 0.015,
    "dip": 0.014,
    "ip": 0.016,
    "tip": 0.014,
}
PARTS = {"body": _parts("body", _body(), _BODY_MARGINS), "hand": _parts("hand", _hand(), _HAND_MARGINS)}
