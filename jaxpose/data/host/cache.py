"""Decoded crops on disk: the first run that reads them writes them, the next ones read them instead of the data set.

What is stored is the finished element, with `index`, `broken` and whatever fields it has: what is read back is the
same bit for bit by construction, for single images and clips alike, and needs no rule of its own for broken images.

An element is one NumPy record: `numpy.lib.format` parses its header again for each array, 138 us instead of 1.4.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import socket
import time
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import grain
import numpy as np
import tqdm
from array_record.python.array_record_module import ArrayRecordWriter  # pyright: ignore[reportMissingImports]

from jaxpose import interruption, untrusted

Element = dict[str, np.ndarray]
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]  # name, type and shape of each field, in the order of the bytes


@runtime_checkable
class Indexed(Protocol):
    """What can be cached: arrays by name, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Element: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Where the elements of one split are kept, and what they are made of.

    Attributes:
      folder: made if it is absent.
      name: of the domain and split, for the file's name.
      asked: plain JSON that tells these elements from others that may be kept beside them.
      found: plain JSON that tells whether the data are those that the elements were made of.
    """

    folder: str
    name: str
    asked: Mapping[str, Any]
    found: Mapping[str, Any]


def cached(elements: Indexed, cache: Cache, *, workers: int = 0, show: bool = True) -> "Stored":
    """The elements as they are on disk; makes the file if there is none of these elements, or of other data.

    The file gets its name when it is whole, so a kill leaves no half one. Processes that make the same file at the
    same time write one each, and the last one stays.

    Args:
      elements: at least one.
      cache: see there.
      workers: reading processes while it is made; 0 reads in threads.
      show: whether to show the progress, and to say why a file is made anew.

    Raises:
      ValueError: if the folder cannot be written, or is too small.
    """
    folder = Path(cache.folder).expanduser()
    asked = _plain(cache.asked)
    holds = {"layout": _LAYOUT_VERSION, "asked": asked, "records": len(elements)}
    holds |= {"found": _plain(cache.found), "versions": {name: metadata.version(name) for name in _PACKAGES}}
    holds["versions"]["opencv"] = cv2.__version__
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
    path = folder / f"{cache.name}_{key}.array_record"
    known = _read_note(path)
    if known is not None:
        reason = _difference(known, holds)
        try:
            if reason is None:
                return _open(path, known)
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
            reason = f"found it damaged ({(str(error).splitlines() or [''])[0]})"
        if show:
            tqdm.tqdm.write(f"{path}: {reason}, so it is made anew")
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise ValueError(f"config.data.cache={cache.folder}: {error}, expected a folder to write to") from error
    _remove_abandoned(folder)
    return _open(path, _make(elements, path, temporary, holds, workers=workers, show=show))


def files_of(
    spec: str, *, root: str, source: Any, leave_out: Sequence[str], times: bool = True
) -> dict[str, list[Any]]:
    """The files and folders behind a source: relative path -> number of files, bytes, and digest of names and sizes.

    They are what the specification names and what the source reads from, as far as that is known without opening
    files: the videos that a SLEAP project refers to are not among them.

    Args:
      spec: of the domain, `SCHEME:PATH?OPTION=VALUE&...`.
      root: where its relative paths start.
      source: records or motions, opened.
      leave_out: folders that do not count, such as the cache itself.
      times: whether the digest is also one of when the files were changed.
    """
    named, _, options = spec.partition(":")[2].partition("?")
    texts = [named, *(value for _, value in urllib.parse.parse_qsl(options))]
    base = Path(root).expanduser()
    paths = {text: base / Path(text).expanduser() for text in texts if text}
    for part in _chain(source):
        below = getattr(part, "folder", None) or getattr(getattr(part, "files", None), "path", None)
        if below is not None and Path(below) not in paths.values():
            paths["files"] = Path(below)
    ignored = {Path(folder).expanduser().resolve() for folder in leave_out}
    return {name: _summary(path, ignored, times) for name, path in paths.items() if os.path.exists(path)}


def labels_of(source: Any) -> str:
    """A digest of what a source holds in memory: labels, boxes, and which records in which order it chooses."""
    digest = hashlib.sha256()
    for part in _chain(source):
        digest.update(type(part).__name__.encode())
        for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
            if field.name == "notes":  # are about the data, but none
                continue
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray) and not value.dtype.hasobject:
                digest.update(f"{field.name}{value.dtype.str}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            elif isinstance(value, tuple) and all(isinstance(text, str) for text in value):
                digest.update(f"{field.name}{json.dumps(value)}".encode())
    return digest.hexdigest()[:16]


class Stored:
    """Elements on disk, opened anew in each process that reads them (`Indexed`)."""

    def __init__(self, path: Path, layouts: Iterable[np.dtype]) -> None:
        self.path = path
        self.layouts = tuple(layouts)
        self._source: Any = grain.sources.ArrayRecordDataSource(str(path))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        try:
            data = self._source[index]
            element: Any = np.frombuffer(data, self.layouts[data[0]], offset=1).reshape(())
            return {name: element[name] for name in element.dtype.names or ()}
        except (RuntimeError, IndexError, ValueError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{self.path}: element {index} cannot be read ({first}), expected a whole file") from None


_LAYOUT_VERSION = 1
_PACKAGES = ("av", "jaxpose", "numpy")
# Pixels hardly shrink without losses, and what would be saved in reading is lost in unpacking.
_OPTIONS = "group_size:1,uncompressed"
_ABANDONED = 3600.0  # seconds after which an unfinished file that nobody writes to is taken for one of a killed run


def _remove_abandoned(folder: Path) -> None:
    for old in folder.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()


def _make(
    elements: Indexed, path: Path, temporary: Path, holds: Mapping[str, Any], *, workers: int, show: bool
) -> dict[str, Any]:
    """Writes the elements, and beside them what they are, which it returns."""
    layouts: dict[Layout, int] = {}
    try:
        writer = ArrayRecordWriter(str(temporary), _OPTIONS)
        try:
            bar = tqdm.tqdm(total=len(elements), unit="crop", desc=path.name, disable=not show, dynamic_ncols=True)
            with bar:
                for number, element in enumerate(_in_order(elements, workers)):
                    data = _encode(element, layouts)
                    if number == 0:
                        _check_room(path.parent, len(data) * len(elements))
                    writer.write(data)
                    bar.update(1)
        finally:
            writer.close()
        note = temporary.with_name(temporary.name.replace(".partial", ".note.partial"))
        holds = {**holds, "layouts": list(layouts)}
        note.write_text(json.dumps(holds, indent=1))
        # The note says that the elements are whole and what they are, so an older one goes first.
        _note(path).unlink(missing_ok=True)
        os.replace(temporary, path)
        os.replace(note, _note(path))
        return holds
    finally:
        temporary.unlink(missing_ok=True)


def _in_order(elements: Indexed, workers: int) -> Iterator[Element]:
    threads = 1 if workers else min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    dataset = grain.MapDataset.source(elements).to_iter_dataset(options)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=8)
        dataset = dataset.mp_prefetch(options, worker_init_fn=interruption.leave_to_parent)
    return itertools.islice(iter(dataset), len(elements))


def _check_room(folder: Path, expected: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < expected:
        found, needed = f"{free / 2**30:.1f} GiB free", f"{expected / 2**30:.1f} GiB"
        raise ValueError(f"config.data.cache={folder}: found {found}, expected {needed} for the crops")


def _encode(element: Element, layouts: dict[Layout, int]) -> bytes:
    """The number of the element's layout, which is added to the known ones, and its arrays, by name in order: worker
    processes do not keep the order of the fields, and processes that make the same file have to make the same bytes."""
    arrays = {name: np.asarray(element[name]) for name in sorted(element)}
    layout = tuple((name, array.dtype.str, array.shape) for name, array in arrays.items())
    number = layouts.setdefault(layout, len(layouts))
    return bytes([number]) + b"".join(array.tobytes() for array in arrays.values())


def _open(path: Path, note: Mapping[str, Any]) -> Stored:
    fields = [[(name, kind, tuple(shape)) for name, kind, shape in layout] for layout in note["layouts"]]
    stored = Stored(path, map(np.dtype, fields))
    if len(stored) != note["records"]:
        raise ValueError(f"{len(stored)} elements instead of {note['records']}")
    return stored


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_note(path: Path) -> dict[str, Any] | None:
    """What the JSON beside the elements says; None where there is none, empty where it is none of ours."""
    try:
        note = json.loads(_note(path).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _difference(known: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The first field in which what is there is not what is expected."""
    for field, value in expected.items():
        if known.get(field) != value:
            return f"found {field} {json.dumps(known.get(field))}, expected {json.dumps(value)}"
    return None


def _plain(value: Any) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(value))


def _chain(source: Any) -> Iterator[Any]:
    """The source and those that it is a view of."""
    while source is not None:
        yield source
        source = getattr(source, "source", None)


def _summary(path: Path, ignored: Collection[Path], times: bool) -> list[Any]:
    digest, count, size = hashlib.sha256(), 0, 0
    for file in _files(path, ignored):
        state = file.stat()
        name = os.fsencode(file.relative_to(path).as_posix())
        changed = f"\0{state.st_mtime_ns}" if times else ""
        digest.update(name + f"\0{state.st_size}{changed}\n".encode())
        count, size = count + 1, size + state.st_size
    return [count, size, digest.hexdigest()[:16]]


def _files(path: Path, ignored: Collection[Path]) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for root, folders, files in untrusted.walk(path):
        folders[:] = [name for name in folders if (path / root / name).resolve() not in ignored]
        for name in files:
            yield path / root / name
