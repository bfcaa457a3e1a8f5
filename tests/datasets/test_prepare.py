"""Preparing a data set: what is written, what a kill leaves, what the command line says."""

import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from commands import fails, kill_when, run
from invented import SKELETON

from jaxpose.data import schemes
from jaxpose.data.formats import shards
from jaxpose.data.readers import tfds_source
from jaxpose.data.records import Record
from jaxpose.datasets import prepare
from jaxpose.datasets.builder import RecordBuilder


def records(root: Path, split: str, start: int, stop: int) -> Iterator[Record | shards.Skipped]:
    with open(root / "log.txt", "a") as log:
        log.write(f"{split} {start}\n")
    for i in range(start, stop):
        if (root / "slow").exists():
            time.sleep(0.4)
        if i % 4 == 3:
            yield shards.Skipped(f"{i}", "every fourth")
            continue
        image = cv2.imencode(".png", np.full((8, 8, 3), i, np.uint8))[1].tobytes()
        yield Record(
            image=image[:20] if i == 5 else image,
            keypoints=np.full((2, 2), i, np.float32),
            visible=np.array([2, 1], np.uint8),
            name=f"{split}{i}",
            bbox=np.array([0, 0, 8, 8], np.float32),
            sequence=f"clip{i // 6}",
            frame=i,
        )


class Invented(RecordBuilder):
    """Twelve training and six test records, of which every fourth and a broken one are left out."""

    SKELETON = SKELETON
    FIELDS = ("bbox", "sequence", "frame")
    COUNTS = {"train": 8, "test": 6}
    HOMEPAGE, LICENCE, CITATION = "https://example.org", "none", "none"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "nothing"
    PRESETS = {"odd": lambda n: {"train": [("test", 1), ("train", 0)], "test": [("train", n["train"] - 1)]}}

    def shards(self, root: Path) -> dict[str, list[shards.Shard]]:
        return {
            split: [functools.partial(records, root, split, i, i + 3) for i in range(0, count, 3)]
            for split, count in (("train", 12), ("test", 6))
        }


def test_a_prepared_folder_reads_as_it_was_written(tmp_path: Path) -> None:
    folder = prepare.prepare(Invented, tmp_path, tmp_path / "data")
    train = tfds_source.TfdsSource(folder=folder, split="train")
    assert len(train) == 8
    assert train.skeleton == SKELETON
    assert train.sequences == tuple(train[i]["sequence"] for i in range(8))
    first = train[4]  # 3 was left out, 5 cannot be decoded
    assert first["name"] == "train6"
    assert first["sequence"] == "clip1"
    assert first["frame"] == 6
    np.testing.assert_array_equal(first["keypoints"], np.full((2, 2), 6))
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(first["image"], np.uint8), 1), np.full((8, 8, 3), 6))
    text = prepare.summary(Invented, folder)
    assert "train: 8 records, as published" in text
    assert "test: 4 records, DIFFERS from the published 6" in text
    assert "skipped 4: every fourth (3, 7, 11, 3)" in text
    assert "the image cannot be decoded (train5, test5)" in text
    assert list((tmp_path / "data").rglob("*.report.json")) == []


def test_presets_and_slices_are_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare.prepare(Invented, tmp_path, tmp_path / "data")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    odd = schemes.open_data("tfds:invented?preset=odd", root="/nowhere").splits
    assert [odd["train"][i]["name"] for i in range(2)] == ["test1", "train0"]
    assert odd["test"][0]["name"] == "train10"
    half = schemes.open_data("tfds:invented?train=train[:50%]&test=test", root="/nowhere").splits
    assert {split: len(part) for split, part in half.items()} == {"train": 4, "test": 4}
    for spec, message in (
        ("tfds:invented?preset=even", "found preset 'even', expected one of: odd"),
        ("tfds:unknown", "found no prepared data in"),
    ):
        with pytest.raises(ValueError, match=message):
            schemes.open_data(spec, root="/nowhere")


def test_anyone_can_prepare_and_read_it_with_tensorflow_datasets(tmp_path: Path) -> None:
    builder = Invented(data_dir=str(tmp_path / "data"), file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path))
    builder.download_and_prepare(download_config=config)
    source = tfds.builder("invented", data_dir=str(tmp_path / "data")).as_data_source("train")
    assert source[0]["image"].shape == (8, 8, 3)
    assert "tensorflow" not in sys.modules


def convert(root: Path, workers: int) -> None:
    prepare.prepare(Invented, root, root / "data", workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_conversion_goes_on_with_the_next_shard(tmp_path: Path, workers: int) -> None:
    (tmp_path / "slow").touch()
    kill_when(lambda: list(tmp_path.rglob("*00001-of-00004.report.json")), convert, tmp_path, workers)
    time.sleep(1.5)  # a worker ends within a second of its parent
    (tmp_path / "slow").unlink()
    convert(tmp_path, workers)
    log = (tmp_path / "log.txt").read_text().split("\n")
    assert log.count("train 0") == log.count("train 3") == 1
    assert len(tfds_source.TfdsSource(folder=tmp_path / "data" / "invented" / "1.0.0", split="train")) == 8


def test_worker_processes_write_the_same(tmp_path: Path) -> None:
    alone = prepare.prepare(Invented, tmp_path, tmp_path / "alone")
    shared = prepare.prepare(Invented, tmp_path, tmp_path / "shared", workers=2)
    for split in ("train", "test"):
        one, two = (tfds_source.TfdsSource(folder=folder, split=split) for folder in (alone, shared))
        for i in range(len(one)):
            jax.tree.map(np.testing.assert_array_equal, one[i], two[i])


def test_fields_must_be_as_announced() -> None:
    features = shards.record_features(SKELETON, ("bbox",))
    good = Record(
        image=b"", keypoints=np.zeros((2, 2), np.float32), visible=np.zeros(2, np.uint8), name="a.png", bbox=np.zeros(4)
    )
    assert set(shards.example(good, features)) == {"image", "keypoints", "visible", "name", "bbox"}
    with pytest.raises(ValueError, match=r"a\.png: keypoints has shape \(3, 2\), expected \(2, 2\)"):
        shards.example(good | {"keypoints": np.zeros((3, 2))}, features)
    absent = {name: value for name, value in good.items() if name != "bbox"}
    with pytest.raises(ValueError, match=r"a\.png: found no bbox"):
        shards.example(absent, features)


def test_the_command_prepares_and_browses(tmp_path: Path) -> None:
    images = tmp_path / "lsp" / "images"
    images.mkdir(parents=True)
    for i in (1, 2, 1001):
        cv2.imwrite(str(images / f"im{i:04d}.jpg"), np.full((40, 50, 3), 90, np.uint8))
    joints = np.zeros((3, 14, 1001))
    joints[:2] = np.random.default_rng(0).uniform(5, 35, (2, 14, 1001))
    scipy.io.savemat(tmp_path / "lsp" / "joints.mat", {"joints": joints})
    data = f"--data_dir={tmp_path / 'data'}"
    printed = run(tmp_path / "w", "--mode=prepare", "--dataset=lsp", f"--manual_dir={tmp_path / 'lsp'}", data)
    assert "train: 2 records, DIFFERS from the published 1,000" in printed
    printed = run(tmp_path / "w", "--mode=browse", "--dataset=lsp", data)
    page = (tmp_path / "w" / "browse.html").read_text()
    assert str(tmp_path / "w" / "browse.html") in printed
    assert "right_ankle" in page
    assert "2 train, 1 test" in page
    run(tmp_path / "pair", "--mode=browse", "--config.data.source=tfds:lsp", f"--config.data.root={tmp_path / 'data'}")
    page = (tmp_path / "pair" / "browse.html").read_text()
    assert "Shared joints" in page
    assert "pelvis" in page  # only in the target


def test_wrong_preparations_are_one_line(tmp_path: Path) -> None:
    assert ", lsp, lspet, " in fails(tmp_path, "--mode=prepare", "--dataset=mnist", "--manual_dir=x")
    assert "found no --dataset" in fails(tmp_path, "--mode=prepare")
    message = fails(tmp_path, "--mode=prepare", "--dataset=lsp", f"--manual_dir={tmp_path / 'none'}")
    assert "found no folder" in message
    assert "joints.mat" in message
