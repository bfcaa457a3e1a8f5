"""Devices and processes: the mesh, how batches and state lie on it, and how processes find each other."""

import json
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Shardings = Any


def initialize_processes() -> None:
    """Joins the processes of a multi-host run; does nothing in a single process.

    Explicit addresses (`JAXPOSE_COORDINATOR`, `JAXPOSE_PROCESSES`, `JAXPOSE_PROCESS`) come first; then SLURM with more
    than one task, a Kubernetes JobSet or a Cloud TPU pod slice, which jax recognises from their environment. Must run
    before any device is touched.
    """
    environment = os.environ
    if "JAXPOSE_COORDINATOR" in environment:
        jax.distributed.initialize(
            coordinator_address=environment["JAXPOSE_COORDINATOR"],
            num_processes=int(environment["JAXPOSE_PROCESSES"]),
            process_id=int(environment["JAXPOSE_PROCESS"]),
        )
        return
    slurm = int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in environment
    kubernetes = "JOBSET_NAME" in environment
    tpu_pod = len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
    if slurm or kubernetes or tpu_pod:
        jax.distributed.initialize()


def make_mesh(data: int) -> Mesh:
    """A one-axis mesh over `data` devices, 0 for all.

    Raises:
      ValueError: if there are fewer devices.
    """
    devices = jax.devices()
    count = data or len(devices)
    if count > len(devices):
        raise ValueError(f"config.mesh.data: found {count}, expected at most {len(devices)} (the devices here)")
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_devices(mesh: Mesh, batch: Any) -> Any:
    """This process's rows of a batch as global arrays split over the devices."""
    sharding = by_row(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def to_host(value: Any) -> Any:
    """Whole NumPy arrays, on every process, of arrays that are split over devices."""
    if jax.process_count() > 1:
        # Imported here because it initialises the backend.
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(value, tiled=True)
    return jax.tree.map(np.asarray, value)


def gather_names(names: list[str]) -> list[str]:
    """The names that any process holds, on every process."""
    if jax.process_count() == 1:
        return names
    data = np.frombuffer(json.dumps(names).encode(), np.uint8)
    longest = int(np.max(to_host(np.array([data.size], np.int32))))
    rows = to_host(np.pad(data, (0, longest - data.size), constant_values=32)[None])
    return sorted({name for row in rows for name in json.loads(row.tobytes().decode())})
