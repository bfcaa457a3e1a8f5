"""Two processes, and two devices of one, against one device; runs that are stopped and go on with other processes."""

import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from commands import ROOT, TINY, command, environment, history, results, run

from jaxpose.data.domains import open_pair
from jaxpose.data.host.pipeline import BatchPart, HostBatch, training_batches
from jaxpose.main import RUN_AGAIN

FEW_EVALUATIONS = ("--config.eval_every=100",)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def finish(command: list[str], **changes: str) -> None:
    done = subprocess.run(command, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]


def compare(one: Path, other: Path) -> None:
    """Losses of every step, what was counted, and the last state, up to the order of float additions.

    Not what was found: maps after a few steps are so flat that the last bit moves their peaks.
    """
    for expected, found in zip(losses(one), losses(other), strict=True):
        assert expected.keys() == found.keys()
        assert (expected["stage"], expected["step"]) == (found["stage"], found["step"])
        for name in expected:
            if name.startswith("loss"):
                np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, err_msg=f"{name} {expected}")
    for expected, found in zip(results(one)["evaluations"], results(other)["evaluations"], strict=True):
        assert expected.keys() == found.keys()
        assert expected["count"] == found["count"]
    expected, found = last_state(one), last_state(other)
    for part in ("params", "stats"):
        for network, tree in expected[part].items():
            a, b = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)]) for t in (tree, found[part][network]))
            assert np.linalg.norm(a - b) < 5e-3 * np.linalg.norm(a), (part, network)


def last_state(workdir: Path) -> dict[str, Any]:
    """The arrays of the newest checkpoint, whatever devices it was saved on."""
    checkpoints = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    folder = max(checkpoints, key=lambda path: int(path.name)).absolute() / "state"
    reader = ocp.PyTreeCheckpointer()
    on_host = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(folder).item_metadata.tree
    )
    return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=on_host))


def losses(workdir: Path) -> list[dict]:
    """What was logged of every update, in order."""
    return [line for line in history(workdir) if "loss/source" in line]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "one"
    run(workdir, *TINY)
    return workdir


def test_two_devices_equal_one(one_device: Path, tmp_path: Path) -> None:
    finish(command(tmp_path / "two", *TINY), JAX_NUM_CPU_DEVICES="2")
    assert len(results(tmp_path / "two")["devices"]) == 2
    compare(one_device, tmp_path / "two")


class Running:
    """A run in one or more processes, without `launch/local.sh`, so that each can be sent a signal."""

    def __init__(self, workdir: Path, count: int):
        self.log = workdir.with_suffix(".log").open("a")
        self._before = Path(self.log.name).stat().st_size
        group = {"JAXPOSE_COORDINATOR": f"127.0.0.1:{free_port()}", "JAXPOSE_PROCESSES": str(count)}
        self.processes = [
            subprocess.Popen(
                command(workdir, *TINY, *FEW_EVALUATIONS),
                cwd=ROOT,
                env=environment(PYTHONUNBUFFERED="1", **group, JAXPOSE_PROCESS=str(number)),
                stdout=self.log,
                stderr=self.log,
            )
            for number in range(count)
        ]

    def wait_until(self, ready: Callable[[str], bool]) -> None:
        """Until what the processes have printed is as `ready` says."""
        deadline = time.monotonic() + 500
        while not ready(self.output()):
            assert time.monotonic() < deadline, self.output()
            assert all(process.poll() is None for process in self.processes), self.output()
            time.sleep(0.01)

    def output(self) -> str:
        return Path(self.log.name).read_bytes()[self._before :].decode()

    def statuses(self) -> list[int]:
        return [process.wait(timeout=500) for process in self.processes]

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.log.close()


def saved_step(workdir: Path) -> int:
    """The newest checkpoint; one that is not complete has another name."""
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def test_stopped_runs_go_on_in_two_processes_and_in_one(one_device: Path, tmp_path: Path) -> None:
    """Two processes, two resumed, one, two: each part ends by SIGTERM, the last by itself and as one device does."""
    workdir = tmp_path / "stopped"
    steps = [0]

    # Before the first update, to both. jax notes it, and both agree on the step.
    with Running(workdir, 2) as running:
        running.wait_until(lambda output: "work directory" in output)
        for process in running.processes:
            process.send_signal(signal.SIGTERM)
        assert running.statuses() == [RUN_AGAIN, RUN_AGAIN], running.output()
    steps.append(saved_step(workdir))

    # Before the first update of a resumed run, where the agreed number would be one that is long past; to one of them.
    with Running(workdir, 2) as running:
        running.wait_until(lambda output: "work directory" in output)
        running.processes[1].send_signal(signal.SIGTERM)
        assert running.statuses() == [RUN_AGAIN, RUN_AGAIN], running.output()
    steps.append(saved_step(workdir))

    # What two have written is read by one, and what one has written by two.
    with Running(workdir, 1) as running:
        running.wait_until(lambda _: (workdir / "metrics.jsonl").read_text().count('"loss/source"') > steps[-1])
        running.processes[0].send_signal(signal.SIGTERM)
        assert running.statuses() == [RUN_AGAIN], running.output()
    steps.append(saved_step(workdir))
    assert steps == sorted(set(steps))
    assert not (workdir / "results.json").exists()

    launched = ["launch/local.sh", "2", *command(workdir, *TINY, *FEW_EVALUATIONS)[3:]]
    finish(launched, JAXPOSE_COORDINATOR=f"127.0.0.1:{free_port()}", PYTHON=sys.executable)
    assert len(results(workdir)["devices"]) == 2
    compare(one_device, workdir)


def test_two_processes_leave_the_pictures_of_one(tmp_path: Path) -> None:
    flags = [flag for flag in TINY if "steps" not in flag] + ["--config.steps.style=1", "--config.method.width=4"]
    run(tmp_path / "one", *flags, config="configs/style.py:quick")
    launched = ["launch/local.sh", "2", *command(tmp_path / "two", *flags, config="configs/style.py:quick")[3:]]
    finish(launched, JAXPOSE_COORDINATOR=f"127.0.0.1:{free_port()}", PYTHON=sys.executable)
    one, two = (cv2.imread(str(tmp_path / name / "pictures" / "style.png")).astype(int) for name in ("one", "two"))
    assert one.shape == (4 * 32, 4 * 32, 3)
    np.testing.assert_array_equal(two[:, [*range(32), *range(64, 96)]], one[:, [*range(32), *range(64, 96)]])
    np.testing.assert_allclose(two, one, atol=2)
    assert results(tmp_path / "two")["pictures"] == results(tmp_path / "one")["pictures"]


def test_two_processes_read_the_batches_of_one() -> None:
    pair = open_pair(
        source="bodies:studio?train=16",
        target="bodies:street?train=16",
        root=".",
        image_size=32,
        margin=1.25,
        memory=0,
        seed=0,
    )
    fields = {"source": ("image", "keypoints", "visible"), "target": ("image",)}
    reads = {
        name: BatchPart(elements=pair.domains[name].splits["train"], count=4, fields=wanted)
        for name, wanted in fields.items()
    }

    def take(process: int, processes: int) -> list[HostBatch]:
        batches = training_batches([reads], seed=0, start=3, process=process, processes=processes)
        return list(itertools.islice(batches, 5))  # beyond the end of an epoch

    halves = zip(take(0, 2), take(1, 2), strict=True)
    for whole, (first, second) in zip(take(0, 1), halves, strict=True):
        for domain in whole:
            for field, rows in whole[domain].items():
                np.testing.assert_array_equal(np.concatenate([first[domain][field], second[domain][field]]), rows)
