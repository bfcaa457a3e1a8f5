"""Work directories that were damaged or edited."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxpose import config as configs
from jaxpose.config import Config
from jaxpose.recipes.supervised import Supervised
from jaxpose.train import trainer, written

ROW = {"stage": "pretrain", "domain": "target", "split": "test", "metric": "pck@0.05", "group": "all"}
RESULTS: dict[str, Any] = {
    "recipe": "source_only",
    "pair": "bodies",
    "fingerprint": "abc",
    "config": {},
    "timing": {"wall_s": 1.0, "step_s": 0.5, "images_per_s": 3.0},
    "evaluations": [ROW | {"value": 0.5, "count": 7}],
}


def workdir(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps(configs.to_json(config())))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "report.html").touch()
    return folder


def config() -> Config:
    return Config(method=Supervised(), steps={"pretrain": 1})


def test_a_finished_run_is_taken_as_it_is(tmp_path: Path) -> None:
    assert trainer.train(config(), workdir(tmp_path), show=False) == RESULTS


@pytest.mark.parametrize("file", ["config.json", "results.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 900 + b"}" * 900])
def test_files_that_are_no_json_are_named(tmp_path: Path, file: str, content: bytes) -> None:
    (workdir(tmp_path) / file).write_bytes(content)
    with pytest.raises(ValueError, match=file) as error:
        trainer.train(config(), tmp_path, show=False)
    assert "\n" not in str(error.value)


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(name)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no evaluations": without("evaluations"),
    "no timing": without("timing"),
    "no recipe": without("recipe"),
    "evaluations are text": lambda found: found.update(evaluations="x"),
    "evaluations are numbers": lambda found: found.update(evaluations=[1]),
    "a row without a stage": lambda found: found["evaluations"][0].pop("stage"),
    "a row with a list": lambda found: found["evaluations"][0].update(metric=["pck"]),
    "a value that is text": lambda found: found["evaluations"][0].update(value="high"),
    "a count that is none": lambda found: found["evaluations"][0].update(count=None),
    "times that are text": lambda found: found["timing"].update(wall_s="1"),
    "a config that is a list": lambda found: found.update(config=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_results_that_miss_something_are_named(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    found = copy.deepcopy(RESULTS)
    change(found)
    (workdir(tmp_path) / "results.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"results\.json: .*expected the results of a run") as error:
        trainer.train(config(), tmp_path, show=False)
    assert "\n" not in str(error.value)


def test_predictions(tmp_path: Path) -> None:
    path = tmp_path / "adapt_target_test.npy"
    np.save(path, np.ones((5, 3, 2), np.float32))
    assert written.read_predictions(path, (5, 3, 2)).sum() == 30
    whole = path.read_bytes()
    for content in (b"", whole[:-4], whole[:40], whole.replace(b"f4", b"|O"), whole.replace(b"5, 3, 2", b"5, 2, 3")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"adapt_target_test\.npy: "):
            written.read_predictions(path, (5, 3, 2))
