"""What bodies and hands are made of: hulls of four spheres, fixed to the nodes of their rig."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from jaxpose.data.generators.embedded import kinematics


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


MATERIALS = {
    "body": ("skin", "hair", "shirt", "forearm", "trousers", "shin", "shoe", "trim", "eye", "lip", "nose"),
    "hand": ("skin", "palm", "nail", "sleeve"),
}


def _parts(kind: str, rows: Iterable[str], margins: str) -> Parts:
    rig = kinematics.RIGS[kind]
    materials, strokes, spheres, capsules = [], [], [], []
    for i, row in enumerate(rows):
        material, shades, ends = row.split(maxsplit=2)
        first, last = (_end(end) for end in ends.split(";"))
        materials.append(MATERIALS[kind].index(material))
        strokes += [(i, shade) for shade in _STROKES[shades]]
        spheres.append((*first, *last))
        if shades == "solid":
            lines = ((0, 2),) if first[0] == first[1] else ((0, 2), (1, 3), (0, 3), (1, 2), (0, 1))
            capsules += [(4 * i + a, 4 * i + b) for a, b in lines]
    margin = {node: float(value) for node, value in (entry.split("=") for entry in margins.split())}
    numbers = np.array([[sphere[1:] for sphere in part] for part in spheres])
    return Parts(
        nodes=np.array([[rig.index(sphere[0]) for sphere in part] for part in spheres]),
        local=numbers[..., :3],
        radii=numbers[..., 3],
        materials=np.array(materials),
        strokes=np.array(strokes),
        capsules=np.array(capsules),
        margins=np.array([margin.get(node, margin.get(node.split("_")[-1], 0.0)) for node in rig.nodes]),
    )


def _end(text: str) -> list[tuple]:
    """Two spheres: as given, a mirrored pair where x carries ±, or one twice."""
    spheres = []
    for sphere in text.split("&"):
        node, x, *rest = sphere.split()
        signs = (1, -1) if x.startswith("±") else (1,)
        spheres += [(node, sign * float(x.lstrip("±")), *map(float, rest)) for sign in signs]
    return spheres if len(spheres) == 2 else 2 * spheres


def _body() -> Iterator[str]:
    yield from _TRUNK
    for side, sign in (("left", ""), ("right", "-")):
        for row in _LIMBS:
            yield row.replace("@", f"{side}_").replace("~", sign)


def _hand() -> Iterator[str]:
    yield from _PALM
    for finger, thickness in (("thumb", 11.2), ("index", 9.6), ("middle", 9.8), ("ring", 9.3), ("little", 8.2)):
        chain = ("mcp", "ip", "tip") if finger == "thumb" else ("mcp", "pip", "dip", "tip")
        radius = thickness / 1000
        for start, end in itertools.pairwise(f"{finger}_{joint}" for joint in chain):
            pad = 0.35 * radius
            yield f"skin solid {start} 0 0 0 {radius}; {end} 0 0 0 {0.92 * radius}"
            yield f"palm flat {start} 0 0 {pad} {0.72 * radius}; {end} 0 0 {pad} {0.66 * radius}"
            radius *= 0.93
        nail = f"{-0.6 * radius} {0.55 * radius}"
        yield f"nail flat {finger}_tip 0 -0.008 {nail}; {finger}_tip 0 0 {nail}"


# Shades 0 to 2 are nested strokes from the rim to the highlight; 3 is a flat detail.
_STROKES = {"solid": (0, 1, 2), "plain": (0, 1), "flat": (3,)}

# Material, shades; both ends as node, x, y, z, radius in metres. ± makes a mirrored pair, & joins two spheres.
_TRUNK = (
    "trousers solid chest ±0.065 0.10 0 0.098; pelvis ±0.075 -0.01 0 0.098",
    "shirt solid chest ±0.125 0.42 0 0.075; chest ±0.070 0.10 0 0.105",
    "trim flat chest 0 0.44 0.075 0.014; chest 0 0.10 0.105 0.014",
    "skin flat chest ±0.045 0.49 0.035 0.014; chest ±0.006 0.40 0.078 0.012",
    "trim flat chest 0.06 0.36 0.082 0.020; chest 0.09 0.36 0.080 0.020",
    "skin solid thorax 0 0.02 0.004 0.050; neck 0 0.02 0 0.048",
    "hair solid neck 0 0.13 -0.012 0.094; neck 0 0.07 -0.022 0.078",
    "skin solid neck 0 0.11 0.030 0.074; neck 0 0.045 0.036 0.052",
    "nose flat neck 0 0.10 0.106 0.012; neck 0 0.075 0.113 0.017",
    "lip flat neck 0.022 0.042 0.088 0.010; neck -0.022 0.042 0.088 0.010",
)
_LIMBS = (  # @ is the side, ~ its sign
    "eye flat neck ~0.034 0.115 0.094 0.015; neck ~0.034 0.110 0.094 0.015",
    "shirt solid @shoulder 0 0 0 0.062; @elbow 0 0 0 0.045",
    "forearm solid @elbow 0 0 0 0.043; @wrist 0 0 0 0.031",
    "skin solid @wrist 0 -0.03 0 0.034; @wrist 0 -0.12 0.010 0.026",
    "skin flat @wrist 0 -0.03 0.020 0.016; @wrist 0 -0.085 0.055 0.013",
    "trousers solid @hip 0 0 0 0.088; @knee 0 0 0 0.060",
    "shin solid @knee 0 0 0 0.057; @ankle 0 0.02 0 0.040",
    "shoe solid @ankle 0 -0.035 -0.035 0.045; @ankle ~0.015 -0.050 0.150 0.032",
)
_PALM = (
    "skin solid forearm 0 0 0 0.026; forearm 0 -0.07 0 0.031",
    "sleeve solid forearm 0 -0.06 0 0.034; forearm 0 -0.30 0 0.042",
    "skin solid index_mcp 0 0 0 0.0125 & little_mcp 0 0 0 0.0115; wrist ±0.017 0.012 0 0.015",
    "palm plain index_mcp 0 -0.006 0.007 0.009 & little_mcp 0 -0.006 0.007 0.008; wrist ±0.017 0.012 0.006 0.011",
    "skin solid thumb_cmc 0 0 0 0.016; thumb_mcp 0 0 0 0.0115",
    "palm flat thumb_cmc 0 0 0.006 0.012; thumb_mcp 0 0 0.005 0.0085",
)

PARTS = {
    "body": _parts(
        "body",
        _body(),
        """
        pelvis=0.30 thorax=0.16 neck=0.14 head_top=0.10 shoulder=0.12 elbow=0.08 wrist=0.06 hip=0.15
        knee=0.10 ankle=0.08
        """,
    ),
    "hand": _parts("hand", _hand(), "wrist=0.04 cmc=0.022 mcp=0.019 pip=0.015 dip=0.014 ip=0.016 tip=0.014"),
}
