"""DeepLabCut's labels in HDF5: a table of pandas, read without pandas, which runs the pickles that it keeps there.

Source: what pandas 0.23 to 3 write for a frame of numbers under one key, in the formats `fixed` and `table`.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle
from jaxpose.data.readers import sleap_hdf5 as hdf5

_KEY = "df_with_missing"

# Image paths (R,), columns (C,) of individual, body part and coordinate, values (R, C).
Cells = tuple[tuple[str, ...], list[tuple[str, str, str]], np.ndarray]


def read(data: bytes, where: str) -> Cells:
    """The cells of a table.

    Args:
      data: the file.
      where: its name, for messages.

    Raises:
      ImportError: without the extra.
      ValueError: if it is damaged, or holds another table.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{where}: to read .h5 labels install the extra: pip install 'jaxpose[dlc]'") from None
    hdf5.check_heaps(data, where)
    with untrusted.reading(f"{where}: cannot be read", "a table of pandas"), h5py.File(io.BytesIO(data), "r") as file:
        group = hdf5.find(file, Path(where), _KEY)
        if not hasattr(group, "keys"):
            held = ", ".join(f"/{name}" for name in file) or "nothing"
            raise ValueError(f"{where}: holds {held}; expected a table {_KEY}")
        table = hdf5.find(group, Path(where), "table")
        rows, columns, values = _fixed(group, where) if table is None else _appendable(table, where)
    sizes = {len(column) for column in columns}
    if sizes not in ({3}, {4}) or values.dtype.kind not in "fiu":
        count = ", ".join(map(str, sorted(sizes)))
        raise ValueError(f"{where}: has {count} header rows, expected 3 or 4, and numbers below")
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"{where}: has {values.shape} values, expected {len(rows)} rows of {len(columns)}")
    individual = 1 if sizes == {4} else None
    named = [("" if individual is None else column[individual], column[-2], column[-1]) for column in columns]
    paths = tuple("/".join(row).replace("\\", "/") for row in rows)
    return paths, named, values.astype(np.float64)


_Labels = list[tuple[str, ...]]  # one or several words each


def _fixed(group: Any, where: str) -> tuple[_Labels, _Labels, np.ndarray]:
    """Rows, columns and values; there are several blocks where columns have several types."""
    columns, parts = _axis(group, "axis0", where), []
    names: _Labels = []
    for block in range(int(group.attrs["nblocks"])):
        found = hdf5.array(group, Path(where), f"block{block}_values")
        parts.append(found if "transposed" in group[f"block{block}_values"].attrs else found.T)
        names += _axis(group, f"block{block}_items", where)
    values = np.concatenate(parts, axis=1)
    place = {name: i for i, name in enumerate(names)}
    return _axis(group, "axis1", where), columns, values[:, [place[column] for column in columns]]


def _axis(group: Any, name: str, where: str) -> _Labels:
    """The labels of an axis: a list, or for each level its words and which of them each label has."""
    if hdf5.find(group, Path(where), name) is not None:
        return [(text,) for text in _words(group, name, where)]
    levels = []
    for level in range(int(group.attrs[f"{name}_nlevels"])):
        words = _words(group, f"{name}_level{level}", where)
        levels.append([words[int(i)] for i in hdf5.vector(group, Path(where), f"{name}_label{level}")])
    return list(zip(*levels, strict=True))


def _words(group: Any, name: str, where: str) -> list[str]:
    return hdf5.texts(hdf5.vector(group, Path(where), name), Path(where), name)


def _appendable(table: Any, where: str) -> tuple[_Labels, _Labels, np.ndarray]:
    """Rows, columns and values; the names of the columns are a pickle, of which only words are taken."""
    found = hdf5.array(table.parent, Path(where), "table")
    blocks = sorted(name for name in found.dtype.names or () if name.startswith("values_block_"))
    columns: _Labels = []
    for block in blocks:
        named = unpickle.load(bytes(table.attrs[f"{block}_kind"]), where=f"{where}: columns")
        columns += [tuple(map(str, name)) if isinstance(name, tuple) else (str(name),) for name in named]
    values = np.concatenate([found[block].reshape(len(found), -1) for block in blocks], axis=1)
    return [(text,) for text in hdf5.texts(found["index"], Path(where), "index")], columns, values
