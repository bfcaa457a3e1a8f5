"""The devices that a program is being traced for."""

import jax
from jax.sharding import PartitionSpec


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: that of the mesh in context, which need not be here, or else JAX's default.

    The trainer traces in the context of its mesh; elsewhere `jax.sharding.use_abstract_mesh` says what to trace for.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def devices() -> int:
    """How many devices share a batch: those of the mesh in context, or else one."""
    return max(1, jax.sharding.get_abstract_mesh().size)


def everywhere(value: jax.Array) -> jax.Array:
    """The value, given to all devices of the mesh in context at once."""
    return jax.lax.with_sharding_constraint(value, PartitionSpec())
