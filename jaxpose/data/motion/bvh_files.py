"""Folders and archives of BVH files of one convention, in canonical joints."""

import collections
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import files
from jaxpose.data.motion import bvh, kinematics, rigs, source
from jaxpose.data.records import Motion, Note

UNITS = {"cmu": bvh.CMU_UNIT, "bandai": bvh.BANDAI_UNIT}


def read(
    path: str | os.PathLike,
    *,
    rig: str | None = None,
    unit: float | None = None,
    up: str | None = None,
) -> tuple[list[Motion], tuple[Note, ...]]:
    """The motions of the `.bvh` files below a folder or in a tar, which may be compressed, and what was left out.

    Names are paths without suffix. The subject is the number before the trial's in CMU's names, `07_01.bvh`.

    Args:
      path: a folder, a tar, or one `.bvh` file.
      rig: whose conventions the files have, `cmu` (inches times 0.45, frame 0 may be a T-pose) or `bandai`
        (centimetres). None: those of the data set that the joints have the names of, if legs are as long as legs are.
      unit: metres per unit of the files, where that is another one.
      up: the files' axis that is up. None: y, if people mostly are upright along it.

    Raises:
      FileNotFoundError: if `path` does not exist.
      ValueError: if no file can be read, their joints differ, or unit or axis have to be given.
    """
    if rig is not None and rig not in UNITS:
        raise ValueError(f"found rig={rig}, expected {' or '.join(UNITS)}")
    if up not in (None, "y", "z"):
        raise ValueError(f"found up={up}, expected y or z")
    if unit is not None and not _SMALLEST <= unit <= _LARGEST:
        raise ValueError(f"found unit={unit:g}, expected {_SMALLEST:g} to {_LARGEST:g} metres")
    found: dict[str, Motion] = {}
    broken = []
    for name, data in _files(Path(path)):
        try:
            found[name] = _canonical(name, data, rig, unit, up or "y")
        except ValueError as error:
            broken.append(str(error))
    if not found:
        what = f"none of {len(broken)} .bvh files can be read: {broken[0]}" if broken else "found no .bvh files"
        raise ValueError(f"{path}: {what}")
    motions = [found[name] for name in sorted(found)]
    joints = collections.Counter(motion.joints for motion in motions)
    if len(joints) > 1:
        (usual, _), (other, _) = joints.most_common(2)
        name = next(motion.name for motion in motions if motion.joints == other)
        raise ValueError(f"{path}: {name} has joints {', '.join(other)}; expected those of most, {', '.join(usual)}")
    if up is None:
        _check_upright(path, motions)
    notes = (Note(what="left out motions that cannot be read", count=len(broken), example=broken[0]),) if broken else ()
    return motions, notes


_SMALLEST, _LARGEST = 1e-6, 1e3  # metres
_SHORTEST, _LONGEST = 0.4, 1.4  # metres from the hip to the ankle


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Paths without suffix, and bytes."""
    if path.is_dir():
        for folder, _, names in untrusted.walk(path):
            for name in names:
                if name.lower().endswith(".bvh"):
                    yield (folder / name).with_suffix("").as_posix(), untrusted.read_file(path / folder / name, "a BVH")
    elif path.suffix.lower() == ".bvh":
        yield path.stem, untrusted.read_file(path, "a BVH")
    elif path.is_file():
        for name, data in files.packed_files(path, ".bvh"):
            yield os.path.splitext(name)[0], data
    elif path.exists():
        raise ValueError(f"{path}: found no regular file, expected a folder or a tar of .bvh files")
    else:
        raise FileNotFoundError(f"{path}: no such file or folder, expected a folder or a tar of .bvh files")


def _canonical(name: str, data: bytes, rig: str | None, unit: float | None, up: str) -> Motion:
    recorded = bvh.read(data, unit=1.0, name=name, up=up)
    known = rigs.detect(recorded.joints, where=name)
    if rig is None:
        named = rigs.known(recorded.joints)
        rig = next((rig for rig, those in _NAMED.items() if any(named is one for one in those)), None)
    metres = UNITS.get(rig or "") if unit is None else unit
    if metres is None:
        raise ValueError(f"{name}: found a rig whose unit is not known, expected it as ?unit=METRES")
    with np.errstate(over="ignore"):
        positions = kinematics.in_metres(metres * recorded.positions.astype(np.float64), name)
    if rig == "cmu":
        positions = positions[int(kinematics.jumps_first(positions)) :]
    subject = re.fullmatch(r"(\d+)_\d+", os.path.basename(name)) if rig == "cmu" else None
    motion = Motion(
        name=name,
        joints=recorded.joints,
        positions=positions,
        rate=recorded.rate,
        subject=subject[1] if subject else "",
    )
    motion = source.checked(rigs.to_canonical(motion, known))
    if unit is None and not _SHORTEST <= (leg := _leg(motion)) <= _LONGEST:
        raise ValueError(
            f"{name}: found legs of {leg:.3g} m in the unit of {rig}, expected {_SHORTEST} to {_LONGEST}: give "
            "?unit=METRES, those of one of the files' units"
        )
    return motion


_NAMED = {"cmu": (rigs.CMU_BVH, rigs.CMU_BVH_MOTIONBUILDER), "bandai": (rigs.BANDAI_NAMCO,)}


def _leg(motion: Motion) -> float:
    """Metres from the hips over the knees to the ankles."""
    places = dict(zip(motion.joints, motion.positions[0].astype(np.float64), strict=True))
    bones = [(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in _LEG]
    return sum(float(np.linalg.norm(places[a] - places[b])) for a, b in bones) / 2


_LEG = (("hip", "knee"), ("knee", "ankle"))


def _check_upright(path: str | os.PathLike, motions: list[Motion]) -> None:
    """That people stand along z more often than not."""
    where = {joint: i for i, joint in enumerate(motions[0].joints)}
    thorax, pelvis = where["thorax"], where["pelvis"]
    spine = np.median([(m.positions[:, thorax] - m.positions[:, pelvis]).mean(axis=0) for m in motions], axis=0)
    if spine[2] < np.abs(spine).max():
        raise ValueError(f"{path}: found people who are not upright along y, expected ?up=z, or ?up=y if it is so")
