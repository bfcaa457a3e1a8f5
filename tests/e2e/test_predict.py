"""A run's model as people use it: loaded, applied from the command line, measured again; one run for all tests."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import ROOT, TINY, environment, fails, results, run

import jaxpose
from jaxpose.data import schemes
from jaxpose.data.records import Record
from jaxpose.recipes.stage import State

TARGET = "bodies:street?train=16&validation=8&test=12"
SCORER = "DLC_jaxpose_regda_bodies_adapt4"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "one"
    run(workdir, *TINY)
    return workdir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target's test images, as files."""
    folder = tmp_path_factory.mktemp("pictures") / "street"
    folder.mkdir()
    for i, record in enumerate(target()):
        image = record["image"]
        assert isinstance(image, np.ndarray)
        cv2.imwrite(str(folder / f"img{i:02d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


def target() -> list[Record]:
    source = schemes.open_data(TARGET, root=".", image_size=32).splits["test"]
    return [source[i] for i in range(len(source))]


def test_the_loaded_model_finds_what_the_run_found(trained: Path) -> None:
    model = jaxpose.load(trained)
    assert (model.recipe, model.stage, model.step, model.image_size) == ("regda", "adapt", 4, 32)
    assert list(model.skeleton.joints) == results(trained)["joints"]
    assert isinstance(model.state, State)
    assert model.state.optimizers == {}
    records = target()
    boxes = [record.get("bbox") for record in records]
    images = [np.asarray(record["image"]) for record in records]
    found = model.predict(images, boxes)
    matrices = np.stack([model.crop(image, box)[1] for image, box in zip(images, boxes, strict=True)])
    in_crops = found.points * matrices[:, None, (0, 1), (0, 1)] + matrices[:, None, :, 2]
    expected = np.load(trained / "predictions" / "adapt_target_test.npy")
    np.testing.assert_allclose(in_crops, expected, atol=1e-3)


def test_the_newest_whole_checkpoint_of_an_unfinished_run_is_loaded(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "unfinished"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("results.json", "report.html", "7"))
    assert jaxpose.load(copy).step == 2
    (copy / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"earlier version, expected its recipe in --config=FILE"):
        jaxpose.load(copy)


def predict(trained: Path, spec: object, output: Path, *flags: str) -> str:
    return run_without_config("--mode=predict", f"--workdir={trained}", f"--input={spec}", f"--output={output}", *flags)


def run_without_config(*arguments: str) -> str:
    """As `jaxpose` from another folder, outside of the clone."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxpose", *arguments],
        cwd=os.sep,
        env=environment(PYTHONPATH=str(ROOT), JAX_NUM_CPU_DEVICES="2"),  # as here: maps hardly trained have equal peaks
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_images_are_predicted_outside_of_the_clone(trained: Path, pictures: Path, tmp_path: Path) -> None:
    printed = predict(trained, pictures, tmp_path / "out", "--formats=dlc,coco", "--overlay")
    assert "street: 12 frames, " in printed
    rows = list(csv.reader((tmp_path / "out" / f"street{SCORER}.csv").read_text().splitlines()))
    values = np.array([[float(cell) for cell in row[1:]] for row in rows[3:]]).reshape(12, -1, 3)
    images = [np.asarray(record["image"]) for record in target()]
    found = jaxpose.load(trained).predict(images)
    np.testing.assert_allclose(values[..., :2], found.points, atol=1e-3)
    np.testing.assert_allclose(values[..., 2], found.confidence, atol=1e-4)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"street.coco.json", "street.overlay", "street.sheet.jpg", "street.meta.json"}
    assert not any("tmp" in name or "parts" in name for name in written)


def test_a_run_is_measured_without_its_command_also_on_another_target(trained: Path) -> None:
    printed = run_without_config("--mode=eval", f"--workdir={trained}")
    final = [row for row in results(trained)["evaluations"] if row["stage"] == "adapt"]
    assert json.loads((trained / "evaluation.json").read_text())["evaluations"] == final
    assert "PCK@0.05, PCK@0.1: share of labels nearer than that fraction of the crop's side (32 px" in printed
    assert "error in pixels of the image, target test" in printed
    other = "bodies:studio?train=1&validation=0&test=5"
    run_without_config("--mode=eval", f"--workdir={trained}", f"--config.data.target={other}")
    found = json.loads((trained / "evaluation.json").read_text())
    assert found["target"] == other
    counts = {row["count"] for row in found["evaluations"] if (row["domain"], row["group"]) == ("target", "all")}
    assert len(counts) == 1
    assert 0 < counts.pop() <= 5 * 16


def test_what_does_not_fit_the_run_is_named(trained: Path, tmp_path: Path) -> None:
    message = fails(trained, "--mode=eval", "--config.data.margin=2", config=f"jaxpose/rebuilt.py:{trained}")
    assert "config.data.margin: found 2.0, expected 1.25 as in" in message
    flags = ["--mode=predict", f"--input={tmp_path / 'absent'}", "--output=x"]
    message = fails(trained, *flags, config=f"jaxpose/rebuilt.py:{trained}")
    assert message == f"jaxpose: {tmp_path / 'absent'}: no such file or folder, expected images or videos"


def test_a_recipe_of_ones_own_predicts_with_its_file(trained: Path, pictures: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    task = json.loads((workdir / "run.json").read_text())["task"]
    (workdir / "run.json").write_text(json.dumps({"foreign": "mine:Method in config.method", "task": task}))
    with pytest.raises(ValueError, match=r"found mine:Method .* not part of jaxpose, expected its recipe in --config="):
        jaxpose.load(workdir)
    flags = ["--mode=predict", f"--input={pictures}", f"--output={tmp_path / 'out'}"]
    assert "street: 12 frames" in run(workdir, *TINY, *flags)
