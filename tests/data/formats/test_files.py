import io
import pickle
import tarfile
import threading
import zlib

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from jaxpose.data import records
from jaxpose.data.formats.files import Files, FileSource, decode_image, image_shape
from jaxpose.data.joints.skeletons import Skeleton

CONTENT = {"a.txt": b"alpha", "deep/er/b.bin": bytes(range(256)) * 50, "deep/c.txt": b""}


def write_folder(root, content):
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path, content, mode="w", prefix=""):
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(params=["folder", "tar", "tar ./"])
def files(request, tmp_path):
    content = CONTENT | {".hidden": b"x", ".git/y": b"y", "deep/._b.bin": b"z"}
    if request.param == "folder":
        return Files(write_folder(tmp_path / "root", content))
    return Files(write_tar(tmp_path / "root.tar", content, prefix=request.param[4:]))


def test_files_names_read_and_glob(files):
    assert files.names == ("a.txt", "deep/c.txt", "deep/er/b.bin")
    assert {name: files.read(name) for name in files.names} == CONTENT
    assert "deep/c.txt" in files
    assert "deep" not in files
    assert ".hidden" not in files
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        files.read("absent.png")


def test_files_pickle_and_threads(files):
    copy = pickle.loads(pickle.dumps(files))
    del files
    assert copy.names == ("a.txt", "deep/c.txt", "deep/er/b.bin")
    wrong = []

    def work():
        for _ in range(50):
            wrong.extend(name for name, data in CONTENT.items() if copy.read(name) != data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_linked_folders_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"x.txt": b"x"})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert Files(tmp_path / "root").read("link/x.txt") == b"x"


def test_tar_last_copy_of_a_name_counts(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x": b"old"})
    write_tar(path, {"x": b"newer"}, mode="a")
    assert Files(path).read("x") == b"newer"


def test_files_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder, expected a folder or"):
        Files(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no files, expected images and labels"):
        Files(tmp_path / "empty")
    for mode, kind in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        path = write_tar(tmp_path / f"a.tar.{mode}", CONTENT, mode=f"w:{mode}")
        with pytest.raises(ValueError, match=rf"a\.tar\.{mode}: compressed with {kind}.*unpack it"):
            Files(path)
    (tmp_path / "a.csv").write_text("1,2\n" * 400)
    with pytest.raises(ValueError, match=r"a\.csv: .*expected a folder or an uncompressed \.tar"):
        Files(tmp_path / "a.csv")


def test_truncated_tar_is_reported(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x.bin": bytes(100_000)})
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(ValueError, match=r"a\.tar: "):
        Files(path).read("x.bin")


def smooth_image(shape=(48, 40, 3)):
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encode(suffix, image):
    """Encodes RGB(A) or grey, as OpenCV expects BGR(A)."""
    order = [2, 1, 0, 3][: image.shape[2]] if image.ndim == 3 else slice(None)
    return cv2.imencode(suffix, image[..., order] if image.ndim == 3 else image)[1].tobytes()


def test_decode_keeps_rgb_order():
    image = smooth_image()
    np.testing.assert_array_equal(decode_image(encode(".png", image), "x"), image)
    np.testing.assert_array_equal(decode_image(encode(".bmp", image), "x"), image)
    assert np.abs(decode_image(encode(".jpg", image), "x").astype(int) - image).mean() < 4


def test_decode_grey_16_bit_and_alpha():
    image = smooth_image((20, 30, 4))
    decoded = decode_image(encode(".png", image[..., 0]), "grey")
    np.testing.assert_array_equal(decoded, np.repeat(image[..., :1], 3, axis=2))
    np.testing.assert_array_equal(decode_image(encode(".png", image), "rgba"), image[..., :3])
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30)).astype(np.uint16)
    decoded = decode_image(encode(".png", deep), "deep")
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded[..., 0], deep / 257.0, atol=1)


def pillow(kind, image, **options):
    """Encodes with Pillow, which writes what OpenCV cannot."""
    file = io.BytesIO()
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def test_decode_palettes_bits_and_cmyk():
    image = smooth_image()
    palette = PIL.Image.fromarray(image).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode_image(pillow("PNG", palette), "x"), expected)
    np.testing.assert_array_equal(decode_image(pillow("GIF", palette), "x"), expected)
    bits = PIL.Image.fromarray(image).convert("1")
    np.testing.assert_array_equal(decode_image(pillow("PNG", bits), "x"), np.asarray(bits.convert("RGB")))
    cmyk = PIL.Image.fromarray(image).convert("CMYK")
    decoded = decode_image(pillow("JPEG", cmyk, quality=95), "x")
    assert np.abs(decoded.astype(int) - image).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_decode_takes_the_first_of_several_frames(kind):
    frames = [PIL.Image.new("RGB", (30, 20), (value, 0, 255 - value)) for value in (40, 160, 250)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = pillow(kind, frames[0], save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data, "x"), np.broadcast_to(np.uint8([40, 0, 215]), (20, 30, 3)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_shape_is_that_of_the_decoded_image(kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    encoded = io.BytesIO()
    PIL.Image.new("RGB", (31, 17)).save(encoded, kind, **({} if kind in ("GIF", "BMP") else {"exif": exif}))
    data = encoded.getvalue()
    assert image_shape(data, "x") == decode_image(data, "x").shape[:2]
    if kind in ("PNG", "JPEG", "GIF"):
        assert image_shape(data[:-5], "x") == (17, 31)  # without decoding
    assert image_shape(np.zeros((3, 4, 3), np.uint8), "x") == (3, 4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_decode_one_pixel(suffix):
    decoded = decode_image(encode(suffix, np.full((1, 1, 3), 200, np.uint8)), "x")
    assert decoded.shape == (1, 1, 3)
    assert np.abs(decoded.astype(int) - 200).max() <= 2


def with_orientation(jpeg, value):
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0" + bytes([value, 0, 0, 0]) + bytes(4)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def test_decode_applies_exif_rotation_only_if_asked():
    jpeg = encode(".jpg", smooth_image((16, 32, 3)))
    rotated = with_orientation(jpeg, 6)  # the camera was held so that the stored picture is turned clockwise
    plain = decode_image(jpeg, "x")
    np.testing.assert_array_equal(decode_image(rotated, "x"), plain)
    np.testing.assert_array_equal(decode_image(rotated, "x", upright=True), np.rot90(plain, -1))
    np.testing.assert_array_equal(decode_image(with_orientation(jpeg, 3), "x", upright=True), plain[::-1, ::-1])
    np.testing.assert_array_equal(decode_image(jpeg, "x", upright=True), plain)


def test_decode_applies_the_rotation_of_a_png():
    exif = PIL.Image.Exif()
    exif[0x0112] = 8
    image = smooth_image((16, 32, 3))
    data = pillow("PNG", image, exif=exif)
    np.testing.assert_array_equal(decode_image(data, "x"), image)
    np.testing.assert_array_equal(decode_image(data, "x", upright=True), np.rot90(image))


def huge(kind):
    """A small file whose header states 60,000 x 50,000 pixels."""
    width, height = 60_000, 50_000
    data = bytearray(pillow(kind, smooth_image()))
    if kind == "PNG":
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif kind == "JPEG":
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    else:
        data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


def huge_webp():
    frames = [PIL.Image.fromarray(np.roll(smooth_image(), i, axis=0)) for i in range(2)]
    data = bytearray(pillow("WEBP", frames[0], save_all=True, append_images=frames[1:]))
    data[24:30] = (59_999).to_bytes(3, "little") + (49_999).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_decode_refuses_huge_images_by_their_header(kind):
    if kind == "TIFF":
        info = {256: 60_000, 257: 50_000}
        entries = b"".join(
            tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + value.to_bytes(4, "little") for tag, value in info.items()
        )
        data = b"II*\0\x08\0\0\0\x02\0" + entries + bytes(4)
    else:
        data = huge_webp() if kind == "WEBP" else huge(kind)
    with pytest.raises(records.BrokenImageError, match=r"^a\.x: the image has 60000 x 50000 pixels, expected at most"):
        decode_image(data, "a.x")


def test_size_is_read_behind_a_thumbnail():
    jpeg, thumbnail = huge("JPEG"), encode(".jpg", smooth_image((8, 8, 3)))
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with pytest.raises(records.BrokenImageError, match="60000 x 50000"):
        decode_image(jpeg[:2] + segment + jpeg[2:], "x")


def test_decode_says_what_it_cannot_read():
    with pytest.raises(records.BrokenImageError, match=r"^a: the image file is empty, expected an image such as JPEG"):
        decode_image(b"", "a")
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(records.BrokenImageError, match=r"^a: a HEIC image, which cannot be decoded: convert it"):
        decode_image(heic, "a")


PICTURES = {
    "jpg": encode(".jpg", smooth_image()),
    "progressive": pillow("JPEG", smooth_image(), progressive=True),
    "png": encode(".png", smooth_image()),
    "palette": pillow("PNG", PIL.Image.fromarray(smooth_image()).quantize(16)),
    "animated": pillow(
        "PNG",
        PIL.Image.fromarray(smooth_image()),
        save_all=True,
        append_images=[PIL.Image.fromarray(smooth_image()[::-1])],
    ),
}


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.sampled_from(sorted(PICTURES)), st.data())
def test_damaged_images_decode_or_are_broken(kind, data):
    damaged = bytearray(PICTURES[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        # Half of the damage falls on headers, which are a small part of the file.
        last = data.draw(st.sampled_from([99, len(damaged) - 1]))
        damaged[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    try:
        image = decode_image(damaged, "x")
    except records.BrokenImageError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3


def test_damaged_animation_is_refused():
    # OpenCV's reader of animated PNG crashes on such files.
    data = PICTURES["animated"]
    control = data.index(b"fcTL")
    np.testing.assert_array_equal(
        decode_image(data[:control] + b"bcTL" + data[control + 4 :], "x"), decode_image(data, "x")
    )
    pixels = data.index(b"IDAT") + 40
    with pytest.raises(records.BrokenImageError, match=r"x: the image file is damaged at byte \d+"):
        decode_image(data[:pixels] + b"1234" + data[pixels + 4 :], "x")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.98])
def test_decode_refuses_truncated_files(suffix, part):
    data = encode(suffix, smooth_image())
    with pytest.raises(records.BrokenImageError, match=r"some/name.x: the image file is truncated at \d+ bytes"):
        decode_image(data[: int(len(data) * part)], "some/name.x")


def test_truncation_is_seen_behind_a_thumbnail_and_not_in_trailing_bytes():
    jpeg, thumbnail = encode(".jpg", smooth_image()), encode(".jpg", smooth_image((8, 8, 3)))
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = jpeg[:2] + segment + jpeg[2:]
    np.testing.assert_array_equal(decode_image(whole, "x"), decode_image(jpeg, "x"))
    np.testing.assert_array_equal(decode_image(whole + b"\0trailer" * 9000, "x"), decode_image(jpeg, "x"))
    with pytest.raises(records.BrokenImageError, match="truncated"):
        decode_image(whole[:-2], "x")


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\nIEND\xaeB`\x82"])
def test_decode_refuses_what_is_no_image(data):
    with pytest.raises(records.BrokenImageError, match=r"^n\.png: "):
        decode_image(data, "n.png")


def test_decode_refuses_a_png_with_damaged_pixels():
    data = bytearray(encode(".png", smooth_image()))
    start = data.index(b"IDAT") + 4
    data[start : start + 40] = zlib.compress(b"wrong")[:8] * 5
    with pytest.raises(records.BrokenImageError):
        decode_image(bytes(data), "x")


def test_decode_passes_arrays():
    image = smooth_image()
    assert decode_image(image, "x") is image
    with pytest.raises(ValueError, match=r"x: image is float64 \(2, 2\), expected uint8 \(H, W, 3\)"):
        decode_image(np.zeros((2, 2)), "x")


def make_source(tmp_path, **fields):
    names = ("b.png", "a.png", "a.png")
    folder = write_folder(tmp_path / "s", {name: encode(".png", smooth_image()) for name in names})
    return FileSource(
        **{
            "files": Files(folder),
            "skeleton": Skeleton(name="two", joints=("p", "q")),
            "names": names,
            "keypoints": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
            "visible": np.array([[2, 0], [1, 2], [0, 0]], np.uint8),
        }
        | fields
    )


def test_source_records_and_subset(tmp_path):
    source = make_source(
        tmp_path,
        bboxes=np.arange(12, dtype=np.float32).reshape(3, 4),
        sequences=("u", "v", "w"),
        frames=np.array([7, 8, 9]),
    )
    assert len(source) == 3
    assert source.labelled
    record = source[1]
    assert decode_image(record["image"], record["name"]).shape == (48, 40, 3)
    assert (record["name"], record.get("sequence"), record.get("frame")) == ("a.png", "v", 8)
    np.testing.assert_array_equal(record["keypoints"], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(record["visible"], [1, 2])
    np.testing.assert_array_equal(record.get("bbox"), [4, 5, 6, 7])
    assert (record["keypoints"].dtype, record["visible"].dtype) == (np.float32, np.uint8)
    subset = source.subset([2, 0])
    assert [subset[i].get("sequence") for i in range(2)] == ["w", "u"]
    np.testing.assert_array_equal(subset[1]["keypoints"], source[0]["keypoints"])
    assert not source.subset([2]).labelled
    assert len(source.subset([])) == 0
    assert pickle.loads(pickle.dumps(subset))[0]["image"] == source[2]["image"]


def test_source_without_optional_fields(tmp_path):
    source = make_source(tmp_path)
    assert set(source[0]) == {"image", "keypoints", "visible", "name"}
    assert set(source.subset([1])[0]) == {"image", "keypoints", "visible", "name"}


def test_source_checks_shapes(tmp_path):
    with pytest.raises(ValueError, match=r"visible has shape \(3, 3\), expected \(3, 2\)"):
        make_source(tmp_path, visible=np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match=r"frames has shape \(2,\), expected \(3,\)"):
        make_source(tmp_path, frames=np.arange(2))
