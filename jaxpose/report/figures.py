"""Curves of a run as SVG files."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from jaxpose.report import text

INK, GRID = "#3c3f46", "#e3e5ea"  # exactly two greys, so that the report can swap them in the dark
_DOMAINS = {"target": "#dd6b1f", "source": "#4a86d8"}
_COLOURS = ("#4a86d8", "#dd6b1f", "#3fa37a", "#a46bc4", "#c9a227", "#d0567d", "#6b8e9e", "#8a6d52")
_DASHES = {"test": "-", "validation": "--", "train": ":"}
_POINTS = 250  # per curve; more are averaged

History = Sequence[Mapping[str, Any]]  # lines {"stage", "step", name: value}; steps count within their stage
Curve = tuple[np.ndarray, np.ndarray]


def learning_curves(history: History, folder: Path) -> list[Path]:
    """Losses of each stage, and each evaluation metric over all stages; returns the files written.

    Losses are the names that contain `loss`, evaluations the names `domain/split/metric/group`.
    """
    stages = list(dict.fromkeys(line["stage"] for line in history))
    files = [_losses(history, stage, folder) for stage in stages]
    metrics = dict.fromkeys(p[2] for p in map(_evaluation, _names(history)) if p)
    return [f for f in (*files, *(_evaluations(history, metric, folder) for metric in metrics)) if f]


def disparity_curve(history: History, folder: Path) -> Path | None:
    """Distance between the peaks of the two regressors on both domains; None if it was not logged.

    Reads the names that contain `disparity_px`.

    Source: RegDA, Fig. 9.
    """
    names = [n for n in _names(history) if "disparity_px" in n]
    if not names:
        return None
    stages = list(dict.fromkeys(line["stage"] for line in history if any(n in line for n in names)))
    figure, axes = _figure("Disparity of the two regressors")
    for i, name in enumerate(names):
        domain = next((d for d in _DOMAINS if d in name), name)
        lines = [line for line in history if line["stage"] in stages]
        _plot(axes, _curve(lines, name), label=domain, color=_DOMAINS.get(domain, _COLOURS[i % len(_COLOURS)]))
    _mark_stages(axes, [line for line in history if line["stage"] in stages])
    axes.set_ylabel("pixels")
    axes.set_ylim(bottom=0)
    return _save(figure, axes, folder / "disparity.svg")


def methods_plot(
    metric: str, ends: Mapping[str, Sequence[float | None]], floor: float | None, where: str, folder: Path
) -> Path:
    """Methods by mean and deviation (None of one seed) of a metric, the best at the top; returns the file written.

    `floor` is what the mean pose reaches; `where` says what was measured.
    """
    figure, axes = _figure(text.plotted(metric))
    known = {name: (mean, deviation) for name, (mean, deviation) in ends.items() if mean is not None}
    names = sorted(known, key=lambda name: known[name][0], reverse=text.lower_is_better(metric))
    figure.set_size_inches(5.2, (0.9 if floor is None else 1.2) + 0.28 * len(names))
    for i, name in enumerate(names):
        mean, deviation = known[name]
        colour = INK if name in (text.SOURCE_ONLY, text.ORACLE) else _DOMAINS["target"]
        axes.errorbar(mean, i, xerr=deviation, fmt="o", color=colour, markersize=5, linewidth=1.4)
    if floor is not None:
        axes.axvline(floor, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0, label=text.FLOOR)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(where, color=INK, fontsize=8.5)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    percent, plain = PercentFormatter(1, decimals=None), FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(percent if text.is_fraction(metric) else plain)
    return _save(figure, axes, folder / "methods.svg")


def _losses(history: History, stage: str, folder: Path) -> Path | None:
    lines = [line for line in history if line["stage"] == stage]
    names = [n for n in _names(lines) if "loss" in n]
    if not names:
        return None
    figure, axes = _figure(f"Losses, {stage}")
    for name, colour in zip(names, itertools.cycle(_COLOURS)):
        label = name.removeprefix("loss/").replace("_", " ")
        _plot(axes, _curve(lines, name), label=label, color=colour)
    values = np.concatenate([_curve(lines, name)[1] for name in names])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
    return _save(figure, axes, folder / f"losses_{stage}.svg")


def _evaluations(history: History, metric: str, folder: Path) -> Path:
    parts = [p for p in map(_evaluation, _names(history)) if p and p[2] == metric]
    group = text.main_group(list(dict.fromkeys(p[3] for p in parts)))
    suffix = "" if group == "all" else f" ({group})"
    figure, axes = _figure(text.plotted(metric) + suffix)
    for domain, split, _, _ in (p for p in parts if p[3] == group):
        curve = _curve(history, f"{domain}/{split}/{metric}/{group}")
        style = {"color": _DOMAINS.get(domain, INK), "linestyle": _DASHES.get(split, "-.")}
        _plot(axes, curve, label=f"{domain} {split}", marker="o", markersize=3, **style)
    _mark_stages(axes, history)
    if text.is_fraction(metric):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    return _save(figure, axes, folder / f"{metric.replace('@', '_')}.svg")


def _evaluation(name: str) -> tuple[str, ...] | None:
    parts = tuple(name.split("/"))
    return parts if len(parts) == 4 else None


def _names(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for line in lines for name, value in line.items() if _number(value))
    return [n for n in names if n not in ("stage", "step")]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _offsets(history: History) -> dict[str, int]:
    """The step at which each stage begins, counted from the start of the first."""
    stages = dict.fromkeys(line["stage"] for line in history)
    lengths = [max(line["step"] for line in history if line["stage"] == s) for s in stages]
    return dict(zip(stages, itertools.accumulate(lengths, initial=0), strict=False))


def _curve(lines: History, name: str) -> Curve:
    offsets = _offsets(lines)
    points = [(offsets[x["stage"]] + x["step"], x[name]) for x in lines if _number(x.get(name))]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    if len(steps) > _POINTS:
        bins = np.array_split(np.arange(len(steps)), _POINTS)
        steps, values = (np.array([a[b].mean() for b in bins]) for a in (steps, values))
    return steps, values


def _plot(axes: Axes, curve: Curve, **style: Any) -> None:
    axes.plot(*curve, linewidth=1.4, solid_joinstyle="round", **style)


def _mark_stages(axes: Axes, history: History) -> None:
    offsets = _offsets(history)
    for stage, start in list(offsets.items())[1:]:
        axes.axvline(start, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes.text(start, 0.02, f" {stage}", color=INK, fontsize=8.5, transform=axes.get_xaxis_transform())


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.set_xlabel("step", color=INK, fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.yaxis.label.set(color=INK, fontsize=8.5)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path) -> Path:
    if axes.get_legend_handles_labels()[1]:
        style = {"frameon": False, "fontsize": 8.5, "labelcolor": INK, "handlelength": 1.6}
        figure.legend(loc="outside lower left", ncols=2, **style)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    # text stays text; the salt makes the file a function of its content
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
    return path
