import functools
import pickle
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from invented import SKELETON

from jaxpose.data import schemes, shards, tfds_source
from jaxpose.data.records import Record


def records(first: int, count: int) -> Iterator[Record]:
    for i in range(first, first + count):
        yield Record(
            image=cv2.imencode(".png", np.full((8, 8, 3), i, np.uint8))[1].tobytes(),
            keypoints=np.full((2, 2), i, np.float32),
            visible=np.array([2, 1], np.uint8),
            name=f"{i}",
            sequence=f"clip{i // 2}",
        )


def prepare(folder: Path) -> Path:
    features = shards.record_features(SKELETON, ("sequence",))
    parts = {"train": [functools.partial(records, 0, 4)], "test": [functools.partial(records, 4, 3)]}
    written = shards.write_shards(folder, parts, features=features, name="invented")
    shards.finish(folder, shards.describe(folder, "invented", SKELETON, features), written)
    return folder


def test_what_was_left_out_when_preparing_is_noted(tmp_path: Path) -> None:
    def some() -> Iterator[Record | shards.Skipped]:
        yield from records(0, 2)
        yield shards.Skipped("7.png", "the image is missing")
        yield shards.Skipped("9.png", "the image is missing")

    features = shards.record_features(SKELETON, ("sequence",))
    written = shards.write_shards(tmp_path, {"train": [some]}, features=features, name="invented")
    shards.finish(tmp_path, shards.describe(tmp_path, "invented", SKELETON, features), written)
    note, none = schemes.open_data(f"tfds:{tmp_path}", root=".").notes
    assert "none of which is for testing" in none.what
    assert str(note) == "left out when it was prepared, as the image is missing: 2 (7.png, ...)"
    (tmp_path / "skipped.json").write_text('{"the image is missing": 2}')
    with pytest.raises(ValueError, match=r"^tfds:.*skipped\.json: .*, expected what was left out$"):
        schemes.open_data(f"tfds:{tmp_path}", root=".")


def test_metadata_holds_the_whole_skeleton() -> None:
    assert tfds_source.skeleton_from_metadata(shards.skeleton_metadata(SKELETON)) == SKELETON


def test_chosen_records_of_several_splits_keep_names_and_clips_in_worker_processes_too(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "invented")
    assert tfds_source.split_lengths(folder) == {"train": 4, "test": 3}
    chosen = tfds_source.TfdsSource(folder=folder, split="train+test", index=np.array([5, 0]))
    for source in (chosen, pickle.loads(pickle.dumps(chosen))):
        assert [source[i]["name"] for i in range(len(source))] == ["5", "0"]
        assert source.sequences == ("clip2", "clip0")
        assert source.skeleton == SKELETON
        np.testing.assert_array_equal(source[0]["keypoints"], np.full((2, 2), 5))
    with pytest.raises(ValueError, match=r"found preset 'odd', expected one of: none"):
        tfds_source.open_preset(folder, "odd")
