import os
from collections.abc import Callable
from pathlib import Path

from commands import COMPILE_QUICKLY

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COMPILE_QUICKLY}"

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


LONGEST = ("multiprocess", "e2e", "recipes", "train", "models", "ops")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders whose files take longest go first: at the end a worker would be left with one of them alone."""
    items.sort(key=lambda item: (*LONGEST, item.path.parent.name).index(item.path.parent.name))


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
