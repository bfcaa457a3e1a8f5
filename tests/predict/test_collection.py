import csv
import json
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dots import JOINTS, dots_model, some_places, write_images, write_video

from jaxpose.data.readers.video_frames import VideoFrames
from jaxpose.predict import collection, found, recordings, stream
from jaxpose.predict.asked import FORMATS, Shard, formats_of
from jaxpose.predict.formats import WRITERS
from jaxpose.train.workdir import InUseError, locked

SCORER = "DLC_jaxpose_dots_none_adapt7"


def predict(spec: Any, output: Path, *, model=None, formats: str = "dlc", **options: Any) -> list[str]:
    said: list[str] = []
    inputs = recordings.find(str(spec), root=".", skeleton=JOINTS)
    collection.predict(
        model or dots_model(),
        inputs,
        output,
        formats={name: WRITERS[name] for name in formats_of(formats)},
        say=said.append,
        **options,
    )
    return said


def table(path: Path) -> tuple[list[str], np.ndarray]:
    """Index and values (N, K, 3) of a table of one animal."""
    rows = list(csv.reader(path.read_text().splitlines()))[3:]
    values = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows])
    return [row[0] for row in rows], values.reshape(len(rows), -1, 3)


def test_a_video_is_predicted_frame_by_frame_as_its_images_are(tmp_path: Path) -> None:
    places = some_places(70)  # more than a batch
    write_video(tmp_path / "clip.avi", places)
    video = VideoFrames(tmp_path / "clip.avi")
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(len(video)):
        cv2.imwrite(str(folder / f"img{i:03d}.png"), cv2.cvtColor(video.frame(i), cv2.COLOR_RGB2BGR))
    (line,) = predict(tmp_path / "clip.avi", tmp_path / "out")
    assert line.startswith("clip: 70 frames, ")
    assert "frames/s" in line
    predict(folder, tmp_path / "out")
    index, of_video = table(tmp_path / "out" / f"clip{SCORER}.csv")
    names, of_images = table(tmp_path / "out" / f"frames{SCORER}.csv")
    assert index == [str(i) for i in range(70)]
    assert names == [f"img{i:03d}.png" for i in range(70)]
    np.testing.assert_array_equal(of_video, of_images)
    np.testing.assert_allclose(of_video[..., :2], places, atol=1.5)  # JPEG
    meta = json.loads((tmp_path / "out" / "clip.meta.json").read_text())
    assert meta["frames"] == 70
    assert meta["unreadable"] == []
    assert not list((tmp_path / "out").glob("*.parts"))


def test_what_is_finished_is_not_predicted_again(tmp_path: Path) -> None:
    for name in ("a/one", "b/one", "b/two"):
        write_video(tmp_path / "videos" / f"{name}.avi", some_places(3))
    assert len(predict(tmp_path / "videos", tmp_path / "out")) == 3
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.csv"))
    assert written == [f"{name}{SCORER}.csv" for name in ("a/one", "b/one", "b/two")]
    (tmp_path / "out" / "b" / "two.meta.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.csv")}
    said = predict(tmp_path / "videos", tmp_path / "out")
    assert ["finished before" in line for line in said] == [True, True, False]
    changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == [f"two{SCORER}.csv"]
    assert "finished before" not in predict(tmp_path / "videos" / "a" / "one.avi", tmp_path / "out", formats="coco")[0]
    with pytest.raises(ValueError, match=r"found predictions of another model, expected none; choose another --output"):
        predict(tmp_path / "videos", tmp_path / "out", model=dots_model(step=8))


def test_shards_of_one_video_are_joined(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", some_places(23))
    predict(tmp_path / "clip.avi", tmp_path / "whole")
    for number in (3, 1):
        (line,) = predict(tmp_path / "clip.avi", tmp_path / "out", shard=Shard(number=number, of=3))
        assert "without --shard joins the parts" in line
    assert not list((tmp_path / "out").glob("*.csv"))
    read: list[int] = []
    original = stream.predictions

    def counted(*arguments: Any, **options: Any):
        for frame, values in original(*arguments, **options):
            read.append(frame)
            yield frame, values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "predictions", counted)
        predict(tmp_path / "clip.avi", tmp_path / "out")
    assert read == list(range(7, 15))  # only what no shard had done
    _, expected = table(tmp_path / "whole" / f"clip{SCORER}.csv")
    _, joined = table(tmp_path / "out" / f"clip{SCORER}.csv")
    np.testing.assert_allclose(joined, expected, atol=1e-4)


def test_shards_of_several_files_are_files(tmp_path: Path) -> None:
    for name in "abcde":
        write_video(tmp_path / "videos" / f"{name}.avi", some_places(2))
    assert len(predict(tmp_path / "videos", tmp_path / "out", shard=Shard(number=1, of=2))) == 2
    assert len(predict(tmp_path / "videos", tmp_path / "out", shard=Shard(number=2, of=2))) == 3
    assert len(list((tmp_path / "out").glob("*.csv"))) == 5
    (line,) = predict(tmp_path / "videos", tmp_path / "none", shard=Shard(number=1, of=9))
    assert "nothing to do, there are 5 files" in line


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "a/b", "-1/3", ""])
def test_wrong_shards_are_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"--shard: found '.*', expected NUMBER/OF such as 3/100"):
        Shard.read(text)


def test_shards_cover_every_frame_once() -> None:
    for count in (0, 1, 7, 100):
        spans = [Shard(number=i, of=7).frames(count) for i in range(1, 8)]
        assert [frame for start, stop in spans for frame in range(start, stop)] == list(range(count))
    assert Shard.read(None).frames(5) == (0, 5)


def test_a_broken_image_is_a_row_of_its_own_and_named(tmp_path: Path) -> None:
    write_images(tmp_path / "images", some_places(6))
    broken = tmp_path / "images" / "img002.png"
    broken.write_bytes(broken.read_bytes()[:70])
    said = predict(tmp_path / "images", tmp_path / "out", formats="dlc,coco,slp,parquet", pictures=True)
    assert "frames that cannot be decoded: 1 (img002.png)" in said[1]
    names, values = table(tmp_path / "out" / f"images{SCORER}.csv")
    assert names[2] == "img002.png"
    assert np.isnan(values[2, :, :2]).all()
    assert (values[2, :, 2] == 0).all()
    assert np.isfinite(np.delete(values, 2, axis=0)).all()
    assert len(json.loads((tmp_path / "out" / "images.coco.json").read_text())) == 5


def test_a_folder_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    write_images(tmp_path / "images", some_places(40))
    original = stream.predictions

    def stopped(*arguments: Any, **options: Any):
        for frame, values in original(*arguments, **options):
            if frame == 17:
                raise SystemExit(75)  # as a signal does
            yield frame, values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "predictions", stopped)
        with pytest.raises(SystemExit):
            predict(tmp_path / "images", tmp_path / "out")
    (part,) = (tmp_path / "out" / "images.parts").glob("*.npy")
    assert part.name == "0000000000-0000000017.npy"
    assert not list((tmp_path / "out").glob("*.csv"))
    with pytest.raises(ValueError, match=r"images.parts: found parts with model .*; delete it or choose another"):
        predict(tmp_path / "images", tmp_path / "out", model=dots_model(little=1e-5))
    predict(tmp_path / "images", tmp_path / "out")
    predict(tmp_path / "images", tmp_path / "whole")
    name = f"images{SCORER}.csv"
    assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert threading.active_count() < 20  # no thread of the stopped one is left to wait


def test_two_jobs_do_not_write_one_part(tmp_path: Path) -> None:
    write_images(tmp_path / "images", some_places(2))
    with (
        locked(tmp_path / "out" / "images.parts" / "jobs" / "1of1"),
        pytest.raises(InUseError, match="found it in use by process"),
    ):
        predict(tmp_path / "images", tmp_path / "out")


def test_a_video_that_cannot_be_opened_does_not_stop_the_others(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.avi", some_places(2))
    (tmp_path / "videos" / "b.mp4").write_bytes(b"no video")
    said = predict(tmp_path / "videos", tmp_path / "out")
    assert "b (2 of 2): left out:" in said[1]
    with pytest.raises(ValueError, match=r"b.mp4: cannot be opened as a video"):
        predict(tmp_path / "videos" / "b.mp4", tmp_path / "out")


def test_no_more_is_read_than_is_needed_soon(tmp_path: Path) -> None:
    """However long a recording is, the frames on their way fit into memory."""
    write_images(tmp_path / "images", some_places(1))
    recording = recordings.find(str(tmp_path / "images"), root=".", skeleton=JOINTS)[0].open()

    class Endless:
        skeleton, labelled, reads = JOINTS, False, 0

        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, index: int):
            self.reads += 1
            return recording.source[0]

    endless = Endless()
    long = recordings.Recording(name="long", path=tmp_path, source=endless, boxes={})
    coming = stream.predictions(dots_model(), long, range(10**6), stream.Clock(), rows=4)
    for frame, _ in coming:
        if frame == 200:
            break
    assert endless.reads < 200 + 100
    coming.close()


def test_unknown_formats_are_one_line() -> None:
    assert tuple(WRITERS) == FORMATS
    assert formats_of("coco, dlc,coco") == ["coco", "dlc"]
    with pytest.raises(ValueError, match=r"--formats: found 'cocco', expected some of dlc, .*; did you mean coco\?"):
        formats_of("dlc,cocco")
    with pytest.raises(ValueError, match="--formats: found none"):
        formats_of(" ,")


def test_parts_know_what_is_missing(tmp_path: Path) -> None:
    parts = found.Parts(folder=tmp_path / "p", made_by={"by": 1}, shape=(20, 1, 3))
    parts.prepare()
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 1, 3, 3)).astype(np.float32)
    for start, stop in ((3, 6), (5, 9), (12, 20)):
        parts.save(start, values[start:stop])
    assert parts.missing(0, 20) == [range(3), range(9, 12)]
    assert parts.missing(4, 10) == [range(9, 10)]
    assert parts.missing(13, 20) == []
    for gap in parts.missing(0, 20):
        parts.save(gap.start, values[gap.start : gap.stop])
    joined = list(parts.read())
    np.testing.assert_array_equal(np.concatenate([part for _, part in joined]), values)
    assert [start for start, _ in joined] == [0, 3, 6, 9, 12]
    (tmp_path / "p" / "0000000003-0000000006.npy").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"0000000003-0000000006\.npy"):
        list(parts.read())
