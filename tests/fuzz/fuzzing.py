"""Reads damaged inputs and says what became of each: `python tests/fuzz/fuzzing.py --cases=10000 --seed=0`.

A case is a reader, a small valid input of it, and damage that a seed decides. It passes if the input is read, or
refused with a ValueError or OSError of one line that names it, in time and memory, and nothing is written, started or
imported meanwhile. Cases run in processes of their own, for a crash or a hang is a result too.
"""

import argparse
import collections
import contextlib
import faulthandler
import functools
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20  # of a case, which takes some milliseconds; machines are shared
MEMORY = 6 * 2**30  # bytes of addresses beyond what the imports take
_PLACES = (
    "tests",
    *(f"tests/data/{room}" for room in ("", "formats", "motion", "readers")),
    *(f"tests/{room}" for room in ("datasets", "models", "train")),
)


def main() -> None:
    """Runs the cases, or, as a worker, some of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="targets, separated by commas")
    parser.add_argument("--worker", action="store_true")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.cases)
    if given.worker:
        work(numbers, given.seed, given.only)
        return
    failures = 0
    counts: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    for case in run(numbers, seed=given.seed, workers=given.workers, only=given.only):
        counts[case["outcome"]] += 1
        if case["outcome"] not in ("read", "refused"):
            failures += 1
            print(json.dumps(case), flush=True)
    print(f"seed {given.seed}: {dict(counts)} in {time.monotonic() - began:.0f} s")
    raise SystemExit(1 if failures else 0)


def run(numbers: range, *, seed: int, workers: int, only: str = "") -> Iterator[dict[str, Any]]:
    """The results of some cases: `number`, `target`, `outcome`, `seconds`, `message`.

    An outcome is `read`, `refused`, or what went wrong: `traceback`, `several lines`, `names no file`, `memory`,
    `slow`, `hang`, `crash`, `writes`, `runs`.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *(str(ROOT / p) for p in _PLACES)])}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "JAX_PLATFORMS": "cpu", "OPENCV_LOG_LEVEL": "SILENT"}
    environment |= {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OMP_NUM_THREADS": "1"}
    parts = [numbers[start::workers] for start in range(min(workers, len(numbers)))]
    running = [_Worker(part, seed, only, environment) for part in parts]
    try:
        while running:
            select.select([worker.lines for worker in running], [], [], 1.0)
            for worker in list(running):
                yield from worker.results()
                if worker.finished:
                    running.remove(worker)
    finally:
        for worker in running:
            worker.stop()


class _Worker:
    """A process that works through cases, and starts anew behind one that it did not survive."""

    def __init__(self, numbers: range, seed: int, only: str, environment: dict[str, str]):
        self._numbers, self._seed, self._only, self._environment = numbers, seed, only, environment
        self.finished = False
        self._start()

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="fuzz-")
        step = self._numbers.step
        given = {"start": self._numbers.start, "stop": self._numbers.stop, "step": step, "folder": self._folder}
        with open(Path(self._folder) / "errors", "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--worker", f"--seed={self._seed}", f"--only={self._only}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self._folder,
                env=self._environment,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(given).encode())
        self._process.stdin.close()
        assert self._process.stdout is not None
        self.lines = self._process.stdout
        os.set_blocking(self.lines.fileno(), False)
        self._rest, self._current, self._heard = b"", None, time.monotonic()

    def results(self) -> Iterator[dict[str, Any]]:
        """What the process has said since the last time."""
        data = self.lines.read()
        if data:
            self._heard = time.monotonic()
            *whole, self._rest = (self._rest + data).split(b"\n")
            for line in whole:
                message = json.loads(line)
                self._current = message if "outcome" not in message else None
                if "outcome" in message:
                    self._numbers = self._numbers[1:] if message["number"] >= 0 else self._numbers
                    yield message
        ended = data == b"" and self._process.poll() is not None
        late = time.monotonic() - self._heard > (3 * SECONDS if self._current else 300)
        if not (ended or late):
            return
        errors = (Path(self._folder) / "errors").read_text(errors="replace")[-2000:]
        self.stop()
        if self._current is not None:
            outcome = "hang" if late else f"crash {self._process.returncode}"
            yield {**self._current, "outcome": outcome, "message": errors}
            self._numbers = self._numbers[1:]
        elif ended and self._numbers:
            raise RuntimeError(f"no case was begun: {errors}")
        if self._numbers:
            self._start()
        else:
            self.finished = True

    def stop(self) -> None:
        """Ends the process and removes its folder."""
        self._process.kill()
        self._process.wait()
        self.lines.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def work(_: range, seed: int, only: str) -> None:
    """Runs the cases that standard input names."""
    given = json.loads(sys.stdin.read())
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    faulthandler.disable()
    folder = Path(given["folder"])
    (folder / "canary.py").write_text("import pathlib\n\npathlib.Path(__file__).with_name('ran').touch()\n")
    sys.path.insert(0, str(folder))
    import targets

    names = [name for name in targets.TARGETS if not only or name in only.split(",")]
    for name in names:  # what is made once is made now
        whole = case(targets.TARGETS[name].use, targets.tree(name), folder)
        if whole["outcome"] != "read":
            result = {"number": -1, "target": name} | whole | {"outcome": f"undamaged: {whole['outcome']}"}
            print(json.dumps(result), file=channel, flush=True)
    watch()
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY, space + MEMORY))
    for number in range(given["start"], given["stop"], given["step"]):
        name = names[number % len(names)]
        print(json.dumps({"number": number, "target": name}), file=channel, flush=True)
        rng = random.Random(f"{seed} {number}")
        found = targets.damaged(name, rng)
        result = {"number": number, "target": name} | case(targets.TARGETS[name].use, found, folder)
        print(json.dumps(result), file=channel, flush=True)


def case(use: Any, tree: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """What became of a tree."""
    root = Path(tempfile.mkdtemp(dir=folder, prefix="case-"))
    for name, data in tree.items():
        path = root / name
        with contextlib.suppress(OSError, ValueError):  # a name that the file system does not take
            path.parent.mkdir(parents=True, exist_ok=True)
            _special().get(data, functools.partial(Path.write_bytes, data=data))(path)
    before = sorted(str(path) for path in folder.rglob("*"))
    WATCHED.clear()
    WATCHED.append("on")
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    began, outcome, message = time.process_time(), "read", ""
    try:
        use(root)
    except (ValueError, OSError) as error:
        outcome, message = "refused", str(error)
        own = {part for name in tree for part in (name, *name.split("/"), _stem(name))}
        if not any(part in message for part in (str(root), *own)):
            outcome = "names no file"
        for part in own:  # a name may hold the end of a line
            message = message.replace(part, "NAME") if "\n" in part else message
        if len(message.splitlines()) != 1:
            outcome = "several lines"
    except MemoryError as error:
        outcome, message = "memory", str(error)
    except _LateError:
        outcome, message = "slow", traceback.format_exc(limit=-6)
    except Exception:
        outcome, message = "traceback", traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        seen = WATCHED[1:]
        WATCHED.clear()
    if (folder / "ran").exists() or "canary" in sys.modules or any(text.startswith("runs") for text in seen):
        outcome, message = "runs", "; ".join(seen)
    elif seen or sorted(str(path) for path in folder.rglob("*")) != before:
        outcome, message = "writes", "; ".join(seen)
    shutil.rmtree(root, ignore_errors=True)
    return {"outcome": outcome, "seconds": round(time.process_time() - began, 2), "message": message[-2000:]}


def _special() -> dict[bytes, Callable[[Path], Any]]:
    import damage

    return {
        damage.PIPE: os.mkfifo,
        damage.DEVICE: lambda path: path.symlink_to("/dev/zero"),
        damage.LOOP: lambda path: path.symlink_to(path.parent),
        damage.FOLDER: Path.mkdir,
    }


class _LateError(BaseException):
    """The time of a case is over."""


def _late(*_: object) -> None:
    raise _LateError


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0] or name


def watch() -> None:
    """From now on, what cases write, start and import is seen; for ever, as Python has it."""
    sys.addaudithook(_watch)


WATCHED: list[str] = []  # empty: nobody watches; else "on" and what was seen
_RUNS = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.startfile")
_WRITES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.",
)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not WATCHED:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and path != os.devnull:
            WATCHED.append(f"writes {path!r}")
    elif event.startswith(_RUNS) or (event == "import" and arguments[0] == "canary"):
        WATCHED.append(f"runs {event} {arguments!r}"[:200])
    elif event.startswith(_WRITES):
        WATCHED.append(f"writes {event} {arguments!r}"[:200])


if __name__ == "__main__":
    main()
