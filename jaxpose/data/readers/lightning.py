"""Labels of Lightning Pose data folders."""

import os
import posixpath

from jaxpose.data.formats.files import Files, FileSource
from jaxpose.data.readers import deeplabcut
from jaxpose.data.records import Note

_TEST_SUFFIXES = ("_new", "_test")  # tables of recordings that training does not see


def read(path: str | os.PathLike, *, csv: str | None = None) -> dict[str, FileSource]:
    """The labelled frames of a Lightning Pose data folder: `train`, and `test` where there is one.

    A table has the columns of DeepLabCut and optionally `visible` (0 missing, 1 occluded, 2 visible); its paths start
    at the data folder. What `<table>_new.csv` and `<table>_test.csv` label is for testing, in the joint order of the
    table. `sequence` is the image's folder, `frame` the last number in its name. Rows without an image are left out.

    Args:
      path: a folder or tar that holds `labeled-data` and tables beside it, at any depth.
      csv: which table: its name with or without `.csv`, or the name of a view, `top` for `CollectedData_top.csv`. By
        default `CollectedData.csv`, else the only one.

    Raises:
      ValueError: if there is no such table or several, one is malformed, a test table has other body parts, no image
        of a table exists, or an image is labelled twice in a split.
    """
    files = Files(path)
    name = _choose(files, csv)
    table = deeplabcut.read_table(files, name)
    rows, notes = deeplabcut.rows_with_image(files, [table])
    splits = {"train": deeplabcut.assemble(files, table.joints, rows, notes=notes)}
    stem = name.removesuffix(".csv")
    others = [deeplabcut.read_table(files, test) for end in _TEST_SUFFIXES if (test := f"{stem}{end}.csv") in files]
    if others:
        others = [deeplabcut.align(other, table) for other in others]
        test_rows, notes = deeplabcut.rows_with_image(files, others)
        trained = {row.image for row in rows}
        if both := [row.image for row in test_rows if row.image in trained]:
            notes += (Note(what="images that are for train and test", count=len(both), example=both[0]),)
        splits["test"] = deeplabcut.assemble(files, table.joints, test_rows, notes=notes)
    return splits


def _choose(files: Files, wanted: str | None) -> str:
    folders = {name.rpartition("labeled-data/")[0] for name in files.names if "labeled-data" in name.split("/")}
    tables = [
        name
        for name in files.names
        if name.endswith(".csv") and name.removesuffix(posixpath.basename(name)) in folders and _is_table(files, name)
    ]
    trained = [n for n in tables if not any(_is_test_of(n, other) for other in tables)]
    if wanted is not None:
        stem = wanted.removesuffix(".csv")
        chosen = [n for n in tables if f"/{n}".endswith(f"/{stem}.csv")]
        chosen = chosen or [n for n in tables if posixpath.basename(n) == f"CollectedData_{stem}.csv"]
    else:
        chosen = [n for n in trained if posixpath.basename(n) == "CollectedData.csv"] or trained
    if len(chosen) != 1:
        listed = ", ".join((chosen or tables)[:20]) or "no table beside labeled-data"
        raise ValueError(f"{files.path}: found {listed}; expected {wanted or 'one table, or the option csv'}")
    return chosen[0]


def _is_table(files: Files, name: str) -> bool:
    return files.read(name).removeprefix(b"\xef\xbb\xbf").startswith(b"scorer,")


def _is_test_of(name: str, other: str) -> bool:
    return any(name == f"{other.removesuffix('.csv')}{suffix}.csv" for suffix in _TEST_SUFFIXES)
