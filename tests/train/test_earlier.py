"""Runs that another one starts from, or is shown beside, must be of the same kind; what differs is named."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from toy import Toy

from jaxpose import config as configs
from jaxpose.config import Config, Data
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.recipes import inputs
from jaxpose.recipes.stage import Stage, Update, initial_state, reads
from jaxpose.recipes.supervised import Supervised
from jaxpose.train import earlier

JOINTS = ("a", "b", "c")
FIRST = Stage(
    name="pretrain",
    steps=5,
    init=lambda key, previous: initial_state(params={}, stats={}, optimizers={}),
    updates=(Update(reads=reads(source=("image",)), step=lambda state, batch, key: (state, {})),),
)


LAST = dataclasses.replace(FIRST, name="adapt")


def finished(folder: Path, config: Config, *, stage: str = "pretrain", joints: tuple[str, ...] = JOINTS) -> str:
    """The results of a run that never was."""
    rows = [
        {
            "stage": stage,
            "step": 5,
            "domain": domain,
            "split": "test",
            "metric": "pck@0.1",
            "group": "all",
            "value": 0.5,
            "count": 3,
        }
        for domain in ("source", "target")
    ]
    results = {
        "recipe": config.method.name,
        "pair": config.pair,
        "joints": joints,
        "evaluations": rows,
        "fingerprint": "f" * 64,
        "timing": {"wall_s": 1.0, "step_s": 0.1, "images_per_s": 10.0, "step_s_by_stage": {stage: 0.1}},
        "config": configs.to_json(config),
    }
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def changed(**fields: Any) -> Config:
    return dataclasses.replace(Config(method=Supervised()), **fields)


def test_a_start_of_the_same_kind_is_described(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", changed(data=Data(target="hands:studio", margin=1.5), seed=3))
    number, found = earlier.start(changed(start=folder), JOINTS, (FIRST, LAST))
    assert number == 0
    prior = dataclasses.replace(FIRST, name="poses")
    assert earlier.start(changed(start=folder), JOINTS, (prior, FIRST, LAST)) == (1, found)
    assert (found["workdir"], found["recipe"], found["target"]) == (folder, "source_only", "hands:studio")


@pytest.mark.parametrize(
    ("fields", "written", "expected"),
    [
        ({"model": SimpleBaseline(width=32)}, {}, "found model.width 32 in .*, expected 64"),
        ({"model": SimpleBaseline(head="regressor")}, {}, "found model.head 'regressor' in .*, expected 'linear'"),
        ({"model": Toy()}, {}, "found model.stride 2 in .*, expected None"),
        ({"data": Data(source="hands:studio")}, {}, "found data.source 'hands:studio' in .*, expected 'bodies:studio'"),
        (
            {},
            {"stage": "adapt"},
            "a run of source_only in .*, whose last stage is adapt, expected .* pretrain on the sou",
        ),
        (
            {"method": Supervised(coding=inputs.RELEASED)},
            {},
            "found maps to be read by released_points in .*, expected by clean_points",
        ),
        ({"method": Supervised(name="oracle", domain="target")}, {}, "found a run of oracle in .*, expected one that"),
        ({}, {"joints": ("a", "b", "d")}, r"found joint 'd' in only one of .* \(3 joints\) and this run \(3\)"),
        ({}, {"joints": ("a", "b")}, r"found joint 'c' in only one of .* \(2 joints\) and this run \(3\)"),
        ({}, {"joints": ("b", "a", "c")}, "found another order of the joints of .* expected the same"),
    ],
)
def test_a_start_of_another_kind_is_named(
    tmp_path: Path, fields: dict[str, Any], written: dict[str, Any], expected: str
) -> None:
    folder = finished(tmp_path / "run", changed(**fields), **written)
    with pytest.raises(ValueError, match=r"^config\.start: .*" + expected):
        earlier.start(changed(start=folder), JOINTS, (FIRST, LAST))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"recipe": "oracle"}', "\0"])
def test_damaged_results_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"^config\.oracle: found no results of a run in .*results\.json"):
        earlier.oracle(changed(oracle=str(tmp_path)), JOINTS)


def test_an_oracle_gives_its_rows_of_the_target(tmp_path: Path) -> None:
    oracle = Supervised(name="oracle", domain="target")
    folder = finished(
        tmp_path / "run", changed(method=oracle, data=Data(source="hands:studio"), model=SimpleBaseline(width=8))
    )
    (row,) = earlier.oracle(changed(oracle=folder), JOINTS)
    assert row["domain"] == "target"


@pytest.mark.parametrize(
    ("fields", "written", "expected"),
    [
        ({"data": Data(target="hands:street")}, {}, "found data.target 'hands:street' in .*, expected 'bodies:street'"),
        ({"data": Data(margin=2.0)}, {}, "found data.margin 2.0 in .*, expected 1.25"),
        ({"method": Supervised()}, {}, "found a run of source_only in .*, expected one of oracle"),
        ({}, {"joints": ("a", "b")}, "found joint 'c' in only one of"),
    ],
)
def test_an_oracle_of_another_kind_is_named(
    tmp_path: Path, fields: dict[str, Any], written: dict[str, Any], expected: str
) -> None:
    oracle = {"method": Supervised(name="oracle", domain="target")}
    folder = finished(tmp_path / "run", changed(**oracle | fields), **written)
    with pytest.raises(ValueError, match=r"^config\.oracle: .*" + expected):
        earlier.oracle(changed(oracle=folder), JOINTS)
