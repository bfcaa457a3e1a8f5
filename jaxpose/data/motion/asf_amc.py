"""Acclaim skeletons (ASF) and their motions (AMC), the CMU database's own format."""

import collections
import dataclasses
import os
import re
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from jaxpose import untrusted
from jaxpose.data.motion import kinematics
from jaxpose.data.records import Motion

INCH = 0.0254  # metres
CMU_RATE = 120.0  # frames per second; AMC files do not state theirs. A few trials of subjects 60 and 61 have 60


def read(
    skeleton: str | os.PathLike | bytes,
    motion: str | os.PathLike | bytes,
    *,
    rate: float = CMU_RATE,
    unit: float = INCH,
    name: str = "",
    subject: str = "",
) -> Motion:
    """The far ends of the bones over time, in metres with z up; `root` is the first joint.

    A bone turns its children and itself: its orientation is its parent's, times C R C^-1, where C turns by the
    `axis` of the ASF and R by the angles of the AMC. Rotations are about fixed axes, in the order that the axis
    states: XYZ is Rz Ry Rx. Limits of the degrees of freedom are not applied. The files' y axis is up and becomes
    z; x stays.

    Args:
      skeleton: an ASF, as a path or as bytes.
      motion: an AMC, as a path or as bytes.
      rate: frames per second.
      unit: metres per unit of length after division by the ASF's `length` scale: CMU's files are in inches times
        0.45.
      name: for messages; empty: the AMC's file.
      subject: who moves; empty: what stands before `_` in a CMU file name.

    Raises:
      FileNotFoundError: if one of the files does not exist.
      ValueError: if one is malformed or the two do not fit.
    """
    rig, where = kinematics.content(skeleton, "")
    frames, name = kinematics.content(motion, name)
    with untrusted.reading(f"{where} (ASF)", "an Acclaim skeleton"):
        bones, scale, degrees = _skeleton(rig.decode("utf-8", errors="replace"), f"{where} (ASF)")
    with untrusted.reading(f"{name} (AMC)", "the motion of the skeleton"):
        values = _frames(frames.decode("utf-8", errors="replace"), bones, f"{name} (AMC)")
        kinematics.check_size(len(values[bones[0].name]), len(bones), len(frames))
    count = len(values[bones[0].name])
    parents = [bone.parent for bone in bones]
    offsets = np.empty((count, len(bones), 3))
    rotations = np.empty((count, len(bones), 3, 3))
    for index, bone in enumerate(bones):
        axis = Rotation.from_euler(bone.order, bone.axis, degrees=degrees)
        turn = axis * Rotation.from_euler(bone.order, _angles(bone, values[bone.name]), degrees=degrees) * axis.inv()
        rotations[:, index] = turn.as_matrix()
        offsets[:, index] = bone.offset
        for letter, column in zip("xyz", offsets[:, index].T, strict=True):
            if f"t{letter}" in bone.dof:
                column += values[bone.name][:, bone.dof.index(f"t{letter}")]
    # A bone's own turn moves its far end, so the offset counts in its own frame, not in its parent's.
    offsets[:, 1:] = np.einsum("tkij,tkj->tki", rotations[:, 1:], offsets[:, 1:])
    with np.errstate(all="ignore"):  # checked in the end
        positions = kinematics.forward(parents, offsets, rotations) * (unit / scale)
        positions = kinematics.in_metres(positions @ kinematics.Y_UP_TO_Z_UP.T, name)
    match = re.match(r"(\d+)_\d+", os.path.basename(name))
    return Motion(
        name=name,
        joints=tuple(bone.name for bone in bones),
        positions=positions,
        rate=rate,
        subject=subject or (match[1] if match else ""),
    )


@dataclasses.dataclass
class _Bone:
    name: str
    offset: np.ndarray  # from its near to its far end; of the root: its position
    axis: list[float]
    order: str  # lower case: rotations about fixed axes, the first one first
    dof: list[str]
    parent: int = -1


def _skeleton(text: str, where: str) -> tuple[list[_Bone], float, bool]:
    """The bones, parents first; the scale of lengths; whether angles are in degrees."""
    sections = {
        match[1].lower(): match[2] for match in re.finditer(r"^[ \t]*:(\w+)([^:]*)", _clean(text), re.MULTILINE)
    }
    if missing := [name for name in ("root", "bonedata", "hierarchy") if name not in sections]:
        raise ValueError(f"{where}: no section :{', :'.join(missing)}, expected an ASF")
    units = _fields(sections.get("units", ""))
    try:
        scale = _numbers(units.get("length", ["1"]), 1)[0]
        bones = {"root": _root(_fields(sections["root"]))}
        for block in re.split(r"\bbegin\b", sections["bonedata"])[1:]:
            bone = _bone(_fields(re.split(r"\bend\b", block, maxsplit=1)[0]))
            bones[bone.name] = bone
    except KeyError as error:
        raise ValueError(f"{where}: a bone or the root lacks {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not scale > 0:
        raise ValueError(f"{where}: length scale {scale}, expected more than 0")
    ordered = _ordered(bones, sections["hierarchy"], where)
    return ordered, scale, not "".join(units.get("angle", [])).lower().startswith("rad")


def _clean(text: str) -> str:
    return re.sub(r"#.*", "", text)


def _fields(text: str) -> dict[str, list[str]]:
    """The words after the first one of each line, by the first one."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0].lower(): row[1:] for row in rows if row}


def _numbers(words: list[str], count: int) -> list[float]:
    values = [float(word) for word in words[:count]]
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"found {' '.join(words)!r}, expected {count} numbers")
    return values


def _order(words: list[str]) -> str:
    order = "".join(words).lower()
    if sorted(order) != ["x", "y", "z"]:
        raise ValueError(f"found axis order {' '.join(words)!r}, expected one such as XYZ")
    return order


def _root(fields: dict[str, list[str]]) -> _Bone:
    return _Bone(
        name="root",
        offset=np.array(_numbers(fields.get("position", ["0"] * 3), 3)),
        axis=_numbers(fields.get("orientation", ["0"] * 3), 3),
        order=_order(fields["axis"]),
        dof=[word.lower() for word in fields["order"]],
    )


def _bone(fields: dict[str, list[str]]) -> _Bone:
    return _Bone(
        name="".join(fields["name"]),
        offset=np.array(_numbers(fields["direction"], 3)) * _numbers(fields["length"], 1)[0],
        axis=_numbers(fields["axis"], 3),
        order=_order(fields["axis"][3:]),
        dof=[word.lower() for word in fields.get("dof", [])],
    )


def _ordered(bones: dict[str, _Bone], hierarchy: str, where: str) -> list[_Bone]:
    """The bones with their parents' places, parents first."""
    children: dict[str, list[str]] = {}
    for line in hierarchy.splitlines():
        words = line.split()
        if words and words[0] not in ("begin", "end"):
            children.setdefault(words[0], []).extend(words[1:])
    named = [name for family in children.items() for name in (family[0], *family[1])]
    if unknown := sorted(set(named) - set(bones)):
        raise ValueError(f"{where}: the hierarchy names {', '.join(unknown)}; expected bones of :bonedata")
    ordered, waiting = [], collections.deque([("root", -1)])
    while waiting:
        name, parent = waiting.popleft()
        if len(ordered) == len(bones):
            raise ValueError(f"{where}: the hierarchy names {name} twice, expected a tree")
        ordered.append(dataclasses.replace(bones[name], parent=parent))
        waiting += [(child, len(ordered) - 1) for child in children.get(name, [])]
    if len(ordered) != len(bones):
        lost = sorted(set(bones) - {bone.name for bone in ordered})
        raise ValueError(f"{where}: the hierarchy leaves out {', '.join(lost)}")
    return ordered


def _frames(text: str, bones: list[_Bone], where: str) -> dict[str, np.ndarray]:
    """The values of each bone's degrees of freedom, shape (T, dof)."""
    sizes = {bone.name: len(bone.dof) for bone in bones}
    moving = {name for name, size in sizes.items() if size}
    values: dict[str, list[list[str]]] = {name: [] for name in sizes}
    count = 0
    for words in _rows(text):
        if len(words) == 1 and words[0].isdigit():
            count += 1
            continue
        bone = words[0]
        if bone not in moving or len(words) != sizes[bone] + 1 or len(values[bone]) != count - 1:
            expected = "one line per frame" if bone in moving and len(words) == sizes[bone] + 1 else "a bone's values"
            raise ValueError(f"{where}: frame {count}: found {' '.join(words)[:60]!r}, expected {expected}")
        values[bone].append(words[1:])
    short = sorted(name for name in moving if len(values[name]) != count)
    if short or not count:
        raise ValueError(f"{where}: {count} frames, of which {', '.join(short) or 'none'} lacks some")
    try:
        arrays = {name: np.array(rows or [[]] * count, dtype=np.float64) for name, rows in values.items()}
    except ValueError as error:
        raise ValueError(f"{where}: {error}, expected numbers") from None
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{where}: holds numbers that are not finite")
    return arrays


def _rows(text: str) -> Iterator[list[str]]:
    for line in _clean(text).splitlines():
        words = line.split()
        if words and not words[0].startswith(":"):
            yield words


def _angles(bone: _Bone, values: np.ndarray) -> np.ndarray:
    """The bone's angles in the order of its axis, shape (T, 3); 0 where it has no such freedom."""
    angles = np.zeros((len(values), 3))
    for place, letter in enumerate(bone.order):
        if f"r{letter}" in bone.dof:
            angles[:, place] = values[:, bone.dof.index(f"r{letter}")]
    return angles
