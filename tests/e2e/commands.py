"""Runs the command line as a user does, on a problem small enough for a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
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


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def history(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
