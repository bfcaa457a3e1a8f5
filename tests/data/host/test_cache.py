"""What is read from a cache is what is read without one, and a cache of something else is never read."""

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import clips_of, windows
from commands import kill_when

from jaxpose.data import domains
from jaxpose.data.formats.files import Files, FileSource
from jaxpose.data.host import cache, elements, pipeline
from jaxpose.data.host.windows import consecutive
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record

SKELETON = Skeleton(name="three", joints=("a", "b", "c"))
SIZE = 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class Random:
    """Random images with all fields; those of odd records have no 3D."""

    count: int = 12
    broken: tuple[int, ...] = (3, 11)
    skeleton: Skeleton = SKELETON
    labelled: bool = True
    mixed: bool = False
    delay: float = 0.0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        time.sleep(self.delay)
        rng = np.random.default_rng(index)
        data = cv2.imencode(".png", rng.integers(0, 256, (90, 120, 3), np.uint8))[1].tobytes()
        record = Record(
            image=data[:50] if index in self.broken else data,
            keypoints=rng.uniform(0, 90, (3, 2)).astype(np.float32),
            visible=np.array([2, 1, 0], np.uint8),
            name=f"{index}.png",
            bbox=rng.uniform(20, 60, 4).astype(np.float32),
        )
        if not (self.mixed and index % 2):
            record["keypoints3d"] = rng.normal(size=(3, 3)).astype(np.float32)
            record["intrinsics"] = np.array([[300, 0, 60], [0, 310, 45], [0, 0, 1]], np.float32)
        return record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lost(Random):
    """The images are gone."""

    def __getitem__(self, index: int) -> Record:
        raise FileNotFoundError("the image")


def crops(folder: Path | None, source: Any = None, **changes: Any) -> elements.Crops:
    kept = None
    if folder is not None:
        kept = cache.Cache(folder=str(folder), name="source_train", asked={"spec": "x:"}, found={"files": {}})
    fields = ("image", "keypoints", "visible", "scale", "keypoints3d", "intrinsics")
    given = {"source": source or Random(), "joints": np.array([2, 0]), "size": SIZE, "margin": 1.1, "cache": kept}
    given["fields"] = fields
    return elements.Crops(**(given | changes))


def clips(folder: Path | None) -> elements.Crops:
    source = clips_of(Random(), "a" * 6 + "b" * 6)
    return crops(folder, source, windows=windows(source, (0, 1)))


def stored(part: elements.Crops, **options: Any) -> cache.Stored:
    found = pipeline._stored(part, **({"workers": 0, "show": False} | options))
    assert isinstance(found, cache.Stored)
    return found


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for i in range(len(expected)):
        one, two = found[i], expected[i]
        assert set(one) == set(two)
        for field in two:
            assert one[field].dtype == two[field].dtype
            assert one[field].shape == two[field].shape
            assert one[field].tobytes() == two[field].tobytes()


@pytest.mark.parametrize("make", [crops, clips])
def test_elements_are_the_same_bit_for_bit(tmp_path: Path, make: Any) -> None:
    plain = make(None)
    assert {"keypoints3d", "intrinsics", "index", "broken"} < set(plain[0])
    for _ in range(2):  # made, and read again
        assert_same(stored(make(tmp_path)), plain)
    assert sum(int(plain[i]["broken"]) >= 0 for i in range(len(plain))) == (2 if make is crops else 3)


def test_batches_are_the_same_and_broken_records_have_their_names(tmp_path: Path) -> None:
    fields = ("image", "keypoints", "visible", "keypoints3d")

    def batches(folder: Path | None, start: int = 0) -> list[Any]:
        reads = {"source": pipeline.BatchPart(elements=crops(folder, memory=3 * 3 * SIZE**2), count=4, fields=fields)}
        return list(itertools.islice(pipeline.training_batches([reads], seed=1, start=start), 6))

    for start in (0, 7):
        for plain, found in zip(batches(None, start), batches(tmp_path, start), strict=True):
            assert plain["source"].keys() == found["source"].keys()
            for field, value in plain["source"].items():
                np.testing.assert_array_equal(found["source"][field], value)
    assert crops(tmp_path).name(3) == "3.png"


def test_worker_processes_open_the_file_themselves(tmp_path: Path) -> None:
    part = stored(crops(tmp_path))
    part[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(functools.partial(element_of, part), range(len(part)))
    assert_same(found, crops(None))
    assert len(pickle.dumps(part)) < 5000


def element_of(elements: cache.Stored, index: int) -> dict[str, np.ndarray]:
    return elements[index]


@pytest.mark.slow
def test_workers_make_and_read_the_same(tmp_path: Path) -> None:
    import sys

    from absl import flags

    flags.FLAGS(sys.argv[:1])
    assert_same(stored(crops(tmp_path / "two"), workers=2), crops(None))
    stored(crops(tmp_path / "none"))
    for one, two in zip(*(sorted((tmp_path / name).iterdir()) for name in ("two", "none")), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_what_is_asked_for_is_kept_apart(tmp_path: Path) -> None:
    variants = {
        "one": crops(tmp_path),
        "size": crops(tmp_path, size=64),
        "margin": crops(tmp_path, margin=1.5),
        "joints": crops(tmp_path, joints=np.array([0, 2])),
        "clips": clips(tmp_path),
    }
    for part in variants.values():
        stored(part)
    assert len(list(tmp_path.glob("*.array_record"))) == len(list(tmp_path.glob("*.json"))) == 5
    assert len(list(tmp_path.iterdir())) == 10
    for part in variants.values():
        assert_same(stored(part), dataclasses.replace(part, cache=None))


def test_a_cache_of_other_data_is_made_anew_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(crops(tmp_path), show=True)
    (path,) = tmp_path.glob("*.array_record")
    assert "made anew" not in capsys.readouterr().out
    before = path.stat().st_mtime_ns
    stored(crops(tmp_path), show=True)
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out == ""

    fewer = Random(count=11)
    assert_same(stored(crops(tmp_path, fewer), show=True), crops(None, fewer))
    assert capsys.readouterr().out == f"{path}: found records 12, expected 11, so it is made anew\n"

    note = path.with_suffix(".json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"layout": 0}))
    stored(crops(tmp_path, fewer), show=True)
    assert capsys.readouterr().out == f"{path}: found layout 0, expected 1, so it is made anew\n"

    note.write_text("{")
    assert_same(stored(crops(tmp_path, fewer), show=True), crops(None, fewer))
    assert "made anew" in capsys.readouterr().out

    whole = json.loads(note.read_text())
    for layouts in (None, 3, [["image"]], [[["image", "?!", []]]]):
        note.write_text(json.dumps(whole | {"layouts": layouts}))
        assert_same(stored(crops(tmp_path, fewer), show=True), crops(None, fewer))
        assert "found it damaged" in capsys.readouterr().out

    os.truncate(path, 1000)
    assert_same(stored(crops(tmp_path, fewer), show=True), crops(None, fewer))
    assert "found it damaged" in capsys.readouterr().out


def test_labels_and_the_choice_of_records_count(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(3):
        cv2.imwrite(str(images / f"{i}.png"), np.full((8, 8, 3), i, np.uint8))
    points, visible = np.zeros((3, 3, 2), np.float32), np.full((3, 3), 2, np.uint8)
    whole = FileSource(
        files=Files(images), skeleton=SKELETON, names=("0.png", "1.png", "2.png"), keypoints=points, visible=visible
    )
    moved = dataclasses.replace(whole, keypoints=points + 1)
    digests = [cache.labels_of(source) for source in (whole, moved, whole.subset([0, 2, 1]), whole.subset([0, 1, 2]))]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


def test_files_are_known_by_name_size_and_time_wherever_they_are(tmp_path: Path) -> None:
    def tree(root: Path) -> Path:
        (root / "data" / "clip").mkdir(parents=True)
        for name in ("data/clip/a.png", "data/labels.csv", "boxes.json"):
            (root / name).write_text(name)
            os.utime(root / name, (1000, 1000))
        return root

    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    spec = "deeplabcut:data?boxes=boxes.json&test=none"

    def found(root: Path) -> dict[str, list[Any]]:
        return cache.files_of(spec, root=str(root), source=Random(), leave_out=[str(root / "data" / "kept")])

    assert cache.files_of(f"images:none?train={'x' * 5000}", root=str(one), source=Random(), leave_out=[]) == {}

    first = found(one)
    assert {name: value[:2] for name, value in first.items()} == {"data": [2, 30], "boxes.json": [1, 10]}
    assert found(two) == first
    (one / "data" / "kept").mkdir()
    (one / "data" / "kept" / "x.array_record").write_text("the cache itself")
    assert found(one) == first
    os.utime(one / "data" / "labels.csv", (2000, 2000))
    assert found(one)["data"] != first["data"]
    assert found(one)["boxes.json"] == first["boxes.json"]


def make_slowly(folder: Path) -> None:
    stored(crops(folder, Random(delay=0.1, broken=())))


def test_a_kill_leaves_no_half_file(tmp_path: Path) -> None:
    kill_when(lambda: list(tmp_path.glob("*.partial")), make_slowly, tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    os.utime(left, (1000, 1000))  # nobody has written to it for long
    assert_same(stored(crops(tmp_path)), crops(None))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".array_record", ".json"]


def test_failures_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="none of 2 images can be decoded"):
        stored(crops(tmp_path, Random(count=2, broken=(0, 1))))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="the image"):
        stored(crops(tmp_path, Lost()))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"config\.data\.cache=.*file.*expected a folder to write to"):
        stored(crops(tmp_path / "file"))
    usage = cache.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"found 0\.0 GiB free, expected 0\.0 GiB for the crops"):
        stored(crops(tmp_path / "full"))
    assert list((tmp_path / "full").iterdir()) == []


def test_a_damaged_element_is_named(tmp_path: Path) -> None:
    part = stored(crops(tmp_path))
    (path,) = tmp_path.glob("*.array_record")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 100] = bytes(100)
    path.write_bytes(data)
    again = cache.Stored(path, part.layouts)
    with pytest.raises(ValueError, match=r"source_train_.*: element \d+ cannot be read .*expected a whole file"):
        [again[i] for i in range(len(again))]


def test_training_splits_of_a_pair_have_a_cache(tmp_path: Path) -> None:
    options = {"root": str(tmp_path), "image_size": 32, "margin": 1.25, "memory": 1, "seed": 0}
    specs = {"source": "bodies:studio?train=6&test=2", "target": "bodies:street?train=8&test=2"}
    plain = domains.open_pair(**specs, **options)
    pair = domains.open_pair(**specs, **options, cache=str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()  # made when it is first read
    for name, domain in pair.domains.items():
        for split, part in domain.splits.items():
            assert (part.cache is not None) == (split == "train")
        assert_same(stored(domain.splits["train"]), plain.domains[name].splits["train"])
    found, expected = (
        of.domains["target"].elements("train", ("image",), consecutive(2), word="target_clips") for of in (pair, plain)
    )
    assert_same(stored(found), expected)
    names = sorted(path.name.rpartition("_")[0] for path in (tmp_path / "kept").glob("*.json"))
    assert names == ["source_train", "target_clips_train", "target_train"]
    other = domains.open_pair(**specs, **(options | {"seed": 1}), cache=str(tmp_path / "kept"))
    assert_same(
        stored(other.domains["source"].splits["train"]),
        domains.open_pair(**specs, **(options | {"seed": 1})).domains["source"].splits["train"],
    )


def test_a_real_project_reads_the_same(pack: Any, tmp_path: Path) -> None:
    options = {
        "root": str(pack("dlc_openfield_jpg.tar").parent),
        "image_size": 64,
        "margin": 1.25,
        "memory": 0,
        "seed": 0,
    }
    specs = {"source": "deeplabcut:dlc_openfield_jpg.tar", "target": "deeplabcut:dlc_openfield_jpg.tar"}
    plain = domains.open_pair(**specs, **options).domains["source"].splits["train"]
    part = domains.open_pair(**specs, **options, cache=str(tmp_path)).domains["source"].splits["train"]
    for _ in range(2):
        assert_same(stored(part), plain)
    assert part.cache is not None
    files = part.cache.found["files"]
    assert list(files) == ["dlc_openfield_jpg.tar"]
    assert files["dlc_openfield_jpg.tar"][:2] == [1, pack("dlc_openfield_jpg.tar").stat().st_size]
