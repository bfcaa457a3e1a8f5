"""jaxpose adapts keypoint detectors to new domains without labels."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxpose.model import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, which imports JAX when it is first asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxpose.model import load

    return load
