"""One table for several methods and seeds."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpose.metrics.metric import CLIP, JOINT
from jaxpose.report import figures, notes, pages, text

EvaluationHistory = Sequence[Mapping[str, float]]
EvaluationRows = Sequence[Mapping[str, Any]]

_PLACES = (("target", "test"), ("target", "validation"), ("source", "test"), ("source", "validation"))
_CHOICES = ("source_choice", "target_choice")
_CLIPS = 40  # rows of the table of clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResults:
    """One method with one seed.

    Attributes:
      rows: evaluations at the end.
      floor: the same rows of the mean pose.
      curve: evaluations in the course of training, the last one at the end: `domain/split/metric/group` -> value.
      timing: of `results.json`.
      seed, fingerprint: of the run.
      machine: where it was made.
    """

    rows: EvaluationRows
    floor: EvaluationRows = ()
    curve: EvaluationHistory
    timing: Mapping[str, Any]
    seed: int = 0
    fingerprint: str = ""
    machine: str = ""


def summarize(runs: Mapping[str, Sequence[RunResults]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, per method, metric, report group and choice of the checkpoint.

    The checkpoint is the last one; the best on the source's validation split (its test split if it has none); or the
    best on the target's test labels, which nobody has who needs adaptation: published numbers mix the three.

    Returns:
      JSON: `place`: domain and split that are measured, the target's test split or what comes nearest, None if nothing
      is. `methods`: name -> `last`: metric -> group -> [mean, deviation], which is None of one seed; `clips`: the same
      by clip; `source_choice` and `target_choice`: metric -> [mean, deviation]; `gap`: metric -> share of the gap
      between source-only and oracle; `wall_s`, `step_s` and `images_per_s`: medians; `runs`: seed, fingerprint and
      machine of each. `floor`: `last` and `clips` of the mean pose. `groups`: of each metric. `source_split`: which one
      the source's choice was made on. `seeds`: how many. `notes`: what to know before trusting the numbers.
    """
    place = _place([run for several in runs.values() for run in several])
    methods: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    for name, several in runs.items():
        summary = _means([run.rows for run in several], place)
        for metric, values in summary["last"].items():
            groups.setdefault(metric, list(values))
        methods[name] = {
            "runs": [{"seed": r.seed, "fingerprint": r.fingerprint, "machine": r.machine} for r in several],
            **summary,
            "source_choice": _choose(several, summary["last"], place, _source_score),
            "target_choice": _choose(several, summary["last"], place, _target_score),
        } | {key: statistics.median(run.timing[key] for run in several) for key in ("wall_s", "step_s", "images_per_s")}
    floors = [run.floor for run in next(iter(runs.values()))]  # the same for all methods
    table = {
        "place": place,
        "methods": methods,
        "floor": _means(floors, place),
        "groups": groups,
        "source_split": _source_split(run.curve for several in runs.values() for run in several),
        "seeds": max(len(several) for several in runs.values()),
    }
    values = {metric: _values(table, metric, text.main_group(named)) for metric, named in groups.items()}
    for name, summary in methods.items():
        adapted = place is not None and place[0] == "target" and name not in (text.SOURCE_ONLY, text.ORACLE)
        summary["gap"] = {m: notes.gap_share(m, v, name) if adapted else None for m, v in values.items()}
    return table | {"notes": _notes(table)}


def text_table(table: Mapping[str, Any]) -> str:
    """The main metric as lines to print, and the notes."""
    lines = [["", *_head(table), "wall s", "images/s"]]
    metric, group = _main(table)
    for name, cells, method in _lines(table, metric, [group] if group else []):
        timing = [f"{method['wall_s']:.0f}", f"{method['images_per_s']:.0f}"] if method else ["", ""]
        lines.append([name, *cells, *timing])
    title = "" if metric is None else f"{text.plotted(metric)} {_where(table)}, {_over(table)}"
    said = [f"- {note}" for note in table["notes"]]
    return text.plain("\n".join(["", title, *text.align(lines), "", *said]).rstrip())


def write_page(workdir: Path, pair: str, table: Mapping[str, Any]) -> Path:
    """Writes `compare.html` with its figure."""
    tables = []
    for metric, groups in table["groups"].items():
        main = text.main_group(groups)
        ordered = [main, *(g for g in groups if g != main)]
        rows = [
            (name, cells, _duration(method), f"{method['images_per_s']:.0f}" if method else "")
            for name, cells, method in _lines(table, metric, ordered)
        ]
        tables.append((text.plotted(metric), text.lower_is_better(metric), ordered, rows))
    metric, group = _main(table)
    figure = None
    if metric is not None and group is not None:
        ends = {n: m["last"].get(metric, {}).get(group, (None, None)) for n, m in table["methods"].items()}
        floor = table["floor"]["last"].get(metric, {}).get(group)
        where = " ".join(table["place"])
        path = figures.methods_plot(metric, ends, floor and floor[0], where, workdir / "figures")
        figure = pages.svg_uri(path)
    page = pages.render(
        "compare.html.jinja",
        pair=pair,
        where=_where(table),
        over=_over(table),
        source_split=table["source_split"],
        head=_head(table),
        tables=tables,
        clips=_clips(table, metric),
        notes=table["notes"],
        runs=[
            (name, run["seed"], run["fingerprint"][:8], run["machine"])
            for name, method in table["methods"].items()
            for run in method["runs"]
        ],
        figure=figure,
    )
    path = workdir / "compare.html"
    path.write_text(page, encoding="utf-8")
    return path


def _place(runs: Sequence[RunResults]) -> tuple[str, str] | None:
    """The first of `_PLACES` that all runs were measured on."""
    measured = [{(row["domain"], row["split"]) for row in run.rows} for run in runs]
    return next((place for place in _PLACES if all(place in places for places in measured)), None)


def _means(several: Sequence[EvaluationRows], place: tuple[str, str] | None) -> dict[str, Any]:
    """`last` and `clips` of `summarize`."""
    grouped: dict[str, dict[str, dict[str, list[float]]]] = {"last": {}, "clips": {}}
    for rows in several:
        for row in rows:
            if (row["domain"], row["split"]) == place and not row["group"].startswith(JOINT):
                kind = "clips" if row["group"].startswith(CLIP) else "last"
                values = grouped[kind].setdefault(row["metric"], {})
                values.setdefault(row["group"].removeprefix(CLIP), []).append(row["value"])
    return {
        kind: {metric: {group: _spread(v) for group, v in values.items()} for metric, values in metrics.items()}
        for kind, metrics in grouped.items()
    }


def _choose(
    runs: Sequence[RunResults],
    last: Mapping[str, Mapping[str, Any]],
    place: tuple[str, str] | None,
    score: Callable[[Mapping[str, float], str, str], Any],
) -> dict[str, list[float | None]]:
    """What the target would get from a choice among the checkpoints; nothing where it is not measured."""
    chosen: dict[str, list[float]] = {}
    if place != ("target", "test"):
        return {}
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


def _source_split(curves: Iterable[EvaluationHistory]) -> str | None:
    names = {name for curve in curves for point in curve for name in point}
    return next((s for s in ("validation", "test") if any(n.startswith(f"source/{s}/") for n in names)), None)


def _spread(values: Sequence[float]) -> list[float | None]:
    return [statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None]


def _values(table: Mapping[str, Any], metric: str, group: str, kind: str = "last") -> dict[str, float]:
    """The means of all methods and the floor that have a metric and group."""
    columns = {**table["methods"], text.FLOOR: table["floor"]}
    cells = {name: column[kind].get(metric, {}).get(group) for name, column in columns.items()}
    return {name: cell[0] for name, cell in cells.items() if cell is not None}


def _notes(table: Mapping[str, Any]) -> list[str]:
    sentences = []
    domain, split = table["place"] or (None, None)
    if domain is None:
        sentences.append(notes.NOTHING_AT_ALL)
    elif domain != "target":
        sentences.append(notes.NOTHING_ON_THE_TARGET)
    elif split != "test":
        sentences.append("The target has no labelled test split: its validation split is measured.")
    if text.ORACLE not in table["methods"]:
        sentences.append("There is no oracle, as the target has no labels to train on.")
    if table["seeds"] == 1:
        sentences.append("One seed says nothing of how far results scatter: several points are common in short runs.")
    if table["source_split"] == "test" and any(m["source_choice"] for m in table["methods"].values()):
        sentences.append("The source has no validation split: its choice of a checkpoint is made on its test split.")
    if len({run["machine"] for method in table["methods"].values() for run in method["runs"]}) > 1:
        sentences.append("The runs are from different machines, which short runs tell apart as they do seeds.")
    values = {m: _values(table, m, text.main_group(groups)) for m, groups in table["groups"].items()}
    if domain == "target":
        sentences += notes.of_values(values)
        metric, _ = _main(table)
        sentences += [] if metric is None else notes.of_clips(metric, _by_clip(table, metric))
    return sentences


def _by_clip(table: Mapping[str, Any], metric: str) -> dict[str, dict[str, float]]:
    clips = dict.fromkeys(c for m in table["methods"].values() for c in m["clips"].get(metric, ()))
    return {clip: _values(table, metric, clip, "clips") for clip in clips}


def _clips(table: Mapping[str, Any], metric: str | None) -> tuple[str, list[str], list[tuple[str, list[str]]]] | None:
    """Title, columns and lines of the table of clips, those first on which source-only is worst."""
    by_clip = {} if metric is None else _by_clip(table, metric)
    if metric is None or not by_clip:
        return None
    columns = [*table["methods"], text.FLOOR]
    sign = -1 if text.lower_is_better(metric) else 1
    order = sorted(by_clip, key=lambda clip: sign * next(iter(by_clip[clip].values())))[:_CLIPS]
    lines = [(clip, [text.format_value(metric, by_clip[clip].get(name)) for name in columns]) for clip in order]
    return text.metric_title(metric), columns, lines


def _main(table: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The first metric that all methods have, or else the first, and its main group."""
    every = [metric for metric in table["groups"] if all(metric in m["last"] for m in table["methods"].values())]
    metric = next(iter(every or table["groups"]), None)
    return metric, None if metric is None else text.main_group(table["groups"][metric])


def _head(table: Mapping[str, Any]) -> list[str]:
    """The columns after the name."""
    if not table["groups"]:
        return []
    if tuple(table["place"]) != ("target", "test"):
        return ["last"]
    return ["last", "gap", "source choice", "target choice"]


def _lines(
    table: Mapping[str, Any], metric: str | None, groups: Sequence[str]
) -> list[tuple[str, list[str], Mapping[str, Any] | None]]:
    """Name, cells (the first group, what `_head` says, the other groups) and method of each line; last the floor."""
    lines: list[tuple[str, list[str], Mapping[str, Any] | None]] = []
    more = len(_head(table)) > 1
    for name, method in table["methods"].items():
        cells = [] if metric is None else [_show(metric, method["last"].get(metric, {}).get(g)) for g in groups]
        if metric is not None and more:
            share = method["gap"][metric]
            gap = text.MISSING if share is None else f"{100 * share:.0f} %"
            cells[1:1] = [gap, *(_show(metric, method[choice].get(metric)) for choice in _CHOICES)]
        lines.append((name, cells, method))
    floor = table["floor"]["last"].get(metric, {})
    if metric is not None and floor:
        cells = [_show(metric, floor.get(g)) for g in groups]
        cells[1:1] = [text.MISSING] * 3 if more else []
        lines.append((text.FLOOR, cells, None))
    return lines


def _where(table: Mapping[str, Any]) -> str:
    return "" if table["place"] is None else "on the {}'s {} split".format(*table["place"])


def _over(table: Mapping[str, Any]) -> str:
    seeds = table["seeds"]
    return "one seed" if seeds == 1 else f"mean \N{PLUS-MINUS SIGN} deviation over {seeds} seeds"


def _duration(method: Mapping[str, Any] | None) -> str:
    return "" if method is None else f"{method['wall_s']:.0f} s"


def _show(metric: str, cell: Sequence[float | None] | None) -> str:
    """Mean and deviation, without the latter for one seed."""
    if cell is None or cell[0] is None:
        return text.MISSING
    scale = 100 if text.is_fraction(metric) else 1
    numbers = [f"{scale * value:.{text.digits(metric)}f}" for value in cell if value is not None]
    return " \N{PLUS-MINUS SIGN} ".join(numbers)
