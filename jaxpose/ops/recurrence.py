"""Recurrent layers: what depends on the step before is the scan, all else one product for all steps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def lstm(
    inputs: Float[Array, "b t i"],
    kernel: Float[Array, "i 4*u"],
    recurrent: Float[Array, "u 4*u"],
    bias: Float[Array, " 4*u"],
    first: tuple[Float[Array, "b u"], Float[Array, "b u"]],
) -> tuple[Float[Array, "b t u"], Float[Array, "b u"]]:
    """Hidden states of a long short-term memory at all steps, and the last one.

    Args:
      inputs: in the order in which they are read.
      kernel, recurrent, bias: of the gates: input, forget, what is stored, output. One is added to the forget gate's
        argument, so that nothing is forgotten at the start.
      first: hidden state and cell before the first step.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000.
    """
    products = jnp.einsum("bti,iu->tbu", inputs, kernel) + bias[None, None]

    def step(carried: tuple[Array, Array], product: Array) -> tuple[tuple[Array, Array], Array]:
        hidden, cell = carried
        gates = product + jnp.matmul(hidden, recurrent)
        take, keep, stored, show = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(keep + 1.0) * cell + jax.nn.sigmoid(take) * jnp.tanh(stored)
        hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
        return (hidden, cell), hidden

    (last, _), states = jax.lax.scan(step, first, products)
    return jnp.swapaxes(states, 0, 1), last


def bidirectional(
    inputs: Float[Array, "b t i"],
    kernel: Float[Array, "2 i 4*u"],
    recurrent: Float[Array, "2 u 4*u"],
    bias: Float[Array, "2 4*u"],
    first: tuple[Float[Array, "2 b u"], Float[Array, "2 b u"]],
) -> tuple[Float[Array, "b t 2*u"], Float[Array, "b 2*u"]]:
    """Two memories, of which the second reads backwards, in one scan: states side by side, step by step, and the last
    that either has come to."""
    both = jnp.stack([inputs, inputs[:, ::-1]])
    states, last = jax.vmap(lstm)(both, kernel, recurrent, bias, first)
    return jnp.concatenate([states[0], states[1][:, ::-1]], axis=-1), jnp.concatenate([last[0], last[1]], axis=-1)
