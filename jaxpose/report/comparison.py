"""One table for several methods and seeds."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpose.report import figures, pages, text

Curve = Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One method with one seed.

    Attributes:
      rows: evaluations at the end.
      curve: evaluations in the course of training, the last one at the end: `domain/split/metric/group` -> value.
      timing: of `results.json`.
    """

    rows: Sequence[Mapping[str, Any]]
    curve: Curve
    timing: Mapping[str, Any]


def summarize(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, per method, metric, report group and choice of the checkpoint.

    The checkpoint is the last one; the best on the source's validation split (its test split if it has none); or the
    best on the target's test labels, which nobody has who needs adaptation: published numbers mix the three.

    Returns:
      JSON: `methods`: name -> `last`: metric -> group -> [mean, deviation]; `source_choice` and `target_choice`: metric
      -> [mean, deviation]; `wall_s`, `step_s` and `images_per_s`: medians; `seeds`. `groups`: of each metric.
    """
    methods: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    for name, several in runs.items():
        last: dict[str, dict[str, list[float]]] = {}
        for run in several:
            for row in run.rows:
                if (row["domain"], row["split"]) == ("target", "test") and not row["group"].startswith("joint:"):
                    last.setdefault(row["metric"], {}).setdefault(row["group"], []).append(row["value"])
        for metric, values in last.items():
            groups.setdefault(metric, list(values))
        methods[name] = {
            "seeds": len(several),
            "last": {metric: {g: _spread(v) for g, v in values.items()} for metric, values in last.items()},
            "source_choice": _choose(several, last, _source_score),
            "target_choice": _choose(several, last, _target_score),
        } | {key: statistics.median(run.timing[key] for run in several) for key in ("wall_s", "step_s", "images_per_s")}
    return {"methods": methods, "groups": groups}


def text_table(table: Mapping[str, Any]) -> str:
    """The main metric as lines to print."""
    metric = next(iter(table["groups"]))
    group = text.main_group(table["groups"][metric])
    lines = [["", "last", "source choice", "target choice", "wall s", "images/s"]]
    for name, found in table["methods"].items():
        cells = [found["last"][metric][group], found["source_choice"].get(metric), found["target_choice"].get(metric)]
        timing = [f"{found['wall_s']:.0f}", f"{found['images_per_s']:.0f}"]
        lines.append([name, *(_show(metric, cell) for cell in cells), *timing])
    title = f"{text.metric_title(metric)} on the target's test split, mean \N{PLUS-MINUS SIGN} deviation over seeds"
    return "\n".join(["", title, *text.align(lines)])


def write_page(workdir: Path, pair: str, table: Mapping[str, Any]) -> Path:
    """Writes `compare.html` with its figure."""
    shown = []
    for metric, groups in table["groups"].items():
        main = text.main_group(groups)
        ordered = [main, *(g for g in groups if g != main)]
        rows = [
            (
                name,
                [_show(metric, found["last"][metric].get(g)) for g in ordered],
                [_show(metric, found[choice].get(metric)) for choice in ("source_choice", "target_choice")],
                f"{found['wall_s']:.0f} s",
                f"{found['images_per_s']:.0f}",
            )
            for name, found in table["methods"].items()
        ]
        shown.append((text.metric_title(metric), text.lower_is_better(metric), ordered, rows))
    metric = next(iter(table["groups"]))
    group = text.main_group(table["groups"][metric])
    ends = {name: found["last"][metric][group] for name, found in table["methods"].items()}
    figure = figures.methods_plot(text.metric_title(metric), ends, workdir / "figures")
    page = pages.render(
        "compare.html.jinja",
        pair=pair,
        seeds=max(found["seeds"] for found in table["methods"].values()),
        tables=shown,
        figure=pages.svg_uri(figure),
    )
    path = workdir / "compare.html"
    path.write_text(page, encoding="utf-8")
    return path


def _choose(
    runs: Sequence[Run], last: Mapping[str, Mapping[str, Any]], score: Callable[[Mapping[str, float], str, str], Any]
) -> dict[str, list[float]]:
    chosen: dict[str, list[float]] = {}
    for metric, groups in last.items():
        group = text.main_group(list(groups))
        sign = -1 if text.lower_is_better(metric) else 1
        for run in runs:
            points = [point for point in run.curve if score(point, metric, group) is not None]
            if points:
                best = max(points, key=lambda point: sign * score(point, metric, group))
                chosen.setdefault(metric, []).append(best[f"target/test/{metric}/{group}"])
    return {metric: _spread(values) for metric, values in chosen.items()}


def _source_score(point: Mapping[str, float], metric: str, group: str) -> float | None:
    return point.get(f"source/validation/{metric}/{group}", point.get(f"source/test/{metric}/{group}"))


def _target_score(point: Mapping[str, float], metric: str, group: str) -> float | None:
    return point.get(f"target/test/{metric}/{group}")


def _spread(values: Sequence[float]) -> list[float]:
    return [statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0]


def _show(metric: str, cell: Sequence[float] | None) -> str:
    if cell is None:
        return "\N{EN DASH}"
    scale, digits = (1, 3) if text.lower_is_better(metric) else (100, 1)
    return f"{scale * cell[0]:.{digits}f} \N{PLUS-MINUS SIGN} {scale * cell[1]:.{digits}f}"
