"""The results of a run as tables, in words, and as plain text for the terminal."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from jaxpose import metrics
from jaxpose.metrics.metric import CLIP, JOINT

EvaluationRow = Mapping[str, Any]  # stage, domain, split, metric, group, value, count

SOURCE_ONLY, ORACLE, FLOOR = "source-only", "oracle", "mean pose"  # columns that are no method's

MISSING = "\N{EN DASH}"
_SPACE = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_PLAIN = str.maketrans({MISSING: "-", _SPACE: " ", _MINUS: "-", "\N{RIGHTWARDS ARROW}": "->"})
_STAGES = {"pretrain": SOURCE_ONLY, "adapt": "adapted"}
_SPLITS = ("test", "validation", "train")
_MAIN_GROUPS = ("all", "sum", "mean")
_CLIPS = 40  # rows of a table of clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRow:
    """One joint group: formatted values by stage and reference; the change is last minus first stage.

    Attributes:
      track: where the first and the last stage stand on a scale from 0 to 1, None if one of them is missing.
    """

    group: str
    main: bool
    values: tuple[str, ...]
    change: str
    improved: bool | None
    references: tuple[str, ...]
    count: str
    track: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One metric on one split of one domain; rows are joint groups, columns stages, then references."""

    domain: str
    split: str
    metric: str
    lower_is_better: bool
    stages: tuple[str, ...]
    references: tuple[str, ...]
    rows: tuple[TableRow, ...]


def summary_table(results: Mapping[str, Any]) -> str:
    """All tables of `results` (source-only, adapted, change, references) as aligned ASCII text; headline and notes."""
    lines = [headline(results)]
    for table in tables(results):
        changes = len(table.stages) > 1
        header = (f"{metric_title(table.metric)}, {table.domain} {table.split}", *table.stages)
        cells = [(*header, *(("change",) if changes else ()), *table.references, "labels")]
        for row in table.rows:
            cells.append((row.group, *row.values, *((row.change,) if changes else ()), *row.references, row.count))
        lines += ["", *align(cells)]
    if remarks := results.get("notes"):
        lines += ["", *(f"- {note}" for note in remarks)]
    return plain("\n".join(lines))


def plain(line: str) -> str:
    """For terminals: without dashes, arrows and spaces that are not ASCII."""
    return line.translate(_PLAIN)


def tables(results: Mapping[str, Any]) -> list[Table]:
    """One table per domain, split and metric: target before source, test first.

    `results["references"]` are rows of other runs, papers or the mean pose, by the name of their column; their stage
    is not read.
    """
    rows = results.get("evaluations", ())
    blocks = dict.fromkeys(_place(r)[:3] for r in rows)
    places = sorted(blocks, key=lambda b: (b[0] != "target", b[0], _split_order(b[1])))
    return [_table(results, place, _shown(_groups(rows, place))) for place in places]


def clip_table(results: Mapping[str, Any]) -> Table | None:
    """The first metric by clip, on the target if there is one: those first that lost most, then by value."""
    rows = results.get("evaluations", ())
    places = [_place(row)[:3] for row in rows if row["group"].startswith(CLIP)]
    places.sort(key=lambda place: place[0] != "target")
    if not places:
        return None
    sign = -1 if lower_is_better(places[0][2]) else 1
    known = {(row["stage"], row["group"]): row["value"] for row in rows if _place(row)[:3] == places[0]}
    stages = list(dict.fromkeys(stage for stage, _ in known))

    def rank(group: str) -> tuple[float, float]:
        first, last = (known.get((stage, group), 0.0) for stage in (stages[0], stages[-1]))
        return sign * (last - first), sign * last

    groups = [group for group in _groups(rows, places[0]) if group.startswith(CLIP)]
    return _table(results, places[0], sorted(groups, key=rank)[:_CLIPS])


def _table(results: Mapping[str, Any], place: tuple[str, str, str], groups: Sequence[str]) -> Table:
    domain, split, metric = place
    names = stage_titles(results)
    values = {(r["stage"], *_place(r)): r for r in results["evaluations"]}
    references = results.get("references", {})
    known = {name: {_place(r): r["value"] for r in reference} for name, reference in references.items()}
    stages = tuple(s for s in names if any(k[:4] == (s, *place) for k in values))
    shown = tuple(name for name in known if any(k[:3] == place for k in known[name]))
    numbers = [[values[s, *place, g]["value"] if (s, *place, g) in values else None for s in stages] for g in groups]
    top = max((abs(v) for line in numbers for v in line if _finite(v)), default=0) or 1.0
    return Table(
        domain=domain,
        split=split,
        metric=metric,
        lower_is_better=lower_is_better(metric),
        stages=tuple(names[s] for s in stages),
        references=shown,
        rows=tuple(
            TableRow(
                group=group.removeprefix(JOINT).removeprefix(CLIP),
                main=group == main_group(groups) and not group.startswith(CLIP),
                values=tuple(format_value(metric, v) for v in line),
                change=_format_change(metric, line[0], line[-1]),
                improved=_improved(metric, line[0], line[-1]),
                references=tuple(format_value(metric, known[name].get((*place, group))) for name in shown),
                count=_count(values[s, *place, group] for s in stages if (s, *place, group) in values),
                track=_track(metric, line[0], line[-1], top),
            )
            for group, line in zip(groups, numbers, strict=True)
        ),
    )


def _groups(rows: Iterable[EvaluationRow], place: tuple[str, str, str]) -> list[str]:
    return list(dict.fromkeys(row["group"] for row in rows if _place(row)[:3] == place))


def headline(results: Mapping[str, Any]) -> str:
    """The result in one sentence: the first metric, over all joints, on the target's test split."""
    shown = tables(results)
    if not shown:
        return "This run recorded no evaluation."
    table = shown[0]
    row = next(r for r in table.rows if r.main)
    what = metric_title(table.metric) + ("" if row.group == "all" else f" ({row.group})")
    where = f"{what} on the {table.domain} {table.split} split"
    if len(table.stages) == 1:
        return f"{where}: {row.values[0]} ({table.stages[0]})"
    after = "after adaptation" if table.stages[-1] == "adapted" else table.stages[-1]
    unit = " points" if is_fraction(table.metric) else _unit(table.metric)
    return (
        f"{where}: {row.values[0]} {table.stages[0]} \N{RIGHTWARDS ARROW} {row.values[-1]} {after} ({row.change}{unit})"
    )


def stage_titles(results: Mapping[str, Any]) -> dict[str, str]:
    """What to call each stage that was evaluated, in order. The only stage bears the name of its recipe."""
    stages: list[str] = list(dict.fromkeys(r["stage"] for r in results.get("evaluations", ())))
    if len(stages) == 1:
        return {stages[0]: results.get("recipe", stages[0]).replace("_", " ")}
    return {s: _STAGES.get(s, s.replace("_", " ")) for s in stages}


def metric_title(metric: str) -> str:
    """`tllib_pck@0.05` -> `tllib PCK@0.05`."""
    if metric == "error_px":
        return "error in pixels of the image"
    acronyms = r"\b(pck|pckh|3dpck|3dauc|oks|ap|ar|auc|mae|n(?= )|pa|mpjpe|epe|nme)\b"
    return re.sub(acronyms, lambda m: m[0].upper(), metric.replace("_", " ")).replace("PCKH", "PCKh")


def plotted(metric: str) -> str:
    """The title of a metric whose values are shown without their unit: `mpjpe` -> `MPJPE in mm`."""
    unit = _unit(metric).strip()
    return f"{metric_title(metric)} in {unit}" if unit else metric_title(metric)


def main_group(groups: Sequence[str]) -> str:
    """The group that stands for all joints: `all`, for errors by axis `sum`, else the first."""
    return next((g for g in _MAIN_GROUPS if g in groups), groups[0])


def lower_is_better(metric: str) -> bool:
    """Whether the metric is an error."""
    return metrics.scale_of(metric).lower_is_better


def is_fraction(metric: str) -> bool:
    """Whether its values are shown in percent."""
    return metrics.scale_of(metric).unit == "fraction"


def format_value(metric: str, value: int | float | None) -> str:
    """Fractions in percent, lengths in millimetres with their unit."""
    if not _finite(value):
        return MISSING
    if is_fraction(metric):
        return f"{100 * value:.{digits(metric)}f}{_SPACE}%".replace("-", _MINUS)
    return f"{value:.{digits(metric)}f}{_unit(metric)}"


def digits(metric: str) -> int:
    """Decimals of a value, of fractions in percent."""
    return metrics.scale_of(metric).digits


def _unit(metric: str) -> str:
    """A unit that titles do not say, with the space before it."""
    return f"{_SPACE}mm" if metrics.scale_of(metric).unit == "mm" else ""


def _format_change(metric: str, before: int | float | None, after: int | float | None) -> str:
    if not (_finite(before) and _finite(after)):
        return MISSING
    change = (after - before) * (100 if is_fraction(metric) else 1)
    text = f"{change:+.{digits(metric)}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", _MINUS)


def _improved(metric: str, before: int | float | None, after: int | float | None) -> bool | None:
    """None if there is no visible difference."""
    text = _format_change(metric, before, after)
    if text[0] not in ("+", _MINUS):
        return None
    return (text[0] == "+") != lower_is_better(metric)


def _track(
    metric: str, before: int | float | None, after: int | float | None, top: float
) -> tuple[float, float] | None:
    if not (_finite(before) and _finite(after)):
        return None
    scale = top if lower_is_better(metric) else 1.0
    return min(max(before / scale, 0.0), 1.0), min(max(after / scale, 0.0), 1.0)


def _finite(value: int | float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _place(row: EvaluationRow) -> tuple[str, str, str, str]:
    return row["domain"], row["split"], row["metric"], row["group"]


def _shown(groups: Sequence[str]) -> list[str]:
    """Report groups; where a skeleton has none but `all`, its joints."""
    of_joints = [group for group in groups if not group.startswith(CLIP)]
    grouped = [group for group in of_joints if not group.startswith(JOINT)]
    return grouped if len(grouped) > 1 else of_joints


def _split_order(split: str) -> int:
    return _SPLITS.index(split) if split in _SPLITS else len(_SPLITS)


def _count(rows: Iterable[EvaluationRow]) -> str:
    count = max((r["count"] for r in rows if r.get("count") is not None), default=None)
    return MISSING if count is None else f"{int(count):,}"


def align(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(c) for c in column) for column in zip(*cells, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    ]
