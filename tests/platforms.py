"""Tracing for platforms that are not here."""

from contextlib import AbstractContextManager

import jax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType


def abstract_mesh(platform: str, devices: int = 1) -> AbstractMesh:
    device = AbstractDevice(device_kind=platform, num_cores=None, platform=platform)
    return AbstractMesh((devices,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)


def traced_for(platform: str) -> AbstractContextManager[None]:
    return jax.sharding.use_abstract_mesh(abstract_mesh(platform))
