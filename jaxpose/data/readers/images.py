"""Images without labels: the pictures of a new domain, as they come from a camera."""

import contextlib
import os
import posixpath
import re

import numpy as np

from jaxpose.data import records
from jaxpose.data.formats import files
from jaxpose.data.joints.skeletons import Skeleton


def read(path: str | os.PathLike, *, skeleton: Skeleton) -> files.FileSource:
    """All images below a folder or in a tar, upright, without labels.

    A rotation in the EXIF header is applied: no label refers to the stored pixels, and cameras state how they were
    held. `sequence` is the folder of an image, `frame` the last number in its name; a folder where two images have
    the same number, or one has none, is numbered in the order of the names.

    Args:
      path: a folder, searched recursively, or an uncompressed tar.
      skeleton: the joints that are to be found: those of the other domain.

    Raises:
      ValueError: if there is no image.
    """
    found = files.Files(path)
    names = [name for name in found.names if posixpath.splitext(name)[1].lower() in files.IMAGE_SUFFIXES]
    if not names:
        raise ValueError(f"{path}: none of {len(found.names)} files is an image ({' '.join(_SUFFIXES)})")
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(posixpath.dirname(name), []).append(name)
    ordered = [(folder or found.path.resolve().stem, *item) for folder in folders for item in _frames(folders[folder])]
    return _UprightSource(
        files=found,
        skeleton=skeleton,
        names=tuple(name for _, name, _ in ordered),
        keypoints=np.zeros((len(names), len(skeleton), 2), np.float32),
        visible=np.full((len(names), len(skeleton)), records.MISSING, np.uint8),
        sequences=tuple(folder for folder, _, _ in ordered),
        frames=np.array([frame for _, _, frame in ordered], np.int64),
    )


class _UprightSource(files.FileSource):
    """Decodes its images, since what reads a record's bytes leaves them as they are stored."""

    def __getitem__(self, index: int) -> records.Record:
        record = super().__getitem__(index)
        with contextlib.suppress(records.BrokenImageError):  # who decodes the bytes meets it where it is counted
            record["image"] = files.decode_image(record["image"], record["name"], upright=True)
        return record


_SUFFIXES = sorted(files.IMAGE_SUFFIXES)


def _frames(names: list[str]) -> list[tuple[str, int]]:
    """The images of one folder in the order of their numbers, with these."""
    numbers = [re.findall(r"\d+", posixpath.splitext(posixpath.basename(name))[0]) for name in names]
    last = [int(found[-1][-100:]) for found in numbers if found]
    if len(set(last)) < len(names) or max(last) > np.iinfo(np.int64).max:
        last = list(range(len(names)))
    return sorted(zip(names, last, strict=True), key=lambda item: item[1])
