"""The command line from the outside: what a run leaves, how it resumes, and what wrong input says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import ROOT, TINY, command, environment, fails, history, results, run

from jaxpose.main import RUN_AGAIN
from jaxpose.train.workdir import locked


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run(workdir, *TINY)
    return workdir


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


@pytest.mark.slow
def test_a_run_compiles_with_the_settings_that_users_have(tmp_path: Path) -> None:
    """The other tests compile quickly, see `commands.COMPILE_QUICKLY`."""
    done = subprocess.run(
        command(tmp_path / "run", *TINY), cwd=ROOT, env=environment(XLA_FLAGS=""), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path / "run")["evaluations"]


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
    printed = run(finished, *TINY, "--mode=eval")
    final = [row for row in results(finished)["evaluations"] if row["stage"] == "adapt"]
    assert json.loads((finished / "evaluation.json").read_text())["evaluations"] == final
    assert "PCK@0.05, target test" in printed


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Waits until a running process has made a path."""
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)


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
    wait_for(workdir / ready, process)
    process.send_signal(sent)
    return process.wait(timeout=120)


def test_a_run_that_is_killed_and_stopped_ends_as_one_that_is_not(finished: Path, tmp_path: Path) -> None:
    """Killed in pretrain, stopped after it, killed in adapt."""
    workdir = tmp_path / "killed"
    assert RUN_AGAIN == 75
    assert interrupt(workdir, signal.SIGKILL, "checkpoints/2") == -signal.SIGKILL
    assert interrupt(workdir, signal.SIGTERM, "checkpoints/3") == RUN_AGAIN
    assert interrupt(workdir, signal.SIGKILL, "checkpoints/5") == -signal.SIGKILL
    assert not (workdir / "results.json").exists()
    run(workdir, *TINY)
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]
    assert results(workdir)["evaluations"] == results(finished)["evaluations"]
    assert (workdir / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ready", ["", "config.json"], ids=["importing", "before the first update"])
def test_signals_are_answered_from_the_first_moment(tmp_path: Path, sent: signal.Signals, ready: str) -> None:
    process = subprocess.Popen(
        command(tmp_path / "run", *TINY), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if ready:
        wait_for(tmp_path / "run" / ready, process)
    else:
        time.sleep(1)
    process.send_signal(sent)
    _, error = process.communicate(timeout=120)
    assert process.returncode == RUN_AGAIN
    assert error.decode().strip() == f"stopped by {sent.name}; the same command goes on from what is saved"


def readers_of(process: subprocess.Popen) -> list[int]:
    listed = subprocess.run(["ps", "-ww", "-o", "pid,args", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def test_ctrl_c_saves_and_a_killed_reader_does(tmp_path: Path) -> None:
    """Ctrl-C reaches the reading processes as well, which leave it to the run; one of them that is killed ends it."""
    workdir = tmp_path / "run"
    flags = [flag for flag in TINY if "steps" not in flag and "eval_every" not in flag]
    flags += ["--config.data.workers=2", "--config.steps.pretrain=500", "--config.eval_every=500"]

    def part(signalled: Callable[[subprocess.Popen, list[int]], None], lines: int) -> str:
        with subprocess.Popen(
            command(workdir, *flags, config="configs/source_only.py:quick"),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                while not (workdir / "metrics.jsonl").exists() or len(history(workdir)) < lines:
                    assert process.poll() is None
                    time.sleep(0.01)
                readers = readers_of(process)
                assert len(readers) == 2
                signalled(process, readers)
                printed, error = process.communicate(timeout=120)
            finally:
                process.kill()
        assert process.returncode == RUN_AGAIN, error
        assert "Traceback" not in error
        for reader in readers:  # none is left
            with pytest.raises(ProcessLookupError):
                os.kill(reader, 0)
        return printed.splitlines()[-1]

    def ctrl_c(process: subprocess.Popen, readers: list[int]) -> None:
        for number in (*readers, process.pid):
            os.kill(number, signal.SIGINT)

    line = part(ctrl_c, 12)
    stopped = int(re.fullmatch(r"saved at step (\d+) of pretrain; the same command goes on from there", line)[1])
    line = part(lambda _, readers: os.kill(readers[0], signal.SIGKILL), len(history(workdir)) + 5)
    killed = re.fullmatch(r"a reading process was killed \(status -9\); saved at step (\d+) of pretrain; .*", line)
    assert killed, line
    assert int(killed[1]) >= stopped + 5


@pytest.mark.slow
def test_worker_processes_and_a_kill_do_not_change_the_result(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "workers"
    interrupt(workdir, signal.SIGKILL, "checkpoints/2", "--config.data.workers=2")
    run(workdir, *TINY, "--config.data.workers=1")
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]


@pytest.mark.slow
def test_twenty_kills_at_random_moments() -> None:
    done = subprocess.run(
        [sys.executable, "tests/e2e/kills.py", "--kills=20"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_of_an_earlier_version_goes_on(finished: Path, tmp_path: Path) -> None:
    """Its configuration lacks fields, its checkpoints and work directory lack files; the report was not written."""
    workdir = tmp_path / "earlier"
    shutil.copytree(finished, workdir)
    config = json.loads((workdir / "config.json").read_text())
    del config["data"]["cache"], config["model"]["target_statistics"]
    (workdir / "config.json").write_text(json.dumps(config))
    for path in (*workdir.glob("checkpoints/*/digests.json"), workdir / "lock", workdir / "data.json"):
        path.unlink()
    (workdir / "results.json").unlink()
    assert "config.model.target_statistics: found True, expected False" in fails(workdir, *TINY)
    config["model"]["target_statistics"] = True
    (workdir / "config.json").write_text(json.dumps(config))
    run(workdir, *TINY)
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]


def test_names_that_are_no_text_do_not_lose_the_end_of_a_run(tmp_path: Path) -> None:
    """File names in an old encoding, one of them of a broken image, and a folder with such a name in the command."""
    photos = tmp_path / os.fsdecode(b"photos-\xe9")
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        image = cv2.imencode(".png", rng.integers(0, 255, (40, 40, 3), np.uint8))[1].tobytes()
        (photos / os.fsdecode(b"caf\xe9-%d.png" % i)).write_bytes(image[:60] if i == 3 else image)
    workdir = tmp_path / "run"
    target = [flag for flag in TINY if "data.target" not in flag] + [f"--config.data.target=images:{photos}"]
    printed = run(workdir, *target)
    assert "photos-\\udce9" in printed
    (skipped,) = results(workdir)["skipped_records"]
    assert "caf\\udce9-3.png" in skipped
    report = (workdir / "report.html").read_text()
    assert "caf\\udce9-3.png" in report

    # A run whose report could not be written has its results, and the same command writes the report.
    before = (workdir / "results.json").read_bytes()
    (workdir / "report.html").unlink()
    run(workdir, *target)
    assert (workdir / "report.html").read_text() == report
    assert (workdir / "results.json").read_bytes() == before

    run(tmp_path / "page", f"--config.data.target=images:{photos}", "--mode=browse")
    assert "caf\\udce9-0.png" in (tmp_path / "page" / "browse.html").read_text()


def test_a_second_process_is_told_who_uses_the_work_directory(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "used"
    shutil.copytree(finished, workdir)
    (workdir / "results.json").unlink()
    with locked(workdir):
        done = subprocess.run(command(workdir, *TINY), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == RUN_AGAIN
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"jaxpose: {workdir}: found it in use by process {os.getpid()} on ")


# In a name space of its own, where anybody may mount: a small disk, full but for some KiB, then with room.
SMALL_DISK = """
mount -t tmpfs -o size=4m none "$DISK" || exit 99
head -c "$(($(df --output=avail -B1 "$DISK" | tail -1) - FREE))" /dev/zero > "$DISK/fill"
"$@" 2> "$RESULT/full"
echo $? > "$RESULT/status"
rm "$DISK/fill"
"$@" && cp "$DISK/run/results.json" "$DISK/run/metrics.jsonl" "$RESULT"
"""


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 8, 60, 900, 2200])
def test_a_full_disk_is_one_line_and_costs_nothing(finished: Path, tmp_path: Path, free: int) -> None:
    disk, result = tmp_path / "disk", tmp_path / "result"
    disk.mkdir()
    result.mkdir()
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh", *command(disk / "run", *TINY)],
        cwd=ROOT,
        env=environment(DISK=str(disk), RESULT=str(result), FREE=str(1024 * free)),
        capture_output=True,
        text=True,
    )
    if not (result / "status").exists():
        pytest.skip(f"no small disk can be mounted: {done.stderr}")
    error = (result / "full").read_text()
    assert (result / "status").read_text() == "2\n", error
    assert "Traceback" not in error
    line = error.splitlines()[-1]
    assert line.startswith("jaxpose: ")
    assert "No space left on device" in line
    assert str(disk / "run") in line
    assert done.returncode == 0, done.stderr
    assert results(result)["fingerprint"] == results(finished)["fingerprint"]
    assert (result / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_another_configuration_cannot_resume(finished: Path, tmp_path: Path) -> None:
    message = fails(finished, *TINY, "--config.model.width=5")
    assert "config.model.width: found 5, expected 4 as in" in message
    unfinished = tmp_path / "copy"
    shutil.copytree(finished, unfinished)
    (unfinished / "results.json").unlink()
    assert "config.seed: found 1, expected 0" in fails(unfinished, *TINY, "--config.seed=1")


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    (workdir / "results.json").unlink()
    newest = workdir / "checkpoints" / "7"
    weights = max((newest / "state").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    name = weights.relative_to(newest)
    assert f"{newest}: found {name} changed since it was written, so 5 is evaluated" in run(
        workdir, *TINY, "--mode=eval"
    )
    printed = run(workdir, *TINY)
    assert f"{newest}: found {name} changed since it was written; it is now 7.damaged" in printed
    assert results(workdir)["fingerprint"] == results(finished)["fingerprint"]
    assert (workdir / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


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
