"""What all builders share: careful reading of the owners' files, and lists in parts."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import files, matlab
from jaxpose.data.formats.shards import Skipped

SHARD_SIZE = 1000  # records
LARGEST = 1e30  # what is larger is no coordinate, and its sums exceed float32


def require(path: Path, expected: str) -> Path:
    """The path of a file or folder that has to be there.

    Raises:
      FileNotFoundError: naming it and what it should be.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: found no such file or folder, expected {expected}")
    return path


def load_mat(path: Path, names: Sequence[str], *, optional: bool = False, **options: Any) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7.

    Args:
      path: of the file.
      names: of the variables.
      optional: whether some may be absent.
      options: of `scipy.io.loadmat`.

    Raises:
      FileNotFoundError, ValueError: naming the file.
    """
    found = matlab.load(path, names=names, expected=f"a MATLAB file with {', '.join(names)}", **options)
    if not optional:
        for name in names:
            field(found, name, str(path))
    return found


def field(values: Any, name: str, where: str) -> Any:
    """A value of a mapping that has to have it.

    Raises:
      ValueError: naming `where`.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: found a {type(values).__name__}, expected fields such as {name}")
    if name not in values:
        raise ValueError(
            f"{where}: found {untrusted.one_line(', '.join(map(str, values))) or 'nothing'}; expected {name}"
        )
    return values[name]


def numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Finite float64 numbers of a shape, or None if the value is something else."""
    try:
        found = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.shape == shape and (np.abs(found) < LARGEST).all() else None


def finite(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """As `numbers`.

    Raises:
      ValueError: naming `where`, if the value is something else.
    """
    found = numbers(value, shape)
    if found is None:
        expected = f"{' x '.join(map(str, shape))} finite numbers"
        raise ValueError(f"{where}: found {str(value)[:60]!r}, expected {expected}")
    return found


def array(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """Numbers, finite or not, as float64 of a shape, in which None stands for any length.

    Raises:
      ValueError: naming `where`.
    """
    try:
        found = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where}: {error}, expected numbers of shape {shape}") from None
    if found.ndim != len(shape) or any(e not in (None, f) for f, e in zip(found.shape, shape, strict=True)):
        raise ValueError(f"{where}: found shape {found.shape}, expected {shape}")
    return found


def read_image(folder: Path, file: str, name: str | None = None) -> bytes | Skipped:
    """The bytes of an image below a folder, which a file's name from labels cannot leave; `name` is the record's."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        return Skipped(name or file, "its image lies outside of the folder of images")
    try:
        return untrusted.read_file(folder / path, "an image")
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return Skipped(name or file, "the image is missing")


def image_size(image: bytes, name: str) -> tuple[int, int]:
    """Width and height of an encoded image.

    Raises:
      BrokenImageError: if it cannot be decoded.
    """
    height, width = files.decode_image(image, name).shape[:2]
    return width, height


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of points (..., 3) in the camera frame; not finite at zero depth, of no meaning behind it."""
    with np.errstate(all="ignore"):
        homogeneous = points @ np.swapaxes(intrinsics, -1, -2)
        return homogeneous[..., :2] / homogeneous[..., 2:]


def in_parts(items: Any, size: int = SHARD_SIZE) -> list[Any]:
    """A list cut into parts of `size`, of which the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def tllib_division(length: int) -> dict[str, list[int]]:
    """tllib's random division of a list: shuffled with seed 42, then the first fifth, at most 3,200, is for testing.

    Python's generator keeps its sequence between versions, so the division is the released one bit for bit.
    Source: Transfer-Learning-Library at c4aa59e, `Hand3DStudio`, `FreiHand` and `SURREAL`.
    """
    shuffled = list(range(length))
    random.Random(42).shuffle(shuffled)
    tests = min(int(length * 0.2), 3200)
    return {"train": shuffled[tests:], "test": shuffled[:tests]}
