"""Layers of networks step by step in NumPy and SciPy, float64, NHWC; what they are filled with is in dicts as ours."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, signal

from jaxpose.models.functional import Network

Tree = dict[str, Any]

_KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "kernel": lambda rng, shape: rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[:3])),
    "bias": lambda rng, shape: rng.normal(size=shape) * 0.3,
    "scale": lambda rng, shape: rng.uniform(0.5, 1.5, shape),
    "mean": lambda rng, shape: rng.normal(size=shape) * 0.3,
    "var": lambda rng, shape: rng.uniform(0.5, 1.5, shape),
}


def filled(network: Network, seed: int = 0) -> tuple[Tree, Tree]:
    """Parameters and statistics none of which is 0 or 1, as they would be at the start."""
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> jax.Array:
        return jnp.asarray(_KINDS[path[-1].key](rng, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(network.init, jax.random.key(0)))


def count(network: Network) -> int:
    """The number of parameters."""
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def conv(x: np.ndarray, made: Tree) -> np.ndarray:
    kernel = np.asarray(made["kernel"], np.float64)
    reach = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    outputs = [
        np.stack([signal.correlate(image, kernel[..., o], "valid", method="direct") for image in padded])
        for o in range(kernel.shape[-1])
    ]
    return np.concatenate(outputs, axis=-1) + np.asarray(made.get("bias", 0.0))


def norm(x: np.ndarray, made: Tree, stats: Tree | None) -> np.ndarray:
    """By running statistics, or without any by the batch's own."""
    mean, var = (stats["mean"], stats["var"]) if stats else (x.mean((0, 1, 2)), x.var((0, 1, 2)))
    mean, var, scale, bias = (np.asarray(value, np.float64) for value in (mean, var, made["scale"], made["bias"]))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def conv_norm_relu(x: np.ndarray, made: Tree, stats: Tree | None) -> np.ndarray:
    return relu(norm(conv(x, made["0"]), made["1"], stats and stats["1"]))


def halved(x: np.ndarray) -> np.ndarray:
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def doubled(x: np.ndarray) -> np.ndarray:
    return np.kron(x, np.ones((1, 2, 2, 1)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def sample(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What maps show at places (x, y) in unit coordinates, between pixels linearly; zeros lie around them."""
    last = np.array(x.shape[1:3]) - 1
    found = np.empty((*places.shape[:3], x.shape[3]))
    for b, c in np.ndindex(len(x), x.shape[3]):
        rows, columns = np.moveaxis((places[b, ..., ::-1] + 1) / 2 * last, -1, 0)
        found[b, ..., c] = ndimage.map_coordinates(x[b, ..., c], [rows, columns], order=1, mode="grid-constant")
    return found


def places(size: tuple[int, int]) -> np.ndarray:
    """A map's own, (h, w, 2)."""
    return np.stack(np.meshgrid(np.linspace(-1, 1, size[1]), np.linspace(-1, 1, size[0])), axis=-1)


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To another size, with the corners where they are."""
    inside = np.clip(places(size), -1, 1 - 1e-12)
    return sample(x, np.broadcast_to(inside, (len(x), *inside.shape)))
