"""Pickles of NumPy arrays and plain containers, read without running what they name."""

import io
import math
import os
import zipfile
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from jaxpose import pickles, untrusted
from jaxpose.pickles import Named, RefusedError


def load(data: bytes, *, encoding: str = "latin1", where: str = "pickle") -> Any:
    """The value of a pickle that holds only arrays and plain containers.

    These are None, numbers, str, bytes, bytearray, list, tuple, dict, OrderedDict, set and frozenset, and NumPy's
    arrays, scalars and dtypes (no structured ones) as any version of NumPy or Python pickled them, protocols 0 to 5.
    Nothing that the pickle names is imported or called: every name stands for a function of this module.

    Args:
      data: the pickle. Bytes after its end are ignored.
      encoding: what becomes of Python 2's strings: a codec, or "bytes" to keep them as bytes. `latin1` suits arrays.
      where: a file, for messages.

    Raises:
      ValueError: if it names anything else, holds a container that contains itself, or is no pickle.
    """
    try:
        return _plain(_Unpickler(data, encoding=encoding).load(), {})
    except RefusedError as error:
        line = untrusted.one_line(error)
        raise ValueError(f"{where}: {line}; expected only arrays and plain containers") from None
    except Exception as error:  # malformed pickles raise nearly every kind
        found = untrusted.one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{where}: not a readable pickle ({found}), expected arrays in plain containers") from None


def load_npz(
    file: str | os.PathLike | bytes,
    *,
    names: Collection[str] | None = None,
    optional: Collection[str] = (),
    encoding: str = "latin1",
    where: str | None = None,
    expected: str = "an .npz",
) -> dict[str, Any]:
    """The arrays of an `.npz`, whose arrays of objects are read by `load`.

    An array of objects without axes, which is how NumPy saves a dict, comes as its object.

    Args:
      file: a path, or the bytes of a file.
      names: which arrays to read, all of which must be there; None: all.
      optional: which others to read if they are there.
      encoding: see `load`.
      where: a file, for messages; the path if there is one.
      expected: what it should be, for messages.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no `.npz`, lacks one of `names`, an array cannot be read, or a tiny file holds huge ones.
    """
    where = where or ("npz" if isinstance(file, bytes) else os.fspath(file))
    if not isinstance(file, bytes) and not os.path.isfile(file):
        raise FileNotFoundError(f"{where}: no such file, expected {expected}")
    with (
        untrusted.reading(where, expected),
        zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive,
    ):
        members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        wanted = members if names is None else names
        if not set(wanted) <= set(members):
            raise ValueError(f"{where}: holds {', '.join(members)}; expected {' and '.join(wanted)}")
        return {
            name: _array(untrusted.read_member(archive, members[name]), encoding, f"{where}: {name}")
            for name in dict.fromkeys((*wanted, *(name for name in optional if name in members)))
        }


def load_npy(data: bytes, *, where: str) -> np.ndarray:
    """The array of a `.npy`, never of objects.

    Args:
      data: the file.
      where: a file, for messages.

    Raises:
      ValueError: if it is no such file.
    """
    with untrusted.reading(where, "an array of numbers"):
        stream = io.BytesIO(data)
        shape, dtype = _header(stream)
        if dtype.hasobject:
            raise ValueError("holds objects")
        if math.prod(shape) * dtype.itemsize > len(data):  # NumPy makes room before it reads
            raise ValueError(f"states the shape {shape} and has {len(data)} bytes")
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    return shape, dtype


def _array(data: bytes, encoding: str, where: str) -> Any:
    """The array of one `.npy`, of objects too."""
    with untrusted.reading(where, "an array"):
        stream = io.BytesIO(data)
        shape, dtype = _header(stream)
    if not dtype.hasobject:
        return load_npy(data, where=where)
    value = load(stream.read(), encoding=encoding, where=where)
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != object:
        found = getattr(value, "shape", type(value).__name__)
        raise ValueError(f"{where}: found {found}, expected the array of objects {shape} that its header states")
    return value if shape else value.item()


class _Unpickler(pickles.Unpickler):
    def named(self, module: str, name: str) -> Named:
        """A function of this module."""
        function = _FUNCTIONS.get((module, name))
        if function is None:
            raise RefusedError(f"refused {module}.{name}")
        return Named(f"{module}.{name}", function)


class _Dtype:
    """Stands for a dtype while the pickle is read: NumPy's own takes flags from a pickle that can corrupt memory."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, spec: str | bytes, align: Any = False, copy: Any = False):
        spec = spec.decode("ascii") if isinstance(spec, bytes) else spec
        if not isinstance(spec, str) or len(spec) > 32:
            raise RefusedError(f"refused a dtype of {type(spec).__name__}")
        self.value = np.dtype(object if spec.startswith("O") else spec)
        if self.value.kind not in "biufcSUO" or self.value.shape or self.value.names:
            raise RefusedError(f"refused dtype {spec}")

    def __setstate__(self, state: tuple) -> None:
        byteorder = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if any(part is not None for part in state[2:5]):
            raise RefusedError("refused a structured dtype")
        if byteorder in ("<", ">"):
            self.value = self.value.newbyteorder(byteorder)


class _Array:
    """Stands for an array while the pickle is read: its numbers, or a list of its objects, which may yet change."""

    __slots__ = ("fortran", "shape", "value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: np.ndarray):
        self.value: np.ndarray | list = value

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, dtype, self.fortran, content = state
        if dtype.value.hasobject:
            self.value = list(content)
        else:
            self.value = _numbers(content, dtype).reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(kind: Any, shape: Any, typecode: Any) -> _Array:
    """An empty array, whose state follows."""
    if not isinstance(kind, Named) or repr(kind) != "numpy.ndarray":
        raise RefusedError(f"refused an array of type {kind!r}")
    return _Array(np.empty(0))


def _frombuffer(content: Any, dtype: _Dtype, shape: tuple, order: str, axes: tuple | None = None) -> _Array:
    """An array of protocol 5; `shape` is the one in memory, `axes` what becomes of its axes."""
    if dtype.value.hasobject:
        raise RefusedError("refused objects from raw bytes")
    values = _numbers(content, dtype)
    if axes is None:
        return _Array(values.reshape(shape, order="F" if order == "F" else "C"))
    return _Array(values.reshape(shape).transpose(axes))


def _numbers(content: Any, dtype: _Dtype) -> np.ndarray:
    """The writable values of raw bytes, one axis."""
    return np.frombuffer(bytearray(_bytes(content)), dtype=dtype.value)


def _scalar(dtype: _Dtype, content: Any) -> np.generic:
    if dtype.value.hasobject:
        raise RefusedError("refused an object as a scalar")
    raw = _bytes(content)
    if len(raw) != dtype.value.itemsize:
        raise ValueError(f"a scalar of {len(raw)} bytes, expected {dtype.value.itemsize}")
    return np.ndarray(1, dtype=dtype.value, buffer=raw)[0]


def _encode(text: str, codec: str) -> bytes:
    """How Python 3 writes bytes in protocols 0 to 2."""
    if codec not in ("latin1", "latin-1"):
        raise RefusedError(f"refused codec {codec!r}")
    return text.encode("latin1")


def _bytearray(content: Any = b"", codec: Any = "latin1") -> bytearray:
    return bytearray(_bytes(content))


def _bytes(content: Any = b"") -> bytes | bytearray:
    if isinstance(content, str):  # Python 2's str, read as latin1
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):  # a number would mean that many zeros
        raise ValueError(f"{type(content).__name__} instead of bytes")
    return content


def _set(items: Iterable[Any] = ()) -> set[Any]:
    items = list(items)
    pickles.check_keys(items)
    return set(items)


def _frozenset(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _type(*args: Any) -> Any:
    raise RefusedError("refused to make an array from arguments")


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): pickles.ordered_dict,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _type,
}
for _core in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _FUNCTIONS[f"{_core}.multiarray", "scalar"] = _scalar
    _FUNCTIONS[f"{_core}.numeric", "_frombuffer"] = _frombuffer
for _builtins in ("builtins", "__builtin__"):
    _FUNCTIONS[_builtins, "bytearray"] = _bytearray
    _FUNCTIONS[_builtins, "bytes"] = _bytes
    _FUNCTIONS[_builtins, "complex"] = complex
    _FUNCTIONS[_builtins, "frozenset"] = _frozenset
    _FUNCTIONS[_builtins, "set"] = _set


def _plain(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """The value with arrays and dtypes in place of what stood for them.

    Args:
      value: as the unpickler left it.
      done: what was met, by identity: the object, kept alive for it, and its result; the result of an object
        that is under way is the `done` itself.
    """
    if isinstance(value, Named):
        raise RefusedError(f"refused {value!r} as a value")
    if isinstance(value, _Dtype):
        return value.value
    if not isinstance(value, _Array | list | tuple | dict):
        return value
    if id(value) in done:
        result = done[id(value)][1]
        if result is done:
            raise RefusedError("refused a container that contains itself")
        return result
    done[id(value)] = (value, done)
    if isinstance(value, _Array):
        result = value.value
        if isinstance(result, list):
            items = np.empty(len(result), dtype=object)
            for i, item in enumerate(result):
                items[i] = _plain(item, done)
            result = items.reshape(value.shape, order="F" if value.fortran else "C")
    elif isinstance(value, tuple):
        result = tuple(_plain(item, done) for item in value)
    elif isinstance(value, list):
        result = [_plain(item, done) for item in value]
    else:
        result = type(value)((key, _plain(item, done)) for key, item in value.items())
    done[id(value)] = (value, result)
    return result
