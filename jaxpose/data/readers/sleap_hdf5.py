"""The HDF5 below SLEAP's files, whose content may be anything: what is read is checked, and errors are one line."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


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
        raise ValueError(f"{path}: {line(error)}; expected an HDF5 file of SLEAP") from None
    try:
        with file:
            yield file
    except (KeyError, OSError, RuntimeError, UnicodeDecodeError) as error:  # damage shows wherever it is read
        raise ValueError(f"{path}: {line(error)}; expected an intact HDF5 file of SLEAP") from None


def array(file: Any, path: Path, name: str) -> np.ndarray:
    """A data set."""
    try:
        return np.asarray(file[name][()])
    except (AttributeError, KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {name} cannot be read: {line(error)}") from None


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
    try:
        return json.loads(text(value))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {what} cannot be read: {line(error)}") from None


def line(value: object) -> str:
    """An error's message or another value on one line."""
    return " ".join(str(value).split()).strip("'\"")
