"""A detector of one convolution, one batch norm and a head, with weights that follow from their names."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from goldens import formula
from jax.typing import DTypeLike
from tiny import GRID, SIZE, K, make_config

from jaxpose.config import Config
from jaxpose.models import functional, layers
from jaxpose.recipes import detector
from jaxpose.recipes.stage import State, initial_state

CHANNELS = 5
RATE = 0.1


class Backbone(nnx.Module):
    """Images of `SIZE` to features of a quarter of it."""

    def __init__(self, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = layers.Conv(3, CHANNELS, 3, stride=4, init=nnx.initializers.zeros, dtype=dtype, rngs=rngs)
        self.bn = layers.BatchNorm(CHANNELS, dtype=dtype)

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array]:
        return (jax.nn.relu(self.bn(self.conv(x), train)),)


NETWORKS = detector.Detector(
    networks={
        "backbone": functional.network(Backbone),
        "upsampling": functional.Network(init=lambda key: ({}, {}), apply=lambda p, s, x, train: (x[-1], s)),
        "head": functional.keypoint_head(CHANNELS, K),
    },
    grid=GRID,
)
# torch's name and shape of each parameter
SHAPES = {
    "conv.weight": (CHANNELS, 3, 3, 3),
    "bn.weight": (CHANNELS,),
    "bn.bias": (CHANNELS,),
    "head.weight": (K, CHANNELS, 1, 1),
    "head.bias": (K,),
}


def state(owner: str) -> State:
    """Before any update; the owner's name is part of the weights' names."""
    made = {}
    for name, shape in SHAPES.items():
        full = f"{owner}.{name}"
        values = formula.numbers(full, shape) / 3 if len(shape) == 4 else formula.weights(full, shape)
        made[name] = jnp.asarray(values.transpose(2, 3, 1, 0) if len(shape) == 4 else values, jnp.float32)
    backbone = {
        "conv": {"kernel": made["conv.weight"]},
        "bn": {"scale": made["bn.weight"], "bias": made["bn.bias"]},
    }
    params = {
        "backbone": backbone,
        "upsampling": {},
        "head": {"conv": {"kernel": made["head.weight"], "bias": made["head.bias"]}},
    }
    bn = {"mean": jnp.zeros(CHANNELS), "var": jnp.ones(CHANNELS)}
    return initial_state(params=params, stats={"backbone": {"bn": bn}, "upsampling": {}, "head": {}}, optimizers={})


def as_torch(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Parameters by torch's names, in torch's order of axes."""
    conv, bn, head = params["backbone"]["conv"], params["backbone"]["bn"], params["head"]["conv"]
    found = (conv["kernel"], bn["scale"], bn["bias"], head["kernel"], head["bias"])
    return {
        name: np.asarray(value).transpose(3, 2, 0, 1) if value.ndim == 4 else np.asarray(value)
        for name, value in zip(SHAPES, found, strict=True)
    }


def images(name: str, rows: int) -> np.ndarray:
    """Normalised images (rows, SIZE, SIZE, 3) that follow from a name."""
    return formula.numbers(name, (rows, 3, SIZE, SIZE)).transpose(0, 2, 3, 1)


def config(settings: Any) -> Config:
    """Plain gradient descent at `RATE`."""
    made = make_config(settings)
    made.optim.learning_rate, made.optim.adapt_trunk_scale, made.optim.adapt_decay = RATE, 1.0, 0.0
    made.optim.momentum, made.optim.weight_decay = 0.0, 0.0
    return made
