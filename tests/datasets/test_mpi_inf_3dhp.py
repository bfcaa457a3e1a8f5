import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from jaxpose.data.formats import files, unpickle
from jaxpose.data.formats.shards import Skipped
from jaxpose.data.readers import tfds_source
from jaxpose.datasets import mpi_inf_3dhp, prepare
from jaxpose.datasets.mpi_inf_3dhp import MpiInf3dhp, MpiInf3dhpTest, MpiInf3dhpTestUniversal

h5py = pytest.importorskip("h5py")

JPEG = cv2.imencode(".jpg", np.full((128, 128, 3), 70, np.uint8))[1].tobytes()
FOCAL, CENTRE = np.array([90.0, 95]), np.array([64.5, 66])
VNECT = (0, 1, 2, 4, 5, 6, 7, 8)


class EveryFrame(MpiInf3dhp):
    STRIDE = 1


def builder(tmp_path, kind):
    return kind(data_dir=str(tmp_path / "unused"), file_format="array_record")


def joints(frames, count, seed=0):
    """Joints (frames, count, 3) in the camera's frame, millimetres, and their pixels."""
    points = np.random.default_rng(seed).uniform(-900, 900, (frames, count, 3)) + np.array([0, 0, 3500])
    return points, points[..., :2] / points[..., 2:] * FOCAL + CENTRE


def write_recording(root, name="S1/Seq1", *, frames=4, cameras=(0, 4), video=True, start=0):
    """Camera c has joints of seed c."""
    folder = root / name
    (folder / "imageSequence").mkdir(parents=True)
    labels = {key: np.empty((14, 1), object) for key in ("annot2", "annot3", "univ_annot3")}
    for camera in range(14):
        points, pixels = joints(frames, 28, camera)
        labels["annot2"][camera, 0] = pixels.reshape(frames, 56)
        labels["annot3"][camera, 0] = points.reshape(frames, 84)
        labels["univ_annot3"][camera, 0] = points.reshape(frames, 84) * 0.9
    labels |= {"cameras": np.arange(14)[None], "frames": np.arange(frames)[:, None]}
    scipy.io.savemat(folder / "annot.mat", labels)
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in range(14):
        lines += [
            f"name          {camera}",
            "  sensor      10 10",
            "  size        128 128",
            "  animated    0",
            f"  intrinsic   {FOCAL[0]} 0 {CENTRE[0]} 0 0 {FOCAL[1]} {CENTRE[1]} 0 0 0 1 0 0 0 0 1 ",
            "  extrinsic   0 1 0 100 0 0 1 200 1 0 0 300 0 0 0 1 ",
            "  radial      0",
        ]
    (folder / "camera.calibration").write_text("\n".join(lines) + "\n")
    for camera in cameras:
        if video:
            writer = cv2.VideoWriter(
                str(folder / f"imageSequence/video_{camera}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (128, 128)
            )
            assert writer.isOpened()
            for t in range(frames):
                writer.write(np.full((128, 128, 3), 20 + 20 * t, np.uint8))
            writer.release()
    return folder


def read(shards_of_split):
    # Shards travel to other processes.
    items = [item for shard in shards_of_split for item in pickle.loads(pickle.dumps(shard))()]
    return [i for i in items if not isinstance(i, Skipped)], [i for i in items if isinstance(i, Skipped)]


def test_videos(tmp_path):
    write_recording(tmp_path, "S2/Seq2", cameras=(0, 3, 4))
    kept, skipped = read(builder(tmp_path, EveryFrame).shards(tmp_path)["train"])
    assert not skipped
    # Camera 3 is not one of VNect's.
    assert [(r["sequence"], r["frame"]) for r in kept] == [(f"S2/Seq2/{c}", t) for c in (0, 4) for t in range(4)]
    for record in kept:
        camera, t = int(record["sequence"][-1]), record["frame"]
        points, pixels = joints(4, 28, camera)
        np.testing.assert_allclose(record["keypoints3d"], points[t] / 1000, atol=1e-5)
        np.testing.assert_allclose(record["keypoints"], pixels[t], atol=1e-3)
        np.testing.assert_allclose(record["intrinsics"], [[90, 0, 64.5], [0, 95, 66], [0, 0, 1]])
        assert abs(files.decode_image(record["image"], "").mean() - (20 + 20 * t)) < 8


@pytest.mark.parametrize("pattern", ["imageSequence/img_4_{:06d}.jpg", "imageFrames/video_4/frame_{:06d}.jpg"])
def test_frames_as_files_count_from_one(tmp_path, pattern):
    folder = write_recording(tmp_path, video=False)
    for t in (0, 1, 3):
        path = folder / pattern.format(t + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + bytes([t]))
    kept, skipped = read(builder(tmp_path, EveryFrame).shards(tmp_path)["train"])
    assert [(r["sequence"], r["frame"], r["image"][-1]) for r in kept] == [("S1/Seq1/4", t, t) for t in (0, 1, 3)]
    assert skipped == [Skipped("S1/Seq1/4:2", "the image is missing")]


def test_stride_short_videos_and_swapped_frames(tmp_path, monkeypatch):
    folder = write_recording(tmp_path, "S4/Seq2", frames=24, cameras=())
    writer = cv2.VideoWriter(str(folder / "imageSequence/video_8.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (128, 128))
    for _ in range(15):
        writer.write(np.zeros((128, 128, 3), np.uint8))
    writer.release()
    kept, skipped = read(builder(tmp_path, MpiInf3dhp).shards(tmp_path)["train"])
    assert [r["frame"] for r in kept] == [0, 10]
    np.testing.assert_allclose(kept[1]["keypoints"], joints(24, 28, 8)[1][10], atol=1e-3)
    assert skipped == [Skipped("S4/Seq2/8:20", "the video ends before this frame")]
    assert mpi_inf_3dhp._SWAPPED == {"S4/Seq2": (3759, 5853)}
    monkeypatch.setitem(mpi_inf_3dhp._SWAPPED, "S4/Seq2", (10, 20))
    kept, skipped = read(builder(tmp_path, MpiInf3dhp).shards(tmp_path)["train"])
    assert [r["frame"] for r in kept] == [0]
    assert skipped[0] == Skipped("S4/Seq2/8:10", "left and right are swapped in the owners' labels")


def test_joints():
    assert MpiInf3dhp.SKELETON.joints[4:8] == ("pelvis", "thorax", "head", "head_top")
    assert [MpiInf3dhp.SKELETON.joints.index(f"{s}_wrist") for s in ("left", "right")] == [11, 16]
    assert [MpiInf3dhp.SKELETON.joints.index(f"{s}_ankle") for s in ("left", "right")] == [20, 25]
    # The owners' choice of the test set's joints from all.
    relevant = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
    assert tuple(MpiInf3dhp.SKELETON.joints[i] for i in relevant) == MpiInf3dhpTest.SKELETON.joints


def test_training_layout_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no S1/Seq1 to S8/Seq2"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)
    folder = write_recording(tmp_path, cameras=())
    with pytest.raises(FileNotFoundError, match=r"S1/Seq1: holds no imageSequence/video_0\.avi or images"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)
    (folder / "imageSequence/video_0.avi").touch()
    text = (folder / "camera.calibration").read_text()
    (folder / "camera.calibration").write_text(text.replace("90.0", "190.0"))
    with pytest.raises(ValueError, match=r"S1/Seq1: camera 0: 3D joints project .* pixels beside the 2D joints"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)
    (folder / "camera.calibration").write_text(text.replace("90.0", "ninety"))
    with pytest.raises(ValueError, match=r"camera\.calibration: line 6: found .* expected 16 finite numbers"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)
    (folder / "camera.calibration").unlink()
    with pytest.raises(FileNotFoundError, match=r"camera\.calibration: no such file"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)
    scipy.io.savemat(folder / "annot.mat", {"annot2": np.zeros((3, 56)), "annot3": np.zeros((3, 84))})
    with pytest.raises(ValueError, match=r"annot\.mat: annot2 holds no \(frames, 56\) for camera 0"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)
    (folder / "annot.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"annot\.mat: no such file"):
        builder(tmp_path, MpiInf3dhp).shards(tmp_path)


def write_test(root, *, frames=4, valid=(1, 0, 1, 1)):
    """TSk has joints of seed k."""
    for k in range(1, 7):
        points, pixels = joints(frames, 17, k)
        write_test_recording(root / f"mpi_inf_3dhp_test_set/TS{k}", pixels, points, valid)


def write_test_recording(folder, pixels, points, valid, image=JPEG):
    (folder / "imageSequence").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "annot_data.mat", "w") as file:
        file["annot2"] = pixels[:, None]
        file["annot3"] = points[:, None]
        file["univ_annot3"] = points[:, None] * 0.8
        file["valid_frame"] = np.array(valid, float)[:, None]
    for t in range(len(valid)):
        (folder / f"imageSequence/img_{t + 1:06d}.jpg").write_bytes(image)


@pytest.mark.parametrize(("kind", "factor"), [(MpiInf3dhpTest, 1), (MpiInf3dhpTestUniversal, 0.8)])
def test_valid_frames_of_the_test_set(tmp_path, kind, factor):
    write_test(tmp_path)
    (tmp_path / "mpi_inf_3dhp_test_set/TS6/imageSequence/img_000004.jpg").unlink()
    kept, skipped = read(builder(tmp_path, kind).shards(tmp_path)["test"])
    assert [(r["sequence"], r["frame"]) for r in kept] == [(f"TS{k}", t) for k in range(1, 7) for t in (0, 2, 3)][:-1]
    assert skipped == [Skipped("TS6:3", "the image is missing")]
    for record in kept:
        points, pixels = joints(4, 17, int(record["sequence"][2]))
        np.testing.assert_allclose(record["keypoints3d"], factor * points[record["frame"]] / 1000, atol=1e-5)
        np.testing.assert_allclose(record["keypoints"], pixels[record["frame"]], atol=1e-3)
        np.testing.assert_allclose(record["intrinsics"], [[90, 0, 64.5], [0, 95, 66], [0, 0, 1]], atol=1e-3)


def test_test_set_layout_errors(tmp_path):
    write_test(tmp_path)
    path = tmp_path / "mpi_inf_3dhp_test_set/TS3/annot_data.mat"

    def expect(error, message):
        with pytest.raises(error, match=message):
            builder(tmp_path, MpiInf3dhpTest).shards(tmp_path)

    with h5py.File(path, "a") as file:
        file["annot2"][...] = np.random.default_rng(0).uniform(0, 500, file["annot2"].shape)
    expect(ValueError, r"TS3: annot2 and annot3: 3D joints project .* pixels beside the 2D joints")
    with h5py.File(path, "a") as file:
        del file["annot3"]
        file["annot3"] = h5py.ExternalLink(str(path.parent.parent / "TS1/annot_data.mat"), "annot3")
    expect(ValueError, r"TS3/annot_data\.mat: holds no annot3")
    with h5py.File(path, "a") as file:
        del file["annot2"]
        file["annot2"] = np.zeros((4, 17, 2))
    expect(ValueError, r"annot_data\.mat: annot2 is \(4, 17, 2\), expected \('frames', 1, 17, 2\)")
    path.write_bytes(b"MATLAB 7.3")
    expect(ValueError, r"TS3/annot_data\.mat: .*expected MATLAB 7\.3")
    path.unlink()
    expect(FileNotFoundError, r"TS3/annot_data\.mat: found no such file")
    expect_root = tmp_path / "elsewhere"
    with pytest.raises(
        FileNotFoundError, match=r"mpi_inf_3dhp_test_set: found no such file or folder, expected TS1 to TS6"
    ):
        builder(tmp_path, MpiInf3dhpTest).shards(expect_root)


def test_prepared(tmp_path):
    write_recording(tmp_path / "owners", frames=2)
    folder = prepare.prepare(EveryFrame, tmp_path / "owners", tmp_path / "data")
    source = tfds_source.TfdsSource(folder=folder, split="train")
    assert [source[i].get("sequence") for i in range(len(source))] == ["S1/Seq1/0"] * 2 + ["S1/Seq1/4"] * 2
    assert source.skeleton == MpiInf3dhp.SKELETON


def test_real_images_and_cameras(pack: Callable[[str], Path], tmp_path: Path) -> None:
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [m for m in archive if m.name.startswith("tests/data/mpi_inf_3dhp/") and m.isreg()]
        archive.extractall(tmp_path / "pack", members, filter="data")
    found = tmp_path / "pack/tests/data/mpi_inf_3dhp"
    arrays = np.load(found / "test_3dhp_test.npz")
    cameras = unpickle.load((found / "cameras_test.pkl").read_bytes())
    write_test(tmp_path)
    for name, part, points in zip(arrays["imgname"], arrays["part"], arrays["S"], strict=True):
        folder = tmp_path / "mpi_inf_3dhp_test_set" / name[:3]
        write_test_recording(folder, part[None, :, :2], 1000 * points[None, :, :3], [1], (found / name).read_bytes())
    kept, _ = read(builder(tmp_path, MpiInf3dhpTest).shards(tmp_path)["test"])
    for record, part in zip([kept[0], kept[1]], arrays["part"], strict=True):
        np.testing.assert_allclose(record["keypoints"], part[:, :2], atol=1e-2)
        camera = cameras[record["sequence"]]
        # Fitted to the 17 joints of one frame, whose labels are off by up to 2 pixels; the set has hundreds.
        np.testing.assert_allclose(record["intrinsics"].diagonal()[:2], camera["f"].ravel(), rtol=0.02)
        np.testing.assert_allclose(record["intrinsics"][:2, 2], camera["c"].ravel(), atol=15)
