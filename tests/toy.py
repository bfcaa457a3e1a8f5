"""Another architecture: a few convolutions at half the image's size, and nothing after them."""

import dataclasses
import functools

import jax
from flax import nnx
from jax.typing import DTypeLike

from jaxpose.limits import AT_LEAST_1, POSITIVE, limited
from jaxpose.models import functional, layers
from jaxpose.models.functional import Tree
from jaxpose.ops.heatmaps import Grid


@dataclasses.dataclass(kw_only=True)
class Toy:
    """A `config.Model`."""

    stride: int = limited(2, *AT_LEAST_1)
    width: int = limited(6, *AT_LEAST_1)
    sigma: float = limited(1.5, *POSITIVE)
    source_head: functional.Head = functional.regressor
    target_statistics: bool = False
    weights: str | None = None

    def grid(self, image_size: int) -> Grid:
        return Grid(size=image_size // self.stride, stride=float(self.stride), sigma=self.sigma)

    def trunk(self, dtype: DTypeLike) -> functional.Trunk:
        backbone = functools.partial(Convolutions, stride=self.stride, width=self.width)
        nothing = functional.Network(init=lambda key: ({}, {}), apply=lambda params, stats, x, train: (x[-1], stats))
        networks = {"backbone": functional.network(backbone, dtype=dtype), "upsampling": nothing}
        return functional.Trunk(networks=networks, channels=(4, self.width), width=self.width)

    def load(self, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
        return params, stats


class Convolutions(nnx.Module):
    def __init__(self, *, stride: int, width: int, dtype: DTypeLike, rngs: nnx.Rngs):
        options = {"init": layers.he_normal, "dtype": dtype, "rngs": rngs}
        self.conv1, self.bn1 = layers.Conv(3, 4, 3, stride=stride, **options), layers.BatchNorm(4, dtype=dtype)
        self.conv2, self.bn2 = layers.Conv(4, width, 3, **options), layers.BatchNorm(width, dtype=dtype)

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        x = jax.nn.relu(self.bn1(self.conv1(x), train))
        return x, jax.nn.relu(self.bn2(self.conv2(x), train))
