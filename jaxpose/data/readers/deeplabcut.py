"""Labels of DeepLabCut projects."""

import csv
import fnmatch
import io
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats.files import IMAGE_SUFFIXES, Files, FileSource
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.readers import boxes, deeplabcut_hdf5, sides
from jaxpose.data.readers.deeplabcut_hdf5 import Cells

BOX_FACTOR = 1.3  # side of an animal's box relative to the extent of its joints


def read(path: str | os.PathLike, *, folders: Sequence[str] = ("*",)) -> FileSource:
    """The labelled frames of a DeepLabCut project.

    A record is a frame, or an individual of a multi-animal project: that needs two distinct labelled joints
    and gets a square box about them; the body parts of the individual `single` belong to no animal and are
    left out. `sequence` is the folder of the video, `frame` the last number in the image's name. Rows without
    an image are left out; an image that was converted to another format keeps its labels.

    Args:
      path: a project, its `labeled-data` folder, or a tar that holds one at any depth. Every video's folder
        has a `CollectedData_*.csv`, or else a `CollectedData_*.h5`: that needs the extra `jaxpose[dlc]`.
      folders: shell patterns on the names of the videos' folders.

    Raises:
      ValueError: if there is no table, one is malformed or has other body parts than the first, no image
        exists, an image is labelled twice, or a pattern matches no folder.
    """
    files = Files(path)
    tables = [read_table(files, name) for name in _table_names(files)]
    tables = [align(table, tables[0]) for table in tables]
    rows, notes = rows_with_image(files, tables)
    rows = _select(rows, folders, path)
    bones = _bones(_config(files, tables[0].name), tables[0].joints)
    source = assemble(files, tables[0].joints, rows, bones=bones, notes=notes)
    if all(table.individuals == _NAMELESS for table in tables):
        return source
    return boxes.with_squares(source, factor=BOX_FACTOR)


_NAMELESS = ("",)


class Table(NamedTuple):
    """One file of labels: R rows, I individuals (one without a name in single-animal projects), K joints."""

    name: str
    individuals: tuple[str, ...]
    joints: tuple[str, ...]
    images: tuple[str, ...]  # (R,) posix paths, as stated
    keypoints: np.ndarray  # float32 (R, I, K, 2), 0 where missing
    visible: np.ndarray  # uint8 (R, I, K)
    of_none: int  # labels of body parts of `single`, left out


class FrameLabels(NamedTuple):
    """The labels of one individual in one image."""

    image: str  # its name in the files
    frame: int
    keypoints: np.ndarray
    visible: np.ndarray


def assemble(
    files: Files,
    joints: tuple[str, ...],
    rows: Sequence[FrameLabels],
    *,
    bones: tuple[tuple[str, str], ...] = (),
    notes: tuple[records.Note, ...] = (),
) -> FileSource:
    """The source of the rows, one record each; left and right follow from the joints' names."""
    try:
        skeleton = Skeleton(
            name=files.path.resolve().stem, joints=joints, bones=bones, flips=sides.left_right_pairs(joints)
        )
    except ValueError as error:
        raise ValueError(f"{files.path}: {error}") from None
    return FileSource(
        files=files,
        skeleton=skeleton,
        names=tuple(row.image for row in rows),
        keypoints=np.stack([row.keypoints for row in rows]),
        visible=np.stack([row.visible for row in rows]),
        sequences=tuple(_folder(row.image) for row in rows),
        frames=np.array([row.frame for row in rows], dtype=np.int64),
        notes=notes,
    )


def _table_names(files: Files) -> list[str]:
    root = f"{files.path.resolve().name}/" if files.path.is_dir() else ""
    video = re.compile(r"(.*/)?labeled-data/[^/]+/CollectedData_[^/]*")
    tables = [name for name in files.names if video.fullmatch(root + name)]
    tables_csv = [name for name in tables if name.endswith(".csv")]
    with_csv = {posixpath.dirname(name) for name in tables_csv}
    tables_h5 = [n for n in tables if n.endswith(".h5") and posixpath.dirname(n) not in with_csv]
    if not tables_csv and not tables_h5:
        raise ValueError(f"{files.path}: found no labeled-data/<video>/CollectedData_<scorer>.csv (or .h5)")
    return sorted(tables_csv + tables_h5)


def read_table(files: Files, name: str) -> Table:
    """Reads a file of labels, CSV or H5.

    The header's rows are scorer, individuals (or none), bodyparts and coords; coords are x, y and optionally visible
    (0 missing, 1 occluded, 2 visible) or likelihood, which is ignored. A joint without two finite coordinates is
    missing. The body parts of the individual `single` are left out.

    Raises:
      ValueError: if the table is malformed.
      ImportError: if an H5 file cannot be read without the extra.
    """
    where = f"{files.path}: {name}"
    data = files.read(name)
    with untrusted.reading(where, "a table of labels"):
        return _table(name, data, where)


def _table(name: str, data: bytes, where: str) -> Table:
    read_cells = _read_csv if name.endswith(".csv") else deeplabcut_hdf5.read
    images, columns, values = read_cells(data, where)
    coords = {coord for _, _, coord in columns}
    if not {"x", "y"} <= coords <= {"x", "y", "likelihood", "visible"} or len(set(columns)) < len(columns):
        raise ValueError(
            f"{where}: columns per body part are {', '.join(sorted(coords))}; expected one x, one y, "
            "optionally likelihood or visible"
        )
    present = set(columns)
    for individual, joint, _ in columns:
        if not joint or not {(individual, joint, "x"), (individual, joint, "y")} <= present:
            raise ValueError(f"{where}: body part {joint!r} has no column x or no column y, expected both")
    individuals = tuple(dict.fromkeys(individual for individual, _, _ in columns if individual != "single"))
    of_none = [i for i, (individual, _, coord) in enumerate(columns) if individual == "single" and coord == "x"]
    joints = tuple(dict.fromkeys(joint for individual, joint, _ in columns if individual in individuals))
    if len(individuals) * len(joints) > len(columns):
        raise ValueError(f"{where}: found {len(individuals)} individuals of different body parts, expected the same")
    shape = (len(images), len(individuals), len(joints))
    places = {name: i for i, name in enumerate(individuals)}, {name: i for i, name in enumerate(joints)}
    points, flags = np.full((*shape, 2), np.nan), np.full(shape, records.VISIBLE, dtype=np.float64)
    for (individual, joint, coord), column in zip(columns, values.T, strict=True):
        if individual == "single" or coord == "likelihood":
            continue
        place = slice(None), places[0][individual], places[1][joint]
        if coord == "visible":
            flags[place] = np.where(np.isnan(column), records.VISIBLE, column)
        else:
            points[(*place, "xy".index(coord))] = column
    if not np.isin(flags, (records.MISSING, records.OCCLUDED, records.VISIBLE)).all():
        raise ValueError(f"{where}: column visible holds {untrusted.one_line(np.unique(flags))}, expected 0, 1 or 2")
    keypoints, visible = boxes.usable(points, flags)
    return Table(
        name=name,
        individuals=individuals,
        joints=joints,
        images=images,
        keypoints=keypoints,
        visible=visible,
        of_none=int(np.isfinite(values[:, of_none]).sum()),
    )


def _read_csv(data: bytes, where: str) -> Cells:
    try:
        lines = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where}: {error}, expected a CSV table in UTF-8") from None
    header = {row[0]: row for row in lines[:4] if row[0] in ("scorer", "individuals", "bodyparts", "coords")}
    if not {"scorer", "bodyparts", "coords"} <= header.keys():
        raise ValueError(
            f"{where}: header rows are {', '.join(header) or 'absent'}; expected scorer, [individuals,] "
            "bodyparts, coords"
        )
    # The image's path takes one column, or three (labeled-data, folder, file) with blank cells above.
    start = next((i for i, cell in enumerate(header["coords"]) if i and cell), len(header["coords"]))
    parts, coords = header["bodyparts"][start:], header["coords"][start:]
    individuals = header.get("individuals", [""] * start + [""] * len(parts))[start:]
    rows = lines[len(header) :]
    for row in lines:
        if len(row) != len(header["coords"]):
            raise ValueError(f"{where}: row {row[0]} has {len(row)} cells, expected {len(header['coords'])}")
    try:
        values = np.array([[float(cell or "nan") for cell in row[start:]] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{where}: {error}, expected numbers and empty cells") from None
    images = tuple("/".join(row[:start]).replace("\\", "/") for row in rows)
    return images, list(zip(individuals, parts, coords, strict=True)), values.reshape(len(rows), len(parts))


def align(table: Table, first: Table) -> Table:
    """The table with its joints in the order of the first one."""
    if set(table.joints) != set(first.joints):
        raise ValueError(
            f"{table.name}: body parts are {', '.join(table.joints)}; expected those of {first.name}: "
            f"{', '.join(first.joints)}"
        )
    order = [table.joints.index(joint) for joint in first.joints]
    return table._replace(
        joints=first.joints, keypoints=table.keypoints[:, :, order], visible=table.visible[:, :, order]
    )


def rows_with_image(files: Files, tables: Sequence[Table]) -> tuple[list[FrameLabels], tuple[records.Note, ...]]:
    """One row per labelled individual whose image exists, and a note on the others."""
    stems = {}
    for name in files.names:
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            stems[stem] = name
    rows, absent = {}, []
    for table in tables:
        for index, stated in enumerate(table.images):
            image = next((i for i in _candidates(table.name, stated, stems) if i in files), None)
            if image is None:
                absent.append(stated)
                continue
            for number, individual in enumerate(table.individuals):
                if (image, individual) in rows:
                    raise ValueError(f"{table.name}: labels {image} again, expected one label per image")
                rows[image, individual] = FrameLabels(
                    image=image,
                    frame=_frame(stated, index),
                    keypoints=table.keypoints[index, number],
                    visible=table.visible[index, number],
                )
    if not rows:
        raise ValueError(f"{files.path}: none of {len(absent)} labelled images exists, the first is {absent[:1]}")
    notes = []
    if absent:
        what = "left out labelled images that do not exist"
        notes.append(records.Note(what=what, count=len(absent), example=absent[0]))
    if of_none := sum(table.of_none for table in tables):
        notes.append(records.Note(what="left out labels of body parts of no animal (`single`)", count=of_none))
    return list(rows.values()), tuple(notes)


def _frame(image: str, index: int) -> int:
    """The last number in the image's name, else its row; 18 digits fit into 64 bits."""
    numbers = re.findall(r"\d+", posixpath.basename(image))
    return int(numbers[-1][-18:]) if numbers else index


def _candidates(table: str, stated: str, stems: dict[str, str]) -> Iterator[str]:
    """Where the image may be: where the table says, or beside the table (projects get moved and renamed)."""
    folder = posixpath.dirname(table)
    for name in (posixpath.join(folder, stated), posixpath.join(folder, posixpath.basename(stated))):
        yield name
        if converted := stems.get(posixpath.splitext(name)[0]):
            yield converted


def _select(rows: Sequence[FrameLabels], patterns: Sequence[str], path: str | os.PathLike) -> list[FrameLabels]:
    present = sorted({_folder(row.image) for row in rows})
    for pattern in patterns:
        if not fnmatch.filter(present, pattern):
            raise ValueError(f"{path}: no folder matches {pattern!r}, found {', '.join(present)}")
    return [row for row in rows if any(fnmatch.fnmatchcase(_folder(row.image), p) for p in patterns)]


def _folder(image: str) -> str:
    return posixpath.basename(posixpath.dirname(image))


def _config(files: Files, table: str) -> str:
    """The text of the project's configuration, which may lie above the folder that is read; else empty."""
    name = posixpath.normpath(posixpath.join(posixpath.dirname(table), "../../config.yaml"))
    if name in files:
        return files.read(name).decode(errors="replace")
    above = files.path.resolve() / name
    return untrusted.read_file(above, "a project's configuration").decode(errors="replace") if above.is_file() else ""


def _bones(config: str, joints: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The pairs of joints under `skeleton:`, in YAML's block style or flow style."""
    section = _section(config)
    pairs = [inside.split(",") for inside in re.findall(r"\[([^\[\]]*)\]", "\n".join(section))]
    lines = [line.strip() for line in section if line.strip()]
    pairs += [[a[4:], b[2:]] for a, b in itertools.pairwise(lines) if a.startswith("- - ") and _NEXT.match(b)]
    bones = [tuple(joint.strip(" \"'\r\n\t") for joint in pair) for pair in pairs if len(pair) == 2]
    return tuple((a, b) for a, b in bones if {a, b} <= set(joints))


_NEXT = re.compile(r"- (?!- )")  # the second item of a pair


def _section(config: str) -> list[str]:
    """The lines below `skeleton:` up to the next key, that line's rest before them."""
    found: list[str] = []
    for line in config.splitlines():
        if found and line[:1].strip() and line[0] not in "-#":
            break
        if found:
            found.append(line)
        elif line.startswith("skeleton:"):
            found.append(line.removeprefix("skeleton:"))
    return found
