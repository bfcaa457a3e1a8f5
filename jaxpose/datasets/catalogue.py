"""The published data sets by name."""

from jaxpose.datasets import lsp
from jaxpose.datasets.builder import RecordBuilder

BUILDERS: dict[str, type[RecordBuilder]] = {builder.name: builder for builder in (lsp.Lsp, lsp.Lspet)}


def find(name: str) -> type[RecordBuilder]:
    """A builder.

    Raises:
      ValueError: listing the names there are.
    """
    if name not in BUILDERS:
        raise ValueError(f"--dataset: found {name!r}, expected one of {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name]
