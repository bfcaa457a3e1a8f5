"""Elements have the shapes and types that programs are compiled for."""

import cv2
import numpy as np
import pytest

from jaxpose.data.host import elements
from jaxpose.data.records import Record

FIELDS = tuple(elements._FIELDS)
RECORD = Record(
    image=cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes(),
    name="one",
    keypoints=np.full((5, 2), 9.0, np.float32),
    visible=np.full(5, 2, np.uint8),
    bbox=np.array([3, 4, 20, 30], np.float32),
    keypoints3d=np.ones((5, 3)),
    intrinsics=np.eye(3),
    area=50.0,
    head_size=4.0,
    hand="left",
    segmentation=cv2.imencode(".png", np.ones((40, 60), np.uint8))[1].tobytes(),
)


@pytest.mark.parametrize("frames", [None, 2])
def test_fields_are_what_is_said_of_them(frames: int | None) -> None:
    found = elements.crop(RECORD, np.zeros((40, 60, 3), np.uint8), size=16, margin=1.0, fields=FIELDS)
    if frames is not None:
        found = {field: np.stack([value] * frames) for field, value in found.items()}
    expected = elements.shapes(FIELDS, size=16, joints=5, frames=frames)
    assert {field: (value.shape, value.dtype) for field, value in found.items()} == expected


def test_an_index_belongs_to_the_whole_window() -> None:
    of_rows = {"index": ((), np.int32), "position": ((), np.int32)}
    assert elements.shapes(("index", "position"), size=16, joints=5, frames=3) == of_rows


def test_what_a_crop_cuts_off_is_still_annotated() -> None:
    points = np.array([[10, 12], [50, 12], [np.nan, 12], [10, 12]], np.float32)
    record = RECORD | {"keypoints": points, "visible": np.array([2, 1, 2, 0], np.uint8)}
    found = elements.crop(Record(**record), None, size=16, margin=1.0, fields=("visible", "annotated"))
    assert found["visible"].tolist() == [2, 0, 0, 0]
    assert found["annotated"].tolist() == [2, 1, 0, 0]
