"""Two processes, and two devices of one, against one device."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from commands import ROOT, TINY, command, environment, history, results, run


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_in_two_processes(workdir: Path) -> None:
    done = subprocess.run(
        ["launch/local.sh", "2", *command(workdir, *TINY)[3:]],
        cwd=ROOT,
        env=environment(JAXPOSE_COORDINATOR=f"127.0.0.1:{free_port()}", PYTHON=sys.executable),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def compare(one: Path, other: Path) -> None:
    """Losses of every step, and evaluations, up to the order of float additions."""
    for expected, found in zip(history(one), history(other), strict=True):
        assert expected.keys() == found.keys()
        for name in expected:
            if name.startswith("loss"):
                np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, err_msg=f"{name} {expected}")
    for expected, found in zip(results(one)["evaluations"], results(other)["evaluations"], strict=True):
        assert expected["count"] == found["count"]
        if expected["group"] == "all":
            assert abs(expected["value"] - found["value"]) < 0.05


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "one"
    run(workdir, *TINY)
    return workdir


def test_two_devices_equal_one(one_device: Path, tmp_path: Path) -> None:
    run(tmp_path / "two", *TINY, JAX_NUM_CPU_DEVICES="2")
    assert len(results(tmp_path / "two")["devices"]) == 2
    compare(one_device, tmp_path / "two")


def test_two_processes_equal_one(one_device: Path, tmp_path: Path) -> None:
    run_in_two_processes(tmp_path / "two")
    assert len(results(tmp_path / "two")["devices"]) == 2
    compare(one_device, tmp_path / "two")
