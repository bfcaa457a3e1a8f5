"""What an earlier run left in its work directory, which may have been damaged or edited since."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import unpickle

_TEXTS = ("stage", "domain", "split", "metric", "group")
_TIMES = ("wall_s", "step_s", "images_per_s")


def read_config(path: Path) -> dict[str, Any]:
    """`config.json`.

    Raises:
      ValueError: naming the file, if it is damaged.
    """
    return untrusted.read_json(path, dict, "the configuration of a run")


def read_results(path: Path) -> dict[str, Any]:
    """`results.json`, with everything that tables and comparisons read in place.

    Raises:
      ValueError: naming the file, if it is damaged.
    """
    expected = "the results of a run: delete the file to make it again"
    results = untrusted.read_json(path, dict, expected)
    with untrusted.reading(path, expected):
        rows, timing = results["evaluations"], results["timing"]
        for row in rows if isinstance(rows, list) else [rows]:
            good = isinstance(row, dict) and all(isinstance(row.get(name), str) for name in _TEXTS)
            if not good or not _is_number(row.get("value")) or not _is_number(row.get("count")):
                raise ValueError(f"found the evaluation {untrusted.one_line(row)}")
        if not isinstance(timing, dict) or not all(_is_number(timing.get(name)) for name in _TIMES):
            raise ValueError(f"found the timing {untrusted.one_line(timing)}")
        shown = results.get("pictures", {})  # captions by stage
        if not isinstance(shown, dict) or not all(isinstance(captions, list) for captions in shown.values()):
            raise ValueError(f"found the pictures {untrusted.one_line(shown)}")
        for name, kind in (("config", dict), ("recipe", str), ("pair", str), ("fingerprint", str)):
            if not isinstance(results[name], kind):
                raise ValueError(f"found {name} {untrusted.one_line(results[name])}")
        return results


def read_predictions(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Predictions of a split, of the shape that its records and joints have.

    Raises:
      ValueError: naming the file, if it is damaged or of other data.
    """
    expected = f"predictions {shape}"
    points = unpickle.load_npy(untrusted.read_file(path, expected), where=str(path))
    if points.dtype.kind != "f" or points.shape != shape:
        raise ValueError(f"{path}: found {points.dtype} {points.shape}, expected {expected}")
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
