"""How bodies move, as an auto-encoder of sequences of latent poses, see `pose_prior`.

Source: Kundu et al. 2021 (relation distillation), Sec. 3.1, and the released code, in which nothing is adversarial.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops import recurrence
from jaxpose.ops.activation import bounded
from jaxpose.ops.recurrence import State


class MotionEncoder(nnx.Module):
    """Sequences of latent poses to motion vectors v, none of whose numbers is beyond `bound`.

    Attributes:
      lstm1, lstm2: both directions over time, `units` each.
      motion: of what the second puts out last, in both directions.
    """

    def __init__(
        self,
        *,
        latent: int = 32,
        motion: int = 128,
        units: int = 128,
        bound: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype  # float32: what is rounded adds up over time
        self.bound = bound
        self.lstm1 = BidirectionalLSTM(latent, units, rngs=rngs)
        self.lstm2 = BidirectionalLSTM(2 * units, units, rngs=rngs)
        self.motion = layers.Dense(2 * units, motion, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "b t z"], train: bool) -> Float[Array, "b v"]:
        """Motion vectors of sequences of any length."""
        x, _ = self.lstm1(self.lstm1.project(x))
        _, (last, _) = self.lstm2(self.lstm2.project(x))
        return bounded(self.motion(jnp.concatenate([last[0], last[1]], axis=-1)), self.bound)


class MotionDecoder(nnx.Module):
    """Motion vectors to sequences of `frames` latent poses, none of whose numbers is beyond `bound`.

    A motion vector is the input of every step, and what all states are before the first.

    Attributes:
      start: maps motion vectors to states; None where they have the same size, and are states.
      lstm1, lstm2: both directions over time, `units` each.
      latent: of the second's outputs.
    """

    def __init__(
        self,
        *,
        latent: int = 32,
        motion: int = 128,
        units: int = 128,
        frames: int = 30,
        bound: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        self.frames, self.bound = frames, bound
        self.start = None if motion == units else layers.Dense(motion, units, init=layers.lecun_normal, rngs=rngs)
        self.lstm1 = BidirectionalLSTM(motion, units, rngs=rngs)
        self.lstm2 = BidirectionalLSTM(2 * units, units, rngs=rngs)
        self.latent = layers.Dense(2 * units, latent, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "b v"], train: bool) -> Float[Array, "b t z"]:
        """Latent poses."""
        state = x if self.start is None else self.start(x)
        states = jnp.broadcast_to(state[None], (2, *state.shape))
        gates = self.lstm1.project(x[:, None])  # the same for all steps
        gates = jnp.broadcast_to(gates, (gates.shape[0], self.frames, *gates.shape[2:]))
        y, _ = self.lstm1(gates, (states, states))
        y, _ = self.lstm2(self.lstm2.project(y), (states, states))
        return bounded(self.latent(y), self.bound)


class BidirectionalLSTM(nnx.Module):
    """Long short-term memory in both directions, see `recurrence.bidirectional_lstm`.

    Attributes:
      kernel: (inputs, 2, 4 * units).
      recurrent: (2, units, 4 * units).
      bias: (2, 4 * units); at the start 1 for the gate that keeps what was there, as in the released code, else 0.
    """

    def __init__(self, inputs: int, units: int, *, rngs: nnx.Rngs):
        self.units = units
        self.kernel = nnx.Param(layers.normal(inputs**-0.5)(rngs.params(), (inputs, 2, 4 * units)))
        self.recurrent = nnx.Param(layers.normal(units**-0.5)(rngs.params(), (2, units, 4 * units)))
        self.bias = nnx.Param(jnp.zeros((2, 4 * units)).at[:, units : 2 * units].set(1.0))

    def project(self, x: Float[Array, "b t i"]) -> Float[Array, "b t 2 g"]:
        """What inputs contribute to the gates."""
        y = jnp.einsum("bti,idg->btdg", x.astype(jnp.float32), self.kernel[...], precision="highest")
        return y + self.bias[...][None, None]

    def __call__(
        self, gates: Float[Array, "b t 2 g"], start: State | None = None
    ) -> tuple[Float[Array, "b t u2"], State]:
        """Outputs and last states; without `start` the first are 0."""
        if start is None:
            zeros = jnp.zeros((2, gates.shape[0], self.units))
            start = zeros, zeros
        return recurrence.bidirectional_lstm(gates, self.recurrent[...], start)
