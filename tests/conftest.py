import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little. The command line is run as its users run it, see `commands.environment`.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook("jaxpose", "beartype.beartype")

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a property compiles; the time of one example says nothing.
hypothesis.settings.register_profile("jaxpose", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("jaxpose")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests start processes take longest and go first: at the end a worker would be left with one alone."""
    items.sort(key=lambda item: item.path.parent.name not in ("multiprocess", "e2e"))


@pytest.fixture
def pack() -> Callable[[str], Path]:
    """Finds a pack of real data in the folder `JAXPOSE_DATA`; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        folder = os.environ.get("JAXPOSE_DATA")
        if folder is None:
            pytest.skip("JAXPOSE_DATA does not point to the packs of real data")
        if not (Path(folder) / name).exists():
            pytest.skip(f"{name} is absent from {folder}")
        return Path(folder) / name

    return find
