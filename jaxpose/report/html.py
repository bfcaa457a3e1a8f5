"""The report of a run: one HTML file that needs nothing else."""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Note
from jaxpose.report import draw, figures, pages, poses3d, text

_CARDS = 8  # pictures in each section of the gallery
_ARROW = "\N{RIGHTWARDS ARROW}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One picture with what each stage predicted; points are (x, y) in pixels of the picture.

    Attributes:
      image: uint8 (H, W, 3) RGB.
      name: shown below the picture.
      keypoints: (K, 2) labels.
      visible: (K,), 0 where a joint has no label; all 0 for a picture without labels.
      predictions: stage name -> (K, 2), in the order of the stages.
    """

    image: np.ndarray
    name: str
    keypoints: np.ndarray
    visible: np.ndarray
    predictions: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """The pictures of a stage: uint8 RGB (H, W, 3) columns by their captions, with an example in each row."""

    stage: str
    columns: Mapping[str, np.ndarray]


def write_report(
    workdir: Path,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    cases: Sequence[Case],
    skeleton: Skeleton,
    sheets: Sequence[Sheet] = (),
    poses: Sequence[poses3d.Poses] = (),
) -> Path:
    """Writes `figures/*.svg` and at last `report.html`, with everything it shows inside it, into `workdir`.

    Args:
      workdir: created if missing.
      results: the content of results.json: `evaluations` (the last row of each stage) and `references` (columns
        beside the stages: name -> rows of another run, a paper or the mean pose), see `text.tables`; `notes`,
        `recipe`, `pair`, `seed`, `fingerprint`, `timing`, `machine`, `devices`, `versions`, `skipped_records`,
        `data_notes`, `config`, and `source` and `target`, the names of the data sets. Any of them may be missing.
      history: the lines of metrics.jsonl, see `figures.learning_curves`.
      cases: pictures to choose from; at most 24 are shown.
      skeleton: of the cases.
      sheets: pictures of stages.
      poses: poses in space to choose from; at most six of each are shown.

    Returns:
      The path of the report.
    """
    folder = workdir / "figures"
    files = figures.learning_curves(history, folder)
    disparity = figures.disparity_curve(history, folder)
    tables = text.tables(results)
    first = [t for t in tables if (t.domain, t.split) == (tables[0].domain, tables[0].split)]
    source = [t for t in tables if t.domain == "source" and t not in first]
    sides = {
        "left": pages.css_colour(draw.LEFT),
        "right": pages.css_colour(draw.RIGHT),
        "centre": pages.css_colour(draw.CENTRE),
    }
    titles = text.stage_titles(results)
    shown = [poses3d.shown(of, titles) for of in poses]
    script = poses3d.SCRIPT if any(of.turning for of in shown) else ""
    page = pages.render(
        "report.html.jinja",
        recipe=results.get("recipe", "run").replace("_", " "),
        pair=results.get("pair"),
        adapted=" \N{RIGHTWARDS ARROW} ".join(results[k] for k in ("source", "target") if results.get(k)),
        headline=text.headline(results),
        facts=_facts(results),
        notes=results.get("notes", ()),
        clips=text.clip_table(results),
        first=first,
        source=source,
        others=[t for t in tables if t not in first and t not in source],
        metric_title=text.metric_title,
        figures=[pages.svg_uri(f) for f in (*files, disparity) if f],
        sheets=[
            (sheet.stage.replace("_", " "), [(name, pages.image_uri(image)) for name, image in sheet.columns.items()])
            for sheet in sheets
        ],
        summary=_summary(cases),
        sections=_gallery(cases, skeleton, titles),
        poses3d=shown,
        script=script,
        policy=poses3d.policy(),
        sides=sides if skeleton.flips else {},
        data_notes=[f"{note.pop('domain')}: {Note(**note)}" for note in map(dict, results.get("data_notes", ()))],
        skipped=[str(r) for r in results.get("skipped_records", ())],
        config=json.dumps(results["config"], indent=2, default=str) if results.get("config") else "",
        versions=results.get("versions", {}),
    )
    path = workdir / "report.html"
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".html.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Card:
    name: str
    error: str
    panels: tuple[tuple[str, str], ...]  # title, data URI


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Section:
    title: str
    cards: tuple[_Card, ...]


def _gallery(cases: Sequence[Case], skeleton: Skeleton, titles: Mapping[str, str]) -> list[_Section]:
    """Pictures ranked by error and by what adaptation did to it; by movement if no picture has labels."""
    errors = _errors(cases)
    labelled = np.flatnonzero(~np.isnan(errors).any(axis=1))
    if len(labelled) == 0:
        title = "Without labels" + (": where the predictions moved most" if errors.shape[1] > 1 else "")
        chosen = {title: np.argsort([-_movement(c) for c in cases], kind="stable")}
    elif errors.shape[1] == 1:
        order = labelled[np.argsort(-errors[labelled, 0], kind="stable")]
        chosen = {
            "Largest error": order[: len(order) // 2 + 1],
            "Smallest error": order[::-1][: len(order) // 2],
        }
    else:
        after, gain = errors[labelled, -1], _gain(errors[labelled])
        best, worst = np.argsort(-gain, kind="stable"), np.argsort(gain, kind="stable")
        chosen = {
            "Largest improvement": labelled[best[gain[best] > 0]],
            "Got worse": labelled[worst[gain[worst] < 0]],
            "Largest remaining error": labelled[np.argsort(-after, kind="stable")],
        }
    sections = [
        _Section(title=title, cards=tuple(_card(cases[i], errors[i], skeleton, titles) for i in order[:_CARDS]))
        for title, order in chosen.items()
    ]
    return [s for s in sections if s.cards]


def _summary(cases: Sequence[Case]) -> str:
    """How many pictures improved and how many got worse."""
    errors = _errors(cases)
    errors = errors[~np.isnan(errors).any(axis=1)]
    if len(errors) == 0:
        return ""
    medians = np.median(errors[:, [0, -1]], axis=0)
    if errors.shape[1] == 1:
        return f"{len(errors):,} labelled pictures; the median of their mean joint error is {medians[0]:.1f} px."
    gain = _gain(errors)
    better, worse = int((gain >= 0.5).sum()), int((gain <= -0.5).sum())
    return (
        f"Of {len(errors):,} labelled pictures {better:,} improved, {worse:,} got worse and "
        f"{len(errors) - better - worse:,} changed by less than half a pixel. The median of their mean "
        f"joint error went from {medians[0]:.1f} to {medians[1]:.1f} px."
    )


def _errors(cases: Sequence[Case]) -> np.ndarray:
    """Mean distance to the labels in pixels, shape (cases, stages); NaN without labels, infinite if not a number."""
    stages = len(cases[0].predictions) if cases else 0
    errors = np.full((len(cases), stages), np.nan)
    for i, case in enumerate(cases):
        known = np.asarray(case.visible) > 0
        if known.any():
            predicted = np.stack(list(case.predictions.values()))[:, known]
            error = np.linalg.norm(predicted - case.keypoints[known], axis=-1).mean(axis=-1)
            errors[i] = np.where(np.isfinite(error), error, np.inf)
    return errors


def _gain(errors: np.ndarray) -> np.ndarray:
    """How much smaller the last stage's error is than the first's, shape (cases,); NaN if both are infinite."""
    with np.errstate(invalid="ignore"):
        return errors[:, 0] - errors[:, -1]


def _movement(case: Case) -> float:
    first, *_, last = (*case.predictions.values(), *case.predictions.values())
    return float(np.linalg.norm(last - first, axis=-1).mean())


def _card(case: Case, errors: np.ndarray, skeleton: Skeleton, titles: Mapping[str, str]) -> _Card:
    labelled = np.asarray(case.visible) > 0
    drawn = labelled if labelled.any() else np.ones(len(labelled), bool)
    truth = {"ground truth": case.keypoints} if labelled.any() else {}
    points = truth | {titles.get(s, s.replace("_", " ")): p for s, p in case.predictions.items()}
    ends = errors[[0, -1]] if len(errors) > 1 else errors
    return _Card(
        name=case.name,
        error=f" {_ARROW} ".join(f"{e:.1f}" for e in ends) + " px" if labelled.any() else "",
        panels=tuple((title, pages.picture_uri(case.image, p, drawn, skeleton)) for title, p in points.items()),
    )


def _facts(results: Mapping[str, Any]) -> dict[str, str]:
    timing = results.get("timing", {})
    devices = collections.Counter(map(str, results.get("devices", ())))
    facts = {
        "machine": str(results.get("machine", "")),
        "devices": ", ".join(f"{n} \N{MULTIPLICATION SIGN} {d}" if n > 1 else d for d, n in devices.items()),
        "duration": _duration(timing.get("wall_s")),
        "images per second": _format(timing.get("images_per_s"), ",.0f"),
        "step": _format(timing.get("step_s"), ".3f", " s"),
        "compilation": _duration(timing.get("compile_s")),
        "devices waiting for data, at most": _duration(timing.get("device_wait_s")),
        "seed": _format(results.get("seed"), "d"),
        "fingerprint": str(results.get("fingerprint", ""))[:12],
    }
    return {name: fact for name, fact in facts.items() if fact}


def _format(value: int | float | None, spec: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{spec}}{unit}"


def _duration(seconds: int | float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
