"""Poses in space as drawings: from the front and the side with axes in metres, one to be turned, and strips of frames.

Positions are relative to the root joint, in metres; x points right, y down, z away from the viewer.
"""

import dataclasses
import html
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from jaxpose.data.joints.skeletons import Skeleton

Pose = Float[np.ndarray, "k 3"]
Line = tuple[int, int]  # joints at its ends; a joint itself is a line to itself

YAW, PITCH = 40.0, 20.0  # degrees from which the turning view is seen at first
_SIDE, _GAP, _LEFT, _BELOW = 140, 16, 30, 34  # of one of two views, between them, and around them
_EDGE = 9  # a number so near to an end of its axis would be cut, or meet its neighbour's
_TURNED, _MARGIN = 320, 16
_CELL, _TALL, _RULER = 84, 120, 52
_STEPS = tuple(digit * 10.0**power for power in range(-3, 3) for digit in (1, 2, 5))  # metres
_REACH = 2.0  # what lies so many times further away than the truth does not make the rest small
_MINUS = "\N{MINUS SIGN}"


def front_and_side(truth: Pose, found: Pose, extent: "Extent", skeleton: Skeleton, *, label: str) -> str:
    """A pose over the true one, seen from the front and from the right, with equal scales, as SVG."""
    scale = _SIDE / extent.side
    parts = []
    for number, (across, title) in enumerate(((0, "front"), (2, "side, depth"))):
        left = _LEFT + number * (_SIDE + _GAP)
        origin = np.array((left + _SIDE / 2, _SIDE / 2)) - scale * extent.centre[[across, 1]]
        parts.append(_grid(left, origin, scale, extent.centre[[across, 1]], extent.side, upright=number == 0))
        parts.append(_drawn(_flat(truth, across), _flat(found, across), origin, scale, skeleton))
        parts.append(f'<text x="{left + _SIDE / 2:.0f}" y="{_SIDE + 29}">{title} (m)</text>')
    return _svg(2 * _SIDE + _GAP + _LEFT + 6, _SIDE + _BELOW, parts, label)


def strip(
    truths: Float[np.ndarray, "t k 3"],
    found: Float[np.ndarray, "t k 3"],
    captions: Sequence[str],
    extent: "Extent",
    skeleton: Skeleton,
    *,
    label: str,
) -> str:
    """Frames side by side from the front, each over the true pose, with a ruler, as SVG."""
    scale = min(_CELL, _TALL) / extent.side
    parts = []
    for number, (truth, pose, caption) in enumerate(zip(truths, found, captions, strict=True)):
        middle = np.array((_RULER + (number + 0.5) * _CELL, _TALL / 2))
        parts.append(_drawn(_flat(truth, 0), _flat(pose, 0), middle - scale * extent.centre[:2], scale, skeleton))
        parts.append(f'<text x="{middle[0]:.0f}" y="{_TALL + 14}">{caption}</text>')
    length = _step_below(extent.side / 2)
    top, bottom = _TALL / 2 - scale * length / 2, _TALL / 2 + scale * length / 2
    parts.append(f'<path class="rule" d="M40,{top:.1f}h6M43,{top:.1f}V{bottom:.1f}M40,{bottom:.1f}h6"/>')
    parts.append(f'<text class="end" x="36" y="{_TALL / 2 + 3:.0f}">{_number(length)} m</text>')
    return _svg(_RULER + _CELL * len(found), _TALL + 20, parts, label)


def turning(
    poses: Sequence[tuple[Pose, Sequence[Pose]]], skeleton: Skeleton, *, first: int, label: str
) -> tuple[str, str]:
    """A view to be turned by `turning.js`, as a still picture in SVG, and the JSON that it is turned by.

    Args:
      poses: the true one of each and those that the stages found.
      skeleton: of the poses.
      first: which of them is shown at first, as the last stage found it.
      label: what is shown.
    """
    layers = [("floor", 0, [(i, (i + 1) % 4) for i in range(4)]), ("truth", 1, lines(skeleton, joints=False))]
    layers += [(name, 2, of) for name, of in by_side(skeleton).items()]
    described = []
    for truth, found in poses:
        extent = Extent.of(truth, found)
        spread = _points_within(truth, found, extent)
        radius = float(np.linalg.norm(spread - extent.centre, axis=1).max(initial=1e-3))
        size = _step_below(1.4 * radius)
        ground = float(spread[:, 1].max(initial=0.0))
        corners = np.array([(x, 0.0, z) for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * (size / 2)
        floor = corners + np.array((extent.centre[0], ground, extent.centre[2]))
        described.append(
            {
                "scale": round((_TURNED / 2 - _MARGIN) / (1000 * radius), 5),  # units of the drawing in a millimetre
                "note": f"square: {_number(size)} m",
                "points": [_millimetres(points - extent.centre) for points in (floor, truth)],
                "found": [_millimetres(points - extent.centre) for points in found],
            }
        )
    shown = described[first]
    points = [*shown["points"], shown["found"][-1]]
    parts = [
        f'<path class="{name}" d="{_path(_seen(points[which], shown["scale"], YAW, PITCH), of)}"/>'
        for name, which, of in layers
    ]
    parts.append(f'<text class="end" x="{_TURNED - 4}" y="{_TURNED - 6}">{shown["note"]}</text>')
    data = {
        "yaw": YAW,
        "pitch": PITCH,
        "half": _TURNED / 2,
        "layers": [[which, of] for _, which, of in layers],
        "poses": described,
    }
    return _svg(_TURNED, _TURNED, parts, label), json.dumps(data, separators=(",", ":"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extent:
    """A cube around poses: its centre and side in metres."""

    centre: Float[np.ndarray, "3"]
    side: float

    @classmethod
    def of(cls, truth: np.ndarray, found: Iterable[np.ndarray]) -> "Extent":
        """Around true poses (..., K, 3) and what was found not far off them; around all of that, if none is true.

        A pose of which there is nothing has a cube of a centimetre.
        """
        known, others = _finite(truth), np.concatenate([_finite(points) for points in found])
        if len(known):
            middle = (known.max(axis=0) + known.min(axis=0)) / 2
            reach = _REACH * max(float(np.ptp(known, axis=0).max()), 0.01) / 2
            others = others[np.max(np.abs(others - middle), axis=1) <= reach]
        both = np.concatenate([known, others])
        if not len(both):
            return cls(centre=np.zeros(3), side=0.01)
        low, high = both.min(axis=0), both.max(axis=0)
        return cls(centre=(low + high) / 2, side=1.08 * max(float((high - low).max()), 0.01))


def by_side(skeleton: Skeleton) -> dict[str, list[Line]]:
    """Bones and joints by the class of their colour: `left`, `right`, `centre`; `sideless` where there are no sides."""
    sides = ["centre" if skeleton.flips else "sideless"] * len(skeleton)
    for pair in skeleton.flips:
        for joint, side in zip(skeleton.indices(pair).tolist(), ("left", "right"), strict=True):
            sides[joint] = side
    found: dict[str, list[Line]] = {side: [] for side in ("left", "right", "centre", "sideless")}
    for a, b in lines(skeleton):
        of = {sides[a], sides[b]} - {"centre"}
        found[of.pop() if len(of) == 1 else "centre"].append((a, b))
    return {side: of for side, of in found.items() if of}


def lines(skeleton: Skeleton, *, joints: bool = True) -> list[Line]:
    """Bones and, as lines to themselves, `joints`; always those that have no bone."""
    bones = [(a, b) for a, b in skeleton.bone_indices.tolist()]
    with_bone = {joint for bone in bones for joint in bone}
    return bones + [(k, k) for k in range(len(skeleton)) if joints or k not in with_bone]


def finite(points: np.ndarray) -> np.ndarray:
    """Which points (..., 3) are at some place."""
    return np.logical_and.reduce(np.isfinite(points), axis=-1)


def _drawn(truth: np.ndarray, found: np.ndarray, origin: np.ndarray, scale: float, skeleton: Skeleton) -> str:
    known, points = origin + scale * truth, origin + scale * found
    return f'<path class="truth" d="{_path(known, lines(skeleton, joints=False))}"/>' + "".join(
        f'<path class="{side}" d="{_path(points, of)}"/>' for side, of in by_side(skeleton).items()
    )


def _path(points: np.ndarray, of: Sequence[Line]) -> str:
    """The lines whose ends are known; what is absurdly far off is cut."""
    points = np.clip(points, -9999.0, 9999.0)
    known = finite(points)
    at = [f"{x:.1f},{y:.1f}" for x, y in np.where(known[:, None], points, 0.0)]
    return "".join(f"M{at[a]}L{at[b]}" for a, b in of if known[a] and known[b])


def _seen(points: Sequence[Sequence[int] | None], scale: float, yaw: float, pitch: float) -> np.ndarray:
    """Where points in millimetres are in the turning view; the same lines are in `turning.js`."""
    a, b = math.radians(yaw), math.radians(pitch)
    x, y, z = np.array([(math.nan,) * 3 if point is None else point for point in points], float).T
    depth = z * math.cos(a) - x * math.sin(a)
    return _TURNED / 2 + scale * np.stack(
        (x * math.cos(a) + z * math.sin(a), y * math.cos(b) - depth * math.sin(b)), axis=1
    )


def _grid(left: int, origin: np.ndarray, scale: float, centre: np.ndarray, side: float, *, upright: bool) -> str:
    """Lines at round numbers of metres from the root, with the numbers below and, of the first view, on the left."""
    step = _step_above(side / 5)
    parts = []
    for axis in (0, 1):
        low, high = centre[axis] - side / 2, centre[axis] + side / 2
        start = left if axis == 0 else 0
        for tick in range(math.ceil(low / step), math.floor(high / step) + 1):
            at, heavy = origin[axis] + scale * step * tick, ' class="zero"' if tick == 0 else ""
            numbered = start + _EDGE <= at <= start + _SIDE - _EDGE
            if axis == 0:
                parts.append(f'<path{heavy} d="M{at:.1f},0V{_SIDE}"/>')
                if numbered:
                    parts.append(f'<text x="{at:.1f}" y="{_SIDE + 14}">{_number(step * tick)}</text>')
            else:
                parts.append(f'<path{heavy} d="M{left},{at:.1f}h{_SIDE}"/>')
                if upright and numbered:  # up is positive to a reader
                    parts.append(f'<text class="end" x="{left - 4}" y="{at + 3:.1f}">{_number(-step * tick)}</text>')
    return f'<g class="grid">{"".join(parts)}</g>'


def _svg(width: int, height: int, parts: Iterable[str], label: str) -> str:
    title = html.escape(label)
    return f'<svg viewBox="0 0 {width} {height}" class="pose" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _flat(pose: np.ndarray, across: int) -> np.ndarray:
    return pose[:, [across, 1]]


def _finite(points: np.ndarray) -> np.ndarray:
    flat = np.asarray(points, float).reshape(-1, 3)
    return flat[finite(flat)]


def _points_within(truth: np.ndarray, found: Iterable[np.ndarray], extent: Extent) -> np.ndarray:
    points = np.concatenate([_finite(pose) for pose in (truth, *found)])
    return points[np.max(np.abs(points - extent.centre), axis=1) <= extent.side / 2 + 1e-6]


def _millimetres(points: np.ndarray) -> list[list[int] | None]:
    known = finite(points)
    whole = np.rint(1000 * np.clip(np.where(known[:, None], points, 0.0), -1e3, 1e3)).astype(int).tolist()
    return [point if there else None for point, there in zip(whole, known, strict=True)]


def _step_below(length: float) -> float:
    return max((step for step in _STEPS if step <= length), default=_STEPS[0])


def _step_above(length: float) -> float:
    return min((step for step in _STEPS if step >= length), default=_STEPS[-1])


def _number(metres: float) -> str:
    return f"{round(metres, 3) + 0.0:g}".replace("-", _MINUS)  # a negative zero becomes one
