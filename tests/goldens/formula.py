"""Numbers that a name determines, the same wherever they are made: what the goldens' networks are filled with."""

import math
import zlib

import numpy as np


def numbers(name: str, shape) -> np.ndarray:
    """Uniform in [-sqrt 3, sqrt 3), so of variance one; float64."""
    # Unlike its distributions, a bit generator's raw stream is the same in every release of NumPy.
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).reshape(tuple(shape)) * math.sqrt(3)


def weights(name: str, shape) -> np.ndarray:
    """Something like a trained network's tensor of this torch name and shape; float64."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape)
    if len(shape) == 4:
        return numbers(name, shape) * math.sqrt(2 / math.prod(shape[1:]))
    if name.endswith("running_var"):
        return 1 + numbers(name, shape) / 4
    return ("bias" not in name and "mean" not in name) + numbers(name, shape) / 4
