"""Runs the command line as a user does, on a problem small enough for a test."""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
# Tests compile much and compute little: code is not optimised, and not written by the emitters of fusions, which take
# more than half of what is left.
COMPILE_QUICKLY = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
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
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}  # many small programs are the same in many runs
    return base | cache | {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": COMPILE_QUICKLY} | changes


def run(workdir: Path, *arguments: str, config: str = "configs/regda.py:quick") -> str:
    """Everything that a successful run prints."""
    status, printed, error = _call(command(workdir, *arguments, config=config)[3:])
    assert status == 0, error[-3000:]
    return printed


def fails(workdir: Path, *arguments: str, config: str = "configs/regda.py:quick") -> str:
    """The last line of standard error of a run that must fail, without a traceback."""
    status, _, error = _call(command(workdir, *arguments, config=config)[3:])
    assert status == 2, (status, error[-3000:])
    assert "Traceback" not in error, error[-3000:]
    return error.strip().splitlines()[-1]


def _call(arguments: list[str]) -> tuple[int | None, str, str]:
    """Status, output and errors of the program, in a copy of a process that has imported what the program imports."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["jaxpose.train.compare", "jaxpose.datasets.prepare", "jaxpose.synth.write"])
    with mock.patch.dict(os.environ, environment(GLIBC_TUNABLES=""), clear=True):  # "": it would start itself anew
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as folder:
        process = forking.Process(target=_program, args=(arguments, folder))
        process.start()
        process.join(timeout=600)
        if process.exitcode is None:
            process.kill()
            process.join()
        printed, error = ((Path(folder) / name).read_text(errors="backslashreplace") for name in _STREAMS)
        return process.exitcode, printed, error


def _program(arguments: list[str], folder: str) -> None:
    os.chdir(ROOT)
    for number, name in enumerate(_STREAMS, start=1):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["jaxpose.main", *arguments]
    runpy.run_module("jaxpose.main", run_name="__main__", alter_sys=True)


_STREAMS = ("out", "err")


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
