"""Devices and processes: the mesh, how batches and state lie on it, and how processes find each other."""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AnyMesh = Mesh | AbstractMesh  # an abstract one has no devices: programs are traced for it, but not run
_Result = TypeVar("_Result")

_JOBSET_PORT = 12355


def initialize_processes() -> None:
    """Joins the processes of a multi-host run; does nothing in a single process. Before any device is touched.

    The first of these that the environment shows says who the processes are:

    - `JAXPOSE_COORDINATOR` (host:port of process 0), `JAXPOSE_PROCESSES` and `JAXPOSE_PROCESS`: just that.
    - A SLURM step of more than one task, by `srun`'s variables. A task uses all GPUs that SLURM shows it.
    - A Kubernetes JobSet, by `JOBSET_NAME`, `REPLICATED_JOB_NAME`, `JOB_COMPLETION_INDEX` and `JAXPOSE_PROCESSES`, its
      number of pods, as `launch/jobset.yaml` sets them; process 0 is the first pod of the first job.
    - A Cloud TPU slice of several hosts: `JAXPOSE_TPU_POD=1`, or several `TPU_WORKER_HOSTNAMES`; jax asks the machine's
      metadata.

    Raises:
      ValueError: naming a variable that is missing beside others, or has no sense.
    """
    environment = os.environ
    if "JAXPOSE_COORDINATOR" in environment or "JAXPOSE_PROCESS" in environment:
        group = _explicit_group(environment)
    elif "SLURM_STEP_NODELIST" in environment and _number(environment, "SLURM_NTASKS", "SLURM_STEP_NODELIST") > 1:
        group = _slurm_group(environment)
    elif "JOBSET_NAME" in environment:
        group = _jobset_group(environment)
    elif "JAXPOSE_PROCESSES" in environment:
        raise ValueError("JAXPOSE_COORDINATOR: found none beside JAXPOSE_PROCESSES, expected host:port of process 0")
    elif environment.get("JAXPOSE_TPU_POD") == "1" or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()
        return
    else:
        return
    # jax's own detection would ask a metadata server or the Kubernetes API for what is known here, and under SLURM
    # leave one GPU to every task.
    jax.distributed.initialize(
        coordinator_address=group.coordinator,
        num_processes=group.processes,
        process_id=group.process,
        cluster_detection_method="deactivate",
    )


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


def with_mesh(mesh: AnyMesh, function: Callable[..., _Result]) -> Callable[..., _Result]:
    """The function with `ops.platform` being that of the mesh, whose devices need not be here."""

    @functools.wraps(function)
    def on_mesh(*arguments: Any) -> _Result:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return on_mesh


def replicated(mesh: AnyMesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: AnyMesh) -> NamedSharding:
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
    return sorted({name for theirs in _gathered(names) for name in theirs})


def from_first_process(function: Callable[[], Any]) -> Any:
    """What a function returns on process 0, on every process: plain JSON. The others do not call it.

    Raises:
      ValueError: on every process, if it raised that or an OSError there.
    """
    if jax.process_count() == 1:
        return function()
    told: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            told = {"value": function()}
        except (ValueError, OSError) as error:
            told = {"error": str(error)}
    told = _gathered(told)[0]
    if "error" in told:
        raise ValueError(told["error"])
    return told["value"]


def _gathered(value: Any) -> list[Any]:
    """The JSON values of all processes."""
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    longest = int(np.max(to_host(np.array([data.size], np.int32))))
    rows = to_host(np.pad(data, (0, longest - data.size), constant_values=32)[None])
    return [json.loads(row.tobytes().decode()) for row in rows]


@dataclasses.dataclass(frozen=True)
class _Group:
    """The processes of a run, and which of them this is."""

    coordinator: str
    processes: int
    process: int


def _explicit_group(environment: Mapping[str, str]) -> _Group:
    names = ("JAXPOSE_COORDINATOR", "JAXPOSE_PROCESSES", "JAXPOSE_PROCESS")
    given = next(name for name in names if name in environment)
    coordinator = _text(environment, "JAXPOSE_COORDINATOR", given)
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"JAXPOSE_COORDINATOR: found {coordinator!r}, expected host:port of process 0")
    return _group(environment, coordinator, names[1:], given)


def _slurm_group(environment: Mapping[str, str]) -> _Group:
    given = "SLURM_STEP_NODELIST"
    # The first host of lists such as node7,gpu[1-2] or node[007-010,015].
    match = re.match(r"([^,\[]+)(?:\[([^],-]+)[^]]*]([^,\[]*))?", environment[given])
    if match is None:
        raise ValueError(f"{given}: found {environment[given]!r}, expected a list of hosts")
    host = "".join(part or "" for part in match.groups())
    # Jobs that share a host shall not share a port.
    port = 61440 + _number(environment, "SLURM_JOB_ID", given) % 4096
    return _group(environment, f"{host}:{port}", ("SLURM_NTASKS", "SLURM_PROCID"), given)


def _jobset_group(environment: Mapping[str, str]) -> _Group:
    jobset, job = (_text(environment, name, "JOBSET_NAME") for name in ("JOBSET_NAME", "REPLICATED_JOB_NAME"))
    coordinator = f"{jobset}-{job}-0-0.{jobset}:{_JOBSET_PORT}"
    return _group(environment, coordinator, ("JAXPOSE_PROCESSES", "JOB_COMPLETION_INDEX"), "JOBSET_NAME")


def _group(environment: Mapping[str, str], coordinator: str, names: tuple[str, ...], given: str) -> _Group:
    processes, process = (_number(environment, name, given) for name in names)
    if process >= processes:
        raise ValueError(f"{names[1]}: found {process}, expected at most {processes - 1} ({names[0]} is {processes})")
    return _Group(coordinator, processes, process)


def _text(environment: Mapping[str, str], name: str, given: str) -> str:
    if not environment.get(name):
        raise ValueError(f"{name}: found none beside {given}, expected both (launch/ has examples)")
    return environment[name]


def _number(environment: Mapping[str, str], name: str, given: str) -> int:
    value = _text(environment, name, given)
    if not value.isdecimal():
        raise ValueError(f"{name}: found {value!r}, expected a number")
    return int(value)
