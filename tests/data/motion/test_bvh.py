import io
import itertools
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxpose.data.motion import bvh

FILE = """HIERARCHY
ROOT Hips
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Left Leg
  {
    OFFSET 0 -4 0
    CHANNELS 3 Xrotation Yrotation Zrotation
    End Site
    {
      OFFSET 0 -5 0
    }
  }
  JOINT Slide
  {
    OFFSET 7 0 0
    CHANNELS 2 Yposition Yrotation
    JOINT Tip
    {
      OFFSET 0 0 2
      CHANNELS 0
      End Site
      {
        OFFSET 0 0 1
      }
    }
  }
}
MOTION
Frames: 3
Frame Time: .0083333
0 0 0 0 0 0  0 0 0  0 0
10 20 30 0 0 90  0 0 0  6 0
10 20 30 0 0 0  0 0 90  0 90
"""


def test_offsets_channels_and_end_sites():
    motion = bvh.read(FILE.encode(), unit=0.01, name="walk", subject="a")
    assert motion.joints == ("Hips", "Left Leg", "Left Leg_end", "Slide", "Tip", "Tip_end")
    assert (motion.name, motion.subject, motion.rate) == ("walk", "a", 120.0)
    assert motion.positions.dtype == np.float32
    # In the file's units and axes: y is up. Position channels replace the offset, axis by axis.
    expected = [
        [(0, 0, 0), (0, -4, 0), (0, -9, 0), (7, 0, 0), (7, 0, 2), (7, 0, 3)],
        # A quarter about x takes y to z and z to -y.
        [(10, 20, 30), (10, 20, 26), (10, 20, 21), (17, 20, 36), (17, 18, 36), (17, 17, 36)],
        # A quarter about z takes -y to x; a quarter about y takes z to x.
        [(10, 20, 30), (10, 16, 30), (15, 16, 30), (17, 20, 30), (19, 20, 30), (20, 20, 30)],
    ]
    expected = np.array(expected, dtype=float)
    z_up = np.stack([expected[..., 0], -expected[..., 2], expected[..., 1]], axis=-1)
    np.testing.assert_allclose(motion.positions, 0.01 * z_up, atol=1e-6)


def test_path_names_and_first_frame(tmp_path):
    path = tmp_path / "clip_7.bvh"
    path.write_text(FILE.replace("\n", "\r\n"))
    motion = bvh.read(path, unit=1.0, names={"Left Leg": "left_knee", "Left Leg_end": "left_ankle"}, drop_first=True)
    assert motion.joints[:3] == ("Hips", "left_knee", "left_ankle")
    assert (motion.name, len(motion.positions)) == ("clip_7", 2)
    np.testing.assert_allclose(motion.positions[0, 0], [10, -30, 20])


@pytest.mark.parametrize("order", ["".join(p) for p in itertools.permutations("XYZ")])
def test_every_order_of_rotations(order):
    channels = " ".join(f"{axis}rotation" for axis in order)
    text = (
        f"HIERARCHY ROOT a {{ OFFSET 0 0 0 CHANNELS 3 {channels} End Site {{ OFFSET 1 2 3 }} }} "
        "MOTION Frames: 1 Frame Time: 0.05 20 -50 110"
    )
    found = bvh.read(text.encode(), unit=1.0).positions[0, 1]
    x, y, z = multiply([about(a, d) for a, d in zip(order, (20, -50, 110), strict=True)], (1, 2, 3))
    np.testing.assert_allclose(found, [x, -z, y], atol=1e-6)


def about(axis, degrees):
    """A right-handed rotation about one axis, as rows."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        "X": [(1, 0, 0), (0, c, -s), (0, s, c)],
        "Y": [(c, 0, s), (0, 1, 0), (-s, 0, c)],
        "Z": [(c, -s, 0), (s, c, 0), (0, 0, 1)],
    }[axis]


def multiply(matrices, point):
    """The first matrix is the outermost."""
    for matrix in reversed(matrices):
        point = tuple(sum(m * p for m, p in zip(row, point, strict=True)) for row in matrix)
    return point


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MOTION", "MOTIONS", "MOTION does not start with Frames"),
        ("HIERARCHY", "", "no HIERARCHY and MOTION, expected a BVH"),
        ("CHANNELS 0", "CHANNELS x", "hierarchy: invalid literal"),
        ("OFFSET 0 -5 0", "OFFSET 0 -5", "hierarchy: could not convert string to float: '}'"),
        ("OFFSET 7 0 0", "SCALE 7 0 0", "found 'SCALE' in the hierarchy"),
        ("2 Yposition Yrotation", "2 Yposition Yscale", "Slide has channels yposition yscale, expected positions"),
        ("2 Yposition Yrotation", "2 Yrotation Yrotation", "Slide has channels yrotation yrotation"),
        ("}\nMOTION", "MOTION", "braces do not match"),
        ("}\nMOTION", "}}\nMOTION", "braces do not match"),
        ("JOINT Slide", "JOINT Hips", "joint names are not unique: Hips, Left Leg"),
        ("Frames: 3", "Frames: 4", "33 numbers, expected 4 frames of 11 channels"),
        (".0083333", "0", "3 frames of 0.0 s, expected some"),
        ("10 20 30 0 0 90", "10 20 30 0 0 nan", "numbers that are not finite"),
        ("10 20 30 0 0 90", "10 20 30 0 0 ninety", "could not convert string to float.*expected numbers"),
    ],
)
def test_errors(old, new, message):
    text = FILE.replace(old, new, 1)
    assert text != FILE
    with pytest.raises(ValueError, match=f"^walk: .*{message}"):
        bvh.read(text.encode(), unit=1.0, name="walk")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.bvh: no such file"):
        bvh.read(tmp_path / "a.bvh", unit=1.0)


def test_cmu_leaves_out_a_t_pose_and_only_that(tmp_path):
    angles = [5 * math.sin(0.1 * t) for t in range(30)]
    rows = [f"0 {17 + 0.01 * t} 0 0 0 {angle}  {angle} 0 0  0 0" for t, angle in enumerate(angles)]
    pose = "0 0 0 0 0 0  0 0 90  0 0"
    head = FILE.partition("Frames")[0]
    for rows_, count in ((rows, 30), ([pose, *rows], 30)):
        path = tmp_path / "07_01.bvh"
        path.write_text(f"{head}Frames: {len(rows_)}\nFrame Time: 0.0083333\n" + "\n".join(rows_))
        motion = bvh.read_cmu(path)
        assert (len(motion.positions), motion.subject, motion.name) == (count, "07", "07_01")
        np.testing.assert_allclose(motion.positions[0, 0], [0, 0, 17 * 0.0254 / 0.45], atol=1e-6)


def naive(text):
    """Positions per frame in the file's units and axes, by matrices written out by hand; joint names; parents."""
    lines = [line.split() for line in text.splitlines() if line.split()]
    joints, stack, numbers = [], [], None
    for line in lines:
        if numbers is not None:
            numbers.append([float(x) for x in line])
        elif line[0] in ("ROOT", "JOINT", "End"):
            parent = stack[-1] if stack else None
            name = joints[parent]["name"] + "_end" if line[0] == "End" else line[1]
            stack.append(len(joints))
            joints.append({"name": name, "parent": parent, "channels": []})
        elif line[0] == "OFFSET":
            joints[stack[-1]]["offset"] = [float(x) for x in line[1:4]]
        elif line[0] == "CHANNELS":
            joints[stack[-1]]["channels"] = line[2:]
        elif line[0] == "}":
            stack.pop()
        elif line[0] == "Frame":
            numbers = []
    frames = []
    for values in numbers:
        values = list(values)
        placed = []
        for joint in joints:
            offset, matrices = list(joint["offset"]), []
            for channel in joint["channels"]:
                value = values.pop(0)
                if channel.endswith("position"):
                    offset["XYZ".index(channel[0])] = value
                else:
                    matrices.append(about(channel[0], value))
            if joint["parent"] is None:
                above, origin = [], (0, 0, 0)
            else:
                above, origin = placed[joint["parent"]]
            moved = multiply(above, offset)
            placed.append(([*above, *matrices], tuple(a + b for a, b in zip(origin, moved, strict=True))))
        frames.append([position for _, position in placed])
        assert not values
    return np.array(frames), [joint["name"] for joint in joints], [joint["parent"] for joint in joints]


def members(path, pick, read):
    with tarfile.open(path, "r:xz") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".bvh") and pick(member.name):
                yield Path(member.name).name, read(archive.extractfile(member).read())


def first_frames(data, count):
    head, _, rows = data.decode().replace("\r", "").partition("Frame Time:")
    seconds, *rows = rows.strip().splitlines()
    head = head.rpartition("Frames:")[0] + f"Frames: {count}\n"
    return f"{head}Frame Time: {seconds}\n" + "\n".join(rows[:count])


@pytest.mark.parametrize(
    ("name", "clip", "read", "unit"),
    [
        ("cmu_walk_bvh.tar.xz", "/07_0", bvh.read_cmu, 0.0254 / 0.45),
        ("bandai1_bvh.tar.xz", "_walk_a", bvh.read_bandai, 0.01),
    ],
)
def test_real_motions(pack: Callable[[str], Path], name: str, clip: str, read: Callable, unit: float) -> None:
    found = list(members(pack(name), lambda member: clip in member, lambda data: data))
    assert len(found) >= 2
    for file, data in found[:2]:
        motion = read(data, name=file)
        expected, joints, parents = naive(first_frames(data, 4))
        assert list(motion.joints) == joints
        x, y, z = np.moveaxis(expected * unit, -1, 0)
        np.testing.assert_allclose(motion.positions[:4], np.stack([x, -z, y], axis=-1), atol=1e-5)
        bones = np.array([(i, p) for i, p in enumerate(parents) if p not in (None, 0)])
        lengths = np.linalg.norm(motion.positions[:, bones[:, 0]] - motion.positions[:, bones[:, 1]], axis=-1)
        assert np.ptp(lengths, axis=0).max() < 1e-3


def test_bytes_of_a_tar_member(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        info = tarfile.TarInfo("set/01_01.bvh")
        info.size = len(FILE)
        archive.addfile(info, io.BytesIO(FILE.encode()))
    path = tmp_path / "set.tar.xz"
    path.write_bytes(buffer.getvalue())
    ((name, motion),) = members(path, lambda _: True, lambda data: bvh.read_cmu(data, name="01_01"))
    assert (name, motion.subject, motion.positions.shape) == ("01_01.bvh", "01", (3, 6, 3))
