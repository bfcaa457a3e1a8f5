import tarfile

import cv2
import numpy as np
import pytest
import scipy.io

from jaxpose.data.formats import files
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers.tfds_source import TfdsSource
from jaxpose.datasets import prepare
from jaxpose.datasets.ge_hands import GeHands

# The owners' order, each finger from its base.
OWNERS = [
    *("wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *("index_mcp", "index_pip", "index_dip", "index_tip", "middle_mcp", "middle_pip", "middle_dip", "middle_tip"),
    *("ring_mcp", "ring_pip", "ring_dip", "ring_tip", "little_mcp", "little_pip", "little_dip", "little_tip"),
]
FX, FY, U0, V0 = 900.0, 910.0, 640.0, 360.0
LEFT, TOP, SIDE = 380, 120, 512


def write(root, count=3, *, npz=False):
    """A photograph with a bright dot at the middle knuckle, cut out and halved."""
    joints = np.random.default_rng(1).uniform(-6, 6, (count, 21, 3)) + np.array([0, 0, 45])
    (root / "images").mkdir(parents=True)
    for number in range(count):
        x, y, z = joints[number, OWNERS.index("middle_mcp")]
        rows, columns = np.mgrid[:720, :1280]
        dot = np.exp(-((columns - (FX * x / z + U0)) ** 2 + (rows - (FY * y / z + V0)) ** 2) / 50)
        cut = np.uint8(255 * dot)[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
        small = cv2.resize(cut, (256, 256), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(root / "images" / f"{number:05d}.jpg"), np.repeat(small[..., None], 3, axis=2))
    boxes, cameras = np.tile([LEFT, TOP, SIDE, SIDE], (count, 1)), np.tile([FX, FY, U0, V0], (count, 1))
    if npz:
        ids = np.arange(count)
        np.savez(root / "labels.npz", ids=ids, pose_cm=joints, bbox=boxes, cam=cameras, pose_root=joints[:, 0])
    else:
        names = np.array([f"images/{i:05d}.jpg" for i in range(count)])
        scipy.io.savemat(root / "params.mat", {"image_path": names, "bbox": boxes, "cam_param": cameras})
        scipy.io.savemat(root / "pose_gt.mat", {"pose_gt": joints})
    return joints


def read(root):
    shards = GeHands(data_dir=str(root / "out"), file_format="array_record").shards(root)
    assert set(shards) == {"test"}
    return [item for shard in shards["test"] for item in shard()]


@pytest.mark.parametrize("npz", [False, True], ids=["mat", "npz"])
def test_joints_by_name_in_metres_and_where_the_image_shows_them(tmp_path, npz):
    joints = write(tmp_path, npz=npz)
    found = read(tmp_path)
    assert [(r["name"], r["frame"]) for r in found] == [(f"images/0000{i}.jpg", i) for i in range(3)]
    for number, record in enumerate(found):
        for k, joint in enumerate(GeHands.SKELETON.joints):
            np.testing.assert_allclose(record["keypoints3d"][k], joints[number, OWNERS.index(joint)] / 100, rtol=1e-6)
        projected = record["keypoints3d"] @ record["intrinsics"].T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record["keypoints"], atol=1e-3)
        weight = files.decode_image(record["image"], "")[..., 0].astype(float)
        weight[weight < 20] = 0
        centre = [(weight.sum(axis=axis) @ np.arange(256)) / weight.sum() for axis in (0, 1)]
        knuckle = record["keypoints"][GeHands.SKELETON.joints.index("middle_mcp")]
        np.testing.assert_allclose(knuckle, centre, atol=0.1)
        assert record["hand"] == "left"


def test_broken_images_are_left_out(tmp_path):
    write(tmp_path, 5)
    names = ["images/00000.jpg", "../outside.jpg", "images/00002.jpg", "images/00003.jpg", "images/x.jpg"]
    mat = scipy.io.loadmat(tmp_path / "params.mat")
    scipy.io.savemat(
        tmp_path / "params.mat",
        {"image_path": np.array(names), "bbox": mat["bbox"], "cam_param": mat["cam_param"]},
    )
    (tmp_path.parent / "outside.jpg").write_bytes((tmp_path / "images/00001.jpg").read_bytes())
    (tmp_path / "images/00002.jpg").unlink()
    (tmp_path / "images/00003.jpg").write_bytes(b"no image")
    (tmp_path / "images/x.jpg").write_bytes((tmp_path / "images/00001.jpg").read_bytes())
    found = read(tmp_path)
    assert found[0]["name"] == names[0]
    assert found[1:] == [
        Skipped("../outside.jpg", "its image lies outside of the folder of images"),
        Skipped("images/00002.jpg", "the image is missing"),
        Skipped("images/00003.jpg", "the image cannot be decoded"),
        Skipped("images/x.jpg", "the image has no number or its box no width"),
    ]


def test_layout_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images: found no such file or folder, expected the images"):
        read(tmp_path)
    write(tmp_path)
    scipy.io.savemat(tmp_path / "pose_gt.mat", {"pose_gt": np.zeros((2, 21, 3))})
    with pytest.raises(ValueError, match=r"pose_gt\.mat: pose_gt: found shape \(2, 21, 3\), expected \(3, 21, 3\)"):
        read(tmp_path)
    (tmp_path / "pose_gt.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"pose_gt\.mat: .*expected a MATLAB file with pose_gt"):
        read(tmp_path)
    scipy.io.savemat(tmp_path / "params.mat", {"bbox": np.zeros((3, 4))})
    with pytest.raises(ValueError, match=r"params\.mat: found bbox; expected image_path"):
        read(tmp_path)
    (tmp_path / "params.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"params\.mat: no such file, expected a MATLAB file with image_path"):
        read(tmp_path)
    np.savez(tmp_path / "labels.npz", ids=np.array([{}]))
    with pytest.raises(ValueError, match=r"labels\.npz: .*expected arrays of labels"):
        read(tmp_path)
    np.savez(tmp_path / "labels.npz", ids=np.arange(3))
    with pytest.raises(ValueError, match=r"labels\.npz: found ids; expected pose_cm"):
        read(tmp_path)


def test_prepared(tmp_path):
    write(tmp_path)
    folder = prepare.prepare(GeHands, tmp_path, tmp_path / "data")
    source = TfdsSource(folder=folder, split="test")
    assert len(source) == 3
    record, expected = source[1], read(tmp_path)[1]
    assert (record["sequence"], record["frame"], record["hand"]) == ("real_world_testset", 1, "left")
    np.testing.assert_array_equal(record["keypoints"], expected["keypoints"])
    assert record["image"] == (tmp_path / "images/00001.jpg").read_bytes()


def test_real_photographs(tmp_path, pack):
    """Joints lie on skin: redder than what surrounds the hand."""
    with tarfile.open(pack("ge_hands_000_399.tar.gz")) as archive:
        wanted = [m for m in archive if m.name.endswith("labels.npz") or m.name.endswith("0.jpg")]
        archive.extractall(tmp_path, members=wanted, filter="data")
    found = read(next(tmp_path.glob("**/labels.npz")).parent)
    kept = [r for r in found if not isinstance(r, Skipped)]
    assert (len(found), len(kept)) == (400, 40)
    on_skin = []
    for record in kept:
        assert (record["visible"] == 2).all()
        image = files.decode_image(record["image"], record["name"]).astype(float)
        red = image[..., 0] - image[..., 1:].mean(axis=2)
        columns, rows = np.rint(record["keypoints"]).astype(int).T
        on_skin.append((red[rows, columns] > 25).mean())
        at = dict(zip(GeHands.SKELETON.joints, record["keypoints3d"], strict=True))
        along, across = at["middle_mcp"] - at["wrist"], at["index_mcp"] - at["little_mcp"]
        curl = sum(at[f"{f}_tip"] - at[f"{f}_mcp"] for f in ("index", "middle", "ring", "little"))
        assert curl @ np.cross(across, along) < 0  # a left hand's fingers bend this way
    assert np.mean(on_skin) > 0.95
