import dataclasses
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from jaxpose.data import records, wrappers
from jaxpose.data.formats import files
from jaxpose.data.host.windows import Windows, consecutive
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import video, video_frames
from jaxpose.data.readers.video_frames import VideoFrames

SKELETON = Skeleton(name="two", joints=("p", "q"))
BITS = 8


def picture(number):
    """A frame that shows its number as bright and dark squares, on red."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[32:] = (0, 0, 200)  # BGR
    for bit in range(BITS):
        image[:32, 16 * bit : 16 * bit + 16] = 235 if number >> bit & 1 else 20
    return image


def shown(image):
    assert image.dtype == np.uint8
    assert image.shape == (64, 128, 3)
    red, green, blue = image[48, 64]
    assert red > 150 > 60 > max(green, blue)
    return sum(int(image[16, 16 * bit + 8].mean() > 128) << bit for bit in range(BITS))


def write(path, count, *, code="mp4v", rate=25.0, numbers=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), rate, (128, 64))
    assert writer.isOpened()
    for number in range(count) if numbers is None else numbers:
        writer.write(picture(number))
    writer.release()
    return path


def write_at(path, numbers, *, rate=25.0):
    """A video of variable rate: frame i of another one is shown at numbers[i] / rate seconds."""
    reader = cv2.VideoCapture(
        str(write(path.with_suffix(".avi"), 0, numbers=numbers, code="MJPG")), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1]
    )
    options = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, (128, 64), options)
    for number in numbers:
        writer.set(cv2.VIDEOWRITER_PROP_PTS, number)
        writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, 1)
        writer.write(reader.read()[1])
    writer.release()
    return path


FORMATS = [("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.mkv", "mp4v"), ("a.avi", "MJPG"), ("a.webm", "VP80")]


@pytest.mark.parametrize(("name", "code"), FORMATS)
def test_every_frame_by_number_in_any_order(tmp_path, name, code):
    frames = VideoFrames(write(tmp_path / name, 90, code=code))
    assert len(frames) == frames.count == 90
    assert frames.rate == pytest.approx(25, rel=1e-3)
    np.testing.assert_allclose(frames.times, np.arange(90) / 25, atol=2e-3)
    assert [shown(frames.frame(i)) for i in range(90)] == list(range(90))
    order = [int(i) for i in np.random.default_rng(0).permutation(90)]
    copy = pickle.loads(pickle.dumps(frames))
    assert [shown(copy.frame(i)) for i in order] == order
    assert [shown(copy.frame(89)), shown(copy.frame(89)), shown(copy.frame(0))] == [89, 89, 0]
    copy.close()
    assert shown(copy.frame(41)) == 41
    for index in (-1, 90):
        with pytest.raises(IndexError, match=rf"{name}: has frames 0 to 89, found {index}"):
            frames.frame(index)


def test_one_frame(tmp_path):
    frames = VideoFrames(write(tmp_path / "a.mp4", 1, numbers=[5]))
    assert (frames.count, frames.rate, frames.times.tolist()) == (1, 25.0, [0.0])
    assert shown(frames.frame(0)) == 5


def test_threads_share_a_video(tmp_path):
    frames = VideoFrames(write(tmp_path / "a.mp4", 60))
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 60, 40):
            if shown(frames.frame(int(i))) != i:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_variable_rate_counts_frames_and_not_time(tmp_path, name):
    numbers = [0, 1, 2, 10, *range(30, 80, 5), 200, 201, 202]
    frames = VideoFrames(write_at(tmp_path / name, numbers))
    assert frames.count == len(numbers)
    np.testing.assert_allclose(frames.times, np.array(numbers) / 25, atol=2e-3)
    assert frames.rate == pytest.approx(16 / (202 / 25), rel=1e-3)
    order = [15, 3, 16, 0, 14, 8, 9, 2]
    assert [shown(frames.frame(i)) for i in order] == [numbers[i] for i in order]
    source = video.read(tmp_path / name, skeleton=SKELETON, every=1.0)
    # Nearest to 0, 25, 50, 75, 100, ... 200 units of time; between 75 and 200 nothing is shown.
    assert [numbers[i] for i in source.frames] == [0, 30, 50, 75, 200]


def jpeg_chunks(data):
    """Offset and size of the pictures in an AVI of JPEGs."""
    chunks, position = [], data.index(b"movi") + 4
    while data[position : position + 4] == b"00dc":
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        chunks.append((position + 8, size))
        position += 8 + size + size % 2
    return chunks


def test_damaged_frames_keep_their_numbers(tmp_path):
    path = write(tmp_path / "a.avi", 60, code="MJPG")
    data = bytearray(path.read_bytes())
    for index in (20, 21, 50):
        offset, size = jpeg_chunks(data)[index]
        data[offset : offset + size] = bytes(size)
    path.write_bytes(data)
    frames = VideoFrames(path)
    assert frames.count == 60
    for order in (range(60), (50, 49, 51, 21, 59, 20, 22, 0)):
        for index in order:
            if index in (20, 21, 50):
                with pytest.raises(records.BrokenImageError, match=rf"a\.avi: frame {index} cannot be decoded"):
                    frames.frame(index)
            else:
                assert shown(frames.frame(index)) == index
    source = video.read(path, skeleton=SKELETON)
    with pytest.raises(records.BrokenImageError, match=r"^a\.avi frame 21: the image file is empty"):
        files.decode_image(source[21]["image"], source[21]["name"])
    chosen = video.read(path, skeleton=SKELETON, frames=57, method="kmeans").frames
    assert chosen.tolist() == [i for i in range(60) if i not in (20, 21, 50)]


def test_lost_packets_shift_no_frame(tmp_path):
    """Where an AVI lost a packet, its index and its counted timestamps disagree."""
    path = write(tmp_path / "a.avi", 60, code="MJPG")
    data = bytearray(path.read_bytes())
    offset, size = jpeg_chunks(data)[30]
    data[offset - 8 : offset + size] = bytes(size + 8)
    path.write_bytes(data)
    frames = VideoFrames(path)
    expected = [i for i in range(60) if i != 30]
    assert frames.count == 59
    (note,) = video.read(path, skeleton=SKELETON).notes
    assert (note.count, note.example) == (1, f"{path}: 59 of 60")
    assert note.what == "frames that headers state, but that are not there, as the video is cut or damaged"
    assert [shown(frames.frame(i)) for i in range(59)] == expected
    assert [shown(frames.frame(i)) for i in (58, 10, 29, 30, 57)] == [expected[i] for i in (58, 10, 29, 30, 57)]


def encode(path, codec, *, times=None, turned=0, first=0, title="", **options):
    """90 pictures in a stream that OpenCV cannot write, shown at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 64, "yuv420p", 2_000_000
        unit = Fraction(1, 25 if times is None else 1000)
        stream.codec_context.time_base = unit
        stream.set_display_rotation(turned)
        container.metadata["title"] = title
        for number in range(90):
            frame = av.VideoFrame.from_ndarray(picture(number)[..., ::-1].copy(), format="rgb24")
            frame.pts, frame.time_base = (number - first if times is None else int(times[number])), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


CODECS = [
    ("a.mp4", "libx264", {"bf": "3", "g": "12"}),
    ("a.mkv", "libx264", {"bf": "3", "g": "12"}),
    ("a.avi", "libx264", {"bf": "3", "g": "12"}),  # whose packets do not say when they are shown
    ("a.h264", "libx264", {"bf": "0", "g": "12"}),  # nor do these
    ("a.ts", "libx264", {"bf": "3", "g": "12"}),
    ("open.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3"}),
    ("a.mpg", "mpeg2video", {"bf": "2", "g": "12"}),
    ("b.avi", "mpeg4", {"bf": "2", "g": "12"}),
    ("b.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CODECS)
def test_frames_that_are_stored_in_another_order(tmp_path, name, codec, options):
    frames = VideoFrames(encode(tmp_path / name, codec, **options))
    assert (frames.count, frames.rate, frames.notes) == (90, 25.0, ())
    np.testing.assert_allclose(frames.times, np.arange(90) / 25, atol=1e-9)
    assert [shown(frames.frame(i)) for i in range(90)] == list(range(90))
    order = [int(i) for i in np.random.default_rng(0).permutation(90)]
    assert [shown(frames.frame(i)) for i in order] == order


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_times_are_exact_at_a_variable_rate(tmp_path, name):
    times = np.cumsum(np.random.default_rng(0).integers(5, 200, 90))
    frames = VideoFrames(encode(tmp_path / name, "libx264", times=times, bf="2", g="12"))
    np.testing.assert_allclose(frames.times, (times - times[0]) / 1000, atol=1e-4)
    assert frames.notes == ()
    assert [shown(frames.frame(i)) for i in (70, 3, 89, 40, 12, 11)] == [70, 3, 89, 40, 12, 11]


def test_frames_before_the_start_of_a_cut_have_no_number(tmp_path):
    """Players do not show them: the cut lies between two key frames."""
    frames = VideoFrames(encode(tmp_path / "a.mp4", "libx264", first=10, bf="0", g="30"))
    assert (frames.count, frames.times[-1], frames.notes) == (80, pytest.approx(79 / 25), ())
    assert [shown(frames.frame(i)) for i in (0, 79, 19, 20, 5)] == [10, 89, 29, 30, 15]


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_frames_are_turned_upright(tmp_path, turned):
    plain = VideoFrames(encode(tmp_path / "a.mp4", "libx264")).frame(7)
    found = VideoFrames(encode(tmp_path / "b.mp4", "libx264", turned=turned)).frame(7)
    np.testing.assert_array_equal(found, np.rot90(plain, turned // 90))


def test_damaged_packets_keep_their_place(tmp_path):
    path = encode(tmp_path / "a.mp4", "libx264", g="1")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for number in (7, 8, 88):
        position = packets[number].pos
        data[position : position + packets[number].size] = b"\xff" * packets[number].size
    path.write_bytes(data)
    frames = VideoFrames(path)
    assert frames.count == 90
    for index in (*range(90), 88, 8, 50, 7, 6):
        if index in (7, 8, 88):
            with pytest.raises(records.BrokenImageError, match=rf"a\.mp4: frame {index} cannot be decoded"):
                frames.frame(index)
        else:
            assert shown(frames.frame(index)) == index


def test_a_forked_process_reads_on(tmp_path):
    """It has the parent's decoder, but none of its threads."""
    program = f"""if True:
        import os, test_video
        frames = test_video.VideoFrames({str(encode(tmp_path / "a.mp4", "libx264"))!r})
        frames.frame(40)
        child = os.fork()
        assert [test_video.shown(frames.frame(i)) for i in (41, 3)] == [41, 3]
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True, env={**os.environ, "PYTHONPATH": path})


def test_closing_frees_files_and_threads(tmp_path):
    path = encode(tmp_path / "a.mp4", "libx264", g="12")

    def held():
        """Open files that are the video, and threads; those of other tests may end meanwhile, but none begin."""
        files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return files.count(os.path.realpath(path)), len(list(Path("/proc/self/task").iterdir()))

    frames = VideoFrames(path)
    before = held()
    gc.disable()
    try:
        for _ in range(5):
            assert [shown(frames.frame(i)) for i in (3, 70)] == [3, 70]
            assert held()[0] == 1
            frames.close()
        after = held()
        assert after[0] == before[0] == 0
        assert after[1] <= before[1]
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_titles_of_another_encoding_do_not_matter(tmp_path, name):
    path = encode(tmp_path / name, "libx264", title="Rene")
    data = path.read_bytes()
    assert b"Rene" in data
    path.write_bytes(data.replace(b"Rene", b"Ren\xe9"))
    assert shown(VideoFrames(path).frame(70)) == 70


def test_huge_frames_are_broken(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", "libx264")
    monkeypatch.setattr(video_frames, "MAX_PIXELS", 128 * 64)
    assert VideoFrames(path).count == 90
    monkeypatch.setattr(video_frames, "MAX_PIXELS", 128 * 64 - 1)
    with pytest.raises(ValueError, match=r"a\.mp4: no frame of the video can be decoded"):
        VideoFrames(path)


def test_lists_of_files_and_texts_are_no_videos(tmp_path):
    whole = write(tmp_path / "whole.mp4", 3)
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{whole}\n#EXT-X-ENDLIST\n",
        "b.mp4": f"ffconcat version 1.0\nfile {whole.name}\n",
        "c.txt": "hello\n" * 99,
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: cannot be opened as a video"):
            VideoFrames(tmp_path / name)


@pytest.mark.parametrize(("name", "code"), [("a.avi", "MJPG"), ("a.mkv", "mp4v")])
def test_truncated_video_yields_what_it_has(tmp_path, name, code):
    path = write(tmp_path / name, 80, code=code)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = VideoFrames(path)
    assert 20 < frames.count < 60
    assert [note.example for note in frames.notes] == [f"{path}: {frames.count} of 80"]
    assert pickle.loads(pickle.dumps(frames)).notes == frames.notes
    whole = range(frames.count - 1)  # the last one may be half a picture
    assert [shown(frames.frame(i)) for i in whole] == list(whole)
    assert shown(frames.frame(frames.count // 2)) == frames.count // 2


def test_no_video(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4: no such file"):
        VideoFrames(tmp_path / "absent.mp4")
    with pytest.raises(FileNotFoundError, match="absent: no such file or folder, expected a video or"):
        video.read(tmp_path / "absent", skeleton=SKELETON)
    whole = write(tmp_path / "whole.mp4", 40).read_bytes()
    for name, data in {"empty.mp4": b"", "text.mp4": b"hello" * 99, "cut.mp4": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}: cannot be opened as a video, expected mp4, avi"):
            VideoFrames(tmp_path / name)
    cv2.imwrite(str(tmp_path / "img001.png"), picture(0))
    (tmp_path / "img001.png").rename(tmp_path / "img001.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder: holds no video \(\.avi .*\.webm\)"):
        video.read(tmp_path / "folder", skeleton=SKELETON)


def test_records_of_a_video(tmp_path):
    source = video.read(write(tmp_path / "a.mp4", 20), skeleton=SKELETON)
    assert isinstance(source, records.Source)
    assert (len(source), source.labelled, source.skeleton) == (20, False, SKELETON)
    record = pickle.loads(pickle.dumps(source))[7]
    assert shown(files.decode_image(record["image"], record["name"])) == 7
    assert (record["name"], record.get("sequence"), record.get("frame")) == ("a.mp4 frame 7", "a.mp4", 7)
    np.testing.assert_array_equal(record["keypoints"], np.zeros((2, 2)))
    np.testing.assert_array_equal(record["visible"], [0, 0])
    assert (record["keypoints"].dtype, record["visible"].dtype) == (np.float32, np.uint8)
    subset = source.subset([5, 3])
    assert [subset[i].get("frame") for i in range(2)] == [5, 3]
    assert dataclasses.replace(subset, skeleton=SKELETON).sequences == ("a.mp4", "a.mp4")


def test_folder_of_videos(tmp_path):
    write(tmp_path / "b" / "x.avi", 4, code="MJPG", numbers=[100, 101, 102, 103])
    write(tmp_path / "a.MP4", 3)
    write(tmp_path / ".trash" / "x.mp4", 2)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "notes.txt").write_bytes(b"no video")
    source = video.read(tmp_path, skeleton=SKELETON)
    (note,) = source.notes
    assert str(note).startswith("left out videos that cannot be opened: 1 (")
    assert "broken.mp4: cannot be opened as a video" in note.example
    assert source.sequences == ("a.MP4",) * 3 + ("b/x.avi",) * 4
    assert [record.get("frame") for record in (source[i] for i in range(7))] == [0, 1, 2, 0, 1, 2, 3]
    images = [np.asarray(source[i]["image"]) for i in range(7)]
    assert [shown(image) for image in images] == [0, 1, 2, 100, 101, 102, 103]
    for name in ("a.MP4", "b/x.avi"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"none of 1 videos can be decoded, the first is broken\.mp4"):
        video.read(tmp_path, skeleton=SKELETON)


def test_few_decoders_are_open(tmp_path, monkeypatch):
    for i in range(4):
        write(tmp_path / f"{i}.mp4", 2, numbers=[10 * i, 10 * i + 1])
    monkeypatch.setattr(video, "_OPEN", 2)
    source = video.read(tmp_path, skeleton=SKELETON)
    for i in (0, 2, 4, 0, 6, 2, 7, 1):
        assert shown(np.asarray(source[i]["image"])) == 10 * (i // 2) + i % 2
        assert sum(v._container is not None for v in source.videos) <= 2


def test_sampling_by_time(tmp_path):
    path = write(tmp_path / "a.mp4", 51)  # 2.0 seconds after the first
    every = video.read(path, skeleton=SKELETON, every=0.5).frames
    assert every.tolist() == [0, 12, 25, 37, 50] or every.tolist() == [0, 13, 25, 38, 50]
    assert video.read(path, skeleton=SKELETON, every=99.0).frames.tolist() == [0]
    assert video.read(path, skeleton=SKELETON, every=1e-9).frames.tolist() == list(range(51))
    assert video.read(path, skeleton=SKELETON, frames=3).frames.tolist() == [8, 25, 42]
    assert video.read(path, skeleton=SKELETON, frames=99).frames.tolist() == list(range(51))


def test_kmeans_finds_rare_views(tmp_path):
    # 56 frames of one view and two of each of two others; evenly spread frames miss them.
    numbers = [0] * 20 + [255] * 2 + [0] * 20 + [15] * 2 + [0] * 16
    path = write(tmp_path / "a.avi", 0, code="MJPG", numbers=numbers)
    assert set(np.take(numbers, video.read(path, skeleton=SKELETON, frames=3).frames)) == {0}
    chosen = video.read(path, skeleton=SKELETON, frames=3, method="kmeans", seed=3).frames
    assert sorted(np.take(numbers, chosen)) == [0, 15, 255]
    again = video.read(path, skeleton=SKELETON, frames=3, method="kmeans", seed=3).frames
    np.testing.assert_array_equal(chosen, again)
    # More frames than views: the number that was asked for all the same, none twice.
    many = video.read(path, skeleton=SKELETON, frames=10, method="kmeans").frames
    assert len(set(many.tolist())) == 10
    assert (np.diff(many) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0.0}, r"found every=0\.0 with frames=None, method=time; expected seconds > 0 alone"),
        ({"every": 1.0, "frames": 3}, r"found every=1\.0 with frames=3"),
        ({"frames": 0}, "found frames=0, expected at least 1"),
        ({"method": "kmeans"}, "found method=kmeans with frames=None; expected time, or kmeans with frames"),
    ],
)
def test_options_are_checked_first(options, message):
    with pytest.raises(ValueError, match=message):
        video.read("absent", skeleton=SKELETON, **options)


def test_real_frames_as_a_video(pack: Callable[[str], Path], tmp_path: Path) -> None:
    found = files.Files(pack("lightning_mirror_mouse.tar"))
    names = [name for name in found.names if "labeled-data/" in name and name.endswith(".png")][:20]
    images = [files.decode_image(found.read(name), name) for name in names]
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(
        str(tmp_path / "a.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height)
    )
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()
    source = video.read(tmp_path / "a.avi", skeleton=SKELETON, frames=5, method="kmeans")
    assert len(source) == 5
    for index, frame in enumerate(source.frames):
        assert np.abs(np.asarray(source[index]["image"]).astype(int) - images[frame]).mean() < 8


def test_names_that_are_not_utf8_are_one_line(tmp_path):
    path = tmp_path / "v\udcff.mp4"
    write(tmp_path / "v.mp4", 3).rename(path)
    with pytest.raises(ValueError, match="found a name that is not UTF-8, expected one: rename the file"):
        VideoFrames(path)
    write(tmp_path / "w.mp4", 3)
    assert len(video.read(tmp_path, skeleton=SKELETON)) == 3


def test_windows_by_time_of_a_video_at_another_rate(tmp_path):
    source = video.read(write(tmp_path / "a.mp4", 40), skeleton=SKELETON)
    np.testing.assert_allclose(wrappers.times_of(source), np.arange(40) / 25, atol=1e-4)
    assert set(wrappers.rates_of(source)) == {25.0}
    found = Windows(source, consecutive(30, rate=30.0))
    assert found[0][:5].tolist() == [0, 1, 2, 2, 3]
    assert len(found) == 40 - 24
    sparse = video.read(tmp_path / "a.mp4", skeleton=SKELETON, every=0.2)
    assert len(Windows(sparse, consecutive(2, rate=30.0))) == 0
    assert len(Windows(sparse, consecutive(2, rate=5.0))) == len(sparse) - 1
