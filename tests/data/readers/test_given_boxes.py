import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaxpose.data import schemes
from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import given_boxes

LEFT, RIGHT = [2.0, 3.0, 10.0, 12.0], [40.0, 5.0, 14.0, 16.0]


def write(root: Path, boxes: Any) -> None:
    """Two people in the images `two` and `beside`, one in `one` and in `other`."""
    people = [("two", 41), ("two", 3), ("one", 3), ("other", 3), ("beside", 3), ("beside", 7)]
    names = list(dict.fromkeys(name for name, _ in people))
    for name in names:
        cv2.imwrite(str(root / f"{name}.png"), np.zeros((30, 60, 3), np.uint8))
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "person", "keypoints": ["head", "foot"]}],
        "annotations": [
            {"id": i, "image_id": names.index(name), "category_id": 1, "keypoints": [x, 6, 2, x + 8, 13, 2]}
            for i, (name, x) in enumerate(people)
        ],
    }
    (root / "labels.json").write_text(json.dumps(content))
    (root / "boxes.json").write_text(json.dumps(boxes))


def opened(root: Path, options: str = "") -> schemes.Opened:
    return schemes.open_data(f"coco:?annotations=labels&train=*&boxes=boxes.json{options}", root=str(root))


def boxes(found: schemes.Opened) -> list[list[float] | None]:
    train = found.splits["train"]
    return [None if "bbox" not in train[i] else train[i]["bbox"].tolist() for i in range(len(train))]


def test_people_of_one_image_have_the_boxes_that_overlap_them(tmp_path: Path) -> None:
    near, wide = [3.0, 4.0, 12.0, 12.0], [4.0, 2.0, 14.0, 14.0]
    write(tmp_path, {"two.png": [LEFT, [20, 20, 5, 5], RIGHT], "one.png": LEFT, "beside.png": [wide, near]})
    found = opened(tmp_path)
    assert boxes(found) == [RIGHT, LEFT, LEFT, None, near, wide]
    (note,) = [note for note in found.notes if "box" in note.what]
    assert str(note) == "images taken whole, as they have no box in boxes.json: 1 (other.png)"


def test_boxes_are_matched_without_reading_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"two.png": [LEFT, RIGHT]})
    read = files.Files.read

    def labels_only(self: files.Files, name: str) -> bytes:
        assert not name.endswith(".png")
        return read(self, name)

    monkeypatch.setattr(files.Files, "read", labels_only)
    assert len(opened(tmp_path).splits["train"]) == 6


def test_a_single_joint_is_enough(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 60, 3), np.uint8))
    source = files.FileSource(
        files=files.Files(tmp_path),
        skeleton=Skeleton(name="one", joints=("head",)),
        names=("a.png", "a.png"),
        keypoints=np.array([[[45, 9]], [[5, 6]]], np.float32),
        visible=np.full((2, 1), 2, np.uint8),
    )
    found, notes = given_boxes.boxes_of(source, {"a.png": np.array([LEFT, RIGHT], np.float32)}, "b.json")
    np.testing.assert_array_equal(found, [RIGHT, LEFT])
    assert notes == ()
    unlabelled = dataclasses.replace(source, visible=np.zeros((2, 1), np.uint8))
    with pytest.raises(ValueError, match=r"b\.json: a\.png: found 2 boxes, expected one that overlaps the labels"):
        given_boxes.boxes_of(unlabelled, {"a.png": np.array([LEFT, RIGHT], np.float32)}, "b.json")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"two.png": LEFT}, "boxes.json: two.png: found 1 boxes, expected 2, as so many records have this image"),
        ({"two.png": [LEFT, LEFT]}, "two.png: found 2 boxes, expected one that overlaps the labels of each record"),
        ({"2.png": LEFT}, "boxes.json: found boxes of 2.png, ..., expected of two.png, ..."),
        ({}, "boxes.json: found boxes of nothing, ..., expected of two.png, ..."),
        *(
            (wrong, "expected a JSON object of [x, y, width, height], or lists of such, by image name")
            for wrong in ({"one.png": [LEFT, "x"]}, {"one.png": "x"}, {"one.png": []}, {"one.png": [10**400]}, [LEFT])
        ),
    ],
)
def test_boxes_that_fit_nobody_are_one_line(tmp_path: Path, given: Any, message: str) -> None:
    write(tmp_path, given)
    with pytest.raises(ValueError, match="coco:") as caught:
        opened(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
