"""Leeds Sports Pose (LSP) and its extended training set (LSPet)."""

import os
import posixpath
import re

import numpy as np

from jaxpose import untrusted
from jaxpose.data import records
from jaxpose.data.formats import matlab, unpickle
from jaxpose.data.formats.files import IMAGE_SUFFIXES, Files, FileSource
from jaxpose.data.joints.skeletons import LSP14
from jaxpose.data.readers import boxes

MIN_JOINTS = 6  # people with fewer usable joints are left out
BOX_FACTOR = 1.2  # side of a person's box relative to the extent of the joints, which lie inside the body


def read(path: str | os.PathLike) -> FileSource:
    """The photos of LSP or LSPet with 14 joints, one person each.

    The digits of the images' names tell the sets apart. `im0001.jpg` is LSP: its coordinates count from 1
    (MATLAB), its flag means occluded. `im00001.jpg` is LSPet: its coordinates count from 0 (unusable joints,
    which annotators left at the origin of their tool, lie at exactly 0), its flag means usable. The box is a
    square of 1.2 times the joints' extent and may leave the image. People with fewer than 6 usable joints are
    left out, and labels without an image.

    Args:
      path: a folder or tar that holds, at any depth, `images/` and beside it `joints.mat` with joints
        (3, 14, N) or (14, 3, N), or `joints.npz` with ids (N,), the images' numbers, and joints (N, 14, 3).

    Raises:
      ValueError: if labels or images are not laid out like this.
    """
    files = Files(path)
    ids, joints = _labels(files)
    numbers, digits = _images(files)
    kept = np.array([int(i) in numbers for i in ids], dtype=bool)
    if not kept.any():
        raise ValueError(f"{path}: none of {len(ids)} labelled images im{'0' * (digits - 1)}1.jpg, ... exists")
    notes = []
    if not kept.all():
        what, example = "left out labels that have no image", f"number {ids[~kept][0]}"
        notes.append(records.Note(what=what, count=int((~kept).sum()), example=example))
    ids, points, flags = ids[kept], joints[kept, :, :2], joints[kept, :, 2]
    if digits == 4:
        points, flags = points - 1, np.where(flags > 0, records.OCCLUDED, records.VISIBLE)
    else:
        flags = np.where(flags > 0, records.VISIBLE, records.MISSING)
    keypoints, visible = boxes.usable(points, flags)
    names = tuple(numbers[int(i)] for i in ids)
    enough = (visible > 0).sum(axis=1) >= MIN_JOINTS
    if not enough.all():
        what, example = f"left out people with fewer than {MIN_JOINTS} usable joints", names[np.argmin(enough)]
        notes.append(records.Note(what=what, count=int((~enough).sum()), example=example))
    source = FileSource(
        files=files,
        skeleton=LSP14,
        names=names,
        keypoints=keypoints,
        visible=visible,
        bboxes=boxes.square_boxes(keypoints, visible, factor=BOX_FACTOR),
        notes=tuple(notes),
    )
    return source.subset(np.flatnonzero(enough))


def _labels(files: Files) -> tuple[np.ndarray, np.ndarray]:
    """The images' numbers (N,) and their joints (N, 14, 3)."""
    found = [name for name in files.names if posixpath.basename(name) in ("joints.mat", "joints.npz")]
    if len(found) != 1:
        raise ValueError(f"{files.path}: found {found or 'no labels'}, expected one joints.mat or joints.npz")
    where, data = f"{files.path}: {found[0]}", files.read(found[0])
    with untrusted.reading(where, "ids and joints (.npz) or joints (.mat)"):
        if found[0].endswith(".npz"):
            arrays = unpickle.load_npz(data, names=("ids", "joints"), where=where)
            ids, joints = np.asarray(arrays["ids"]), np.asarray(arrays["joints"])
        else:
            joints = np.asarray(matlab.load(data, names=["joints"], where=where).get("joints"))
            if joints.ndim == 3:  # (3, 14, N) or (14, 3, N)
                joints = np.moveaxis(joints, -1, 0)
                joints = joints.swapaxes(1, 2) if joints.shape[1] == 3 else joints
            ids = np.arange(1, len(joints) + 1) if joints.ndim else np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or joints.dtype.kind not in "fiu":
        raise ValueError(f"{where}: ids are {ids.dtype} {ids.shape}, joints {joints.dtype}; expected numbers")
    if joints.shape != (len(ids), 14, 3):
        raise ValueError(f"{where}: joints have shape {joints.shape}, expected 14 joints of x, y and a flag per image")
    return ids, joints.astype(np.float64)


def _images(files: Files) -> tuple[dict[int, str], int]:
    """The images by number, and how many digits their names have: 4 in LSP, 5 in LSPet."""
    names, digits = {}, set()
    for name in files.names:
        stem, suffix = posixpath.splitext(posixpath.basename(name))
        if suffix.lower() in IMAGE_SUFFIXES and (match := re.fullmatch(r"im(\d{1,18})", stem)):
            names[int(match[1])] = name
            digits.add(len(match[1]))
    if digits not in ({4}, {5}):
        raise ValueError(f"{files.path}: images are named im + {sorted(digits)} digits; expected 4 (LSP) or 5 (LSPet)")
    return names, digits.pop()
