import functools
import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from invented import SKELETON

from jaxpose.data import schemes, wrappers
from jaxpose.data.formats import shards
from jaxpose.data.readers import tfds_source
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


def use(folder: Path) -> None:
    """As a run opens and reads it."""
    for source in schemes.open_data(f"tfds:{folder}", root="/").splits.values():
        wrappers.sequences_of(source), wrappers.rates_of(source)
        for i in range(len(source)):
            source[i]


def edit(path: Path, change: object) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps(change(found)))


HOSTILE = "import pathlib\n\npathlib.Path(__file__).with_name('ran').touch()\n"


def module(name: str) -> dict[str, object]:
    return {"pythonClassName": f"{name}.Feature", "text": {}}


@pytest.mark.parametrize(
    "change",
    {
        "whole": lambda name, features: module(name),
        "field": lambda name, features: (features["featuresDict"]["features"].update(name=module(name)), features)[1],
        "snake": lambda name, features: {"python_class_name": f"{name}.Feature", "features_dict": {}},
        "old form": lambda name, features: {"type": f"{name}.Feature", "content": {}},
        "old form inside": lambda name, features: (
            features["featuresDict"]["features"].update(
                name={
                    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
                    "jsonFeature": {"json": json.dumps({"a": {"type": f"{name}.Feature", "content": {}}})},
                }
            ),
            features,
        )[1],
        "sequence": lambda name, features: {
            "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
            "sequence": {"feature": module(name)},
        },
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_no_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: object, file: str) -> None:
    """A folder that is shared with a module in it, opened from inside: the current directory can be imported from."""
    folder = prepare(tmp_path / "invented")
    name = f"hostile_{file[:4]}_{change[0].replace(' ', '_')}"
    (folder / f"{name}.py").write_text(HOSTILE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    found = change[1](name, json.loads((folder / "features.json").read_text()))
    if file == "features.json":
        (folder / file).write_text(json.dumps(found))
    else:
        edit(folder / file, lambda info: info | {"features": found})
    with pytest.raises(ValueError, match=rf"{file}: ") as error:
        use(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "ran").exists()
    __import__(name)  # it does something where it is imported
    assert (folder / "ran").exists()


METADATA = ("dataset_info.json", "features.json", "metadata.json", "sequences.json")


@pytest.mark.parametrize("file", METADATA)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"])
def test_damaged_metadata_is_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    folder = prepare(tmp_path / "invented")
    (folder / file).write_bytes(content)
    if (file, content) == ("sequences.json", b"{}"):  # a folder without clips
        use(folder)
        return
    with pytest.raises(ValueError, match=rf"invented(/{file})?: ") as error:
        use(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metadata.json", lambda m: {"other": 1}, "metadata.json: KeyError 'skeleton'"),
        ("metadata.json", lambda m: {"skeleton": {**m["skeleton"], "bones": [["left"]]}}, "metadata.json: "),
        ("metadata.json", lambda m: {"skeleton": {**m["skeleton"], "joints": ["left", "right", "mid"]}}, "metadata"),
        ("metadata.json", lambda m: {"skeleton": {**m["skeleton"], "groups": []}}, "metadata.json: "),
        ("metadata.json", lambda m: m | {"rate": "fast"}, "metadata.json: .*expected 0.01 to 10000 frames per second"),
        ("metadata.json", lambda m: m | {"rate": 0}, "metadata.json: found a rate of 0, expected 0.01 to 10000"),
        ("sequences.json", lambda s: {"train": [["a", 10**12]]}, "found 1000000000000 records of train, not 4"),
        ("sequences.json", lambda s: {"train": [["a"]]}, "sequences.json: "),
        ("dataset_info.json", lambda i: i | {"fileFormat": "none"}, "invented: "),
        ("dataset_info.json", lambda i: i | {"version": "x"}, "invented: "),
        ("dataset_info.json", lambda i: i | {"splits": []}, "found splits "),
        ("dataset_info.json", lambda i: i | {"splits": [{"name": "train"}]}, "invented: "),
    ],
)
def test_wrong_metadata_is_one_line(tmp_path: Path, file: str, change: object, message: str) -> None:
    folder = prepare(tmp_path / "invented")
    edit(folder / file, change)
    with pytest.raises(ValueError, match=message) as error:
        use(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("keypoints", {"tensor": {"dtype": "float32", "shape": {"dimensions": ["3", "2"]}}}),
        ("keypoints", {"tensor": {"dtype": "float64", "shape": {"dimensions": ["2", "2"]}}}),
        ("keypoints", {"tensor": {"dtype": "float32", "encoding": "zlib", "shape": {"dimensions": ["2", "2"]}}}),
        ("visible", None),
        (
            "other",
            {"tensor": {"dtype": "float32"}, "pythonClassName": "tensorflow_datasets.core.features.scalar.Scalar"},
        ),
    ],
)
def test_features_are_those_of_records(tmp_path: Path, name: str, change: dict[str, object] | None) -> None:
    folder = prepare(tmp_path / "invented")

    def changed(features: dict[str, dict]) -> dict[str, dict]:
        fields = features["featuresDict"]["features"]
        fields[name] = {**fields.get(name, {}), **(change or {})}
        if change is None:
            del fields[name]
        return features

    edit(folder / "features.json", changed)
    with pytest.raises(
        ValueError, match=rf"invented(/features\.json)?: [^\n]*(found {name}|feature '{name}'|float64|zlib)"
    ):
        use(folder)


def test_cut_shards_are_one_line(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "invented")
    for shard in folder.glob("*train*"):
        os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"invented: ") as error:
        use(folder)
    assert "\n" not in str(error.value)


def test_shards_lie_in_the_folder(tmp_path: Path) -> None:
    folder, other = prepare(tmp_path / "invented"), tmp_path / "elsewhere"
    os.rename(next(folder.glob("*train*")), other)

    def moved(info: dict) -> dict:
        info["splits"][0]["filepathTemplate"] = str(other)
        return info

    edit(folder / "dataset_info.json", moved)
    with pytest.raises(ValueError, match=r"invented: found no file .*elsewhere, expected a split"):
        use(folder)
