"""Runs the command line as a user does, on a problem small enough for a test."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TINY = (
    "--config.steps.pretrain=3",
    "--config.steps.adapt=4",
    "--config.eval_every=2",
    "--config.checkpoint_every=2",
    "--config.log_every=1",
    "--config.data.image_size=32",
    "--config.data.batch_size=4",
    "--config.data.eval_batch_size=8",
    "--config.data.source=bodies:studio?train=16&validation=8&test=8",
    "--config.data.target=bodies:street?train=16&validation=8&test=12",
    "--config.model.width=4",
    "--config.model.head_width=4",
    "--config.model.upsampling=2",
)


def command(workdir: Path, *arguments: str, config: str = "configs/regda.py:quick") -> list[str]:
    return [sys.executable, "-m", "jaxpose.main", f"--config={config}", f"--workdir={workdir}", *arguments]


def environment(**changes: str) -> dict[str, str]:
    base = {key: value for key, value in os.environ.items() if not key.startswith("XLA_FLAGS")}
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / "build" / "test-xla-cache"), "JAX_PLATFORMS": "cpu"}
    return base | cache | {"JAX_NUM_CPU_DEVICES": "1"} | changes


def run(workdir: Path, *arguments: str, config: str = "configs/regda.py:quick", **changes: str) -> str:
    """Everything that a successful run prints."""
    done = subprocess.run(
        command(workdir, *arguments, config=config),
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def fails(workdir: Path, *arguments: str, config: str = "configs/regda.py:quick") -> str:
    """The last line of standard error of a run that must fail, without a traceback."""
    done = subprocess.run(
        command(workdir, *arguments, config=config),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2, (done.returncode, done.stderr[-3000:])
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stderr.strip().splitlines()[-1]


def kill_when(started: Callable[[], Any], target: Callable[..., None], *arguments: Any) -> None:
    """Runs a function in a process of its own, which is killed as soon as something has happened."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not started():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def history(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
