"""MATLAB files up to version 7, checked before they are read: SciPy's reader crashes on some damaged ones."""

import io
import math
import os
import struct
from collections.abc import Collection
from typing import Any

import scipy.io

from jaxpose import untrusted


def load(
    file: str | os.PathLike | bytes,
    *,
    names: Collection[str] | None = None,
    where: str | None = None,
    expected: str = "a MATLAB file up to version 7",
    **options: Any,
) -> dict[str, Any]:
    """The variables of a file.

    Args:
      file: a path, or the bytes of a file.
      names: which variables to read, as far as they are there; None: all.
      where: a file, for messages; the path if there is one.
      expected: what it should be, for messages.
      options: of `scipy.io.loadmat`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged or no MATLAB file up to version 7.
    """
    where = where or ("mat" if isinstance(file, bytes) else os.fspath(file))
    if not isinstance(file, bytes) and not os.path.isfile(file):
        raise FileNotFoundError(f"{where}: no such file, expected {expected}")
    data = file if isinstance(file, bytes) else untrusted.read_file(file, expected)
    wanted = None if names is None else list(names)
    with untrusted.reading(where, expected):
        _check(data)
        found = scipy.io.loadmat(io.BytesIO(data), variable_names=wanted, **options)
    return {name: value for name, value in found.items() if not name.startswith("__")}


_HEADER = 128  # bytes before the first element
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_CELL, _STRUCT, _OBJECT, _CHAR, _LAST_NUMERIC = 1, 2, 3, 4, 15  # classes of matrices
_SPARSE = 5
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}  # bytes by type of number
_COMPLEX = 0x800
_DEPTH = 50  # of matrices in matrices


def _check(data: bytes) -> None:
    """Raises an error if an element of the file does not fit into what holds it.

    Source: MathWorks, MAT-File Format, chapter 1. Version 4, which has no such header, passes.
    """
    if len(data) < 4 or (0 not in data[:4] and len(data) < _HEADER):
        raise ValueError(f"the file ends after {len(data)} bytes")
    if 0 in data[:4] or data[124:126] == b"\0\2" or data[124:126] == b"\2\0":  # version 4, or HDF5, which SciPy refuses
        return
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("no mark of the order of bytes")
    position = _HEADER
    while position < len(data):
        kind, start, stop, _ = _element(data, position, len(data), order)
        if kind == _COMPRESSED:
            inner = untrusted.inflate(data[start:stop])
            kind, first, last, _ = _element(inner, 0, len(inner), order)
            _check_matrix(inner, kind, first, last, order, 0)
        else:
            _check_matrix(data, kind, start, stop, order, 0)
        position = stop


def _check_matrix(data: bytes, kind: int, start: int, stop: int, order: str, depth: int) -> None:
    if kind != _MATRIX or depth > _DEPTH:
        raise ValueError(f"an element of type {kind} at byte {start} in {depth} others, expected a matrix")
    if start == stop:  # empty
        return

    def part(kinds: Collection[int], position: int) -> tuple[int, bytes, int]:
        kind, a, b, following = _element(data, position, stop, order)
        if kind not in kinds:
            raise ValueError(f"an element of type {kind} at byte {position}, expected {', '.join(map(str, kinds))}")
        return kind, data[a:b], following

    _, flags, position = part((6,), start)
    (flag,) = struct.unpack(f"{order}I4x", flags)
    matrix_class = flag & 0xFF
    if matrix_class > _LAST_NUMERIC:  # functions and objects, whose layout is not published
        return
    _, sides, position = part((5, 6), position)
    dims = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    count = math.prod(dims)
    if len(dims) < 2 or min(dims) < 0:
        raise ValueError(f"a matrix at byte {start} has the shape {dims}")
    _, _, position = part((1, 16), position)
    if matrix_class == _OBJECT:
        _, _, position = part((1,), position)
    if matrix_class in (_CELL, _STRUCT, _OBJECT):
        if matrix_class != _CELL:
            _, length, position = part((5,), position)
            _, names, position = part((1,), position)
            (width,) = struct.unpack(f"{order}i", length)
            if width < 1 or len(names) % width:
                raise ValueError(f"names of fields at byte {position} have {len(names)} bytes in steps of {width}")
            count *= len(names) // width
        if count > (stop - position) // 8:
            raise ValueError(f"a matrix at byte {start} is to hold {count} others, {stop - position} bytes are left")
        for _ in range(count):
            kind, a, b, position = _element(data, position, stop, order)
            _check_matrix(data, kind, a, b, order, depth + 1)
        return
    parts = 3 if matrix_class == _SPARSE else 1
    for _ in range(parts + bool(flag & _COMPLEX)):
        kind, numbers, position = part(_SIZES, position)
        if matrix_class > _SPARSE and len(numbers) != count * _SIZES[kind]:
            raise ValueError(
                f"a matrix at byte {start} has {len(numbers)} bytes of type {kind}, expected {count} numbers"
            )


def _element(data: bytes, position: int, end: int, order: str) -> tuple[int, int, int, int]:
    """Type, start and stop of the content, and where the next element starts."""
    if position + 8 > end:
        raise ValueError(f"an element at byte {position} is cut off")
    kind, size = struct.unpack_from(f"{order}II", data, position)
    if kind >> 16:  # a small element keeps its content in its tag
        kind, size, start, following = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        if size > 4:
            raise ValueError(f"a small element at byte {position} has {size} bytes")
    else:
        start = position + 8
        following = start + size + (-size % 8)
    if start + size > end:
        raise ValueError(f"an element at byte {position} has {size} bytes, {end - start} are left")
    return kind, start, start + size, min(following, end)
