"""Networks around codes of poses and motions: from images to codes, from codes to codes, and to be compared.

Source: Kundu et al. 2021, arXiv:2204.01971, Sec. 3.1-3.3, and the sizes of the released code that adapts; the one that
trains on the source has others, which would not fit.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.models.layers import Dense
from jaxpose.models.pose_prior import bounded
from jaxpose.ops.activation import relu


class PoseRegressor(nnx.Module):
    """Features of a backbone to codes of poses within +-bound, and what they were read from.

    Attributes:
      conv0, conv1, conv2, conv3: 3x3 convolutions of 512, 256, 128 and 64 channels; the first halves the map.
      embedding: 1024 numbers, what contrastive learning compares.
      dense0, dense1, dense2: 512, 256, 128.
      out: the code.
    """

    def __init__(
        self,
        *,
        inputs: int,
        size: int,
        latent: int,
        bound: float,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.bound = bound
        channels = [inputs, *(_scaled(width, of) for of in (512, 256, 128, 64))]
        for index, (before, after) in enumerate(itertools.pairwise(channels)):
            stride = 1 if index else 2
            conv = layers.Conv(
                before, after, 3, stride=stride, use_bias=True, init=layers.he_normal, dtype=dtype, rngs=rngs
            )
            setattr(self, f"conv{index}", conv)
        seen = embedding_size(width)
        self.embedding = Dense(channels[-1] * (-(-size // 2)) ** 2, seen, rngs=rngs)
        sizes = [seen, *(_scaled(width, of) for of in (512, 256, 128))]
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            setattr(self, f"dense{index}", Dense(before, after, rngs=rngs))
        self.out = Dense(sizes[-1], latent, gain=1.0, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> tuple[Float[Array, "b z"], Float[Array, "b n"]]:
        """Codes, and the embedding."""
        for index in range(4):
            x = relu(getattr(self, f"conv{index}")(x))
        seen = relu(self.embedding(x.astype(jnp.float32).reshape(len(x), -1)))
        found = seen
        for index in range(3):
            found = relu(getattr(self, f"dense{index}")(found))
        return bounded(self.out(found), self.bound), seen


class RelationNetwork(nnx.Module):
    """Codes to the codes that a relation leads to, by layers of 1024 and 512.

    Attributes:
      dense0, dense1, out: the layers.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        bound: float,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        self.bound = bound
        first, second = _scaled(width, 1024), _scaled(width, 512)
        self.dense0, self.dense1 = Dense(inputs, first, rngs=rngs), Dense(first, second, rngs=rngs)
        self.out = Dense(second, outputs, gain=1.0, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"], train: bool) -> Float[Array, "*b o"]:
        """Codes within +-bound."""
        return bounded(self.out(jax.nn.relu(self.dense1(jax.nn.relu(self.dense0(x))))), self.bound)


class Projection(nnx.Module):
    """What is compared to unit vectors of 128 numbers, by layers of 512 and 256.

    Attributes:
      dense0, dense1, out: the layers.
    """

    def __init__(self, *, inputs: int, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype
        sizes = [inputs, *(_scaled(width, of) for of in (512, 256, 128))]
        self.dense0, self.dense1 = (Dense(sizes[i], sizes[i + 1], rngs=rngs) for i in range(2))
        self.out = Dense(sizes[2], sizes[3], gain=1.0, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"], train: bool) -> Float[Array, "*b o"]:
        """Unit vectors; a vector that is nothing stays so."""
        x = self.out(jax.nn.relu(self.dense1(jax.nn.relu(self.dense0(x)))))
        square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
        return jnp.where(square > 0, x / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def embedding_size(width: float) -> int:
    """Numbers that `PoseRegressor` compares."""
    return _scaled(width, 1024)


def _scaled(width: float, size: int) -> int:
    return max(1, round(width * size))
