"""From images to latent poses, and from latent poses to those of related images.

Source: Kundu et al. 2021 (relation distillation), Sec. 3, with the released code's layers.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops.activation import bounded, relu


class RelationNetwork(nnx.Module):
    """A pose's or a motion's latent vector to that of its counterpart, say of the mirrored body or of time reversed.

    Attributes:
      layer1, layer2, layer3: of 1024, 512 and `outputs`.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        bound: float = 1.0,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype  # float32, as all that adaptation compares
        self.bound = bound
        wide, narrow = (layers.scaled(size, width) for size in (1024, 512))
        self.layer1 = layers.Dense(inputs, wide, rngs=rngs)
        self.layer2 = layers.Dense(wide, narrow, rngs=rngs)
        self.layer3 = layers.Dense(narrow, outputs, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"], train: bool) -> Float[Array, "*b o"]:
        """Latent vectors, none of whose numbers is beyond `bound`."""
        return bounded(self.layer3(relu(self.layer2(relu(self.layer1(x))))), self.bound)


class PoseRegressor(nnx.Module):
    """Features of a backbone to latent poses, and to the embedding that images are contrasted by.

    Attributes:
      convs: 3x3 convolutions "0" to "3", the first with a stride of 2, computed in `dtype`.
      embedding: of all pixels; this and what follows is float32.
      hidden, latent: the latent pose of the embedding.
    """

    def __init__(
        self,
        *,
        inputs: int,
        size: tuple[int, int],
        latent: int = 32,
        bound: float = 1.0,
        width: float = 1.0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.bound = bound
        options = {"use_bias": True, "init": layers.he_normal_forward, "dtype": dtype, "rngs": rngs}
        channels = [inputs, *(layers.scaled(wide, width) for wide in (512, 256, 128, 64))]
        hidden = [embedding_size(width), *(layers.scaled(wide, width) for wide in (512, 256, 128))]
        pixels = ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
        self.convs = nnx.Dict(
            {
                str(i): layers.Conv(before, after, 3, stride=1 if i else 2, **options)
                for i, (before, after) in enumerate(itertools.pairwise(channels))
            }
        )
        self.embedding = layers.Dense(channels[-1] * pixels, hidden[0], rngs=rngs)
        self.hidden = nnx.Dict(
            {
                str(i): layers.Dense(before, after, rngs=rngs)
                for i, (before, after) in enumerate(itertools.pairwise(hidden))
            }
        )
        # Features of a backbone that is not normalised are large, and must not start beyond the bound.
        self.latent = layers.Dense(hidden[-1], latent, init=layers.normal(0.01), rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"], train: bool) -> tuple[Float[Array, "*b z"], Float[Array, "*b n"]]:
        """Latent poses, none of whose numbers is beyond `bound`, and embeddings (see `embedding_size`), float32.

        Args:
          x: features of images, of the `size` (height, width) that it was made for.
          train: ignored.
        """
        for conv in self.convs.values():
            x = relu(conv(x))
        embedding = relu(self.embedding(x.reshape(*x.shape[:-3], -1)))
        y = embedding
        for layer in self.hidden.values():
            y = relu(layer(y))
        return bounded(self.latent(y), self.bound), embedding


class Projection(nnx.Module):
    """Embeddings or motion vectors to unit vectors, which the contrastive loss compares.

    Attributes:
      layer1, layer2, layer3: of 512, 256 and `outputs`.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int = 128,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        wide, narrow = (layers.scaled(size, width) for size in (512, 256))
        self.layer1 = layers.Dense(inputs, wide, rngs=rngs)
        self.layer2 = layers.Dense(wide, narrow, rngs=rngs)
        self.layer3 = layers.Dense(narrow, outputs, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"], train: bool) -> Float[Array, "*b o"]:
        """Vectors of length 1."""
        y = self.layer3(relu(self.layer2(relu(self.layer1(x)))))
        square = jnp.sum(jnp.square(y), axis=-1, keepdims=True)
        return y * jax.lax.rsqrt(square + _LEAST)


def embedding_size(width: float) -> int:
    """Numbers of an embedding of `PoseRegressor`: 1024 as released."""
    return layers.scaled(1024, width)


_LEAST = 1e-12  # squared, of what has a direction
