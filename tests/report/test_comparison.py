"""The table of methods: means over seeds, which checkpoint was taken, and what to know before trusting it."""

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jaxpose.report import comparison, notes

TIMING = {"wall_s": 10.0, "step_s": 0.1, "images_per_s": 100.0}
TARGET, SOURCE = ("target", "test"), ("source", "test")


def row(group: str, value: float, place: tuple[str, str] = TARGET, metric: str = "pck@0.05") -> dict[str, Any]:
    return {"domain": place[0], "split": place[1], "metric": metric, "group": group, "value": value, "count": 5}


def run(final: float, curve: list[tuple[float, float]] | None = None, **other: Any) -> comparison.RunResults:
    """`curve`: the source's validation and the target's test values."""
    values = (("all", final), ("knee", final / 2), ("joint:left_knee", 0.9), ("clip:anna", final / 4))
    rows = [*(row(*value) for value in values), row("all", 0.99, SOURCE)]
    points = [
        {"source/validation/pck@0.05/all": source, "target/test/pck@0.05/all": target} for source, target in curve or []
    ]
    return comparison.RunResults(**{"rows": rows, "curve": points, "timing": TIMING} | other)


def line(table: dict[str, Any], name: str) -> list[str]:
    """The words of a method's line."""
    (found,) = [line.split() for line in comparison.text_table(table).splitlines() if line.split()[:1] == [name]]
    return found


def test_last_source_and_target_choice_are_kept_apart(tmp_path: Path) -> None:
    several = [run(0.4, [(0.9, 0.3), (0.7, 0.5), (0.8, 0.4)]), run(0.6, [(0.8, 0.7), (0.9, 0.5), (0.7, 0.6)])]
    table = comparison.summarize({"dan": several, "source-only": [run(0.2, [(0.5, 0.2)])]})
    found = table["methods"]["dan"]
    assert found["last"]["pck@0.05"]["all"] == pytest.approx([0.5, 0.1 * 2**0.5])
    assert found["last"]["pck@0.05"]["knee"][0] == pytest.approx(0.25)
    assert "joint:left_knee" not in found["last"]["pck@0.05"]
    assert found["source_choice"]["pck@0.05"][0] == pytest.approx((0.3 + 0.5) / 2)
    assert found["target_choice"]["pck@0.05"][0] == pytest.approx((0.5 + 0.7) / 2)
    assert len(found["runs"]) == 2
    assert table["source_split"] == "validation"
    lines = comparison.text_table(table).splitlines()
    assert any(line.startswith("dan") and "50.0 ± 14.1" in line and "40.0" in line and "60.0" in line for line in lines)
    assert lines[1] == "PCK@0.05 on the target's test split, mean ± deviation over 2 seeds"
    page = comparison.write_page(tmp_path, "bodies", table).read_text()
    assert "50.0 ± 14.1" in page
    assert "knee" in page


def test_errors_are_better_when_smaller() -> None:
    def errors(final: float, curve: list[float]) -> comparison.RunResults:
        points = [{"source/test/mae/sum": value, "target/test/mae/sum": 2 * value} for value in curve]
        return comparison.RunResults(rows=[row("sum", final, metric="mae")], curve=points, timing=TIMING)

    table = comparison.summarize({"dd": [errors(0.5, [0.3, 0.1, 0.2])] * 2})
    assert table["methods"]["dd"]["source_choice"]["mae"] == [pytest.approx(0.2), 0.0]
    assert "0.500 ± 0.000" in comparison.text_table(table)


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    table = comparison.summarize({"dan": [run(0.4, [(0.9, 0.3)])]})
    assert table["methods"]["dan"]["last"]["pck@0.05"]["all"] == [0.4, None]
    json.dumps(table, allow_nan=False)
    printed = comparison.text_table(table)
    assert "±" not in printed
    assert "one seed" in printed.splitlines()[1]
    assert any("One seed says nothing" in note for note in table["notes"])
    assert "±" not in comparison.write_page(tmp_path, "bodies", table).read_text()


def test_a_choice_on_the_sources_test_split_is_called_that() -> None:
    points = [{"source/test/pck@0.05/all": 0.5, "target/test/pck@0.05/all": 0.3}]
    table = comparison.summarize({"dan": [dataclasses.replace(run(0.4), curve=points)]})
    assert table["source_split"] == "test"
    assert "The source has no validation split: its choice of a checkpoint is made on its test split." in table["notes"]
    other = comparison.summarize({"dan": [run(0.4, [(0.5, 0.3)])]})
    assert not any("validation split" in note for note in other["notes"])


@pytest.mark.parametrize("domain", ["source", None])
def test_without_target_labels_the_source_is_shown_and_that_is_said(tmp_path: Path, domain: str | None) -> None:
    rows = [row("all", 0.7, SOURCE)] if domain else []
    curve = [{"source/test/pck@0.05/all": 0.5}]
    only = dataclasses.replace(run(0.0), rows=rows, curve=curve)
    table = comparison.summarize({"source-only": [only], "dan": [only]})
    expected = notes.NOTHING_ON_THE_TARGET if domain else notes.NOTHING_AT_ALL
    assert expected in table["notes"]
    printed = comparison.text_table(table)
    assert expected in printed
    assert line(table, "dan") == (["dan", "70.0", "10", "100"] if domain else ["dan", "10", "100"])
    page = html.unescape(comparison.write_page(tmp_path, "mine", table).read_text())
    assert ("Measured on the source's test split" in page) == (domain is not None)
    assert "chosen" not in printed + page
    assert "source choice" not in printed + page


def test_the_gap_is_shared_out_between_source_only_and_the_oracle() -> None:
    runs = {"source-only": [run(0.2)], "dan": [run(0.3)], "mcd": [run(0.1)], "oracle": [run(0.6)]}
    table = comparison.summarize(runs)
    assert table["methods"]["dan"]["gap"]["pck@0.05"] == pytest.approx(0.25)
    assert table["methods"]["oracle"]["gap"]["pck@0.05"] is None
    assert line(table, "dan")[:4] == ["dan", "30.0", "25", "%"]
    assert line(table, "mcd")[:4] == ["mcd", "10.0", "-25", "%"]
    assert any(note.startswith("mcd is worse than source-only in PCK@0.05") for note in table["notes"])
    upside_down = comparison.summarize(runs | {"oracle": [run(0.15)]})
    assert upside_down["methods"]["dan"]["gap"]["pck@0.05"] is None
    assert any("oracle is worse than source-only" in note for note in upside_down["notes"])


def test_the_floor_and_clips_are_shown(tmp_path: Path) -> None:
    floor = [row("all", 0.35), row("clip:anna", 0.02)]
    runs = {name: [run(value, floor=floor)] * 2 for name, value in {"source-only": 0.4, "dan": 0.3}.items()}
    table = comparison.summarize(runs)
    assert table["floor"]["last"]["pck@0.05"]["all"] == [pytest.approx(0.35), 0.0]
    assert line(table, "mean")[:3] == ["mean", "pose", "35.0"]
    assert any("No better than the mean pose" in note and note.endswith(": dan.") for note in table["notes"])
    assert any("most of all anna: 10.0" in note for note in table["notes"])
    page = comparison.write_page(tmp_path, "bodies", table).read_text()
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page[page.index("by clip") :])
    assert cells[:8] == ["clip", "source-only", "dan", "mean pose", "anna", "10.0\xa0%", "7.5\xa0%", "2.0\xa0%"]


def test_runs_are_known_by_fingerprint_and_machine(tmp_path: Path) -> None:
    runs = [run(0.4, seed=s, fingerprint=str(s) * 64, machine=f"machine {s}, 2 cores") for s in (0, 1)]
    table = comparison.summarize({"dan": runs})
    assert table["methods"]["dan"]["runs"][1] == {
        "seed": 1,
        "fingerprint": "1" * 64,
        "machine": "machine 1, 2 cores",
    }
    assert any("different machines" in note for note in table["notes"])
    assert not any("different machines" in note for note in comparison.summarize({"dan": runs[:1]})["notes"])
    page = comparison.write_page(tmp_path, "bodies", table).read_text()
    assert "<td>11111111</td><td>machine 1, 2 cores</td>" in page
