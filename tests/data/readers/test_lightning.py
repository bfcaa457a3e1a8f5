import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data.formats import files
from jaxpose.data.readers import deeplabcut, lightning

IMAGE = cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()
HEADER = "scorer,a,a,a,a\nbodyparts,pawL,pawL,pawR,pawR\ncoords,x,y,x,y\n"
TRAIN = HEADER + "labeled-data/s1/img007.png,1.5,2,30,40\nlabeled-data/s1/img012.png,,,31,41\n"


def write(root, tree):
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def folder(root, tables, images=("s1/img007.png", "s1/img012.png", "s2/img003.png")):
    return write(root, {f"labeled-data/{image}": IMAGE for image in images} | tables)


def check(source):
    assert source.skeleton.joints == ("pawL", "pawR")
    assert source.skeleton.flips == (("pawL", "pawR"),)
    np.testing.assert_array_equal(source.keypoints, [[[1.5, 2], [30, 40]], [[0, 0], [31, 41]]])
    np.testing.assert_array_equal(source.visible, [[2, 2], [0, 2]])
    assert [name.split("labeled-data/")[1] for name in source.names] == ["s1/img007.png", "s1/img012.png"]
    assert source.sequences == ("s1", "s1")
    np.testing.assert_array_equal(source.frames, [7, 12])
    assert source.bboxes is None
    assert files.decode_image(source[0]["image"], "x").shape == (60, 80, 3)


def test_folder_and_tar_at_any_depth(tmp_path):
    root = folder(tmp_path / "a" / "data", {"CollectedData.csv": TRAIN, "videos/x.csv": HEADER, "notes.csv": "a,b\n"})
    splits = lightning.read(root)
    assert list(splits) == ["train"]
    check(splits["train"])
    check(lightning.read(tmp_path / "a")["train"])
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(root, "x/data")
    check(lightning.read(tmp_path / "d.tar")["train"])


@pytest.mark.parametrize("suffixes", [["new"], ["test"], ["new", "test"]])
def test_new_and_test_tables_are_for_testing(tmp_path, suffixes):
    # Other column order than the training table: joints are matched by name.
    header = HEADER.replace("pawL,pawL,pawR,pawR", "pawR,pawR,pawL,pawL")
    images = [f"labeled-data/s2/img{i}.png" for i in range(len(suffixes))]
    tables = {
        f"CollectedData_{suffix}.csv": header + f"{image},5,6,7,{i}\n"
        for i, (suffix, image) in enumerate(zip(suffixes, images, strict=True))
    }
    tables |= dict.fromkeys(images, IMAGE)
    splits = lightning.read(folder(tmp_path, {"CollectedData.csv": TRAIN} | tables))
    check(splits["train"])
    assert splits["test"].skeleton == splits["train"].skeleton
    assert splits["test"].names == tuple(images)
    np.testing.assert_array_equal(splits["test"].keypoints, [[[7, i], [5, 6]] for i in range(len(images))])
    assert splits["test"].sequences == ("s2",) * len(images)
    assert splits["train"].notes == splits["test"].notes == ()


def test_labels_in_training_and_test_are_noted(tmp_path):
    splits = lightning.read(folder(tmp_path, {"CollectedData.csv": TRAIN, "CollectedData_new.csv": TRAIN}))
    check(splits["test"])
    (note,) = splits["test"].notes
    assert str(note) == "images that are for train and test: 2 (labeled-data/s1/img007.png, ...)"


def test_views_are_chosen_by_name(tmp_path):
    side = TRAIN.replace("1.5,2,", "9,9,")
    root = folder(tmp_path / "a", {"CollectedData_top.csv": TRAIN, "CollectedData_side.csv": side})
    with pytest.raises(ValueError, match=r"found CollectedData_side\.csv, CollectedData_top\.csv; expected one table"):
        lightning.read(root)
    for name in ("top", "CollectedData_top", "CollectedData_top.csv"):
        check(lightning.read(root, csv=name)["train"])
    assert lightning.read(root, csv="side")["train"].keypoints[0, 0, 0] == 9
    with pytest.raises(ValueError, match=r"found CollectedData_side\.csv, .*; expected front$"):
        lightning.read(root, csv="front")
    plain = folder(tmp_path / "b", {"top.csv": TRAIN, "top_new.csv": TRAIN, "bot.csv": side})
    splits = lightning.read(plain, csv="top")
    check(splits["train"])
    assert len(splits["test"]) == 2
    assert list(lightning.read(plain, csv="bot.csv")) == ["train"]
    check(lightning.read(folder(tmp_path / "c", {"top.csv": TRAIN, "top_test.csv": TRAIN}))["train"])


def test_visible_column(tmp_path):
    text = (
        "scorer,a,a,a,a,a,a\nbodyparts,pawL,pawL,pawL,pawR,pawR,pawR\ncoords,x,y,visible,x,y,visible\n"
        "labeled-data/s1/img007.png,1,2,1,3,4,0\nlabeled-data/s1/img012.png,5,6,2,,,2\n"
    )
    source = lightning.read(folder(tmp_path, {"CollectedData.csv": text}))["train"]
    np.testing.assert_array_equal(source.visible, [[1, 0], [2, 0]])
    np.testing.assert_array_equal(source.keypoints, [[[1, 2], [0, 0]], [[5, 6], [0, 0]]])


def test_images_named_alike_beside_the_table_are_not_taken(tmp_path):
    source = lightning.read(folder(tmp_path, {"CollectedData.csv": TRAIN, "img007.png": b""}))["train"]
    check(source)


def test_images_that_do_not_exist(tmp_path):
    source = lightning.read(folder(tmp_path / "a", {"CollectedData.csv": TRAIN}, images=["s1/img012.png"]))["train"]
    assert source.names == ("labeled-data/s1/img012.png",)
    (note,) = source.notes
    assert str(note) == "left out labelled images that do not exist: 1 (labeled-data/s1/img007.png)"
    with pytest.raises(ValueError, match=r"none of 2 labelled images exists"):
        lightning.read(folder(tmp_path / "b", {"CollectedData.csv": TRAIN}, images=["s1/other.png"]))


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"found no table beside labeled-data; expected one table"):
        lightning.read(folder(tmp_path / "a", {"CollectedData.csv": "x,y\n1,2\n"}))
    with pytest.raises(ValueError, match=r"found no table beside labeled-data"):
        lightning.read(write(tmp_path / "b", {"CollectedData.csv": TRAIN}))
    other = TRAIN.replace("pawR", "tail")
    with pytest.raises(ValueError, match=r"CollectedData_new\.csv: body parts are pawL, tail; expected those of Coll"):
        lightning.read(folder(tmp_path / "c", {"CollectedData.csv": TRAIN, "CollectedData_new.csv": other}))
    predictions = "scorer,m,m,m,m\nbodyparts,pawL,pawL,pawL,\ncoords,x,y,likelihood,set\n"
    with pytest.raises(ValueError, match=r"CollectedData\.csv: .*'train', expected numbers and empty cells"):
        lightning.read(
            folder(tmp_path / "d", {"CollectedData.csv": predictions + "labeled-data/s1/a.png,1,2,1,train\n"})
        )
    with pytest.raises(FileNotFoundError, match="nowhere"):
        lightning.read(tmp_path / "nowhere")


def test_deeplabcut_leaves_these_folders_alone(tmp_path):
    with pytest.raises(ValueError, match="found no labeled-data/<video>/CollectedData"):
        deeplabcut.read(folder(tmp_path, {"CollectedData.csv": TRAIN}))


def test_real_mirror_mouse_pack(pack: Callable[[str], Path]) -> None:
    splits = lightning.read(pack("lightning_mirror_mouse.tar"))
    assert list(splits) == ["train"]
    source = splits["train"]
    assert len(source) == 90
    assert len(source.skeleton) == 17
    assert source.skeleton.joints[0] == "paw1LH_top"
    np.testing.assert_allclose(source.keypoints[0, :2], [[77.25, 36.25], [253.5, 101.900392541708]], rtol=1e-6)
    assert source.visible[0, 4] == 0
    for index in range(0, 90, 11):
        record = source[index]
        height, width = files.decode_image(record["image"], record["name"]).shape[:2]
        assert (height, width) == (406, 396)
        inside = record["keypoints"][record["visible"] > 0]
        assert ((inside > -1) & (inside < (width, height))).all()
