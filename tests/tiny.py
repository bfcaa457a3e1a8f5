"""A problem and networks that compile in a second."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from jaxpose.config import Config, Data
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.models import functional, layers
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation, Drawn
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import detector, inputs
from jaxpose.recipes.optimizers import Optim
from jaxpose.recipes.stage import Task

K, SIZE, BATCH = 3, 32, 4
NONE = Augmentation(
    rotation=0.0, scale=(1.0, 1.0), translation=0.0, brightness=0.0, contrast=0.0, saturation=0.0, blur=0.0
)
OPTIM = Optim(learning_rate=0.05)
GRID = Grid(size=8, stride=4.0, sigma=1.0)


def make_task(**changes: Any) -> Task:
    skeleton = Skeleton(name="three", joints=("a", "b", "c"))
    task = Task(skeleton=skeleton, image_size=SIZE, augmentation=NONE)
    return dataclasses.replace(task, **changes)


def make_config(method: Any) -> Config:
    return Config(
        method=method,
        steps={"pretrain": 2, "adapt": 10},
        data=Data(image_size=SIZE, batch_size=BATCH),
        model=SimpleBaseline(depth=18, width=4, head_width=8, sigma=1.0),
        optim=dataclasses.replace(OPTIM),
        dtype="float32",
    )


def make_batch(seed: int) -> dict[str, dict[str, jax.Array]]:
    rng = np.random.default_rng(seed)
    visible = np.array([[2, 1, 0], [2, 2, 2], [0, 2, 1], [2, 0, 2]], np.uint8)
    return {
        domain: {
            "image": jnp.asarray(rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)),
            "keypoints": jnp.asarray(rng.uniform(2, SIZE - 3, (BATCH, K, 2)).astype(np.float32)),
            "visible": jnp.asarray(visible if domain == "source" else visible[::-1].copy()),
            "position": jnp.arange(BATCH),
        }
        for domain in ("source", "target")
    }


class Backbone(nnx.Module):
    """Two convolutions with batch normalisation; a ResNet would only cost compile time."""

    def __init__(self, *, dtype: DTypeLike, rngs: nnx.Rngs):
        options = {"init": nnx.initializers.he_normal(), "dtype": dtype, "rngs": rngs}
        self.conv1 = layers.Conv(3, 4, 3, stride=4, **options)
        self.bn1 = layers.BatchNorm(4, dtype=dtype)
        self.conv2 = layers.Conv(4, 6, 3, stride=2, **options)
        self.bn2 = layers.BatchNorm(6, dtype=dtype)

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        x = jax.nn.relu(self.bn1(self.conv1(x), train))
        y = jax.nn.relu(self.bn2(self.conv2(x), train))
        return x, x, x, y


class Eye(nnx.Module):
    """In the place of VGG: as many activations, all of them of one convolution."""

    def __init__(self, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = layers.Conv(3, 4, 3, stride=2, init=nnx.initializers.he_normal(), dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        return (jax.nn.relu(self.conv(x)),) * 5


def make_networks(*, target_statistics: bool = False, coding: inputs.Coding = inputs.CLEAN) -> detector.Detector:
    return detector.Detector(
        networks={
            "backbone": functional.network(Backbone),
            "upsampling": functional.upsampling(6, 5, jnp.float32, layers=1),
            "head": functional.regressor(5, K, jnp.float32),
            "head_adv": functional.regressor(5, K, jnp.float32),
        },
        grid=GRID,
        coding=coding,
        channels=(4, 4, 4, 6),
        width=5,
        target_statistics=target_statistics,
    )


def drawn_as(images: jax.Array, matrix: jax.Array) -> tuple[jax.Array, Drawn]:
    """What `augment.augment` returns for given views that are not mirrored."""
    return images, Drawn(matrix=matrix, mirrored=jnp.zeros(len(matrix), bool), colours=None, noise=None)
