import math

import numpy as np
import pytest

from jaxpose.data.motion import asf_amc

SKELETON = """# a comment: with a colon
:version 1.10
:name VICON
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
   made for a test
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name lhipjoint
     direction 1 0 0
     length 2
     axis 0 0 0  XYZ
  end
  begin
     id 2
     name lfemur
     direction 0.6 -0.8 0
     length 5.0
     axis 0 0 30  XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 3
     name ltibia
     direction 0 -1 0
     length 4
     axis 90 20 -40  XYZ
    dof rz rx
    limits (-10.0 170.0)
           (-10.0 170.0)
  end
:hierarchy
  begin
    root lhipjoint
    lhipjoint lfemur
    lfemur ltibia
  end
"""

MOTION = """#!OML:ASF somewhere
:FULLY-SPECIFIED
:DEGREES
1
root 0 0 0 0 0 0
lfemur 0 0 0
ltibia 0 0
2
root 1 2 3 10 -20 130
lfemur 40 50 -60
ltibia 15 25
"""


def about(axis, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        {
            "x": [(1, 0, 0), (0, c, -s), (0, s, c)],
            "y": [(c, 0, s), (0, 1, 0), (-s, 0, c)],
            "z": [(c, -s, 0), (s, c, 0), (0, 0, 1)],
        }[axis]
    )


def fixed_xyz(x, y, z):
    return about("z", z) @ about("y", y) @ about("x", x)


def test_positions():
    motion = asf_amc.read(SKELETON.encode(), MOTION.encode(), name="07_01")
    assert motion.joints == ("root", "lhipjoint", "lfemur", "ltibia")
    assert (motion.name, motion.subject, motion.rate) == ("07_01", "07", 120.0)
    scale = 0.0254 / 0.45
    rest = scale * np.array([(0, 0, 0), (2, 0, 0), (5, -4, 0), (5, -8, 0)])
    np.testing.assert_allclose(motion.positions[0], rest @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-6)
    # By hand: C R C^-1 on top of the parent, a bone's own turn moves its end.
    root = fixed_xyz(10, -20, 130)
    axis = fixed_xyz(0, 0, 30)
    femur = root @ axis @ fixed_xyz(40, 50, -60) @ axis.T
    axis = fixed_xyz(90, 20, -40)
    tibia = femur @ axis @ fixed_xyz(25, 0, 15) @ axis.T  # the AMC lists rz before rx
    hip = np.array([1, 2, 3]) + root @ [2, 0, 0]
    knee = hip + femur @ [3, -4, 0]
    ankle = knee + tibia @ [0, -4, 0]
    x, y, z = scale * np.array([(1, 2, 3), hip, knee, ankle]).T
    np.testing.assert_allclose(motion.positions[1], np.stack([x, -z, y], axis=-1), atol=1e-6)
    assert motion.positions.dtype == np.float32


def test_files_radians_and_other_orders(tmp_path):
    skeleton = SKELETON.replace("angle deg", "angle rad").replace("axis 0 0 30  XYZ", "axis 0.1 0 0.5 ZYX")
    skeleton = skeleton.replace("axis 90 20 -40", "axis 0 0 0")
    motion = MOTION.replace("10 -20 130", "0 0 0").replace("40 50 -60", "0.3 0.2 -0.4").replace("15 25", "0 0")
    (tmp_path / "12.asf").write_text(skeleton)
    (tmp_path / "12_03.amc").write_text(motion)
    found = asf_amc.read(tmp_path / "12.asf", tmp_path / "12_03.amc", unit=0.45, rate=60.0)
    assert (found.name, found.subject, found.rate) == ("12_03", "12", 60.0)

    def fixed_zyx(x, y, z):
        x, y, z = np.degrees([x, y, z])
        return about("x", x) @ about("y", y) @ about("z", z)

    axis = fixed_zyx(0.5, 0, 0.1)  # the numbers stand in the order of the letters: z, y, x
    knee = np.array([3, 2, 3]) + axis @ fixed_zyx(0.3, 0.2, -0.4) @ axis.T @ [3, -4, 0]
    np.testing.assert_allclose(found.positions[1, 2], [knee[0], -knee[2], knee[1]], atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":hierarchy", ":tree", "no section :hierarchy, expected an ASF"),
        ("length 5.0", "", "a bone or the root lacks 'length'"),
        ("direction 0 -1 0", "direction 0 -1", "found '0 -1', expected 3 numbers"),
        ("axis 0 0 30  XYZ", "axis 0 0 30  XYY", "found axis order 'XYY'"),
        ("axis 0 0 30  XYZ", "axis 0 0 30", "found axis order ''"),
        ("length 0.45", "length 0", "length scale 0.0, expected more than 0"),
        ("lfemur ltibia", "lfemur ltibia lfoot", "the hierarchy names lfoot; expected bones of :bonedata"),
        ("    lfemur ltibia\n", "", "the hierarchy leaves out ltibia"),
        ("lfemur ltibia", "lfemur ltibia root", "the hierarchy names root twice"),
    ],
)
def test_skeleton_errors(old, new, message):
    text = SKELETON.replace(old, new, 1)
    assert text != SKELETON
    with pytest.raises(ValueError, match=rf"^motion \(ASF\): .*{message}"):
        asf_amc.read(text.encode(), MOTION.encode())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ltibia 15 25", "ltibia 15", "frame 2: found 'ltibia 15', expected a bone's values"),
        ("ltibia 15 25", "lfoot 15 25", "frame 2: found 'lfoot 15 25'"),
        ("ltibia 15 25", "lfemur 1 2 3", "frame 2: found 'lfemur 1 2 3', expected one line per frame"),
        ("ltibia 15 25\n", "", "2 frames, of which ltibia lacks some"),
        ("ltibia 15 25", "ltibia 15 x", "expected numbers"),
        ("ltibia 15 25", "ltibia 15 inf", "not finite"),
    ],
)
def test_motion_errors(old, new, message):
    with pytest.raises(ValueError, match=rf"^07_01 \(AMC\): .*{message}"):
        asf_amc.read(SKELETON.encode(), MOTION.replace(old, new).encode(), name="07_01")


def test_no_frames(tmp_path):
    with pytest.raises(ValueError, match="0 frames"):
        asf_amc.read(SKELETON.encode(), b":DEGREES\n")
    with pytest.raises(FileNotFoundError, match=r"a\.asf: no such file"):
        asf_amc.read(tmp_path / "a.asf", MOTION.encode())
