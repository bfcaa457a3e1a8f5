import json
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats import files, unpickle
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers import tfds_source
from jaxpose.datasets import prepare
from jaxpose.datasets.human36m import Human36m

SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
JPEG = cv2.imencode(".jpg", np.full((100, 90, 3), 70, np.uint8))[1].tobytes()
# Camera 1 looks along the world's y axis with z up, from 3 m behind the origin and 1 m above it.
ROTATION = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
PLACE = np.array([0.0, -3000, 1000])  # mm
FOCAL, CENTRE = np.array([100.0, 110]), np.array([45.0, 50])


def builder(tmp_path):
    return Human36m(data_dir=str(tmp_path / "unused"), file_format="array_record")


def body(rng):
    """World joints (17, 3) in millimetres within a metre of (0, 0, 1000)."""
    return rng.uniform(-500, 500, (17, 3)) + np.array([0, 0, 1000])


def write(root, *, entries=7, place=False, image=JPEG, size=(90, 100), subjects=SUBJECTS):
    rng, worlds = np.random.default_rng(0), {}
    (root / "annotations").mkdir(parents=True)
    t = PLACE if place else -ROTATION @ PLACE
    camera = {"R": ROTATION.tolist(), "t": t.tolist(), "f": FOCAL.tolist(), "c": CENTRE.tolist()}
    for subject in subjects:
        clip = f"s_{subject:02d}_act_02_subact_01_ca_01"
        (root / "images" / clip).mkdir(parents=True)
        images, joints = [], {}
        for i in range(entries):
            name = f"{clip}/{clip}_{i + 1:06d}.jpg"
            (root / "images" / name).write_bytes(image)
            worlds[name] = body(rng)
            joints[str(i)] = worlds[name].tolist()
            images.append(
                {
                    "id": i,
                    "file_name": name,
                    "width": size[0],
                    "height": size[1],
                    "subject": subject,
                    "action_name": "Directions",
                    "action_idx": 2,
                    "subaction_idx": 1,
                    "cam_idx": 1,
                    "frame_idx": i,
                }
            )
        stem = root / "annotations" / f"Human36M_subject{subject}_"
        Path(f"{stem}camera.json").write_text(json.dumps({"1": camera}))
        Path(f"{stem}data.json").write_text(json.dumps({"images": images, "annotations": []}))
        Path(f"{stem}joint_3d.json").write_text(json.dumps({"2": {"1": joints}}))
    return worlds


def read(shards_of_split):
    # Shards travel to other processes.
    items = [item for shard in shards_of_split for item in pickle.loads(pickle.dumps(shard))()]
    return [i for i in items if not isinstance(i, Skipped)], [i for i in items if isinstance(i, Skipped)]


@pytest.mark.parametrize("place", [False, True], ids=["translation", "place"])
def test_both_generations_of_cameras(tmp_path, place):
    worlds = write(tmp_path, place=place)
    found = builder(tmp_path).shards(tmp_path)
    kept, skipped = read(found["train"])
    assert not skipped
    # Every fifth entry of each list.
    assert [(r["name"][:4], r.get("frame")) for r in kept] == [
        (f"s_{s:02d}", i) for s in (1, 5, 6, 7, 8) for i in (0, 5)
    ]
    assert [r["name"][:4] for r in read(found["test"])[0]] == ["s_09", "s_09", "s_11", "s_11"]
    record = kept[1]
    assert record.get("sequence") == "s_01_act_02_subact_01_ca_01"
    x, y, z = worlds["s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000006.jpg"].T / 1000
    np.testing.assert_allclose(record["keypoints3d"], np.stack([x, 1 - z, y + 3], axis=1), atol=1e-5)
    expected = np.stack([100 * x / (y + 3) + 45, 110 * (1 - z) / (y + 3) + 50], axis=1)
    np.testing.assert_allclose(record["keypoints"], expected, atol=1e-3)
    np.testing.assert_allclose(record["intrinsics"], [[100, 0, 45], [0, 110, 50], [0, 0, 1]])
    low, high = expected.min(axis=0), expected.max(axis=0)
    np.testing.assert_allclose(record["bbox"], [*low, *(high - low)], atol=1e-3)
    assert record["image"] == JPEG


def test_joints():
    names = [
        *("Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Nose", "Head"),
        *("L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist"),
    ]
    own = {"Torso": "spine", "Neck": "thorax", "Nose": "jaw", "Head": "head_top"}
    expected = [own.get(n, n.replace("L_", "left_").replace("R_", "right_").lower()) for n in names]
    assert list(Human36m.SKELETON.joints) == expected


def test_missing_images_and_joints_are_skipped(tmp_path):
    write(tmp_path)
    clip = "s_01_act_02_subact_01_ca_01"
    (tmp_path / f"images/{clip}/{clip}_000001.jpg").unlink()
    for subject, joints in ((5, {}), (6, {"2": {"1": {"0": [[1, 2, 3]] * 16, "5": "none"}}})):
        (tmp_path / f"annotations/Human36M_subject{subject}_joint_3d.json").write_text(json.dumps(joints))
    kept, skipped = read(builder(tmp_path).shards(tmp_path)["train"])
    assert len(kept) == 5
    assert [s.reason for s in skipped] == ["the image is missing", *["it has no 3D joints"] * 4]


def edit(root, subject, kind, change):
    path = root / f"annotations/Human36M_subject{subject}_{kind}.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_layout_errors(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"images: found no such file or folder, expected the images of Human3\.6M"
    ):
        builder(tmp_path).shards(tmp_path)
    write(tmp_path / "a", subjects=(1, 5))
    with pytest.raises(
        FileNotFoundError, match=r"Human36M_subject6_camera\.json: found no such file or folder, expected .* 3DMPPE"
    ):
        builder(tmp_path).shards(tmp_path / "a")
    root = tmp_path / "b"
    write(root)

    def expect(message):
        with pytest.raises(ValueError, match=message):
            builder(tmp_path).shards(root)

    edit(root, 11, "data", lambda d: d["images"][5].update(cam_idx=7))
    expect(r"subject11_data\.json: image 5: camera 7, expected one of 1")
    edit(root, 9, "data", lambda d: d["images"][0].pop("width"))
    expect(r"subject9_data\.json: image 0: found .*; expected width")
    edit(root, 8, "data", lambda d: d["images"][0].update(file_name="../../x.jpg"))
    expect(r"subject8_data\.json: image 0: names the file '\.\./\.\./x\.jpg', expected one below images/")
    edit(root, 7, "camera", lambda d: d["1"].update(f=[1.0]))
    expect(r"subject7_camera\.json: camera 1: f: found .\[1\.0\]., expected 2 finite numbers")
    edit(root, 6, "camera", lambda d: d["1"].update(t=[0, 0, -9000]))
    expect(r"subject6_camera\.json: camera 1: puts 0% of the joints in the images \(or 0%, if t is its place\)")
    (root / "annotations/Human36M_subject5_joint_3d.json").write_text("{")
    expect(r"subject5_joint_3d\.json: .*expected annotations")


def test_prepared(tmp_path):
    write(tmp_path / "owners", entries=1)
    folder = prepare.prepare(Human36m, tmp_path / "owners", tmp_path / "data")
    source = tfds_source.TfdsSource(folder=folder, split="test")
    assert [r["name"][:4] for r in (source[0], source[1])] == ["s_09", "s_11"]
    assert source.skeleton == Human36m.SKELETON
    assert np.shape(source[0].get("keypoints3d")) == (17, 3)


def test_tllibs_draw():
    found = Human36m.PRESETS["tllib"]({"train": 10, "test": 5000})
    assert list(found["train"]) == [("train", i) for i in range(10)]
    random.seed(42)
    assert list(found["test"]) == random.choices([("test", i) for i in range(5000)], k=3200)
    assert len(set(found["test"])) < 3200


def test_real_images_and_cameras(pack: Callable[[str], Path], tmp_path: Path) -> None:
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [m for m in archive if m.name.startswith("tests/data/h36m/") and m.isreg()]
        archive.extractall(tmp_path / "pack", members, filter="data")
    found = tmp_path / "pack/tests/data/h36m"
    cameras = unpickle.load((found / "cameras.pkl").read_bytes())
    arrays = np.load(found / "test_h36m_body3d.npz")
    write(tmp_path / "owners", entries=1, size=(1000, 1002))
    for name, points in zip(arrays["imgname"], arrays["S"], strict=True):
        subject, key = int(name[1]), name.rsplit(".", 2)[1].split("_")[0]
        camera = cameras[f"S{subject}", key]
        image = found / name
        root = tmp_path / "owners"
        clip = f"s_{subject:02d}_act_02_subact_01_ca_01"
        (root / "images" / clip / f"{clip}_000001.jpg").write_bytes(image.read_bytes())
        # mmpose keeps the joints in the camera's frame, and how the camera stands in the world, in metres.
        stands, place = camera["R"], camera["T"].ravel()
        world = 1000 * (points[:, :3] @ stands.T + place)
        assert (world[[3, 6], 2] < 1000).all()  # ankles in the world, whose z is up from the floor
        assert subject == 5 or (world[10, 2] > 1400 and (world[[3, 6], 2] < 250).all())  # subject 5 lies, others stand
        later = {"R": stands.T.tolist(), "t": (-1000 * stands.T @ place).tolist()}
        intrinsics = {"f": camera["f"].ravel().tolist(), "c": camera["c"].ravel().tolist()}
        edit(root, subject, "camera", lambda d, c=later | intrinsics: d["1"].update(c))
        edit(root, subject, "joint_3d", lambda d, w=world: d["2"]["1"].update({"0": w.tolist()}))
    kept, _ = read(builder(tmp_path).shards(tmp_path / "owners")["train"])
    kept = {int(r["name"][2:4]): r for r in kept}
    for name, part, points in zip(arrays["imgname"], arrays["part"], arrays["S"], strict=True):
        record = kept[int(name[1])]
        np.testing.assert_allclose(record["keypoints3d"], points[:, :3], atol=1e-4)
        assert np.abs(record["keypoints"] - part[:, :2]).max() < 3  # the lens distorts by up to 2.4 pixels here
        assert files.decode_image(record["image"], name).shape[1:] == (1000, 3)
