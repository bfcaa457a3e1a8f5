"""Biovision hierarchy (BVH): any rig, any order of channels."""

import dataclasses
import os
import re
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from jaxpose import untrusted
from jaxpose.data.motion import kinematics
from jaxpose.data.records import Motion

CMU_UNIT = 0.0254 / 0.45  # metres; CMU scales inches by 0.45
BANDAI_UNIT = 0.01  # metres


def read(
    file: str | os.PathLike | bytes,
    *,
    unit: float,
    names: Mapping[str, str] | None = None,
    drop_first: bool | None = False,
    name: str = "",
    subject: str = "",
    up: str = "y",
) -> Motion:
    """The joints of a BVH over time, in metres with z up.

    A joint's rotation is the product of its channels in their order. Position channels replace the joint's offset,
    axis by axis, as they do in files that repeat the offset there; they may be on any joint. Where the file's y axis
    is up it becomes z; x stays, so a figure that faces +z faces -y. The end site of a joint is named `<joint>_end`.

    Args:
      file: a path, or the bytes of a file.
      unit: metres per unit of the file.
      names: other names for some of the file's joints.
      drop_first: leaves out frame 0, which some releases fill with a T-pose; None: if the pose jumps after it
        (`kinematics.jumps_first`).
      name: for messages; empty: the file's.
      subject: who moves.
      up: which of the file's axes is.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no BVH, or its numbers do not fit its channels.
    """
    data, name = kinematics.content(file, name)
    with untrusted.reading(name, "a BVH"):
        return _motion(data, name, unit=unit, names=names or {}, drop_first=drop_first, subject=subject, up=up)


def read_cmu(file: str | os.PathLike | bytes, *, name: str = "") -> Motion:
    """A motion of the CMU database, in either of its two usual conversions to BVH.

    Cgspeed's releases put a T-pose before frame 1, which is left out; others do not. File names are
    `<subject>_<trial>.bvh`. See `read` for errors.
    """
    motion = read(file, unit=CMU_UNIT, drop_first=None, name=name)
    match = re.fullmatch(r"(\d+)_\d+", os.path.splitext(os.path.basename(motion.name))[0])
    return dataclasses.replace(motion, subject=match[1] if match else "")


def read_bandai(file: str | os.PathLike | bytes, *, name: str = "") -> Motion:
    """A motion of the Bandai-Namco Research Motiondataset, which is in centimetres. See `read` for errors."""
    return read(file, unit=BANDAI_UNIT, name=name)


def _motion(
    data: bytes, name: str, *, unit: float, names: Mapping[str, str], drop_first: bool | None, subject: str, up: str
) -> Motion:
    head, found, motion = data.decode("utf-8", errors="replace").partition("MOTION")
    if not found or "HIERARCHY" not in head:
        raise ValueError(f"{name}: no HIERARCHY and MOTION, expected a BVH")
    nodes = _hierarchy(head, name)
    renamed = [names.get(node.name, node.name) for node in nodes]
    if len(set(renamed)) != len(renamed):
        raise ValueError(f"{name}: joint names are not unique: {', '.join(renamed)}")
    values, seconds = _frames(motion, sum(len(node.channels) for node in nodes), name)
    kinematics.check_size(len(values), len(nodes), len(data))
    offsets, rotations = _local(nodes, values)
    with np.errstate(all="ignore"):  # checked in the end
        positions = kinematics.forward([node.parent for node in nodes], offsets, rotations)
        if up == "y":
            positions = positions @ kinematics.Y_UP_TO_Z_UP.T
        positions = kinematics.in_metres(unit * positions, name)
    if drop_first is None:
        drop_first = kinematics.jumps_first(positions)
    return Motion(
        name=name,
        joints=tuple(renamed),
        positions=positions[int(drop_first) :],
        rate=round(1 / seconds, 2),  # files cut the frame time to a few digits: .0083333 is 120 Hz
        subject=subject,
    )


@dataclasses.dataclass
class _Node:
    name: str
    parent: int
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    channels: tuple[str, ...] = ()


_CHANNEL = re.compile(r"[xyz](position|rotation)")


def _hierarchy(text: str, where: str) -> list[_Node]:
    """The joints and end sites, parents first."""
    nodes: list[_Node] = []
    chain: list[int] = []  # the joints around the current line
    pending = None  # a joint whose brace has not opened yet
    tokens = iter(text.partition("HIERARCHY")[2].replace("{", " { ").replace("}", " } ").split())
    try:
        for token in tokens:
            match token.upper():
                case "ROOT" | "JOINT" | "END":
                    words = []
                    while (word := next(tokens)) != "{":
                        words.append(word)
                    parent = chain[-1] if chain else -1
                    pending = f"{nodes[parent].name}_end" if token.upper() == "END" else " ".join(words)
                    chain.append(len(nodes))
                    nodes.append(_Node(pending, parent))
                case "OFFSET":
                    nodes[chain[-1]].offset = tuple(float(next(tokens)) for _ in range(3))
                case "CHANNELS":
                    nodes[chain[-1]].channels = tuple(next(tokens).lower() for _ in range(int(next(tokens))))
                case "}":
                    chain.pop()
                case _:
                    raise ValueError(f"{where}: found {token!r} in the hierarchy, expected a joint, OFFSET or CHANNELS")
    except (IndexError, StopIteration):
        raise ValueError(f"{where}: the hierarchy is cut off or its braces do not match") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(where) else f"{where}: hierarchy: {error}") from None
    if chain or not nodes:
        raise ValueError(f"{where}: the hierarchy is cut off or its braces do not match")
    for node in nodes:
        kinds = [channel[1:] for channel in node.channels if _CHANNEL.fullmatch(channel)]
        if len(kinds) != len(node.channels) or len(set(node.channels)) != len(node.channels):
            found = " ".join(node.channels)
            raise ValueError(f"{where}: {node.name} has channels {found}, expected positions and rotations, once each")
    return nodes


def _frames(text: str, channels: int, where: str) -> tuple[np.ndarray, float]:
    """The channels' values, shape (T, channels), and the seconds per frame."""
    match = re.match(r"\s*Frames\s*:\s*(\d+)\s*Frame\s+Time\s*:\s*(\S+)", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{where}: MOTION does not start with Frames and Frame Time")
    try:
        frames, seconds = int(match[1]), float(match[2])
        values = np.array(text[match.end() :].split(), dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{where}: MOTION: {error}, expected numbers") from None
    if not seconds > 0 or frames == 0:
        raise ValueError(f"{where}: {frames} frames of {seconds} s, expected some")
    if len(values) != frames * channels or not channels:
        raise ValueError(f"{where}: {len(values)} numbers, expected {frames} frames of {channels} channels")
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: MOTION holds numbers that are not finite")
    return values.reshape(frames, channels), seconds


def _local(nodes: list[_Node], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (T, K, 3) and rotations (T, K, 3, 3) relative to the parents."""
    offsets = np.tile(np.array([node.offset for node in nodes]), (len(values), 1, 1))
    rotations = np.tile(np.eye(3), (len(values), len(nodes), 1, 1))
    start = 0
    for index, node in enumerate(nodes):
        columns = values[:, start : start + len(node.channels)]
        start += len(node.channels)
        turns = [i for i, channel in enumerate(node.channels) if channel.endswith("rotation")]
        for i, channel in enumerate(node.channels):
            if channel.endswith("position"):
                offsets[:, index, "xyz".index(channel[0])] = columns[:, i]
        if turns:
            axes = "".join(node.channels[i][0].upper() for i in turns)  # upper case: each about the axes turned so far
            rotations[:, index] = Rotation.from_euler(axes, columns[:, turns], degrees=True).as_matrix()
    return offsets, rotations
