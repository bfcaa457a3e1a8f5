import json
import tarfile

import flat_common as common
import numpy as np
import pytest
import scipy.io

from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import MPII16
from jaxpose.datasets import mpii

# Joints of MPII by number, as its owners list them.
ORDER = (
    "r ankle,r knee,r hip,l hip,l knee,l ankle,pelvis,thorax,neck,head top,r wrist,r elbow,r shoulder,l shoulder,"
    "l elbow,l wrist"
)


def canonical(name):
    return name.replace("r ", "right_").replace("l ", "left_").replace("head top", "head_top")


POINTS = np.stack([100.0 + 3 * np.arange(16), 50.0 + np.arange(16)], axis=1)  # counted from 1


def person(**changes):
    return {
        "joints": POINTS.tolist(),
        "joints_vis": [1] * 16,
        "image": "a.jpg",
        "center": [101.0, 61.0],
        "scale": 0.5,
        **changes,
    }


def save_heads(root, corners):
    """The file of released evaluations: corners (x1, y1, x2, y2) as (corner, axis, person)."""
    boxes = np.array(corners, float).reshape(-1, 2, 2).transpose(1, 2, 0)
    scipy.io.savemat(root / "annot" / "gt_valid.mat", {"headboxes_src": boxes})


@pytest.fixture
def hrnet(tmp_path):
    missing = person(joints=[[-1.0, -1.0], *POINTS[1:].tolist()], joints_vis=[0] + [1] * 15)
    broken = [
        person(joints=POINTS[:15].tolist()),
        person(joints_vis=[0] * 16),
        person(scale=-1),
        person(center=None),
        person(image="absent.jpg"),
        person(image="../outside.jpg"),
        {"joints": []},
    ]
    root = tmp_path / "mpii"
    common.write(root / "annot" / "train.json", json.dumps([person(), missing, *broken]))
    common.write(root / "annot" / "valid.json", json.dumps([person(image="b.jpg", scale=1)]))
    save_heads(root, [[70, 20, 100, 60]])
    common.write(root / "images" / "a.jpg", common.picture(value=10))
    common.write(root / "images" / "b.jpg", common.picture(value=200))
    common.write(root / "outside.jpg", common.picture())
    return root


def test_hrnet_counts_from_one(hrnet):
    found = common.splits(mpii.Mpii, hrnet)
    first, second = common.records(found["train"])
    for i, name in enumerate(ORDER.split(",")):
        assert common.joint(MPII16, first, canonical(name)) == (99 + 3 * i, 49 + i, 2)
    assert common.joint(MPII16, second, "right_ankle") == (0, 0, 0)
    assert common.joint(MPII16, second, "left_wrist") == (144, 64, 2)
    # 200 pixels at scale 1, half of that here, around the centre counted from 0 and lowered by 15 pixels at scale 1.
    np.testing.assert_allclose(first["bbox"], [100 - 50, 60 + 7.5 - 50, 100, 100])
    (valid,) = common.records(found["validation"])
    np.testing.assert_allclose(valid["bbox"], [100 - 100, 60 + 15 - 100, 200, 200])
    assert valid["image"] == common.picture(value=200)
    assert valid["head_size"] == pytest.approx(0.6 * 50)  # a rectangle of 30 x 40
    assert np.isnan([first["head_size"], second["head_size"]]).all()
    assert (first["name"], second["name"]) == ("a.jpg#0", "a.jpg#1")


def test_hrnet_skips_broken_people(hrnet):
    assert common.reasons(common.splits(mpii.Mpii, hrnet)["train"]) == {
        "a.jpg#2": "it has no 16 joints with flags",
        "a.jpg#3": "no joint is labelled",
        "a.jpg#4": "it has no centre and scale",
        "a.jpg#5": "it has no centre and scale",
        "absent.jpg#6": "the image is missing",
        "../outside.jpg#7": "its image lies outside of the folder of images",
        "person 8": "it names no image",
    }


def test_prepared(hrnet, tmp_path):
    assert len(common.check_prepared(mpii.Mpii, hrnet, tmp_path / "data", "train")) == 2


def test_hrnet_layout_errors(hrnet):
    save_heads(hrnet, [[70, 20, 100, 60]] * 2)
    with pytest.raises(ValueError, match=r"gt_valid\.mat: headboxes_src: found .*, expected 2 x 2 x 1 finite numbers"):
        common.splits(mpii.Mpii, hrnet)
    (hrnet / "annot" / "gt_valid.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"gt_valid\.mat: no such file"):
        common.splits(mpii.Mpii, hrnet)
    (hrnet / "annot" / "valid.json").write_text("{")
    with pytest.raises(ValueError, match=r"valid\.json: .*, expected HRNet's list of people"):
        common.splits(mpii.Mpii, hrnet)
    (hrnet / "annot" / "valid.json").write_text("{}")
    with pytest.raises(ValueError, match=r"valid\.json: found a dict, expected HRNet's list of people"):
        common.splits(mpii.Mpii, hrnet)
    (hrnet / "annot" / "valid.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid\.json: no such file, expected HRNet's list"):
        common.splits(mpii.Mpii, hrnet)
    with pytest.raises(FileNotFoundError, match=r"images: found no such file or folder, expected the folder of MPII's"):
        common.splits(mpii.Mpii, hrnet / "annot")


def structs(*rows):
    """A MATLAB array of structures."""
    fields = list(rows[0])
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, row in enumerate(rows):
        for field in fields:
            array[0, i][field] = row[field]
    return array


def point(number, flag, x=None):
    return {"x": 11.0 + number if x is None else x, "y": 21.5, "id": number, "is_visible": flag}


def annotation(*points, scale=2.0, centre=(31, 41), top=5):
    return {
        "x1": 1,
        "y1": top,
        "x2": 7,
        "y2": 13,
        "scale": scale,
        "objpos": structs({"x": centre[0], "y": centre[1]}) if centre else [],
        "annopoints": structs({"point": structs(*points)}) if points else [],
    }


@pytest.fixture
def original(tmp_path):
    headless = annotation(point(3, 1), point(4, 0), top=[])
    listed = [
        ("a.jpg", structs(annotation(point(0, "0"), point(9, []), point(15, "1"))), 7, 1),
        ("b.jpg", structs(headless, annotation(), annotation(point(6, 1), scale=[])), 7, 1),
        ("c.jpg", structs(annotation(point(16, 1)), annotation(point(1, 1), point(2, 1, x=np.nan))), 8, 1),
        ("test.jpg", structs(annotation(point(0, 1))), 9, 0),
        ("none.jpg", [], 9, 1),
    ]
    rows = [
        {"image": structs({"name": name}), "annorect": people, "frame_sec": 1, "vididx": video}
        for name, people, video, _ in listed
    ]
    release = structs({"annolist": structs(*rows), "img_train": np.array([[t for *_, t in listed]])})
    root = tmp_path / "mpii"
    for name, *_ in listed:
        common.write(root / "images" / name, common.picture())
    scipy.io.savemat(root / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    return root


def test_original_marks_occlusion(original):
    found = common.splits(mpii.MpiiOriginal, original)
    assert list(found) == ["train"]
    first, second = common.records(found["train"])
    assert common.joint(MPII16, first, "right_ankle") == (10, 20.5, 1)
    assert common.joint(MPII16, first, "head_top") == (19, 20.5, 2)
    assert common.joint(MPII16, first, "left_wrist") == (25, 20.5, 2)
    assert common.joint(MPII16, first, "pelvis") == (0, 0, 0)
    assert common.joint(MPII16, second, "left_hip")[2] == 2
    assert common.joint(MPII16, second, "left_knee")[2] == 1
    np.testing.assert_allclose(first["bbox"], [30 - 200, 40 + 30 - 200, 400, 400])
    assert (first["name"], second["name"]) == ("a.jpg#0", "b.jpg#0")
    assert first["sequence"] == second["sequence"] == "video00007"
    assert first["head_size"] == pytest.approx(0.6 * 10)
    assert np.isnan(second["head_size"])


def test_original_skips_broken_people(original):
    assert common.reasons(common.splits(mpii.MpiiOriginal, original)["train"]) == {
        "b.jpg#2": "it has no centre and scale",
        "c.jpg#0": "a joint has no number of 0 to 15 or no place",
        "c.jpg#1": "a joint has no number of 0 to 15 or no place",
    }


def test_original_prepared(original, tmp_path):
    common.check_prepared(mpii.MpiiOriginal, original, tmp_path / "data", "train")


def test_original_layout_errors(original):
    path = original / "mpii_human_pose_v1_u12_1.mat"
    path.write_bytes(b"no MATLAB file, but long enough to look into" * 20)
    with pytest.raises(ValueError, match=r"u12_1\.mat: .*, expected a MATLAB file with RELEASE"):
        common.splits(mpii.MpiiOriginal, original)
    scipy.io.savemat(path, {"other": 1})
    with pytest.raises(ValueError, match=r"u12_1\.mat: found nothing; expected RELEASE"):
        common.splits(mpii.MpiiOriginal, original)
    scipy.io.savemat(path, {"RELEASE": 3})
    with pytest.raises(ValueError, match=r"RELEASE holds no annolist and img_train"):
        common.splits(mpii.MpiiOriginal, original)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"u12_1\.mat: no such file"):
        common.splits(mpii.MpiiOriginal, original)


def test_real_people(pack, tmp_path):
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("tests/data/mpii/")]
        archive.extractall(tmp_path, members, filter="data")
    here = tmp_path / "tests" / "data" / "mpii"
    (here / "annot").mkdir()
    (here / "images").mkdir()
    for image in here.glob("*.jpg"):
        image.rename(here / "images" / image.name)
    for name in ("train", "valid"):
        (here / "annot" / f"{name}.json").write_bytes((here / "test_mpii.json").read_bytes())
    save_heads(here, [[0, 0, 3, 4]] * 5)
    found = common.splits(mpii.Mpii, here)["train"]
    assert not common.reasons(found)
    assert len(found) == 5
    for record in found:
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        labelled = record["keypoints"][record["visible"] > 0]
        assert ((labelled >= 0) & (labelled < (width, height))).all()
        x, y, w, h = record["bbox"]
        assert ((labelled > (x, y)) & (labelled < (x + w, y + h))).mean() > 0.9
        head, ankle = (common.joint(MPII16, record, name) for name in ("head_top", "left_knee"))
        assert head[1] < ankle[1]
    assert [int(np.count_nonzero(r["visible"])) for r in found] == [16, 16, 14, 14, 16]
