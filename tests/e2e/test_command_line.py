"""The command line from the outside: what a run leaves, how it resumes, and what wrong input says."""

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import ROOT, TINY, command, environment, fails, history, results, run

from jaxpose.main import RUN_AGAIN


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run(workdir, *TINY)
    return workdir


def without_times(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if not key.endswith("_s")} for line in lines]


def test_a_run_leaves_what_the_readme_promises(finished: Path) -> None:
    for name in (
        "config.json",
        "metrics.jsonl",
        "results.json",
        "report.html",
        "checkpoints",
        "figures",
        "tensorboard",
    ):
        assert (finished / name).exists(), name
    found = results(finished)
    assert {"evaluations", "fingerprint", "timing", "devices", "versions", "seed", "skipped_records"} <= found.keys()
    assert {"wall_s", "compile_s", "step_s", "images_per_s", "data_wait_s"} <= found["timing"].keys()
    assert 0 <= found["timing"]["device_wait_fraction"] <= 1
    assert len(found["fingerprint"]) == 64
    rows = {(r["stage"], r["domain"], r["split"], r["metric"], r["group"]): r for r in found["evaluations"]}
    for stage in ("pretrain", "adapt"):
        row = rows[stage, "target", "test", "pck@0.05", "all"]
        assert 0 <= row["value"] <= 1
        assert 0 < row["count"] <= 12 * 16
        assert (stage, "source", "validation", "pck@0.1", "joint:left_knee") in rows
    assert json.loads((finished / "config.json").read_text())["data"]["batch_size"] == 4


def test_metrics_are_written_for_every_step_once(finished: Path) -> None:
    lines = history(finished)
    losses = [(line["stage"], line["step"]) for line in lines if "loss/source" in line]
    assert losses == [("pretrain", i) for i in (1, 2, 3)] + [("adapt", i) for i in (1, 2, 3, 4)]
    assert any("target/test/pck@0.05/all" in line for line in lines)
    assert all("disparity_px/target" in line for line in lines if line["stage"] == "adapt" and "loss/source" in line)


def test_a_finished_run_says_so_and_shows_its_results(finished: Path) -> None:
    before = (finished / "results.json").stat().st_mtime
    printed = run(finished, *TINY)
    assert "is finished" in printed
    assert "PCK@0.05" in printed
    assert (finished / "results.json").stat().st_mtime == before


def test_evaluation_mode_finds_the_final_rows_again(finished: Path) -> None:
    printed = [json.loads(line) for line in run(finished, *TINY, "--mode=eval").splitlines() if line.startswith("{")]
    final = [row for row in results(finished)["evaluations"] if row["stage"] == "adapt"]
    assert printed == final


def test_a_start_is_measured_on_the_data_of_the_run_that_uses_it(finished: Path, tmp_path: Path) -> None:
    """Pretrained for another target: rows, pictures and parameters are those of a run that pretrains itself."""
    steps = [flag for flag in TINY if "steps.adapt" not in flag and "data.target" not in flag]
    other = "--config.data.target=bodies:studio?train=16&validation=0&test=4"
    run(tmp_path / "start", *steps, other, config="configs/source_only.py:quick")
    printed = run(tmp_path / "run", *TINY, f"--config.start={tmp_path / 'start'}")
    assert results(tmp_path / "run")["evaluations"] == results(finished)["evaluations"]
    assert results(tmp_path / "run")["fingerprint"] == results(finished)["fingerprint"]
    assert f"Source-only is the model of {tmp_path / 'start'} (source_only on bodies:studio" in printed
    assert (tmp_path / "run" / "predictions" / "pretrain_target_test.npy").exists()


def test_other_runs_that_do_not_fit_are_named(finished: Path, tmp_path: Path) -> None:
    message = fails(tmp_path / "x", *TINY, f"--config.start={finished}")
    assert f"config.start: found a run of regda in {finished}, whose last stage is adapt" in message
    assert "delete" not in message
    assert f"config.oracle: found a run of regda in {finished}" in fails(
        tmp_path / "x", *TINY, f"--config.oracle={finished}"
    )
    assert not (tmp_path / "x").exists()


def interrupt(workdir: Path, sent: signal.Signals, ready: str, *arguments: str) -> int:
    """Starts a run and sends it a signal once a path in its work directory exists."""
    process = subprocess.Popen(
        command(workdir, *TINY, *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (workdir / ready).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    return process.wait(timeout=120)


@pytest.mark.parametrize("ready", ["checkpoints/2", "checkpoints/5"], ids=["in pretrain", "in adapt"])
def test_a_killed_run_resumes_to_the_same_result(finished: Path, tmp_path: Path, ready: str) -> None:
    workdir = tmp_path / "killed"
    assert interrupt(workdir, signal.SIGKILL, ready) == -signal.SIGKILL
    assert not (workdir / "results.json").exists()
    run(workdir, *TINY)
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]
    assert results(workdir)["evaluations"] == results(finished)["evaluations"]
    assert without_times(history(workdir)) == without_times(history(finished))


def test_sigterm_saves_and_asks_to_be_run_again(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "stopped"
    assert RUN_AGAIN == 75
    assert interrupt(workdir, signal.SIGTERM, "metrics.jsonl") == RUN_AGAIN
    assert any((workdir / "checkpoints").iterdir())
    run(workdir, *TINY)
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]


def test_sigterm_before_the_first_update_asks_to_be_run_again(tmp_path: Path) -> None:
    assert interrupt(tmp_path / "early", signal.SIGTERM, "config.json") == RUN_AGAIN
    assert not (tmp_path / "early" / "results.json").exists()


@pytest.mark.slow
def test_worker_processes_and_a_kill_do_not_change_the_result(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "workers"
    interrupt(workdir, signal.SIGKILL, "checkpoints/2", "--config.data.workers=2")
    run(workdir, *TINY, "--config.data.workers=1")
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    """A quick run is killed at a random moment and started again; twenty times the same fingerprint."""
    whole = tmp_path / "whole"
    started = time.monotonic()
    run(whole)
    duration = time.monotonic() - started
    expected = results(whole)["fingerprint"]
    draw = random.Random(0)
    for number in range(20):
        workdir = tmp_path / f"run{number}"
        process = subprocess.Popen(
            command(workdir), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(draw.uniform(0.1, 1.0) * duration)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        run(workdir)
        assert results(workdir)["fingerprint"] == expected, number
        shutil.rmtree(workdir)


def test_another_configuration_cannot_resume(finished: Path, tmp_path: Path) -> None:
    message = fails(finished, *TINY, "--config.model.width=5")
    assert "config.model.width: found 5, expected 4 as in" in message
    unfinished = tmp_path / "copy"
    shutil.copytree(finished, unfinished)
    (unfinished / "results.json").unlink()
    assert "config.seed: found 1, expected 0" in fails(unfinished, *TINY, "--config.seed=1")


def test_a_corrupt_checkpoint_is_named(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "corrupt"
    shutil.copytree(finished, workdir)
    (workdir / "results.json").unlink()
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for path in (newest / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = fails(workdir, *TINY)
    assert str(newest) in message
    assert "found a checkpoint that cannot be read" in message


WRONG = {
    "unknown field": (["--config.modl.width=3"], "modl"),
    "wrong type": (["--config.data.batch_size=many"], "batch_size"),
    "wrong value": (["--config.data.image_size=50"], r"config.data.image_size: found 50, expected a positive multiple"),
    "wrong literal": (["--config.dtype=float8"], "config.dtype: found 'float8', expected one of auto"),
    "unknown stage": (["--config.model.depth=19"], "config.model.depth: found 19, expected 18, 34"),
    "no shared joint": (["--config.data.target=hands:street"], "skeletons share no joint"),
    "missing folder": (["--config.data.source=deeplabcut:nowhere"], "nowhere"),
    "unknown scheme": (["--config.data.source=photos:x"], "found scheme 'photos', expected one of bodies"),
    "empty domain": (["--config.data.target=bodies:street?train=0"], "data.target=bodies:street?train=0: found"),
    "missing oracle": (["--config.oracle=nowhere"], "config.oracle: found no nowhere/results.json"),
    "missing weights": (["--config.model.weights=none.pth"], "none.pth"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line(tmp_path: Path, arguments: tuple[list[str], str]) -> None:
    flags, expected = arguments
    message = fails(tmp_path / "x", *TINY[:-3], *flags)
    assert expected in message, message
    assert message.startswith("jaxpose: ")
    assert not (tmp_path / "x" / "metrics.jsonl").exists()


def test_unknown_words_and_missing_configs_are_one_line(tmp_path: Path) -> None:
    assert "found 'fast', expected one of bodies" in fails(tmp_path / "x", config="configs/regda.py:fast")
    assert "nothing.py" in fails(tmp_path / "x", config="configs/nothing.py")
