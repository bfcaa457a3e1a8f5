"""The HDF5 below SLEAP's files, whose content may be anything: what is read is checked, and errors are one line."""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """The open file; what fails while it is open is a ValueError that names it."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{path}: to read SLEAP files install the extra: pip install 'jaxpose[sleap]'") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: {untrusted.one_line(error)}; expected an HDF5 file of SLEAP") from None
    with untrusted.reading(path, "an intact HDF5 file of SLEAP"), file:  # damage shows wherever it is read
        yield file


def check_heaps(data: bytes, where: str | Path) -> None:
    """That the heaps of texts in a file end: the HDF5 library goes round for ever in one whose parts have no size.

    Raises:
      ValueError: naming `where`.

    Source: HDF5 File Format Specification, section III.E.
    """
    start = data.find(_HEAP)
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + 16], "little")
        position = start + 16
        while position + 16 <= min(end, len(data)):
            index, size = struct.unpack_from("<H6xQ", data, position)
            step = size if index == 0 else 16 + size + (-size % 8)
            if not 0 < step <= len(data) - position:
                raise ValueError(f"{where}: the heap at byte {start} is damaged, expected an intact HDF5 file")
            position += step
        start = data.find(_HEAP, start + 4)


_HEAP = b"GCOL\1"
LARGEST_CHECKED = 2**28  # bytes; packages of images are larger, and their heaps are all of the file


def find(file: Any, path: Path, name: str) -> Any:
    """A group or a data set; None if it is absent.

    Links are not followed and what keeps its values in other files is refused: a file can name any path, a device
    among them.
    """
    found = file
    for part in name.split("/"):
        link = found.get(part, getlink=True) if part and hasattr(found, "keys") else None
        if link is None:
            return None
        if type(link).__name__ != "HardLink":
            raise ValueError(f"{path}: {name} is a link to elsewhere, expected it in the file")
        found = found[part]
    if getattr(found, "external", None) or getattr(found, "is_virtual", False):
        raise ValueError(f"{path}: {name} is kept in another file, expected it in this one")
    return found


def array(file: Any, path: Path, name: str) -> np.ndarray:
    """A data set."""
    found = find(file, path, name)
    if not hasattr(found, "dtype"):
        raise ValueError(f"{path}: {name} cannot be read: no such data set")
    with untrusted.reading(f"{path}: {name} cannot be read", "a data set"):
        untrusted.check_expansion(found.nbytes, found.file.id.get_filesize())
        return np.asarray(found[()])


def vector(file: Any, path: Path, name: str) -> np.ndarray:
    """A data set of one axis."""
    values = array(file, path, name)
    if values.ndim != 1:
        raise ValueError(f"{path}: {name} are {values.dtype} {values.shape}, expected a list")
    return values


def table(file: Any, path: Path, name: str, fields: str) -> np.ndarray:
    """A data set of rows that have at least the given fields."""
    rows = array(file, path, name)
    missing = [field for field in fields.split() if field not in (rows.dtype.names or ())]
    if missing or rows.ndim != 1:
        raise ValueError(f"{path}: {name} has the fields {rows.dtype.names}, expected {fields}")
    return rows


def texts(values: np.ndarray, path: Path, what: str) -> list[str]:
    """Text of every element."""
    try:
        return [text(value) for value in values.tolist()]
    except (AttributeError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path}: {what} are {values.dtype}, expected names") from None


def text(value: Any) -> str:
    """Text, however it is stored."""
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    return value.decode() if isinstance(value, bytes) else str(value)


def parsed(value: Any, path: Path, what: str) -> Any:
    """What a text of JSON says."""
    with untrusted.reading(f"{path}: {what} cannot be read", "JSON"):
        return json.loads(text(value))
