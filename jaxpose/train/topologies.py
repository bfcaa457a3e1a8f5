"""Devices that need not be here: XLA compiles for them where their plugin is installed."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

_HERE = "here"
_NAMES = "h200:N, v5e:NxM, v6e:NxM or here, such as h200:8 or v5e:2x2"

# A device as XLA's `gpu_target_config.proto` describes it; the numbers are NVIDIA's.
_H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 151397597184
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
}
runtime_version { major: 12 minor: 8 }
dnn_version_info { major: 9 minor: 10 }
platform_name: "CUDA"
device_description_str: "NVIDIA H200 141GB HBM3e"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """What the time of a program is estimated from; see `hlo.estimate`.

    Attributes:
      products: bfloat16 operations per second of a large matrix product.
      memory: bytes per second of a copy.
      clock: of a TPU's cycles, in Hz; XLA counts them itself.
    """

    products: float = 0.0
    memory: float = 0.0
    clock: float = 0.0


# H200: measured elsewhere. TPUs: the clock at which their matrix units reach the published rate.
_SPEEDS = {
    "h200": Speed(products=790e12, memory=4.3e12),
    "v5e": Speed(clock=1.5e9),
    "v6e": Speed(clock=1.75e9),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Devices to compile for.

    Attributes:
      mesh: all of them on the axis `data`.
      speed: of one; None for devices that are here, whose speed can be measured.
    """

    mesh: Mesh
    speed: Speed | None


def find(name: str) -> Topology:
    """The devices that a name stands for: `h200:8`, `v5e:2x2`, `v6e:2x4`, or `here`, those of this process.

    Raises:
      ValueError: if the name is none, or the plugin that compiles for it is not installed.
    """
    if name == _HERE:
        return Topology(mesh=_mesh(jax.devices()), speed=None)
    match = re.fullmatch(r"(h200):([1-9]\d*)|(v5e|v6e):([1-9]\d*)x([1-9]\d*)", name)
    if match is None:
        raise ValueError(f"--topology: found {name!r}, expected {_NAMES}")
    kind = match[1] or match[3]
    devices = _gpus(int(match[2])) if match[1] else _tpus(kind, int(match[4]), int(match[5]))
    return Topology(mesh=_mesh(devices), speed=_SPEEDS[kind])


def _mesh(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def _gpus(count: int) -> Sequence[Any]:
    try:
        return topologies.get_topology_desc("h200", "cuda", target_config=_H200, topology=f"1x1x{count}").devices
    except NotImplementedError:  # how jax says that no plugin registered this platform
        raise ValueError(_missing("cuda12")) from None


def _tpus(kind: str, rows: int, columns: int) -> Sequence[Any]:
    # A compiler alone asks no machine for its metadata, and leaves the chips of this one to others.
    os.environ["TPU_SKIP_MDS_QUERY"] = os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    # Hosts have up to 2 x 2 chips.
    bounds = tuple(2 if side % 2 == 0 else 1 for side in (rows, columns))
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=f"{kind}:{rows}x{columns}", chips_per_host_bounds=(*bounds, 1)
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"--topology={kind}:{rows}x{columns}: {str(error).splitlines()[0]}") from None
    except RuntimeError:
        raise ValueError(_missing("tpu")) from None


def _missing(extra: str) -> str:
    return f"--topology: found no compiler for it, expected one: pip install 'jax[{extra}]=={jax.__version__}'"
