import dataclasses
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from jaxpose.data import records
from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import images

SKELETON = Skeleton(name="three", joints=("p", "q", "r"))
PIXELS = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)


def encoded(kind, pixels=PIXELS, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write(root, content):
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


CONTENT = {
    "field/img10.png": encoded("PNG"),
    "field/img2.PNG": encoded("PNG", 255 - PIXELS),
    "field/more/a.gif": encoded("GIF"),
    "field/more/b.tif": encoded("TIFF"),
    "top7.png": encoded("PNG"),
    "notes.txt": b"no image",
    "labels.csv": b"1,2",
    ".cache/x.png": encoded("PNG"),
}


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
def test_all_images_without_labels(tmp_path, tar):
    path = write(tmp_path / "new", CONTENT)
    if tar:
        with tarfile.open(tmp_path / "new.tar", "w") as archive:
            archive.add(path, ".")
        path = tmp_path / "new.tar"
    source = images.read(path, skeleton=SKELETON)
    assert isinstance(source, records.Source)
    assert source.skeleton == SKELETON
    assert not source.labelled
    assert source.names == ("field/img2.PNG", "field/img10.png", "field/more/a.gif", "field/more/b.tif", "top7.png")
    found = [source[i] for i in range(len(source))]
    assert [record.get("sequence") for record in found] == ["field", "field", "field/more", "field/more", "new"]
    assert [record.get("frame") for record in found] == [2, 10, 0, 1, 7]
    for record, expected in zip(found, (255 - PIXELS, PIXELS, None, PIXELS, PIXELS), strict=True):
        image = files.decode_image(record["image"], record["name"])
        if expected is not None:
            np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(record["keypoints"], np.zeros((3, 2)))
        np.testing.assert_array_equal(record["visible"], np.zeros(3))
        assert (record["keypoints"].dtype, record["visible"].dtype) == (np.float32, np.uint8)
        assert "bbox" not in record


def test_images_come_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    source = images.read(write(tmp_path, {"a.png": encoded("PNG", exif=exif)}), skeleton=SKELETON)
    for part in (source, source.subset([0]), pickle.loads(pickle.dumps(source)), dataclasses.replace(source)):
        np.testing.assert_array_equal(part[0]["image"], np.rot90(PIXELS, -1))


def test_broken_images_stay_for_the_pipeline_to_count(tmp_path):
    source = images.read(write(tmp_path, {"a.png": b"", "b.png": encoded("PNG")[:-20]}), skeleton=SKELETON)
    for index, message in enumerate((r"^a\.png: the image file is empty", r"^b\.png: the image file is truncated")):
        record = source[index]
        with pytest.raises(records.BrokenImageError, match=message):
            files.decode_image(record["image"], record["name"])


def test_no_images(tmp_path):
    write(tmp_path / "a", {"x.txt": b"", "y.mp4": b""})
    with pytest.raises(ValueError, match=r"a: none of 2 files is an image \(\.bmp \.gif .*\.webp\)"):
        images.read(tmp_path / "a", skeleton=SKELETON)
    with pytest.raises(FileNotFoundError, match="absent: no such file or folder"):
        images.read(tmp_path / "absent", skeleton=SKELETON)


def test_real_pack(pack: Callable[[str], Path]) -> None:
    source = images.read(pack("lightning_mirror_mouse.tar"), skeleton=SKELETON)
    assert len(source) == 93
    assert [source[i].get("frame") for i in (0, 1, 92)] == [0, 1, 92]
    assert np.asarray(source[92]["image"]).shape == (406, 396, 3)
