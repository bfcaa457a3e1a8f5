import functools
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import grain
import numpy as np
import pytest
import small

from jaxpose.data.host.elements import Elements
from jaxpose.data.motion import bvh, rigs, source
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


def windows(motions, **options):
    skeleton = source.canonical_skeleton("test", JOINTS)
    return source.MotionSource(motions=tuple(motions), skeleton=skeleton, **options)


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
    found = windows([recorded], frames=10, rate=25.0, step=2)
    whole = rigs.resample(recorded, 25.0).positions
    for i in range(len(found)):
        expected = whole[2 * i : 2 * i + 10]
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
    assert len(windows([motion(20, 30.0)], frames=5, rate=30.0, step=5)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0, "rate": 30.0}, "test: found 0 frames at 30.0 per second in steps of 1, expected more than 0"),
        ({"frames": 5, "rate": 0.0}, "found 5 frames at 0.0 per second"),
        ({"frames": 5, "rate": 30.0, "step": 0}, "in steps of 0"),
        ({"frames": 31, "rate": 30.0}, "none of 1 motions has 31 frames at 30.0 per second, expected at least one"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        windows([motion(30, 30.0)], **options)


def test_a_pelvis_is_needed():
    with pytest.raises(ValueError, match="found no joint pelvis"):
        source.MotionSource(
            motions=(motion(30, 30.0),),
            skeleton=source.canonical_skeleton("test", ("left_hip",)),
            frames=5,
            rate=30.0,
        )


def test_skeletons():
    found = source.canonical_skeleton("h36m", tuple(j for j in rigs.CANONICAL if j != "neck" and "collar" not in j))
    assert ("thorax", "head_top") in found.bones
    assert ("thorax", "left_shoulder") in found.bones
    found = source.canonical_skeleton("all", rigs.CANONICAL)
    assert {("thorax", "left_collar"), ("left_collar", "left_shoulder"), ("neck", "head_top")} < set(found.bones)
    assert not {("thorax", "left_shoulder"), ("thorax", "head_top")} & set(found.bones)
    assert ("left_collar", "right_collar") in found.flips
    with pytest.raises(ValueError, match="all: found joints tail; expected some of right_ankle"):
        source.canonical_skeleton("all", ("pelvis", "tail"))


def test_a_folder_of_bvh(tmp_path):
    (tmp_path / "a").mkdir()
    places = [(t, 17, 0) for t in range(9)]
    (tmp_path / "a" / "one.bvh").write_text(small.bvh(places, seconds=0.05))
    (tmp_path / "two.bvh").write_text(small.bvh(places, seconds=0.1))
    (tmp_path / "broken.bvh").write_text("HIERARCHY")
    read = functools.partial(bvh.read, unit=0.1)
    found = source.from_bvh(tmp_path, read=read, frames=3, rate=10.0)
    assert isinstance(found, Elements)
    assert found.nbytes == found[0]["positions"].nbytes
    assert found.skeleton.joints == tuple(j for j in rigs.CANONICAL if j in rigs.CMU_BVH)
    assert [found.name(i) for i in range(len(found))] == ["one"] * 3 + ["two"] * 7
    window = found[0]
    joint = dict(zip(found.skeleton.joints, window["positions"][0], strict=True))
    np.testing.assert_allclose(joint["left_wrist"], [1.2, 0, 0.9], atol=1e-6)  # the pelvis is between the hips
    np.testing.assert_allclose(joint["right_ankle"], [-0.2, 0, -1.5], atol=1e-6)
    np.testing.assert_allclose(window["pelvis"][:, 0], [0, 0.2, 0.4], atol=1e-6)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again[4]["positions"], found[4]["positions"])


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a: no such folder, expected one with \.bvh files"):
        source.from_bvh(tmp_path / "a", read=bvh.read_cmu, frames=3, rate=10.0)
    (tmp_path / "one.bvh").write_text("nothing")
    with pytest.raises(ValueError, match=r"found 1 broken \.bvh files and no others, expected motions"):
        source.from_bvh(tmp_path, read=bvh.read_cmu, frames=3, rate=10.0)
    places = [(t, 17, 0) for t in range(9)]
    (tmp_path / "one.bvh").write_text(small.bvh(places))
    (tmp_path / "two.bvh").write_text(small.bvh(places, name=small.bandai_name))
    with pytest.raises(ValueError, match=r"two has joints right_ankle, .*expected those of one, right_ankle"):
        source.from_bvh(tmp_path, read=bvh.read_cmu, frames=3, rate=10.0)
    with pytest.raises(FileNotFoundError, match=r"found no dataset_info\.json, expected prepared motions"):
        source.from_prepared(tmp_path, frames=3, rate=10.0)


def test_real_walks(pack: Callable[[str], Path], tmp_path: Path) -> None:
    with tarfile.open(pack("cmu_walk_bvh.tar.xz")) as archive:
        members = [member for member in archive if "/07_0" in member.name]
        archive.extractall(tmp_path, members, filter="data")
    found = source.from_bvh(tmp_path, read=bvh.read_cmu, frames=30, rate=30.0, step=10)
    dataset = grain.MapDataset.source(found).seed(1).shuffle().batch(4)
    batch = dataset[0]
    assert batch["positions"].shape == (4, 30, 18, 3)
    every = np.stack([found[i]["positions"] for i in range(len(found))])
    joint = {name: every[:, :, i] for i, name in enumerate(found.skeleton.joints)}
    assert (joint["head_top"][..., 2] > 0.4).all()
    assert (joint["left_ankle"][..., 2] < -0.5).all()
    # One walks about 1.3 m per second, and the left side is on the left of where one goes.
    going = np.stack([found[i]["pelvis"][-1] for i in range(len(found))])
    assert 0.8 < np.median(np.linalg.norm(going, axis=-1)) < 1.8
    left = (joint["left_hip"] - joint["right_hip"]).mean(axis=1)
    assert (going[:, 0] * left[:, 1] - going[:, 1] * left[:, 0] > 0).all()
