"""Recurrence over time, in both directions at once."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

State = tuple[Float[Array, "2 b u"], Float[Array, "2 b u"]]  # what was put out last, and the cells; by direction


def bidirectional_lstm(
    gates: Float[Array, "b t 2 g"], recurrent: Float[Array, "2 u g"], start: State
) -> tuple[Float[Array, "b t 2*u"], State]:
    """Long short-term memory from the first to the last step, and another one from the last to the first.

    Both directions are one loop, in which there is nothing but the recurrent product; what inputs contribute is one
    product for all steps, and the caller's.

    Args:
      gates: what inputs and bias add to input, forget, cell and output gate of the U units, by direction; G = 4 U.
      recurrent: what the last output adds to them.
      start: the states before the first step of each direction.

    Returns:
      outputs, of both directions side by side, of each step; the states after the last step of each direction, which
      for the second is the sequence's first.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, as torch and Keras have them.
    """
    forward, backward = gates[:, :, 0], jnp.flip(gates[:, :, 1], axis=1)
    steps = jnp.stack([forward, backward]).transpose(2, 0, 1, 3)  # (T, 2, B, 4 U)

    def step(state, gates):
        hidden, cell = state
        gates = gates + jnp.einsum("dbu,dug->dbg", hidden, recurrent, precision="highest")
        taken, kept, new, shown = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(kept) * cell + jax.nn.sigmoid(taken) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(shown) * jnp.tanh(cell)
        return (hidden, cell), hidden

    state, outputs = lax.scan(step, start, steps)
    both = jnp.concatenate([outputs[:, 0], jnp.flip(outputs[:, 1], axis=0)], axis=-1)
    return both.swapaxes(0, 1), state
