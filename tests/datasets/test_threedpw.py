import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers import tfds_source
from jaxpose.datasets import prepare
from jaxpose.datasets.threedpw import ThreeDpw

JPEG = cv2.imencode(".jpg", np.full((192, 108, 3), 70, np.uint8))[1].tobytes()
INTRINSICS = np.array([[196.0, 0, 54], [0, 197, 96], [0, 0, 1]])
# The camera at (0, 1.5, 4) looks along -z of the world, whose y is up.
CAMERA = np.array([[1.0, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, -1, 4], [0, 0, 0, 1]])


def builder(tmp_path):
    return ThreeDpw(data_dir=str(tmp_path / "unused"), file_format="array_record")


def bodies(frames, seed=0):
    """World joints (frames, 24, 3) in metres."""
    return np.random.default_rng(seed).uniform(-0.7, 0.7, (frames, 24, 3)) + np.array([0, 1, 0])


def write(root, split, sequence, people, *, valid=None, **other):
    frames = len(people[0])
    content = {
        "sequence": sequence,
        "jointPositions": [p.reshape(frames, 72) for p in people],
        "campose_valid": [np.ones(frames) for _ in people] if valid is None else valid,
        "cam_poses": np.repeat(CAMERA[None], frames, axis=0),
        "cam_intrinsics": INTRINSICS,
        "poses2d": [np.zeros((frames, 3, 18)) for _ in people],
        "img_frame_ids": np.arange(frames) * 2,
        "genders": ["m"] * len(people),
    } | other
    path = root / "sequenceFiles" / split / f"{sequence}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    images = root / "imageFiles" / sequence
    images.mkdir(parents=True, exist_ok=True)
    for i in range(frames):
        (images / f"image_{i:05d}.jpg").write_bytes(JPEG)
    return images


def write_others(root):
    for split in ("train", "validation", "test"):
        if not (root / "sequenceFiles" / split).is_dir():
            write(root, split, f"other_{split}_00", [bodies(1)])


def read(shards_of_split):
    # Shards travel to other processes.
    items = [item for shard in shards_of_split for item in pickle.loads(pickle.dumps(shard))()]
    return [i for i in items if not isinstance(i, Skipped)], [i for i in items if isinstance(i, Skipped)]


def test_people_in_the_cameras_frame(tmp_path):
    people = [bodies(3, 0), bodies(3, 1)]
    write(tmp_path, "validation", "downtown_cafe_00", people)
    write_others(tmp_path)
    found = builder(tmp_path).shards(tmp_path)
    assert list(found) == ["train", "validation", "test"]
    kept, skipped = read(found["validation"])
    assert not skipped
    assert [(r["sequence"], r["frame"]) for r in kept] == [
        (f"downtown_cafe_00:{p}", t) for p in (0, 1) for t in range(3)
    ]
    for record, world in zip(kept, [*people[0], *people[1]], strict=True):
        x, y, z = world.T
        np.testing.assert_allclose(record["keypoints3d"], np.stack([x, 1.5 - y, 4 - z], axis=1), atol=1e-5)
        expected = np.stack([196 * x / (4 - z) + 54, 197 * (1.5 - y) / (4 - z) + 96], axis=1)
        np.testing.assert_allclose(record["keypoints"], expected, atol=1e-3)
        np.testing.assert_allclose(record["intrinsics"], INTRINSICS)
        within = ((expected > -0.5) & (expected < (107.5, 191.5))).all(axis=1)
        np.testing.assert_array_equal(record["visible"], np.where(within, 2, 1))
        assert record["image"] == JPEG


def test_joints_are_those_of_smpl():
    smpl = [
        *("Pelvis", "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle", "Spine3"),
        *(
            "L_Foot",
            "R_Foot",
            "Thorax",
            "L_Collar",
            "R_Collar",
            "Head",
            "L_Shoulder",
            "R_Shoulder",
            "L_Elbow",
            "R_Elbow",
        ),
        *("L_Wrist", "R_Wrist", "L_Hand", "R_Hand"),
    ]
    expected = [name.replace("L_", "left_").replace("R_", "right_").lower() for name in smpl]
    assert list(ThreeDpw.SKELETON.joints) == expected
    assert ("left_elbow", "left_wrist") in ThreeDpw.SKELETON.bones
    assert ("spine3", "left_collar") in ThreeDpw.SKELETON.bones
    joints = ThreeDpw.SKELETON.joints
    flipped = [joints[i] for i in ThreeDpw.SKELETON.flip_permutation]
    swap = {"left": "right", "right": "left"}
    assert flipped == ["_".join(swap.get(word, word) for word in joint.split("_")) for joint in joints]


def test_frames_are_skipped(tmp_path):
    world = bodies(6)
    world[1] = np.nan
    world[2, :, 0] += 50  # outside of the image
    world[3, :, 2] += 50  # behind the camera
    valid = [np.array([1, 1, 1, 1, 0, 1])]
    images = write(tmp_path, "train", "walk_00", [world], valid=valid)
    (images / "image_00005.jpg").unlink()
    write_others(tmp_path)
    kept, skipped = read(builder(tmp_path).shards(tmp_path)["train"])
    assert [r["frame"] for r in kept] == [0]
    assert [(s.name, s.reason) for s in skipped] == [
        ("walk_00/image_00001.jpg:0", "it has no 3D joints"),
        ("walk_00/image_00002.jpg:0", "fewer than 6 joints are in the image"),
        ("walk_00/image_00003.jpg:0", "fewer than 6 joints are in the image"),
        ("walk_00/image_00004.jpg:0", "the camera's pose is not valid"),
        ("walk_00/image_00005.jpg:0", "the image is missing"),
    ]


def test_a_joint_behind_the_camera_is_missing(tmp_path):
    world = bodies(1)
    world[0, 5] = (0, 1, 9)
    write(tmp_path, "train", "walk_00", [world])
    write_others(tmp_path)
    (record,), _ = read(builder(tmp_path).shards(tmp_path)["train"])
    assert record["visible"][5] == 0
    np.testing.assert_array_equal(record["keypoints"][5], 0)
    rest = np.delete(record["keypoints"], 5, axis=0)
    np.testing.assert_allclose(record["bbox"], [*rest.min(axis=0), *np.ptp(rest, axis=0)], rtol=1e-5)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile"),)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"cam_intrinsics": np.eye(4)}, "cam_intrinsics: found .*expected 3 x 3 finite numbers"),
        ({"cam_poses": np.zeros((2, 3, 4))}, r"cam_poses: found shape \(2, 3, 4\), expected \(None, 4, 4\)"),
        ({"jointPositions": [np.zeros((2, 54))]}, r"jointPositions\[0\]: found shape \(2, 54\), expected \(None, 72\)"),
        ({"campose_valid": [np.ones(3)]}, "2 frames of joints, 3 of campose_valid, 2 of cam_poses; expected as many"),
        ({"campose_valid": 1}, "jointPositions and campose_valid are not lists of 1 or 2 people"),
        ({"texture_maps": Hostile()}, "refused"),
    ],
)
def test_bad_pickles(tmp_path, monkeypatch, other, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "test", "walk_00", [bodies(2)], **other)
    write_others(tmp_path)
    with pytest.raises(ValueError, match=rf"(?s)walk_00\.pkl: .*{message}"):
        builder(tmp_path).shards(tmp_path)
    assert not (tmp_path / "hostile").exists()


def test_layout_errors(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"sequenceFiles: found no such file or folder, expected train, validation and test"
    ):
        builder(tmp_path).shards(tmp_path)
    write(tmp_path, "train", "walk_00", [bodies(1)])
    with pytest.raises(FileNotFoundError, match=r"validation: found no such file or folder, expected \*\.pkl"):
        builder(tmp_path).shards(tmp_path)
    write_others(tmp_path)
    images = tmp_path / "imageFiles" / "walk_00"
    images.rename(images.with_name("elsewhere"))
    with pytest.raises(
        FileNotFoundError, match=r"imageFiles/walk_00: found no such file or folder, expected its images"
    ):
        builder(tmp_path).shards(tmp_path)


def test_prepared(tmp_path):
    write(tmp_path / "owners", "train", "walk_00", [bodies(2)])
    write_others(tmp_path / "owners")
    folder = prepare.prepare(ThreeDpw, tmp_path / "owners", tmp_path / "data")
    source = tfds_source.TfdsSource(folder=folder, split="train")
    assert [source[i].get("frame") for i in range(len(source))] == [0, 1]
    assert source[1].get("sequence") == "walk_00:0"
    assert source.skeleton == ThreeDpw.SKELETON
