import collections
import dataclasses
import pickle

import numpy as np
import pytest

from jaxpose.data.host.elements import Elements
from jaxpose.data.host.windows import consecutive, frame_pairs
from jaxpose.data.motion import rigs, source
from jaxpose.data.records import Motion

JOINTS = ("left_hip", "pelvis", "left_wrist")


def motion(frames, rate, name="walk"):
    """The pelvis goes along x by a metre per second; the wrist rises by two."""
    seconds = np.arange(frames) / rate
    pelvis = np.stack([seconds, 0 * seconds, 0 * seconds + 5], axis=-1)
    joints = [
        pelvis + np.array([0.1, 0, 0]),
        pelvis,
        pelvis + np.stack([0 * seconds, 0 * seconds, 2 * seconds], axis=-1),
    ]
    return Motion(name=name, joints=JOINTS, positions=np.stack(joints, axis=1).astype(np.float32), rate=rate)


def windows(motions, frames=None, **options):
    listed = source.listed(tuple(motions), source.canonical_skeleton("test", JOINTS))
    return source.MotionSource(source=listed, window=None if frames is None else consecutive(frames, **options))


@pytest.mark.parametrize("rate", [120.0, 50.0, 30.0])
def test_windows_at_another_rate(rate):
    found = windows([motion(int(3 * rate) + 1, rate)], frames=30, rate=30.0)
    window = found[0]
    assert (window["positions"].dtype, window["positions"].shape) == (np.float32, (30, 3, 3))
    seconds = np.arange(30) / 30
    np.testing.assert_allclose(window["pelvis"], np.stack([seconds, 0 * seconds, 0 * seconds], axis=-1), atol=1e-5)
    np.testing.assert_array_equal(window["positions"][:, 1], np.zeros((30, 3)))
    np.testing.assert_allclose(window["positions"][:, 0], np.tile([0.1, 0, 0], (30, 1)), atol=1e-6)
    np.testing.assert_allclose(window["positions"][:, 2, 2], 2 * seconds, atol=1e-5)
    # The last window ends with the recording, which takes three seconds.
    assert found[len(found) - 1]["positions"][-1, 2, 2] == pytest.approx(6, abs=2 / 30 + 1e-5)
    assert found[len(found) - 1]["positions"][-1, 2, 2] <= 6 + 1e-5


def test_the_same_as_resampling_everything():
    recorded = motion(200, 100.0)
    found = windows([recorded], frames=10, rate=25.0)
    whole = rigs.resample(recorded, 25.0).positions
    for i in range(len(found)):
        expected = whole[i : i + 10]
        np.testing.assert_allclose(found[i]["positions"], expected - expected[:, 1:2], atol=1e-5)


def test_windows_do_not_cross_motions():
    found = windows([motion(4, 30.0, "short"), motion(6, 30.0, "a"), motion(9, 30.0, "b")], frames=5, rate=30.0)
    assert len(found) == 2 + 5
    assert [found.name(i) for i in range(7)] == ["a"] * 2 + ["b"] * 5
    starts = [round(float(found[i]["positions"][0, 2, 2]) * 15) for i in range(7)]
    assert starts == [0, 1, 0, 1, 2, 3, 4]
    assert [int(found[i]["index"]) for i in range(7)] == list(range(7))
    assert {int(found[i]["broken"]) for i in range(7)} == {-1}
    with pytest.raises(IndexError):
        found[7]
    assert found.clips() == ("a",) * 2 + ("b",) * 5
    assert isinstance(found, Elements)
    assert found.nbytes == found[0]["positions"].nbytes
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again[4]["positions"], found[4]["positions"])


def test_windows_without_a_rate_are_of_recorded_frames():
    found = windows([motion(9, 120.0)], frames=3, every=2)
    assert len(found) == 5
    np.testing.assert_allclose(found[4]["pelvis"][:, 0], np.array([0, 2, 4]) / 120, atol=1e-6)
    np.testing.assert_allclose(found[4]["positions"][:, 2, 2], 2 * np.array([4, 6, 8]) / 120, atol=1e-6)


def test_pairs_of_frames_at_several_distances():
    listed = source.listed((motion(61, 60.0), motion(10, 60.0, "short")), source.canonical_skeleton("test", JOINTS))
    found = source.MotionSource(source=listed, window=frame_pairs(5, 15, rate=30.0), fields=("pelvis",))
    apart = [round(30 * float(found[i]["pelvis"][1, 0])) for i in range(len(found))]
    # Of a second at 60 per second; the other one is too short for any pair.
    assert collections.Counter(apart) == {d: (61 - 2 * d - 1) // 2 + 1 for d in range(5, 16)}
    assert set(found[0]) == {"pelvis", "index", "broken"}


def test_single_frames():
    found = windows([motion(4, 120.0, "a"), motion(2, 30.0, "b")])
    assert len(found) == 6
    shapes = {name: x.shape for name, x in found[5].items()}
    assert shapes == {"positions": (3, 3), "pelvis": (3,), "index": (), "broken": ()}
    np.testing.assert_allclose(found[5]["positions"][2], [0, 0, 2 / 30], atol=1e-6)
    np.testing.assert_array_equal(found[5]["pelvis"], np.zeros(3))
    assert found.clips() == ("a",) * 4 + ("b",) * 2
    labels = found.read_as(("keypoints3d",), None, "unused")
    np.testing.assert_array_equal(labels[5]["keypoints3d"], found[5]["positions"])


def test_motions_that_are_too_short():
    with pytest.raises(ValueError, match=r"none of 1 motions has frames at distances 0, 1, 2, 3, \.\.\. of 1/30 s"):
        windows([motion(30, 30.0)], frames=31, rate=30.0)


@pytest.mark.parametrize(
    ("frames", "rate", "message"),
    [
        (0, 30.0, "walk: found 0 frames at 30 per second, expected some at 0.1 to 10000"),
        (5, 1e30, r"found 5 frames at 1e\+30 per second"),
        (5, float("nan"), "found 5 frames at nan per second"),
    ],
)
def test_motions_that_are_none(frames, rate, message):
    recorded = dataclasses.replace(motion(frames, 30.0), rate=rate)
    with pytest.raises(ValueError, match=message):
        windows([recorded])
    broken = np.full((5, 3, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="places that are not finite"):
        windows([dataclasses.replace(recorded, positions=broken, rate=30.0)])


def test_a_pelvis_is_needed():
    with pytest.raises(ValueError, match="found joints left_hip, expected a pelvis among them"):
        source.listed((motion(30, 30.0),), source.canonical_skeleton("test", ("left_hip",)))


def test_skeletons():
    found = source.canonical_skeleton("h36m", tuple(j for j in rigs.CANONICAL if j != "neck" and "collar" not in j))
    assert ("thorax", "head_top") in found.bones
    assert ("thorax", "left_shoulder") in found.bones
    found = source.canonical_skeleton("all", rigs.CANONICAL)
    assert {("thorax", "left_collar"), ("left_collar", "left_shoulder"), ("neck", "head_top")} < set(found.bones)
    assert not {("thorax", "left_shoulder"), ("thorax", "head_top")} & set(found.bones)
    assert ("left_collar", "right_collar") in found.flips
    assert ("left_foot", "right_foot") in found.flips
    assert {("left_ankle", "left_foot"), ("right_ankle", "right_foot")} < set(found.bones)
    assert len(found.bones) == len(found) - 1
    with pytest.raises(ValueError, match="all: found joints tail; expected some of right_ankle"):
        source.canonical_skeleton("all", ("pelvis", "tail"))
