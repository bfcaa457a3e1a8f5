import json
import pickle
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from jaxpose.data.formats import files
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.joints.skeletons import MPII16
from jaxpose.data.readers import tfds_source
from jaxpose.datasets import prepare
from jaxpose.datasets.surreal import Surreal, SurrealEvery10, SurrealParts, SurrealTllib

LOCATION = np.array([6.7456, -0.9839, -1.9293])  # of the camera, from the owners' example
# SMPL's joints in the owners' order; the neck, at its base, is MPII's thorax.
SMPL = (
    *("Pelvis", "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle", "Spine3"),
    *("L_Foot", "R_Foot", "Thorax", "L_Collar", "R_Collar", "Head", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow"),
    *("L_Wrist", "R_Wrist", "L_Hand", "R_Hand"),
)


def builder(tmp_path, kind=Surreal):
    return kind(data_dir=str(tmp_path / "unused"), file_format="array_record")


def pixels(world):
    """Pixels of world points (3, 24) as the owners compute and round them."""
    x, y, z = world
    cx, cy, cz = LOCATION
    depth = cx - x
    return np.stack([np.round(600 * (cz - z) / depth + 160), np.round(600 * (y - cy) / depth + 120)])


def bodies(frames, seed=0):
    """World joints (3, 24, frames) before the camera."""
    world = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, 24, frames))
    world[0] -= 0.8
    return world + np.array([0, LOCATION[1], LOCATION[2]])[:, None, None]


def write_video(path, frames, size=(320, 240)):
    """Frame t is grey of brightness 20 + 20 t."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, size)
    assert video.isOpened()
    for t in range(frames):
        video.write(np.full((size[1], size[0], 3), 20 + 20 * t, np.uint8))
    video.release()


def write_clip(root, world, *, split="train", run=0, sequence="01_01", clip=1, squeeze=False, owners=None, video=None):
    folder = root / "cmu" / split / f"run{run}" / sequence
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{sequence}_c{clip:04d}"
    flat = np.stack([pixels(world[..., t]) for t in range(world.shape[2])], axis=-1) if owners is None else owners
    if squeeze:
        world, flat = world[..., 0], flat[..., 0]
    info = {"joints3D": world.astype(np.float32), "joints2D": flat.astype(np.float32), "camLoc": LOCATION[:, None]}
    scipy.io.savemat(folder / f"{stem}_info.mat", info)
    frames = (1 if squeeze else world.shape[2]) if video is None else video
    if frames:
        write_video(folder / f"{stem}.mp4", frames)
    return folder / stem


def read(shards_of_split):
    # Shards travel to other processes.
    items = [item for shard in shards_of_split for item in pickle.loads(pickle.dumps(shard))()]
    return [i for i in items if not isinstance(i, Skipped)], [i for i in items if isinstance(i, Skipped)]


def test_joints_in_the_cameras_frame(tmp_path):
    world = bodies(3)
    world[:, 16, 1] = (-0.8645, -1.0915, -1.0260)  # the owners' example, which they draw at (89, 112)
    write_clip(tmp_path, world)
    found, skipped = read(builder(tmp_path).shards(tmp_path)["train"])
    assert not skipped
    assert [r["name"] for r in found] == [f"run0/01_01/01_01_c0001:{t}" for t in range(3)]
    assert {r["sequence"] for r in found} == {"run0/01_01/01_01_c0001"}
    assert [r["frame"] for r in found] == [0, 1, 2]
    skeleton = Surreal.SKELETON
    # L_Shoulder, which is on the right in the mirrored image.
    shoulder = skeleton.joints.index("right_shoulder")
    np.testing.assert_allclose(found[1]["keypoints3d"][shoulder], (-0.9033, -0.1076, 7.6101), atol=1e-5)
    np.testing.assert_array_equal(np.round(found[1]["keypoints"][shoulder] + 0.5), (89, 112))
    for t, record in enumerate(found):
        assert abs(record["keypoints"].T + 0.5 - pixels(world[..., t])).max() <= 0.51
        camera = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(camera[:, :2] / camera[:, 2:], record["keypoints"], atol=1e-3)
        assert (record["visible"] == 2).all()
        low, high = record["keypoints"].min(axis=0), record["keypoints"].max(axis=0)
        np.testing.assert_allclose(record["bbox"], [*low, *(high - low)], atol=1e-4)
        image = files.decode_image(record["image"], "")
        assert image.shape == (240, 320, 3)
        assert abs(image.mean() - (20 + 20 * t)) < 8


def test_names_are_mirrored_like_the_images():
    for smpl, joint in zip(SMPL, Surreal.SKELETON.joints, strict=True):
        side = {"L": "right_", "R": "left_"}.get(smpl[0] if smpl[1] == "_" else "", "")
        assert joint == side + smpl[2 if side else 0 :].lower()
    # tllib's picks from the owners' joints for MPII's 16.
    called = {"left_shoulder": "left_collar", "right_shoulder": "right_collar"}
    called |= {"head_top": "head", "neck": "thorax", "thorax": "spine3"}
    picks = [Surreal.SKELETON.joints.index(called.get(joint, joint)) for joint in MPII16.joints]
    assert picks == [7, 4, 1, 2, 5, 8, 0, 9, 12, 15, 20, 18, 13, 14, 19, 21]


def test_a_body_that_faces_the_camera_has_its_right_on_the_images_left(tmp_path):
    # In the world of the renderings, up is -y and the camera looks along -x; left = up x forward.
    up, forward = np.array([0.0, -1, 0]), np.array([1.0, 0, 0])
    left = np.cross(up, forward)
    world = bodies(1)
    world[:, SMPL.index("L_Shoulder"), 0] = 0.2 * left + (0, LOCATION[1], LOCATION[2])
    world[:, SMPL.index("R_Shoulder"), 0] = -0.2 * left + (0, LOCATION[1], LOCATION[2])
    write_clip(tmp_path, world, squeeze=True)  # a single frame, whose last axis MATLAB drops
    (record,), _ = read(builder(tmp_path).shards(tmp_path)["train"])
    joints = Surreal.SKELETON.joints
    for points in (record["keypoints"], record["keypoints3d"]):
        assert points[joints.index("right_shoulder")][0] < points[joints.index("left_shoulder")][0] - 0.1


def test_broken_clips_and_frames_are_skipped(tmp_path):
    world = bodies(4)
    world[:, :, 1] = 0
    owners = np.stack([pixels(world[..., t]) for t in range(4)], axis=-1)
    owners[0, 5, 2] += 4
    write_clip(tmp_path, world, clip=1, owners=owners)
    write_clip(tmp_path, bodies(3), clip=2, video=2)
    write_clip(tmp_path, bodies(2), clip=3, video=0)
    write_clip(tmp_path, bodies(2)[:, :23], clip=4)
    (tmp_path / "cmu/train/run0/01_01/01_01_c0005_info.mat").write_bytes(b"MATLAB 5.0 MAT-file, but not really")
    write_clip(tmp_path, bodies(1), sequence="18_01")
    write_clip(tmp_path, bodies(1), sequence="143_21")
    write_clip(tmp_path, bodies(1), sequence="118_01", split="val")
    found = builder(tmp_path).shards(tmp_path)
    kept, skipped = read(found["train"])
    assert [r["name"][-7:] for r in kept] == ["c0001:0", "c0001:3", "c0002:0", "c0002:1"]
    assert [(s.name.split("/")[-1], s.reason) for s in skipped] == [
        ("01_01_c0001:1", "its 2D and 3D joints are zero or disagree"),
        ("01_01_c0001:2", "its 2D and 3D joints are zero or disagree"),
        ("01_01_c0002:2", "the video ends before this frame"),
        ("01_01_c0003", "the clip's video is missing"),
        ("01_01_c0004", "the clip's labels cannot be read"),
        ("01_01_c0005", "the clip's labels cannot be read"),
    ]
    assert len(read(found["validation"])[0]) == 1


def test_stride_and_layout(tmp_path):
    write_clip(tmp_path, bodies(12), run=2)
    (found, _) = read(builder(tmp_path, SurrealEvery10).shards(tmp_path)["train"])
    assert [r["frame"] for r in found] == [0, 10]
    assert abs(files.decode_image(found[1]["image"], "").mean() - 220) < 8
    with pytest.raises(FileNotFoundError, match=r"cmu: found no such file or folder, expected cmu/train/run0"):
        builder(tmp_path).shards(tmp_path / "other")
    (tmp_path / "other" / "cmu").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"cmu: holds no \{train,val,test\}/run"):
        builder(tmp_path).shards(tmp_path / "other")


def test_prepared_with_parts(tmp_path):
    stem = write_clip(tmp_path / "owners", bodies(3))
    parts = np.zeros((240, 320), np.uint8)
    parts[10:20, 30:50] = SMPL.index("L_Elbow") + 1
    scipy.io.savemat(f"{stem}_segm.mat", {"segm_1": parts, "segm_3": parts * 0 + 1})
    folder = prepare.prepare(SurrealParts, tmp_path / "owners", tmp_path / "data")
    source = tfds_source.TfdsSource(folder=folder, split="train")
    assert [source[i].get("frame") for i in range(len(source))] == [0, 2]
    record = source[0]
    assert record.get("area") == 200
    found = cv2.imdecode(np.frombuffer(record.get("segmentation", b""), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, parts)
    assert source.skeleton.joints[found.max() - 1] == "right_elbow"
    assert record.get("sequence") == "run0/01_01/01_01_c0001"
    np.testing.assert_allclose(record.get("intrinsics"), [[600, 0, 159.5], [0, 600, 119.5], [0, 0, 1]])
    skipped = json.loads((folder / "skipped.json").read_text())
    assert skipped == {"it has no segmentation": [1, ["run0/01_01/01_01_c0001:1"]]}


def write_tllib(root: Path, counts=(2, 0, 1)):
    rng, image = np.random.default_rng(0), cv2.imencode(".jpg", np.zeros((50, 50, 3), np.uint8))[1].tobytes()
    points = {}
    for split in ("train", "val", "test"):
        for run, count in enumerate(counts):
            samples = []
            for i in range(count):
                path = root / split / f"run{run}" / "images" / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image)
                points[f"{split}/run{run}/images/{i}.jpg"] = rng.uniform(0, 50, (24, 2))
                samples.append(
                    {
                        "name": f"images/{i}.jpg",
                        "keypoint2d": points[f"{split}/run{run}/images/{i}.jpg"].tolist(),
                        "keypoint3d": np.ones((24, 3)).tolist(),
                        "intrinsic_matrix": np.eye(3).tolist(),
                    }
                )
            (root / split).mkdir(parents=True, exist_ok=True)
            (root / split / f"run{run}.json").write_text(json.dumps(samples))
    return points


def test_tllibs_copy(tmp_path):
    points = write_tllib(tmp_path)
    (tmp_path / "val/run0/images/1.jpg").unlink()
    broken = json.loads((tmp_path / "val/run2.json").read_text())
    broken[0]["keypoint2d"][3] = None
    (tmp_path / "val/run2.json").write_text(json.dumps(broken))
    found = builder(tmp_path, SurrealTllib).shards(tmp_path)
    kept, _ = read(found["test"])
    assert [r["name"] for r in kept] == ["run0/images/0.jpg", "run0/images/1.jpg", "run2/images/0.jpg"]
    for record in kept:
        np.testing.assert_allclose(record["keypoints"], points[f"test/{record['name']}"], atol=1e-4)
    kept, skipped = read(found["validation"])
    assert len(kept) == 1
    assert [s.reason for s in skipped] == ["the image is missing", "it has no 24 joints"]


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "", 3])
def test_tllibs_copy_stays_in_its_folder(tmp_path, name):
    write_tllib(tmp_path)
    (tmp_path / "test/run1.json").write_text(json.dumps([{"name": name, "keypoint2d": [[0, 0]] * 24}]))
    with pytest.raises(ValueError, match=r"run1\.json: entry 0: names the file .*expected one below run1/"):
        builder(tmp_path, SurrealTllib).shards(tmp_path)


def test_tllibs_layout(tmp_path):
    write_tllib(tmp_path)
    (tmp_path / "test/run1.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run1\.json: found a dict, expected a list"):
        builder(tmp_path, SurrealTllib).shards(tmp_path)
    (tmp_path / "test/run1.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"test/run1\.json: no such file"):
        builder(tmp_path, SurrealTllib).shards(tmp_path)


def test_tllibs_split():
    found = SurrealTllib.PRESETS["tllib"]({"train": 20_000, "validation": 10, "test": 100})
    for split, length in (("train", 20_000), ("validation", 10), ("test", 100)):
        samples = [(split, i) for i in range(length)]
        random.seed(42)
        random.shuffle(samples)
        expected = {"train": samples[3200:], "test": samples[:20], "validation": samples}[split]
        assert list(found[split]) == expected
