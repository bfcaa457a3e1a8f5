import tarfile

import cv2
import flat_common as common
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.joints.joint_sets import FACE68
from jaxpose.datasets import threehundred_vw
from jaxpose.datasets.threehundred_vw import ThreehundredVw


def pts(points):
    rows = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n"


def face(frame):
    """Counted from 1."""
    return np.stack([10.0 + np.arange(68) / 2, 20.0 + frame + np.arange(68) % 7], axis=1)


def write_video(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for value in values:
        video.write(np.full((64, 96, 3), value, np.uint8))
    video.release()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "vw"
    write_video(folder / "001" / "vid.avi", (40, 80, 120, 160))
    for frame in (1, 3, 4, 5):  # the second has no labels, the fifth no picture
        common.write(folder / "001" / "annot" / f"{frame:06d}.pts", pts(face(frame)))
    common.write(folder / "001" / "annot" / "000004.pts", pts(face(4)[:67]))
    for frame in (731, 732):
        common.write(folder / "401" / "imgs" / f"{frame:06d}.jpg", common.picture(value=50))
        common.write(folder / "401" / "annot" / f"{frame:06d}.pts", pts(face(frame)))
    return folder


def test_frames_of_a_video(root):
    found = common.splits(ThreehundredVw, root)
    assert list(found) == ["train", "test_1"]
    first, third = common.records(found["train"])
    for record, frame, value in ((first, 1, 40), (third, 3, 120)):
        assert (record["name"], record["sequence"], record["frame"]) == (f"001/{frame:06d}", "001", frame)
        image = files.decode_image(record["image"], "frame")
        assert image.shape == (64, 96, 3)
        assert abs(image.mean() - value) < 3
        np.testing.assert_allclose(record["keypoints"], face(frame) - 1, atol=1e-5)
    assert common.joint(FACE68, first, "face_36") == (27, 21, 2)
    np.testing.assert_allclose(first["bbox"], [9, 20, 33.5, 6])
    reasons = common.reasons(found["train"])
    missing = [name for name, reason in reasons.items() if reason == "the video is missing"]
    assert (len(missing), missing[0]) == (49, "train 002")
    assert {name: reason for name, reason in reasons.items() if name not in missing} == {
        "001/000004": "its file does not hold 68 points",
        "001/000005": "the video has no such frame",
    }


def test_extracted_frames_keep_their_bytes(root):
    records = common.records(common.splits(ThreehundredVw, root)["test_1"])
    assert [r["frame"] for r in records] == [731, 732]
    assert all(r["image"] == common.picture(value=50) for r in records)
    np.testing.assert_allclose(records[1]["keypoints"], face(732) - 1)


def test_prepared(root, tmp_path):
    assert len(common.check_prepared(ThreehundredVw, root, tmp_path / "data", "train")) == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "n_points: 68", "{\n1 2\n}", pts(face(1)).replace("10.000", "nan"), pts(face(1)).replace(" ", ",")],
)
def test_broken_points(tmp_path, text):
    common.write(tmp_path / "a.pts", text)
    assert threehundred_vw.read_pts(tmp_path / "a.pts") is None


def test_errors(root):
    with pytest.raises(FileNotFoundError, match=r"annot: found no folder 001, 002 \.\.\., expected the videos"):
        common.splits(ThreehundredVw, root / "001" / "annot")
    (root / "001" / "vid.avi").unlink()
    with pytest.raises(FileNotFoundError, match=r"001/vid\.avi: found no such file.*or extracted frames in imgs/"):
        common.splits(ThreehundredVw, root)


def test_real_frames(pack, tmp_path):
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("tests/data/300vw/")]
        archive.extractall(tmp_path, members, filter="data")
    found = common.splits(ThreehundredVw, tmp_path / "tests" / "data" / "300vw")
    found = {split: common.records(rows) for split, rows in found.items()}
    assert [r["name"] for r in found["train"]] == ["001/000006", "001/000009"]
    assert [r["name"] for r in found["test_1"]] == ["401/000731", "401/000732"]
    assert common.joint(FACE68, found["train"][0], "face_00") == (pytest.approx(742.224), pytest.approx(196.764), 2)
    for record in (*found["train"], *found["test_1"]):
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        assert ((record["keypoints"] > 0) & (record["keypoints"] < (width, height))).all()
        left, right, chin = (common.joint(FACE68, record, f"face_{i:02d}") for i in (45, 36, 8))
        assert left[0] > right[0]
        assert chin[1] > left[1]
