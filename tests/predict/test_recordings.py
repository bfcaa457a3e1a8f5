import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dots import JOINTS, some_places, write_images, write_video

from jaxpose.predict.recordings import find


def names(spec: object) -> list[str]:
    return [one.name for one in find(str(spec), root=".", skeleton=JOINTS)]


def opened(spec: object):
    (one,) = find(str(spec), root=".", skeleton=JOINTS)
    return one.open()


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Images, a tar of them, and videos two of which differ in their endings alone."""
    write_images(tmp_path / "images", some_places(3))
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(tmp_path / "images", "inside")
    for name in ("videos/a.avi", "videos/b/c.avi", "videos/b/c.mov", "videos/d.avi"):
        write_video((tmp_path / name).with_suffix(".avi"), some_places(2))
        (tmp_path / name).with_suffix(".avi").rename(tmp_path / name)
    write_video(tmp_path / "videos/b/c.avi", some_places(2))
    return tmp_path


def test_a_path_is_taken_for_what_it_is(places: Path) -> None:
    assert names(places / "images") == ["images"]
    assert names(places / "packed.tar") == ["packed"]
    assert names(places / "images" / "img001.png") == ["img001"]
    assert names(places / "videos" / "a.avi") == ["a"]
    assert names(places / "videos") == ["a", "b/c.avi", "b/c.mov", "d"]
    assert names(f"video:{places / 'videos'}") == names(places / "videos")
    assert [one.path for one in find("images", root=str(places), skeleton=JOINTS)] == [places / "images"]
    assert len(opened(places / "packed.tar")) == 3
    single = opened(places / "images" / "img001.png")
    assert [single.image(i) for i in range(len(single))] == ["img001.png"]
    assert single.rate is None
    assert opened(places / "videos" / "a.avi").rate == pytest.approx(10)


def test_labelled_data_are_read_as_training_reads_them() -> None:
    found = find("bodies:studio?train=2&validation=0&test=3", root=".", skeleton=JOINTS)
    assert {one.name: len(one.open()) for one in found} == {"studio_train": 2, "studio_test": 3}
    assert found[0].open().boxes == {}


def test_boxes_are_found_by_names(places: Path) -> None:
    boxes = {"img001.png": [1, 2, 30, 40], "img002.png": [[0, 0, 10, 10], [5, 5, 20, 20]]}
    (places / "boxes.json").write_text(json.dumps(boxes))
    recording = opened(f"{places / 'images'}?boxes={places / 'boxes.json'}")
    assert recording.animals == 2
    record = recording.source[0]
    assert recording.boxes_of(0, record) == [None]
    np.testing.assert_array_equal(recording.boxes_of(1, record), [[1, 2, 30, 40]])
    np.testing.assert_array_equal(recording.boxes_of(2, record), boxes["img002.png"])
    (places / "boxes.json").write_text(json.dumps({"a.avi": [1, 2, 30, 40]}))
    whole = opened(f"{places / 'videos' / 'a.avi'}?boxes={places / 'boxes.json'}")
    np.testing.assert_array_equal([whole.boxes_of(i, record)[0] for i in range(2)], [[1, 2, 30, 40]] * 2)
    with pytest.raises(ValueError, match=r"found boxes of a.avi, ..., expected of img000.png, ..."):
        opened(f"{places / 'images'}?boxes={places / 'boxes.json'}")


def test_wrong_boxes_are_one_line(places: Path) -> None:
    stated = {"images": [{"id": 1, "file_name": "img001.png"}], "annotations": [{"image_id": 2, "bbox": [0, 0, 1, 1]}]}
    for wrong in (stated, {**stated, "annotations": [{"image_id": 1, "bbox": [0, 0, 0, 1]}]}, {"img001.png": [1, 2]}):
        (places / "boxes.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=r"boxes.json: .* expected") as raised:
            find(f"{places / 'images'}?boxes={places / 'boxes.json'}", root=".", skeleton=JOINTS)
        assert "\n" not in str(raised.value)


def test_wrong_paths_say_what_was_meant(places: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"imagse: no such file .*; did you mean images\?"):
        names(places / "imagse")
    with pytest.raises(FileNotFoundError, match=r"did you mean a.avi\?"):
        names(f"video:{places / 'videos' / 'aa.avi'}")
    with pytest.raises(ValueError, match=r"found scheme 'vidoe', expected one of .*; did you mean video\?"):
        names("vidoe:a.mp4")
    with pytest.raises(ValueError, match=r"found both images and videos, expected one kind; name it by images:PATH"):
        names(places)
    (places / "empty").mkdir()
    with pytest.raises(ValueError, match="found neither images nor videos"):
        names(places / "empty")
    (places / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"found a .txt, expected an image, a tar, a video or a folder"):
        names(places / "a.txt")
    with pytest.raises(ValueError, match=r"found option 'frmes', .* did you mean frames\?"):
        names(f"video:{places / 'videos'}?frmes=3")
