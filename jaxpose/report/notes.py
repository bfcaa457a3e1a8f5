"""What a reader of results would take for better or surer than it is, in sentences; for terminal, pages and JSON alike.

Values are told apart by the names of their columns: `text.SOURCE_ONLY`, `text.ORACLE`, `text.FLOOR`, and any others,
which are methods.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxpose.metrics.metric import CLIP
from jaxpose.report import text

Values = Mapping[str, float]  # column -> value

_ENDS = (text.SOURCE_ONLY, text.ORACLE, text.FLOOR)
_MUCH = 0.5  # fraction of points that a constant prediction finds, from which a metric says little


def of_run(results: Mapping[str, Any]) -> list[str]:
    """What there is to say about `results.json`."""
    rows = results.get("evaluations", ())
    names = _columns(results)
    splits = ("test", "validation", "train")
    place = next((("target", split) for split in splits if _at(rows, ("target", split))), None)
    notes = []
    if start := results.get("start"):
        notes.append(
            f"{text.SOURCE_ONLY.capitalize()} is the model of {start['workdir']} ({start['recipe']} on "
            f"{start['source']}, {start['step']:,} steps, {start['fingerprint'][:8]}), measured on this run's data."
        )
    if skipped := results.get("skipped_records", ()):
        more = ", ..." if len(skipped) > 1 else ""
        notes.append(f"Left out as their images cannot be decoded: {len(skipped):,} ({skipped[0]}{more}).")
    if place is None:
        if not rows:
            return [*notes, NOTHING_AT_ALL]
        where = sorted({row["domain"] for row in rows})
        others = f"{NOT_ON_THE_TARGET} {' and '.join(where)}."
        return [*notes, NOTHING_ON_THE_TARGET if where == ["source"] else others]
    if place == ("target", "train"):
        notes.append("The target has no split for testing: its numbers are of training images.")
    columns = {name: _at(rows, place, stage) for stage, name in names.items()}
    columns |= {name: _at(reference, place) for name, reference in results.get("references", {}).items()}
    metrics = list(dict.fromkeys(row["metric"] for row in _at(rows, place)))
    values: dict[str, Values] = {}
    for metric in metrics:
        group = text.main_group([row["group"] for row in _at(rows, place) if row["metric"] == metric])
        values[metric] = _column_values(columns, metric, group)
    notes += of_values(values)
    if (share := gap_share(metrics[0], values[metrics[0]], _method(values[metrics[0]]))) is not None and share > 0:
        ends = [text.format_value(metrics[0], values[metrics[0]][name]) for name in (text.SOURCE_ONLY, text.ORACLE)]
        notes.append(
            f"Adaptation closes {100 * share:.0f} % of the gap in {text.metric_title(metrics[0])} between "
            f"{text.SOURCE_ONLY} ({ends[0]}) and {text.ORACLE} ({ends[1]})."
        )
    clips = dict.fromkeys(r["group"] for r in _at(rows, place) if r["group"].startswith(CLIP))
    values_of = {clip.removeprefix(CLIP): _column_values(columns, metrics[0], clip) for clip in clips}
    return notes + of_clips(metrics[0], values_of)


NOTHING_ON_THE_TARGET = (
    "Nothing is measured on the target, which has no labels for testing: the numbers are the source's, and none says "
    "how well adaptation worked."
)
NOT_ON_THE_TARGET = "Nothing is measured on the target: the numbers are of"
NOTHING_AT_ALL = "Nothing is measured: nothing is found for which there are labels for testing."


def of_values(values: Mapping[str, Values]) -> list[str]:
    """What is worse than it should be, and what a constant prediction reaches too; by metric, over all joints."""
    notes = []
    for name in dict.fromkeys(name for columns in values.values() for name in columns):
        if name in (text.SOURCE_ONLY, text.FLOOR):
            continue
        worse = [
            f"{text.metric_title(metric)} ({text.format_value(metric, columns[name])} against "
            f"{text.format_value(metric, columns[text.SOURCE_ONLY])})"
            for metric, columns in values.items()
            if _worse(metric, columns.get(name), columns.get(text.SOURCE_ONLY))
        ]
        if worse:
            end = ": it is no upper bound here" if name == text.ORACLE else ""
            notes.append(f"{_named(name)} is worse than {text.SOURCE_ONLY} in {', '.join(worse)}{end}.")
    return notes + _of_the_floor(values)


def of_clips(metric: str, clips: Mapping[str, Values]) -> list[str]:
    """The clip that is worst after adaptation, and the one that lost most under every method."""
    title, sign = text.metric_title(metric), -1 if text.lower_is_better(metric) else 1
    methods = {clip: {n: v for n, v in values.items() if n not in _ENDS} for clip, values in clips.items()}
    if not any(methods.values()):
        methods = {clip: {n: v for n, v in values.items() if n == text.SOURCE_ONLY} for clip, values in clips.items()}
    methods = {clip: values for clip, values in methods.items() if values}
    if not methods:
        return []
    best = {clip: max(values.values(), key=lambda v: sign * v) for clip, values in methods.items()}
    worst = min(best, key=lambda clip: sign * best[clip])
    several = max(len(values) for values in methods.values()) > 1
    how = " with the best method for it" if several else ""
    notes = [f"Worst of {len(clips)} clips: {worst}, {title} {text.format_value(metric, best[worst])}{how}."]
    before = {clip: values[text.SOURCE_ONLY] for clip, values in clips.items() if text.SOURCE_ONLY in values}
    lost = [clip for clip in best if clip in before and _worse(metric, best[clip], before[clip])]
    if lost:
        most = min(lost, key=lambda clip: sign * (best[clip] - before[clip]))
        under = "under every method" if several else "after adaptation"
        notes.append(
            f"{len(lost)} of {len(clips)} clips {'is' if len(lost) == 1 else 'are'} worse {under} than "
            f"{text.SOURCE_ONLY}, most of all {most}: {text.format_value(metric, before[most])} \N{RIGHTWARDS ARROW} "
            f"{text.format_value(metric, best[most])}{' at best' if several else ''}."
        )
    return notes


def _of_the_floor(values: Mapping[str, Values]) -> list[str]:
    constant = "the mean pose of the source's labels, predicted for every image,"
    no_better: dict[tuple[str, ...], list[str]] = {}
    notes = []
    for metric, columns in values.items():
        floor = columns.get(text.FLOOR)
        if floor is None:
            continue
        title, shown = text.metric_title(metric), text.format_value(metric, floor)
        names = tuple(n for n, v in columns.items() if n != text.FLOOR and not _worse(metric, floor, v))
        if names:
            no_better.setdefault(names, []).append(f"{title} ({shown})")
        elif not text.lower_is_better(metric) and floor >= _MUCH:
            notes.append(f"{title} says little here: {constant} reaches {shown}.")
    for names, metrics in no_better.items():
        notes.append(f"No better than {constant} in {', '.join(metrics)}: {', '.join(names)}.")
    return notes


def gap_share(metric: str, values: Values, name: str | None) -> float | None:
    """How much of the way from source-only to the oracle a method goes; None where the oracle is not the better one."""
    low, high, reached = (values.get(key) for key in (text.SOURCE_ONLY, text.ORACLE, name or ""))
    if low is None or high is None or reached is None or not _worse(metric, low, high):
        return None
    return (reached - low) / (high - low)


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    """Stages by the names of their columns: a first stage of several, and a run of that recipe, is source-only."""
    titles = text.stage_titles(results)
    alone = len(titles) == 1
    return {
        stage: text.SOURCE_ONLY if alone and title == text.SOURCE_ONLY.replace("-", " ") else title
        for stage, title in titles.items()
    }


def _method(values: Values) -> str | None:
    """The last column that is a method's."""
    names = [name for name in values if name not in _ENDS]
    return names[-1] if names else None


def _column_values(columns: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, group: str) -> Values:
    return {
        name: row["value"]
        for name, rows in columns.items()
        for row in rows
        if (row["metric"], row["group"]) == (metric, group)
    }


def _at(rows: Sequence[Mapping[str, Any]], place: tuple[str, str], stage: str | None = None) -> list[Mapping[str, Any]]:
    return [r for r in rows if (r["domain"], r["split"]) == place and stage in (None, r.get("stage"))]


def _worse(metric: str, value: float | None, than: float | None) -> bool:
    """Whether a value is visibly worse than another."""
    if value is None or than is None:
        return False
    sign = -1 if text.lower_is_better(metric) else 1
    return sign * value < sign * than and text.format_value(metric, value) != text.format_value(metric, than)


def _named(name: str) -> str:
    return {text.ORACLE: "The oracle", "adapted": "The adapted model"}.get(name, name)
