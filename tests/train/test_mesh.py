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


def test_a_single_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("joined")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    for name in ("JAXPOSE_COORDINATOR", "SLURM_NTASKS", "JOBSET_NAME", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    meshes.initialize_processes()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node1")
    meshes.initialize_processes()
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(AssertionError, match="joined"):
        meshes.initialize_processes()


def test_explicit_addresses_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: seen.update(options))
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("JAXPOSE_COORDINATOR", "host:1")
    monkeypatch.setenv("JAXPOSE_PROCESSES", "3")
    monkeypatch.setenv("JAXPOSE_PROCESS", "2")
    meshes.initialize_processes()
    assert seen == {"coordinator_address": "host:1", "num_processes": 3, "process_id": 2}
