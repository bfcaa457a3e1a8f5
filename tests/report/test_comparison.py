"""The table of methods: means over seeds, and which checkpoint was taken."""

from pathlib import Path

import pytest

from jaxpose.report import comparison


def run(final: float, curve: list[tuple[float, float]]) -> comparison.Run:
    rows = [
        {"domain": "target", "split": "test", "metric": "pck@0.05", "group": group, "value": value, "count": 5}
        for group, value in (("all", final), ("knee", final / 2), ("joint:left_knee", 0.9))
    ]
    rows.append({"domain": "source", "split": "test", "metric": "pck@0.05", "group": "all", "value": 0.99, "count": 5})
    points = [
        {"source/validation/pck@0.05/all": source, "target/test/pck@0.05/all": target} for source, target in curve
    ]
    return comparison.Run(rows=rows, curve=points, timing={"wall_s": 10.0, "step_s": 0.1, "images_per_s": 100.0})


def test_last_source_and_target_choice_are_kept_apart(tmp_path: Path) -> None:
    several = [run(0.4, [(0.9, 0.3), (0.7, 0.5), (0.8, 0.4)]), run(0.6, [(0.8, 0.7), (0.9, 0.5), (0.7, 0.6)])]
    table = comparison.summarize({"dan": several, "source-only": [run(0.2, [(0.5, 0.2)])]})
    found = table["methods"]["dan"]
    assert found["last"]["pck@0.05"]["all"] == pytest.approx([0.5, 0.1 * 2**0.5])
    assert found["last"]["pck@0.05"]["knee"][0] == pytest.approx(0.25)
    assert "joint:left_knee" not in found["last"]["pck@0.05"]
    assert found["source_choice"]["pck@0.05"][0] == pytest.approx((0.3 + 0.5) / 2)
    assert found["target_choice"]["pck@0.05"][0] == pytest.approx((0.5 + 0.7) / 2)
    assert found["seeds"] == 2
    lines = comparison.text_table(table).splitlines()
    assert any(line.startswith("dan") and "50.0 ± 14.1" in line and "40.0" in line and "60.0" in line for line in lines)
    page = comparison.write_page(tmp_path, "bodies", table).read_text()
    assert "50.0 ± 14.1" in page
    assert "knee" in page
    assert page.count("<table>") == 1


def test_errors_are_better_when_smaller() -> None:
    def errors(final: float, curve: list[float]) -> comparison.Run:
        rows = [{"domain": "target", "split": "test", "metric": "mae", "group": "sum", "value": final, "count": 5}]
        points = [{"source/test/mae/sum": value, "target/test/mae/sum": 2 * value} for value in curve]
        return comparison.Run(rows=rows, curve=points, timing={"wall_s": 1.0, "step_s": 0.1, "images_per_s": 1.0})

    table = comparison.summarize({"dd": [errors(0.5, [0.3, 0.1, 0.2])]})
    assert table["methods"]["dd"]["source_choice"]["mae"] == [pytest.approx(0.2), 0.0]
    assert "0.500 ± 0.000" in comparison.text_table(table)
