"""Kills runs at random moments, has them go on, and compares what they end with to a run that was left alone.

    python tests/e2e/kills.py --kills=100

Every kill is a SIGKILL: during the start, or while the run trains, evaluates, writes checkpoints, results and report. A
run is killed as often as it takes to finish; then parameters (fingerprint), predictions, evaluations and the log have
to be the same, byte for byte. The interpreter imports once and forks, so that a part of a run starts in seconds.
"""

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
commands = importlib.import_module("commands")

# The ends of the log's windows, checkpoints and evaluations fall on different steps.
STEPS = ("--config.steps.pretrain=5", "--config.steps.adapt=12", "--config.eval_every=5", "--config.log_every=3")


def main() -> None:
    """Prints a line per run and what was compared; status 1 if anything differed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    os.chdir(commands.ROOT)
    os.environ.clear()
    os.environ.update(commands.environment())
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if compare(Path(folder), chosen.kills, random.Random(chosen.seed)) else 1)


def compare(folder: Path, kills: int, draw: random.Random) -> bool:
    """Whether all runs ended as the one that was not killed."""
    duration = 0.0
    for name in ("whole", "again"):  # the second finds what the first has compiled
        started = time.monotonic()
        assert os.waitstatus_to_exitcode(os.waitpid(start(folder / name), 0)[1]) == 0
        duration = time.monotonic() - started
    print(f"left alone it takes {duration:.1f} s", flush=True)
    expected, done, runs, same = left_by(folder / "whole"), 0, 0, True
    while done < kills:
        workdir, parts = folder / f"run{runs}", 0
        while not killed_early(start(workdir), workdir, draw, duration, left=kills - done - parts):
            parts += 1
        found = left_by(workdir)
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        same &= not different
        done, runs = done + parts, runs + 1
        print(f"run {runs}: {parts} kills, {', '.join(different) + ' differ' if different else 'the same'}", flush=True)
    print(f"{done} kills in {runs} runs: {len(expected)} things compared, {'all the same' if same else 'DIFFERENT'}")
    return same


def start(workdir: Path) -> int:
    """The process of a part of a run."""
    from jaxpose import main as program  # in the parent, so once

    pid = os.fork()
    if pid:
        return pid
    with open(f"{workdir}.log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = commands.command(workdir, *commands.TINY, *STEPS)[2:]
    try:
        program.run()
        os._exit(0)
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    finally:
        os._exit(3)


def killed_early(pid: int, workdir: Path, draw: random.Random, duration: float, *, left: int) -> bool:
    """Kills a process at a random moment; whether it had finished before."""
    log = workdir / "metrics.jsonl"
    training = draw.random() < 0.8
    before = log.stat().st_size if log.exists() else 0
    wait = draw.uniform(0, duration / 2 if training else duration) if left > 0 else float("inf")
    since = None if training else time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            assert code == 0, f"{workdir}: status {code}: {Path(f'{workdir}.log').read_text()[-3000:]}"
            return True
        if since is None and log.exists() and log.stat().st_size != before:
            since = time.monotonic()
        if since is not None and time.monotonic() - since > wait:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.002)


def left_by(workdir: Path) -> dict[str, object]:
    """What has to be the same."""
    found = commands.results(workdir)
    files = [workdir / "metrics.jsonl", *sorted((workdir / "predictions").iterdir())]
    unfinished = [path.name for path in workdir.rglob("*tmp*")]
    words = {name: found[name] for name in ("fingerprint", "evaluations", "skipped_records", "data_changes")}
    return {path.name: path.read_bytes() for path in files} | words | {"unfinished": unfinished}


if __name__ == "__main__":
    main()
