"""Image files in a folder or a tar, their decoding, and a source of records over them.

Headers are read without Pillow, which takes 39 us for those of a JPEG that is decoded in 600, reserves 24 GB for a WebP
of 566 bytes that states a huge canvas, and has one limit of pixels for the whole process.
"""

import dataclasses
import os
import pathlib
import re
import struct
import tarfile
import weakref
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.joints.skeletons import Skeleton

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
MAX_PIXELS = 2**28  # of an image; decoded it takes three bytes per pixel


class Files:
    """The files below a folder or inside an uncompressed tar: relative posix names to bytes, read at random.

    Safe to share between threads and to pickle (an archive is opened again, its index travels along). Hidden
    files, pipes, devices and an archive's links are left out. A name that an archive holds twice means its last copy.

    Raises:
      FileNotFoundError: if `path` does not exist.
      ValueError: if it holds no files, is not a tar, or is a compressed one.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder, expected a folder or an uncompressed .tar")
        # Offset and size in the archive; None for a file of its own.
        self._spans: dict[str, tuple[int, int] | None] = {}
        if self.path.is_dir():
            self._spans.update(dict.fromkeys(_folder_names(self.path)))
        elif not self.path.is_file():
            raise ValueError(f"{path}: found no regular file, expected a folder or an uncompressed .tar")
        else:
            self._spans.update(_tar_spans(self.path))
        self.names = tuple(sorted(self._spans))
        if not self.names:
            raise ValueError(f"{path}: holds no files, expected images and labels")
        self._open()

    def read(self, name: str) -> bytes:
        """The bytes of one file; FileNotFoundError if there is none of that name."""
        if name not in self._spans:
            raise FileNotFoundError(f"{self.path}: holds no file {name}")
        span = self._spans[name]
        if span is None:
            return untrusted.read_file(self.path / name, "a file")
        offset, size = span
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise ValueError(f"{self.path}: the archive ends inside {name}, expected {size} bytes of it")
        return data

    def __contains__(self, name: str) -> bool:
        return name in self._spans

    def __getstate__(self) -> dict:
        return {"path": self.path, "names": self.names, "_spans": self._spans}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        # pread carries its own offset, so threads and forked workers share one descriptor without a lock.
        if self.path.is_file():
            self._descriptor = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)


def packed_files(path: str | os.PathLike, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files in a tar, compressed or not, whose names end so, in the order of the archive.

    Hidden files, links and devices are left out.

    Raises:
      ValueError: if it is no tar, is damaged, or expands to much more than data do.
    """
    packed = os.path.getsize(path)
    with untrusted.reading(path, "a .tar, .tar.gz or .tar.xz"), tarfile.open(path, "r:*", tarinfo=_Member) as archive:
        for member in archive:
            _check_size(member)
            untrusted.check_expansion(member.offset_data + member.size, packed)
            name = pathlib.PurePosixPath(member.name)
            hidden = any(part.startswith(".") for part in name.parts)
            if member.isreg() and not member.issparse() and not hidden and name.suffix.lower() == suffix:
                stream = archive.extractfile(member)
                assert stream is not None
                yield name.as_posix(), stream.read()


def decode_image(data: bytes | np.ndarray, name: str, *, upright: bool = False) -> np.ndarray:
    """The pixels of an encoded image, uint8 (H, W, 3) RGB; an array is checked and returned as it is.

    Grey images are repeated over the channels, 16-bit ones keep their high byte, palettes and CMYK become RGB, alpha
    is dropped (TIFF multiplies by it). Of an animation or several pages the first is taken.

    Args:
      data: a file of one of `IMAGE_SUFFIXES`, or an array.
      name: for messages.
      upright: whether a rotation stated in the EXIF header is applied. Labels refer to the pixels as they are stored;
        a TIFF is always turned.

    Raises:
      BrokenImageError: if the data is truncated, no image, or an image of more than `MAX_PIXELS`.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3:
            raise ValueError(f"{name}: image is {data.dtype} {data.shape}, expected uint8 (H, W, 3)")
        return data
    if data.startswith(_PNG):
        data = _still_png(data, name)
    elif data.startswith(_JPEG) and all(marker != _JPEG_END for marker, _ in _jpeg_markers(data)):
        # Decoders fill the rest of a truncated JPEG with grey and only print a warning.
        raise records.BrokenImageError(f"{name}: the image file is truncated at {len(data)} bytes")
    # A few bytes can state a size that fills the memory, so the header is read before the decoder allocates.
    width, height = _stated_size(data)
    if width * height > MAX_PIXELS:
        raise records.BrokenImageError(
            f"{name}: the image has {width} x {height} pixels, expected at most {MAX_PIXELS} in all"
        )
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise records.BrokenImageError(f"{name}: {_what_it_is(data)}, expected an image such as JPEG or PNG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """The numbers of a mask's pixels, uint8 (H, W).

    Raises:
      BrokenImageError: if the data is no such PNG.
    """
    width, height = _stated_size(data)
    found = None if width * height > MAX_PIXELS else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint8 or found.ndim != 2:
        raise records.BrokenImageError(f"{name}: the mask cannot be decoded")
    return found


def image_shape(data: bytes | np.ndarray, name: str) -> tuple[int, int]:
    """Height and width of what `decode_image` makes of an image, from its header alone where that says them.

    Raises:
      BrokenImageError: if the image had to be decoded and cannot.
    """
    if isinstance(data, bytes) and not data.startswith(_TIFF):  # which may be turned
        width, height = _stated_size(data)
        if width and height:
            return height, width
    height, width = decode_image(data, name).shape[:2]
    return height, width


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FileSource:
    """A source (`records.Source`) of image files with label arrays.

    Attributes:
      files: holds the images.
      skeleton: names the K joints.
      names: the image of each of N records; several records may share one.
      keypoints: float32 (N, K, 2) pixels.
      visible: uint8 (N, K).
      bboxes: float32 (N, 4) x, y, width, height, or None for whole images.
      sequences: the clip of each record, or None.
      frames: int (N,) numbers in the clips, or None.
      notes: what the reader left out.
    """

    files: Files
    skeleton: Skeleton
    names: tuple[str, ...]
    keypoints: np.ndarray
    visible: np.ndarray
    bboxes: np.ndarray | None = None
    sequences: tuple[str, ...] | None = None
    frames: np.ndarray | None = None
    notes: tuple[records.Note, ...] = ()

    def __post_init__(self) -> None:
        n, k = len(self.names), len(self.skeleton)
        shapes = {
            "keypoints": (n, k, 2),
            "visible": (n, k),
            "bboxes": (n, 4),
            "sequences": (n,),
            "frames": (n,),
        }
        for field, shape in shapes.items():
            value = getattr(self, field)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"{self.files.path}: {field} has shape {np.shape(value)}, expected {shape}")

    @property
    def labelled(self) -> bool:
        """Whether any joint of any record has a label."""
        return bool(self.visible.any())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> records.Record:
        name = self.names[index]
        record = records.Record(
            image=self.files.read(name),
            keypoints=self.keypoints[index].astype(np.float32),
            visible=self.visible[index].astype(np.uint8),
            name=name,
        )
        if self.bboxes is not None:
            record["bbox"] = self.bboxes[index].astype(np.float32)
        if self.sequences is not None:
            record["sequence"] = self.sequences[index]
        if self.frames is not None:
            record["frame"] = int(self.frames[index])
        return record

    def name(self, index: int) -> str:
        """The name of a record, without reading its image."""
        return self.names[index]

    def subset(self, indices: Sequence[int] | np.ndarray) -> "FileSource":
        """The records at `indices`, in that order."""
        index = np.asarray(indices, dtype=np.int64)
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in index),
            keypoints=self.keypoints[index],
            visible=self.visible[index],
            bboxes=None if self.bboxes is None else self.bboxes[index],
            sequences=None if self.sequences is None else tuple(self.sequences[i] for i in index),
            frames=None if self.frames is None else self.frames[index],
        )


def _folder_names(folder: pathlib.Path) -> list[str]:
    return [(root / name).as_posix() for root, _, files in untrusted.walk(folder) for name in files]


_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def _tar_spans(path: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Offset and size of every regular file in the archive."""
    with open(path, "rb") as file:
        head = file.read(8)
    for magic, kind in _COMPRESSED.items():
        if head.startswith(magic):
            raise ValueError(
                f"{path}: compressed with {kind}, which has no random access: unpack it and pass the folder"
            )
    members = []
    with (
        untrusted.reading(path, "a folder or an uncompressed .tar"),
        tarfile.open(path, "r:", tarinfo=_Member) as archive,
    ):
        for member in archive:
            _check_size(member)
            if member.isreg() and not member.issparse():
                members.append(member)
    names = [pathlib.PurePosixPath(member.name) for member in members]
    return {
        name.as_posix(): (member.offset_data, member.size)
        for name, member in zip(names, members, strict=True)
        if not any(part.startswith(".") for part in name.parts)
    }


class _Member(tarfile.TarInfo):
    """A member whose header is checked before what it says is followed."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Member":
        """The member of a header."""
        member = super().frombuf(buf, encoding, errors)
        _check_size(member)
        return member


_TEXT_MEMBERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LONGEST_TEXT = 2**15  # bytes; Python takes quadratic time over some


def _check_size(member: tarfile.TarInfo) -> None:
    """That the archive goes on behind the member: Python reads one of a negative size again and again."""
    if member.size < 0 or (member.type in _TEXT_MEMBERS and member.size > _LONGEST_TEXT):
        raise ValueError(f"found a member of {member.size} bytes")


_JPEG = b"\xff\xd8"
_TIFF = (b"II*\0", b"MM\0*")
_PNG = b"\x89PNG\r\n\x1a\n"


# 0xFF starts a marker, unless it is stuffed (followed by 00), a restart (D0-D7) or a fill byte (FF).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_END = 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # segments that state the image's size


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers with their positions, up to the end. A thumbnail in the header has its own, so segments are followed."""
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        position, marker = match.start(), data[match.start() + 1]
        yield marker, position
        if marker == _JPEG_END:
            return
        # Segments state their length; the data of a scan follows its segment, up to the next marker.
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


_PNG_STILL = frozenset((b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"))


def _still_png(data: bytes, name: str) -> bytes:
    """The PNG without animation, metadata and trailing bytes, its chunks checked.

    OpenCV's reader of animated PNG crashes on some damaged files, and takes seconds over others.
    """
    parts, position = [_PNG], len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        if kind in _PNG_STILL:
            if len(chunk) == 12 + length and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise records.BrokenImageError(f"{name}: the image file is damaged at byte {position}")
            parts.append(chunk)
        if kind == b"IEND":
            return b"".join(parts)
        position += 12 + length
    raise records.BrokenImageError(f"{name}: the image file is truncated at {len(data)} bytes")


def _stated_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header, (0, 0) where that is too short or of another format.

    Formats that are not here hold no more pixels than bytes, or OpenCV's own limit of 2^30 pixels has to do.
    """
    try:
        if data.startswith(_JPEG):
            height, width = next(
                (
                    struct.unpack_from(">HH", data, at + 5)
                    for marker, at in _jpeg_markers(data)
                    if marker in _JPEG_FRAMES
                ),
                (0, 0),
            )
            return width, height
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if data.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", data, 6)
            return width, height
        if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if data.startswith(_TIFF):
            return _tiff_size(data)
    except struct.error:
        pass
    return 0, 0


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, directory)
    size = {256: 0, 257: 0}
    for entry in range(entries):
        position = directory + 2 + 12 * entry
        tag, kind = struct.unpack_from(f"{order}HH", data, position)
        if tag in size:
            (size[tag],) = struct.unpack_from(f"{order}H" if kind == 3 else f"{order}I", data, position + 8)
    return size[256], size[257]


_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def _what_it_is(data: bytes) -> str:
    if not data:
        return "the image file is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "a HEIC image, which cannot be decoded: convert it"
    return f"{len(data)} bytes that cannot be decoded as an image"
