import json
import tarfile

import flat_common as common
import numpy as np
import pytest

from jaxpose.data.joints import joint_sets
from jaxpose.data.joints.joint_sets import FACE68
from jaxpose.datasets import wflw

# x = 10 * landmark, so that a place tells the owners' number.
POINTS = np.stack([10.0 * np.arange(98) + 0.25, np.full(98, 7.5)], axis=1)


def line(image="0--Parade/a.jpg", points=POINTS, corners=(3, 4, 53, 24)):
    return " ".join([*(f"{v:.6f}" for v in points.ravel()), *map(str, corners), *"010010", image])


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "wflw"
    lists = folder / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    broken = [line(points=POINTS[:97]), line(corners=(5, 5, 5, 9)), line(image="../../secret.jpg"), "text", ""]
    lines = [line(), *broken, line(image="0--Parade/with space.jpg")]
    common.write(lists / "list_98pt_rect_attr_train.txt", "\n".join(lines) + "\n")
    common.write(lists / "list_98pt_rect_attr_test.txt", line(image="1--Hand/b.jpg") + "\n")
    for name in ("0--Parade/a.jpg", "0--Parade/with space.jpg", "1--Hand/b.jpg"):
        common.write(folder / "WFLW_images" / name, common.picture())
    return folder


def test_landmarks_by_name(root):
    first, second = common.records(common.splits(wflw.Wflw, root)["train"])
    assert first["name"] == "0--Parade/a.jpg#1"
    assert second["name"] == "0--Parade/with space.jpg#7"
    expected = {
        "face_00": 0,  # the end of the jaw on the person's right
        "face_08": 16,  # chin
        "face_16": 32,
        "face_17": 33,  # right brow, outer end
        "face_26": 46,  # left brow, outer end
        "face_30": 54,  # tip of the nose
        "face_36": 60,  # right eye, outer corner
        "face_38": 63,
        "face_39": 64,
        "face_45": 72,  # left eye, outer corner
        "face_48": 76,  # right corner of the mouth
        "face_54": 82,
        "face_67": 95,
        "wflw_01": 1,
        "wflw_62": 62,
        "wflw_96": 96,  # right pupil
    }
    for name, number in expected.items():
        assert common.joint(wflw.WFLW98, first, name) == (10 * number + 0.25, 7.5, 2)
    np.testing.assert_array_equal(first["bbox"], [3, 4, 50, 20])


def test_skeleton():
    assert sum(name.startswith("face_") for name in wflw.WFLW98.joints) == 68
    assert len(wflw.WFLW98.flips) == 44
    flips = wflw.WFLW98.flip_permutation
    np.testing.assert_array_equal(flips[flips], np.arange(98))
    assert np.flatnonzero(flips == np.arange(98)).tolist() == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
    # The shared landmarks are mirrored in the same way in both sets.
    assert set(FACE68.flips) == {pair for pair in wflw.WFLW98.flips if pair[0].startswith("face_")}
    assert sum(map(len, wflw.WFLW98.groups.values())) == 98
    for group, joints in FACE68.groups.items():
        assert set(joints) <= set(wflw.WFLW98.groups[group])


def test_reasons(root):
    assert common.reasons(common.splits(wflw.Wflw, root)["train"]) == {
        "list_98pt_rect_attr_train.txt:2": "the line is not 206 numbers and an image",
        "0--Parade/a.jpg#3": "its rectangle is empty",
        "../../secret.jpg#4": "its image lies outside of the folder of images",
        "list_98pt_rect_attr_train.txt:5": "the line is not 206 numbers and an image",
    }


def test_prepared_in_the_landmarks_of_300w(root, tmp_path):
    expected = common.check_prepared(wflw.Wflw, root, tmp_path / "data", "test")
    assert len(expected) == 1


def test_errors(root):
    with pytest.raises(FileNotFoundError, match=r"WFLW_images: found no such file or folder, expected the folder"):
        common.splits(wflw.Wflw, root / "WFLW_images")
    (root / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"list_98pt_rect_attr_test\.txt: found no such file"):
        common.splits(wflw.Wflw, root)


def read(archive, name):
    found = json.loads(archive.extractfile(f"tests/data/{name}").read())
    return [np.array(a["keypoints"]).reshape(-1, 3)[:, :2] for a in found["annotations"]]


def align(points, target):
    """The points moved, turned and scaled onto others, without mirroring."""
    a, b = ((p - p.mean(axis=0)) @ [1, 1j] for p in (points, target))
    moved = a * (np.vdot(a, b) / np.vdot(a, a))
    return np.abs(moved - b) / np.abs(b).max()


def test_real_faces_of_both_sets_agree(pack):
    """The 68 landmarks of WFLW's faces, from converted labels, lie where those of 300-W's faces do."""
    with tarfile.open(pack("mmpose_tests_data.tar.gz")) as archive:
        wide, narrow = read(archive, "wflw/test_wflw.json"), read(archive, "300w/test_300w.json")
    order = wflw.WFLW98.indices(FACE68.joints)
    distances = [align(face[order], other).mean() for face in wide for other in narrow]
    assert np.median(distances) < 0.12
    # With left and right exchanged they do not.
    mirrored = [align(face[order][FACE68.flip_permutation], other).mean() for face in wide for other in narrow]
    assert np.median(mirrored) > 0.3
    for face in wide:
        (left_x, _), (right_x, _) = face[wflw.WFLW98.indices(("face_45", "face_36"))]
        assert left_x > right_x  # upright faces show the person's left on the right


def test_joint_set_takes_68(root):
    class Faces:
        skeleton, labelled = wflw.WFLW98, True

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return common.records(common.splits(wflw.Wflw, root)["train"])[0]

    record = joint_sets.face68(Faces())[0]
    assert record["keypoints"].shape == (68, 2)
    assert common.joint(FACE68, record, "face_36") == (600.25, 7.5, 2)
