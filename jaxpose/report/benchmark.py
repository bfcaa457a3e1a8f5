"""What `--mode=benchmark` found, as lines to print, alone or beside an earlier result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxpose.report import text

Measured = Mapping[str, Any]

_RATIOS = {
    "step_s": ("update", "s"),
    "pairs_per_s": ("pairs per second", ""),
    "compile_s": ("compilation", "s"),
    "peak_bytes": ("peak memory of a device", "B"),
    "matmul_fraction": ("share of the matrix product's rate", "%"),
    "copy_fraction": ("share of the copy's rate", "%"),
    "data_first_images_per_s": ("data pipeline, images per second, first epoch", ""),
    "data_images_per_s": ("the same, later epochs", ""),
    "loop_step_s": ("update in the loop with data", "s"),
    "loop_fraction": ("loop's share of the pure rate", "%"),
    "device_wait_fraction": ("devices waiting for data, at most", "%"),
}
_SAME = ("stage", "batch_size", "image_size", "joints", "devices")  # what makes two results comparable


def table(measured: Measured, baseline: Measured | None = None) -> str:
    """The result in a few lines; with a baseline, its values and the ratios."""
    lines = [["", "now", *(("baseline", "ratio") if baseline else ())]]
    for key, (name, unit) in _RATIOS.items():
        line = [name, _show(measured[key], unit)]
        if baseline:
            before = baseline[key]
            line += [_show(before, unit), f"{measured[key] / before:.2f}" if before else "-"]
        lines.append(line)
    spread = f"update: {_show(measured['step_s_low'], 's')} to {_show(measured['step_s_high'], 's')} over blocks"
    if len(measured.get("update_step_s", ())) > 1:
        spread += f"; updates in turn: {', '.join(_show(seconds, 's') for seconds in measured['update_step_s'])}"
    operations = (
        f"per update and device: {_show(measured['model_flops'], 'FLOP')} ({_show(measured['flops'], 'FLOP')} by XLA), "
        f"{_show(measured['bytes'], 'B')} by XLA; measured here: {_show(measured['matmul_flops_per_s'], 'FLOP/s')}, "
        f"{_show(measured['copy_bytes_per_s'], 'B/s')}"
    )
    host = ", ".join(f"{name} {rate:,.0f}" for name, rate in measured["host_images_per_s"].items())
    title = (
        f"{measured['stage']}: {measured['batch_size']} rows of every domain, {measured['image_size']} px, "
        f"{measured['joints']} joints, {', '.join(sorted(set(measured['devices'])))} x {len(measured['devices'])}"
    )
    stages = f"images per second of one thread in each stage of the pipeline: {host}"
    return "\n".join([title, "", *text.align(lines), "", spread, operations, stages, *_differences(measured, baseline)])


def read(path: Path) -> dict[str, Any]:
    """An earlier result.

    Raises:
      ValueError: if the file is none.
    """
    try:
        measured = json.loads(path.read_text())
        if not isinstance(measured, dict):
            raise TypeError
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--baseline={path}: found no JSON object there, expected a benchmark.json") from error
    if missing := sorted({*_RATIOS, *_SAME} - measured.keys()):
        raise ValueError(f"--baseline={path}: found no {missing[0]!r}, expected a benchmark.json")
    return measured


def _differences(measured: Measured, baseline: Measured | None) -> list[str]:
    """Lines that say in what the two results are not comparable."""
    if baseline is None:
        return []
    return [
        f"not comparable: {key} was {baseline[key]!r}, is {measured[key]!r}"
        for key in _SAME
        if measured[key] != baseline[key]
    ]


def _show(value: int | float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if unit and value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:,.0f} {unit}".strip()
