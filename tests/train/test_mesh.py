import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.train import mesh as meshes


def test_batches_are_split_by_row_and_come_back_whole() -> None:
    mesh = meshes.make_mesh(2)
    rows = {"a": np.arange(12, dtype=np.float32).reshape(6, 2)}
    placed = meshes.to_devices(mesh, rows)["a"]
    assert [shard.data.shape for shard in placed.addressable_shards] == [(3, 2), (3, 2)]
    np.testing.assert_array_equal(meshes.to_host(placed), rows["a"])


def test_statistics_are_those_of_the_global_batch() -> None:
    mesh = meshes.make_mesh(2)
    rows = meshes.to_devices(mesh, np.array([0.0, 0.0, 4.0, 4.0], np.float32))
    assert float(jax.jit(jnp.var, out_shardings=meshes.replicated(mesh))(rows)) == 4.0


def test_too_many_devices_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"config.mesh.data: found 99, expected at most 2"):
        meshes.make_mesh(99)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What jax.distributed was asked to join, in an environment that says nothing of other processes."""
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    for name in list(os.environ):
        if name.startswith(("JAXPOSE_CO", "JAXPOSE_PRO", "JAXPOSE_TPU", "SLURM_", "JOB", "REPLICATED_JOB", "TPU_")):
            monkeypatch.delenv(name)
    return calls


EXPLICIT = {"JAXPOSE_COORDINATOR": "host:1", "JAXPOSE_PROCESSES": "3", "JAXPOSE_PROCESS": "2"}
SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "gpu[007-009,12],other",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
JOBSET = {
    "JOBSET_NAME": "pose",
    "REPLICATED_JOB_NAME": "workers",
    "JOB_COMPLETION_INDEX": "1",
    "JAXPOSE_PROCESSES": "2",
}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"},  # within sbatch, but not started by srun
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"JOB_COMPLETION_INDEX": "1"},  # a plain Kubernetes job
    ],
    ids=["nothing", "one task", "no srun", "one TPU host", "no JobSet"],
)
def test_a_single_process_joins_nobody(
    environment: dict[str, str], joined: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meshes.initialize_processes()
    assert joined == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (EXPLICIT, ("host:1", 3, 2)),
        (SLURM | JOBSET | EXPLICIT, ("host:1", 3, 2)),
        (SLURM, ("gpu007:62344", 4, 3)),  # 61440 + 5000 % 4096
        (SLURM | {"SLURM_STEP_NODELIST": "node-1,node-2"}, ("node-1:62344", 4, 3)),
        (SLURM | {"SLURM_STEP_NODELIST": "rack[3-4]n"}, ("rack3n:62344", 4, 3)),
        (JOBSET, ("pose-workers-0-0.pose:12355", 2, 1)),
    ],
    ids=["explicit", "explicit first", "SLURM", "SLURM, plain hosts", "SLURM, suffix", "JobSet"],
)
def test_processes_know_each_other_from_the_environment(
    environment: dict[str, str],
    expected: tuple[str, int, int],
    joined: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meshes.initialize_processes()
    (options,) = joined
    assert (options["coordinator_address"], options["num_processes"], options["process_id"]) == expected
    # With its own detection jax would give every task of SLURM a single GPU.
    assert options["cluster_detection_method"] == "deactivate"
    assert "local_device_ids" not in options


@pytest.mark.parametrize("environment", [{"JAXPOSE_TPU_POD": "1"}, {"TPU_WORKER_HOSTNAMES": "t0,t1"}])
def test_hosts_of_a_tpu_slice_are_left_to_jax(
    environment: dict[str, str], joined: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meshes.initialize_processes()
    assert joined == [{}]


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (without(EXPLICIT, "JAXPOSE_PROCESS"), "JAXPOSE_PROCESS: found none beside JAXPOSE_COORDINATOR, expected both"),
        (without(EXPLICIT, "JAXPOSE_PROCESSES"), "JAXPOSE_PROCESSES: found none beside JAXPOSE_COORDINATOR"),
        (without(EXPLICIT, "JAXPOSE_COORDINATOR"), "JAXPOSE_COORDINATOR: found none beside JAXPOSE_PROCESSES"),
        ({"JAXPOSE_PROCESS": "0"}, "JAXPOSE_COORDINATOR: found none beside JAXPOSE_PROCESS,"),
        ({"JAXPOSE_PROCESSES": "2"}, "JAXPOSE_COORDINATOR: found none beside JAXPOSE_PROCESSES"),
        (EXPLICIT | {"JAXPOSE_COORDINATOR": "host"}, "JAXPOSE_COORDINATOR: found 'host', expected host:port"),
        (EXPLICIT | {"JAXPOSE_PROCESS": "3"}, "JAXPOSE_PROCESS: found 3, expected at most 2"),
        (EXPLICIT | {"JAXPOSE_PROCESS": "-1"}, "JAXPOSE_PROCESS: found '-1', expected a number"),
        (EXPLICIT | {"JAXPOSE_PROCESSES": "two"}, "JAXPOSE_PROCESSES: found 'two', expected a number"),
        (without(SLURM, "SLURM_PROCID"), "SLURM_PROCID: found none beside SLURM_STEP_NODELIST"),
        (without(SLURM, "SLURM_JOB_ID"), "SLURM_JOB_ID: found none beside SLURM_STEP_NODELIST"),
        (without(SLURM, "SLURM_NTASKS"), "SLURM_NTASKS: found none beside SLURM_STEP_NODELIST"),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST: found '', expected a list of hosts"),
        (without(JOBSET, "REPLICATED_JOB_NAME"), "REPLICATED_JOB_NAME: found none beside JOBSET_NAME"),
        (without(JOBSET, "JAXPOSE_PROCESSES"), "JAXPOSE_PROCESSES: found none beside JOBSET_NAME"),
        (without(JOBSET, "JOB_COMPLETION_INDEX"), "JOB_COMPLETION_INDEX: found none beside JOBSET_NAME"),
    ],
)
def test_half_an_environment_is_one_line(
    environment: dict[str, str], message: str, joined: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        meshes.initialize_processes()
    assert "\n" not in str(raised.value)
    assert joined == []
