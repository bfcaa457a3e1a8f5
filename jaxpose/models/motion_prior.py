"""Networks of motions: sequences of codes of poses to one code, and back.

Source: Kundu et al. 2021, arXiv:2204.01971, Sec. 3.1, and the sizes of the released code, in which nothing is
adversarial about motions.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models.layers import Dense, normal
from jaxpose.models.pose_prior import bounded
from jaxpose.ops import recurrence

_LAYERS = 2


class MotionEncoder(nnx.Module):
    """Sequences (B, T, latent) to codes (B, motion) within +-bound: what two layers have come to in both directions."""

    def __init__(
        self,
        *,
        latent: int,
        motion: int,
        units: int,
        bound: float,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype  # float32: sequences of short vectors
        self.bound = bound
        self.layer0 = Bidirectional(inputs=latent, units=units, rngs=rngs)
        self.layer1 = Bidirectional(inputs=2 * units, units=units, rngs=rngs)
        self.out = Dense(2 * units, motion, gain=1.0, rngs=rngs)

    def __call__(self, x: Float[Array, "b t z"], train: bool) -> Float[Array, "b v"]:
        """Codes."""
        states, _ = self.layer0(x, _nothing(x, self.layer0.units))
        _, last = self.layer1(states, _nothing(x, self.layer1.units))
        return bounded(self.out(last), self.bound)


class MotionDecoder(nnx.Module):
    """Codes (B, motion) to sequences (B, T, latent): the code is what all layers read, and what they begin with."""

    def __init__(
        self,
        *,
        latent: int,
        motion: int,
        units: int,
        frames: int,
        bound: float,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        self.frames, self.bound = frames, bound
        self.first = Dense(motion, _LAYERS * 2 * 2 * units, gain=1.0, rngs=rngs)
        self.layer0 = Bidirectional(inputs=motion, units=units, rngs=rngs)
        self.layer1 = Bidirectional(inputs=2 * units, units=units, rngs=rngs)
        self.out = Dense(2 * units, latent, gain=1.0, rngs=rngs)

    def __call__(self, v: Float[Array, "b v"], train: bool) -> Float[Array, "b t z"]:
        """Sequences."""
        x = jnp.broadcast_to(v[:, None], (len(v), self.frames, v.shape[1]))
        first = jnp.moveaxis(self.first(v).reshape(len(v), _LAYERS, 2, 2, -1), 0, 3)  # layer, state, direction, row
        x, _ = self.layer0(x, (first[0, 0], first[0, 1]))
        x, _ = self.layer1(x, (first[1, 0], first[1, 1]))
        return bounded(self.out(x), self.bound)


class Bidirectional(nnx.Module):
    """A layer of long short-term memory in both directions, see `ops.recurrence`.

    Attributes:
      kernel: (2, inputs, 4 * units).
      recurrent: (2, units, 4 * units).
      bias: (2, 4 * units).
    """

    def __init__(self, *, inputs: int, units: int, rngs: nnx.Rngs):
        self.units = units
        draw = normal((inputs + units) ** -0.5)
        self.kernel = nnx.Param(draw(rngs.params(), (2, inputs, 4 * units), jnp.float32))
        self.recurrent = nnx.Param(draw(rngs.params(), (2, units, 4 * units), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((2, 4 * units)))

    def __call__(
        self, x: Float[Array, "b t i"], first: tuple[Float[Array, "2 b u"], Float[Array, "2 b u"]]
    ) -> tuple[Float[Array, "b t 2*u"], Float[Array, "b 2*u"]]:
        """States at all steps, and the last ones."""
        return recurrence.bidirectional(x, self.kernel[...], self.recurrent[...], self.bias[...], first)


def _nothing(x: Array, units: int) -> tuple[Array, Array]:
    zero = jnp.zeros((2, len(x), units))
    return zero, zero
