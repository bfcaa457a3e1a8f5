"""What is said beside numbers that would be taken for better than they are."""

from typing import Any

import pytest

from jaxpose.report import notes, text

START = {
    "workdir": "runs/x",
    "recipe": "source_only",
    "source": "bodies:studio",
    "step": 1500,
    "fingerprint": "0123456789abcdef",
}


def row(stage: str, value: float, *, group: str = "all", metric: str = "pck@0.05", **place: str) -> dict[str, Any]:
    where = {"domain": "target", "split": "test"} | place
    return {"stage": stage, "step": 3, "metric": metric, "group": group, "value": value, "count": 100, **where}


def run(before: float, after: float, *, oracle: float | None = None, floor: float = 0.05, **more: Any) -> list[str]:
    """What is said of a run by the PCK of its stages and references."""
    references = {text.FLOOR: [row("", floor)]} | ({} if oracle is None else {text.ORACLE: [row("pretrain", oracle)]})
    return notes.of_run(
        {"evaluations": [row("pretrain", before), row("adapt", after)], "references": references} | more
    )


def said(found: list[str]) -> str:
    return text.plain(" ".join(found))


def test_nothing_is_said_of_a_run_without_surprises() -> None:
    assert run(0.4, 0.6) == []


def test_images_that_were_left_out_are_counted() -> None:
    assert run(0.4, 0.6, skipped_records=[]) == []
    assert "images cannot be decoded: 2 (target: a.png, ...)." in said(
        run(0.4, 0.6, skipped_records=["target: a.png", "target: b.png"])
    )


def test_the_share_of_the_gap_needs_an_oracle_that_is_above() -> None:
    (note,) = run(0.4, 0.55, oracle=0.7)
    assert "closes 50 % of the gap in PCK@0.05 between source-only (40.0 %) and oracle (70.0 %)" in text.plain(note)
    (note,) = run(0.4, 0.55, oracle=0.3)
    assert "oracle is worse than source-only in PCK@0.05 (30.0 % against 40.0 %)" in text.plain(note)
    assert "no upper bound" in note


def test_a_method_below_source_only_is_named() -> None:
    assert "The adapted model is worse than source-only in PCK@0.05 (30.0 % against 40.0 %)" in said(run(0.4, 0.3))
    assert run(0.4, 0.39999) == []  # not to be seen in the table


def test_errors_are_worse_when_larger() -> None:
    assert notes.of_values({"error_px": {"source-only": 5.0, "dan": 4.0}}) == []
    assert "dan is worse than source-only" in said(notes.of_values({"error_px": {"source-only": 4.0, "dan": 5.0}}))


def test_what_a_constant_prediction_reaches_is_said() -> None:
    assert "PCK@0.05 says little here" in said(run(0.96, 0.97, floor=0.948))
    assert "reaches 94.8 %" in said(run(0.96, 0.97, floor=0.948))
    found = said(run(0.3, 0.6, floor=0.3))
    assert found.startswith("No better than the mean pose")
    assert found.endswith("in PCK@0.05 (30.0 %): source-only.")


def test_the_clip_that_lost_is_named() -> None:
    clips = {"anna": (0.24, 0.08), "bert": (0.30, 0.80), "carl": (0.05, 0.06), "dora": (0.50, 0.45)}
    rows = [row("pretrain", 0.3), row("adapt", 0.5)]
    for name, (before, after) in clips.items():
        rows += [row("pretrain", before, group=f"clip:{name}"), row("adapt", after, group=f"clip:{name}")]
    found = said(notes.of_run({"evaluations": rows}))
    assert "Worst of 4 clips: carl, PCK@0.05 6.0 %." in found
    assert "2 of 4 clips are worse after adaptation than source-only, most of all anna: 24.0 % -> 8.0 %." in found


def test_a_clip_is_lost_under_every_method_or_not_at_all() -> None:
    clips = {
        "anna": {"source-only": 0.24, "dan": 0.08, "dd": 0.12, "oracle": 0.9, "mean pose": 0.3},
        "bert": {"source-only": 0.24, "dan": 0.08, "dd": 0.30, "oracle": 0.9, "mean pose": 0.3},
    }
    found = said(notes.of_clips("pck@0.05", clips))
    assert (
        "1 of 2 clips is worse under every method than source-only, most of all anna: 24.0 % -> 12.0 % at best" in found
    )
    assert "Worst of 2 clips: anna, PCK@0.05 12.0 % with the best method for it." in found
    alone = {clip: {"source-only": values["source-only"], "mean pose": 0.3} for clip, values in clips.items()}
    assert said(notes.of_clips("pck@0.05", alone)) == "Worst of 2 clips: anna, PCK@0.05 24.0 %."


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"domain": "source"}, notes.NOTHING_ON_THE_TARGET),
        ({"split": "train"}, "The target has no split for testing: its numbers are of training images."),
    ],
)
def test_a_target_without_labelled_test_images_is_said(place: dict[str, str], expected: str) -> None:
    rows = [row("pretrain", 0.4, **place), row("adapt", 0.5, **place)]
    assert notes.of_run({"evaluations": rows}) == [expected]


def test_where_a_run_started_from_is_said() -> None:
    (note,) = run(0.4, 0.5, start=START)
    assert note == (
        "Source-only is the model of runs/x (source_only on bodies:studio, 1,500 steps, 01234567), measured on this "
        "run's data."
    )
