import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
from jaxtyping import install_import_hook

install_import_hook("jaxpose", "beartype.beartype")

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a property compiles; the time of one example says nothing.
hypothesis.settings.register_profile("jaxpose", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("jaxpose")
