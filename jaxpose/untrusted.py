"""Files from anywhere: what is wrong with them is one line, and what they unpack to is bounded."""

import contextlib
import json
import os
import pathlib
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import TypeVar

_Kind = TypeVar("_Kind")


def one_line(error: object) -> str:
    """A message on one line that a terminal can show, of an error with its kind where it says nothing itself."""
    text = " ".join(str(error).split())
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    if isinstance(error, KeyError) or (isinstance(error, BaseException) and not text):
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


@contextlib.contextmanager
def reading(where: object, expected: str) -> Iterator[None]:
    """While one file is taken apart: whatever fails is a ValueError of one line that names it.

    Parsers and libraries raise nearly every kind of error on damage, so put nothing but their calls inside. Errors
    that already name the file, files that are absent and packages that are not installed pass.

    Args:
      where: the file, for messages.
      expected: what it should be, for messages.
    """
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(where)):
            raise
        raise ValueError(f"{where}: {one_line(error)}, expected {expected}") from error


def read_file(path: str | os.PathLike, expected: str) -> bytes:
    """The bytes of a regular file; a pipe or a device is not waited for.

    Args:
      path: of the file.
      expected: what it should be, for messages.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is something else than a file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected {expected}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}, expected {expected}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: found no regular file, expected {expected}")
    with open(descriptor, "rb") as file:
        return file.read()


def utf8(path: str | os.PathLike) -> str:
    """The path as text for libraries in C, which end the process over names that are not UTF-8.

    Raises:
      ValueError: if it is such a name.
    """
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r}: found a name that is not UTF-8, expected one: rename the file") from None
    return text


def read_json(path: str | os.PathLike, kind: type[_Kind], expected: str) -> _Kind:
    """The content of a JSON file whose outermost value is a `kind`.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is no JSON, or another value.
    """
    data = read_file(path, expected)
    with reading(path, expected):
        content = json.loads(data)
    if not isinstance(content, kind):
        raise ValueError(f"{path}: found a {type(content).__name__}, expected {expected}")
    return content


def walk(folder: pathlib.Path) -> Iterator[tuple[pathlib.PurePath, list[str], list[str]]]:
    """Folders below one, relative to it, with the names of their folders and regular files; hidden ones are left out.

    Links are followed, but no folder is entered more than a few times: links to a folder above never end. The list of
    folders may be changed to leave some out, as with `os.walk`.
    """
    entered: dict[tuple[int, int], int] = {}
    waiting = [pathlib.PurePath()]
    while waiting:
        place = waiting.pop()
        try:
            state = os.stat(folder / place)
            folders, files = _entries(folder / place)
        except OSError:  # what cannot be opened is left out, as os.walk does
            continue
        identity = state.st_dev, state.st_ino
        entered[identity] = entered.get(identity, 0) + 1
        if entered[identity] <= _VISITS:
            yield place, folders, files
            waiting += [place / name for name in reversed(folders)]


def _entries(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the regular files in one, in order."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link to itself
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
    return sorted(folders), sorted(files)


def check_expansion(expanded: int, packed: int) -> None:
    """That what is packed is not there only to fill the memory.

    Raises:
      ValueError: if it is large and its packed form tiny.
    """
    if expanded > max(_SMALL, _LARGEST_RATIO * packed):
        raise ValueError(f"{packed} bytes expand to {expanded}, more than {_LARGEST_RATIO} times as many")


def inflate(data: bytes) -> bytes:
    """What zlib has packed.

    Raises:
      ValueError: as `check_expansion`.
      zlib.error: if it is damaged.
    """
    limit = max(_SMALL, _LARGEST_RATIO * len(data))
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, limit + 1)
    check_expansion(len(unpacked), len(data))
    if not unpacker.eof:
        raise zlib.error("incomplete or truncated stream")
    return unpacked


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of a zip archive.

    Raises:
      ValueError: as `check_expansion`.
    """
    member = archive.getinfo(name)
    check_expansion(member.file_size, member.compress_size)
    with archive.open(member) as stream:
        # The size that the archive states need not be that of the content.
        data = stream.read(member.file_size + 1)
    if len(data) > member.file_size:
        raise ValueError(f"{name} is larger than the {member.file_size} bytes that the archive states")
    return data


_LONGEST = 2000  # characters of a message
_VISITS = 4  # of one folder, by way of links
_SMALL = 2**26  # bytes that never matter
_LARGEST_RATIO = 200  # of what is packed; deflate reaches 1,032 with zeros, data sets of masks 115
