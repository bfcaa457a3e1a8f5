"""The published data sets by name."""

import importlib

from jaxpose.datasets.builder import RecordBuilder

_MODULES = (
    "animals",
    "coco",
    "dsprites",
    "freihand",
    "ge_hands",
    "h3d",
    "human36m",
    "lsp",
    "motions",
    "mpi_inf_3dhp",
    "mpii",
    "mvhand",
    "rhd",
    "simplified_human36m",
    "surreal",
    "threedpw",
    "threehundred_vw",
    "wflw",
)

BUILDERS: dict[str, type[RecordBuilder]] = {
    found.name: found
    for module in (importlib.import_module(f"jaxpose.datasets.{name}") for name in _MODULES)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, RecordBuilder) and found.__module__ == module.__name__
}


def find(name: str) -> type[RecordBuilder]:
    """A builder.

    Raises:
      ValueError: listing the names there are.
    """
    if name not in BUILDERS:
        raise ValueError(f"--dataset: found {name!r}, expected one of {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name]
