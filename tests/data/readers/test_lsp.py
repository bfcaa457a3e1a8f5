import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from jaxpose.data.formats import files
from jaxpose.data.joints import skeletons
from jaxpose.data.readers import boxes, lsp

IMAGE = cv2.imencode(".jpg", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()
POINTS = np.random.default_rng(0).uniform(5, 55, (4, 14, 2))  # 4 people


def write(root, joints, *, digits, images=(1, 2, 3, 4), npz=False):
    folder = root / "lsp"
    (folder / "images").mkdir(parents=True)
    for i in images:
        (folder / "images" / f"im{i:0{digits}d}.jpg").write_bytes(IMAGE)
    if npz:
        np.savez(folder / "joints.npz", ids=np.array([4, 2, 1, 3]), joints=joints[[3, 1, 0, 2]])
    else:
        scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return folder


def with_flags(flags):
    return np.concatenate([POINTS, np.asarray(flags, dtype=float)[..., None]], axis=2)


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)], ids=["3x14xN", "14x3xN"])
def test_lsp_counts_from_one_and_flags_occlusion(tmp_path, axes):
    flags = np.zeros((4, 14))
    flags[1, 3] = 1
    source = lsp.read(write(tmp_path, with_flags(flags).transpose(axes), digits=4))
    assert source.skeleton is skeletons.LSP14
    assert source.names == tuple(f"images/im000{i}.jpg" for i in (1, 2, 3, 4))
    np.testing.assert_allclose(source.keypoints, POINTS - 1, atol=1e-4)
    expected = np.full((4, 14), 2)
    expected[1, 3] = 1
    np.testing.assert_array_equal(source.visible, expected)
    assert (source.keypoints.dtype, source.visible.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("npz", [False, True], ids=["mat", "npz"])
@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
def test_lspet_counts_from_zero_and_flags_use(tmp_path, npz, tar):
    flags = np.ones((4, 14))
    flags[0, :8] = 0  # 6 usable joints: kept
    flags[2, :9] = 0  # 5: left out
    joints = with_flags(flags)
    path = write(tmp_path, joints if npz else joints.transpose(1, 2, 0), digits=5, npz=npz)
    if tar:
        with tarfile.open(tmp_path / "lspet.tar", "w") as archive:
            archive.add(path, "some/lspet")
        path = tmp_path / "lspet.tar"
    source = lsp.read(path)
    people = [3, 1, 0] if npz else [0, 1, 3]
    assert [n.rsplit("/", 1)[-1] for n in source.names] == [f"im0000{i + 1}.jpg" for i in people]
    np.testing.assert_array_equal(source.visible > 0, flags[people] > 0)
    assert [str(note) for note in source.notes] == [
        "left out people with fewer than 6 usable joints: 1 (" + source.names[0][:-5] + "3.jpg)"
    ]
    usable = flags[people] > 0
    np.testing.assert_allclose(source.keypoints[usable], POINTS[people][usable], atol=1e-4)
    np.testing.assert_array_equal(source.keypoints[~usable], 0)
    record = source[people.index(0)]
    low, high = POINTS[0, 8:].min(axis=0), POINTS[0, 8:].max(axis=0)
    side = 1.2 * max(high - low)
    np.testing.assert_allclose(record.get("bbox"), [*((low + high) / 2 - side / 2), side, side], rtol=1e-5)
    assert files.decode_image(record["image"], record["name"]).shape == (60, 80, 3)


def test_labels_without_image_are_left_out(tmp_path):
    source = lsp.read(write(tmp_path, with_flags(np.zeros((4, 14))).T, digits=4, images=(2, 3)))
    assert source.names == ("images/im0002.jpg", "images/im0003.jpg")
    assert [str(note) for note in source.notes] == ["left out labels that have no image: 2 (number 1, ...)"]
    np.testing.assert_allclose(source.keypoints, POINTS[1:3] - 1, atol=1e-4)
    folder = write(tmp_path / "other", with_flags(np.zeros((4, 14))).T, digits=5, images=(7, 8))
    with pytest.raises(ValueError, match=r"none of 4 labelled images im00001\.jpg, \.\.\. exists"):
        lsp.read(folder)


def test_layout_errors(tmp_path):
    good = with_flags(np.zeros((4, 14))).T
    with pytest.raises(ValueError, match=r"images are named im \+ \[3\] digits; expected 4 \(LSP\) or 5"):
        lsp.read(write(tmp_path / "a", good, digits=3))
    with pytest.raises(ValueError, match=r"joints\.mat: joints have shape \(4, 13, 3\), expected 14 joints"):
        lsp.read(write(tmp_path / "b", good[:, :13], digits=4))
    folder = write(tmp_path / "c", good, digits=4)
    np.savez(folder / "joints.npz", ids=[1])
    with pytest.raises(ValueError, match=r"found .*joints\.npz.*expected one joints\.mat or joints\.npz"):
        lsp.read(folder)
    (folder / "joints.mat").unlink()
    with pytest.raises(ValueError, match=r"joints\.npz: holds ids; expected ids and joints"):
        lsp.read(folder)
    (folder / "joints.npz").unlink()
    with pytest.raises(ValueError, match=r"found no labels, expected one joints\.mat"):
        lsp.read(folder)


def test_square_boxes():
    keypoints = np.array([[[2, 3], [10, 7], [-99, 99]], [[4, 5], [0, 0], [1, 1]], [[1, 1], [2, 2], [3, 3]]])
    visible = np.array([[1, 2, 0], [2, 0, 0], [0, 0, 0]])
    found = boxes.square_boxes(keypoints, visible, factor=2.0)
    np.testing.assert_allclose(found, [[-2, -3, 16, 16], [4, 5, 0, 0], [0, 0, 0, 0]])


def test_real_lspet_pack(pack: Callable[[str], Path]) -> None:
    path = pack("lspet_train_0001_2500.tar")
    source = lsp.read(path)
    assert len(source) == 2498  # two of 2500 people have fewer than 6 usable joints
    assert ((source.visible > 0).sum(axis=1) >= 6).all()
    for index in range(0, len(source), 250):
        record = source[index]
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        usable = record["keypoints"][record["visible"] > 0]
        assert (usable > -3).all()
        assert (usable < (width + 2, height + 2)).all()
