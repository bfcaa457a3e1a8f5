"""Domain discriminators: which domain do features come from?"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers


class VectorDiscriminator(nnx.Module):
    """Feature vectors to one logit, positive for the source, by three affine layers.

    Source: Ganin et al. 2016, Sec. 5.2.1, without dropout.
    """

    def __init__(self, *, inputs: int, hidden: int, dtype: DTypeLike, rngs: nnx.Rngs):
        del dtype  # float32, as all losses
        self.layer1 = _affine(inputs, hidden, rngs)
        self.layer2 = _affine(hidden, hidden, rngs)
        self.layer3 = _affine(hidden, 1, rngs)

    def __call__(self, x: Float[Array, "b c"], train: bool) -> Float[Array, " b"]:
        """Logits."""
        x = x.astype(jnp.float32)[:, None, None, :]
        x = jax.nn.relu(self.layer1(x))
        x = jax.nn.relu(self.layer2(x))
        return self.layer3(x)[:, 0, 0, 0]


class PixelDiscriminator(nnx.Module):
    """Feature maps to one logit per pixel, positive for the source, by three 1x1 convolutions.

    Source: the local discriminator of Saito et al. 2019, arXiv:1812.04798.
    """

    def __init__(self, *, inputs: int, hidden: int, dtype: DTypeLike, rngs: nnx.Rngs):
        del dtype
        self.layer1 = _affine(inputs, hidden, rngs)
        self.layer2 = _affine(hidden, hidden // 2, rngs)
        self.layer3 = _affine(hidden // 2, 1, rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w"]:
        """Logits."""
        x = jax.nn.relu(self.layer1(x.astype(jnp.float32)))
        x = jax.nn.relu(self.layer2(x))
        return self.layer3(x)[..., 0]


def _affine(inputs: int, outputs: int, rngs: nnx.Rngs) -> layers.Conv:
    return layers.Conv(inputs, outputs, 1, use_bias=True, init=layers.he_normal, dtype=jnp.float32, rngs=rngs)
