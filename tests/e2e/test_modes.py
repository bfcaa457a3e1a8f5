"""The other modes of the command line, on people's own files."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
from commands import ROOT, TINY, fails, history, results, run

SMALL = [flag for flag in TINY if "data.source" not in flag and "data.target" not in flag]


def write_project(root: Path) -> None:
    """A DeepLabCut project whose joints are spelled as some do, and a video of another camera."""
    rng = np.random.default_rng(0)
    for video in ("one", "two"):
        folder = root / "project" / "labeled-data" / video
        folder.mkdir(parents=True)
        lines = ["scorer" + ",me" * 4, "bodyparts,L_knee,L_knee,R_knee,R_knee", "coords,x,y,x,y"]
        for i in range(6):
            cv2.imwrite(str(folder / f"img{i}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
            lines.append(f"labeled-data/{video}/img{i}.png,5,6,30,31")
        (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")
    writer = cv2.VideoWriter(str(root / "new.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(12):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()


def test_a_project_adapts_to_a_video_without_conversion(tmp_path: Path) -> None:
    write_project(tmp_path)
    printed = run(
        tmp_path / "run",
        *SMALL,
        f"--config.data.root={tmp_path}",
        "--config.data.source=deeplabcut:project?train=one&test=two",
        "--config.data.target=video:new.avi?frames=6",
        config="configs/regda.py:custom,quick",
    )
    assert "Joints (2): L_knee, R_knee" in printed
    rows = {(row["domain"], row["split"]) for row in results(tmp_path / "run")["evaluations"]}
    assert rows == {("source", "test")}
    assert np.load(tmp_path / "run" / "predictions" / "adapt_target_train.npy").shape == (6, 2, 2)
    assert "new.avi" in (tmp_path / "run" / "report.html").read_text()


def test_what_readers_leave_out_and_match_by_spelling_is_said_everywhere(tmp_path: Path) -> None:
    write_project(tmp_path)
    (tmp_path / "project" / "labeled-data" / "one" / "img3.png").unlink()
    left_out = "left out labelled images that do not exist: 1 (labeled-data/one/img3.png)"
    alone = "test images of one clip, the shortest of 2; name others with ?test=PATTERN: 5 (labeled-data/one/img0.png"
    flags = [f"--config.data.root={tmp_path}", "--config.data.source=deeplabcut:project"]
    flags.append("--config.data.target=bodies:street?train=8&test=4&validation=0")
    small = [flag for flag in SMALL if "steps.adapt" not in flag]
    printed = run(tmp_path / "run", *small, *flags, config="configs/source_only.py:custom,quick")
    assert "L_knee" in printed
    assert "spelling" in printed
    notes = {note["what"]: (note["domain"], note["count"]) for note in results(tmp_path / "run")["data_notes"]}
    assert notes.pop("left out labelled images that do not exist") == ("source", 1)
    assert list(notes.values()) == [("source", 5)]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Data notes" in report
    shown = run(tmp_path / "page", *flags, "--mode=browse", config="configs/regda.py:custom")
    page = (tmp_path / "page" / "browse.html").read_text()
    assert "<td>left_knee</td><td>spelling</td>" in page
    flag = f"--dataset=deeplabcut:{tmp_path / 'project'}"
    shown_alone = run(tmp_path / "alone", flag, "--mode=browse")
    for text in (printed, report, shown, page, shown_alone, (tmp_path / "alone" / "browse.html").read_text()):
        assert left_out in text
        assert alone in text


def test_the_documented_recipe_trains(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 65
    (tmp_path / "entropy.py").write_text(code)
    run(tmp_path / "run", *TINY, config=f"{tmp_path / 'entropy.py'}:quick")
    found = results(tmp_path / "run")
    assert found["recipe"] == "entropy"
    assert {row["stage"] for row in found["evaluations"]} == {"pretrain", "adapt"}
    entropy = [line["loss/entropy"] for line in history(tmp_path / "run") if "loss/entropy" in line]
    assert len(entropy) == 4
    assert all(0 < value <= np.log(16**2) for value in entropy)


def test_own_data_has_to_be_given(tmp_path: Path) -> None:
    message = fails(tmp_path, config="configs/regda.py:custom")
    assert "config.data.source: found '', expected SCHEME:PATH" in message
    assert "without labels" in fails(tmp_path, "--config.data.source=images:.", config="configs/regda.py:quick")


def test_methods_are_compared_from_one_source_model(tmp_path: Path) -> None:
    flags = [flag.replace("--config.", "--config.base.") for flag in TINY]
    config = "configs/compare.py:quick,adabn"
    printed = run(tmp_path / "all", *flags, "--mode=compare", "--seeds=1", config=config)
    assert "source-only" in printed
    assert "Source: bodies:studio" in printed
    found = json.loads((tmp_path / "all" / "compare.json").read_text())["methods"]
    assert set(found) == {"source-only", "oracle", "adabn"}
    adapted = results(tmp_path / "all" / "seed0" / "adabn")
    before = results(tmp_path / "all" / "seed0" / "source-only")
    assert [row for row in adapted["evaluations"] if row["stage"] == "pretrain"] == before["evaluations"]
    assert printed.count("Target: bodies:street") == 1
    assert found["adabn"]["runs"] == [
        {"seed": 0, "fingerprint": adapted["fingerprint"], "machine": adapted["machine"]},
    ]
    written = (tmp_path / "all" / "seed0" / "adabn" / "results.json").stat().st_mtime
    run(tmp_path / "all", *flags, "--mode=compare", "--seeds=1", config="configs/compare.py:quick,adabn,dan")
    assert (tmp_path / "all" / "seed0" / "adabn" / "results.json").stat().st_mtime == written
    assert "dan" in json.loads((tmp_path / "all" / "compare.json").read_text())["methods"]
    assert "data:image/svg+xml" in (tmp_path / "all" / "compare.html").read_text()


def test_a_comparison_without_target_labels_shows_what_there_is(tmp_path: Path) -> None:
    write_project(tmp_path)
    flags = [flag.replace("--config.", "--config.base.") for flag in SMALL]
    printed = run(
        tmp_path / "all",
        *flags,
        f"--config.base.data.root={tmp_path}",
        "--config.base.data.source=deeplabcut:project?train=one&test=two",
        "--config.base.data.target=images:project/labeled-data/two",
        "--mode=compare",
        "--seeds=1",
        config="configs/compare.py:custom,quick,adabn",
    )
    assert printed.count("Joints (2): L_knee, R_knee") == 1
    assert printed.count("Target: images:project/labeled-data/two (6 train)") == 1
    assert "Nothing is measured on the target" in printed
    assert "PCK@0.05 on the source's test split, one seed" in printed
    found = json.loads((tmp_path / "all" / "compare.json").read_text())
    assert set(found["methods"]) == {"source-only", "adabn"}
    assert "no oracle" in printed
    assert "Nothing is measured on the target" in (tmp_path / "all" / "compare.html").read_text()


def test_labels_that_are_not_there_are_not_trained_on(tmp_path: Path) -> None:
    write_project(tmp_path)
    flags = [
        *(flag for flag in SMALL if "steps" not in flag),
        f"--config.data.root={tmp_path}",
        "--config.data.source=deeplabcut:project",
        "--config.data.target=video:new.avi?frames=6",
    ]
    for number, words in enumerate(("oracle.py:custom,quick", "regda.py:custom,quick,released")):
        message = fails(tmp_path / str(number), *flags, config=f"configs/{words}")
        assert "data.target=video:new.avi?frames=6: found no labels in the training split" in message
        assert not (tmp_path / str(number)).exists()


def test_a_benchmark_is_written_and_compared_with_an_earlier_one(tmp_path: Path) -> None:
    printed = run(tmp_path / "run", *TINY, "--mode=benchmark", "--steps=2")
    found = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    assert (found["stage"], found["batch_size"], found["config"]["method"]["name"]) == ("adapt", 4, "regda")
    assert found["model_flops"] > 1e6
    assert found["images_per_s"] == 2 * found["pairs_per_s"]
    assert "share of the matrix product's rate" in printed
    assert not (tmp_path / "run" / "results.json").exists()
    message = fails(tmp_path / "run", *TINY, "--mode=benchmark", f"--baseline={tmp_path / 'absent.json'}")
    assert message.endswith("found no JSON object there, expected a benchmark.json")


def test_wrong_configs_for_a_mode_are_one_line(tmp_path: Path) -> None:
    assert "expected --config=configs/compare.py" in fails(tmp_path, "--mode=compare")
    assert "expected --config=configs/synth.py" in fails(tmp_path, "--mode=synthesize")
    assert "found a Synthesis in --config, expected a recipe" in fails(tmp_path, config="configs/synth.py:hand")
