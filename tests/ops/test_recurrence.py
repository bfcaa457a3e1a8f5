"""Long short-term memory beside a loop over steps in NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.ops import recurrence

BATCH, STEPS, UNITS = 3, 5, 4


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def one_way(gates: np.ndarray, recurrent: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[Any, ...]:
    """The outputs (B, T, U) of steps in the order in which they are given, and the last state."""
    outputs = []
    for t in range(gates.shape[1]):
        i, f, g, o = np.split(gates[:, t] + hidden @ recurrent, 4, axis=-1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, axis=1), hidden, cell


@functools.cache
def given() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    gates = 2 * rng.normal(size=(BATCH, STEPS, 2, 4 * UNITS))
    recurrent = rng.normal(size=(2, UNITS, 4 * UNITS))
    hidden, cell = rng.normal(size=(2, 2, BATCH, UNITS))
    return gates, recurrent, hidden, cell


def arguments() -> tuple[Any, ...]:
    gates, recurrent, hidden, cell = (jnp.asarray(x, jnp.float32) for x in given())
    return gates, recurrent, (hidden, cell)


def test_both_directions_are_loops_over_the_steps() -> None:
    gates, recurrent, hidden, cell = given()
    forward, *last = one_way(gates[:, :, 0], recurrent[0], hidden[0], cell[0])
    backward, *first = one_way(gates[:, ::-1, 1], recurrent[1], hidden[1], cell[1])
    outputs, states = jax.jit(recurrence.bidirectional_lstm)(*arguments())
    np.testing.assert_allclose(outputs, np.concatenate([forward, backward[:, ::-1]], axis=-1), atol=1e-5)
    for found, ahead, back in zip(states, last, first, strict=True):
        np.testing.assert_allclose(found, np.stack([ahead, back]), atol=1e-5)


def test_each_direction_sees_what_comes_before_it() -> None:
    """Later inputs do not change the first direction's outputs, nor earlier ones the second's."""
    gates, recurrent, state = arguments()
    outputs, _ = recurrence.bidirectional_lstm(gates, recurrent, state)
    changed, _ = recurrence.bidirectional_lstm(gates.at[:, 2].add(1.0), recurrent, state)
    same = np.all(np.isclose(outputs, changed, atol=1e-7).reshape(BATCH, STEPS, 2, UNITS), axis=(0, 3))
    assert same[:, 0].tolist() == [True, True, False, False, False]
    assert same[:, 1].tolist() == [False, False, False, True, True]


def test_the_loop_has_one_product_and_it_is_the_recurrent_one() -> None:
    jaxpr = jax.make_jaxpr(recurrence.bidirectional_lstm)(*arguments()).jaxpr
    loops = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    assert len(loops) == 1
    inside = loops[0].params["jaxpr"].jaxpr.eqns
    products = [equation for equation in inside if equation.primitive.name == "dot_general"]
    assert [sorted(v.aval.shape for v in p.invars) for p in products] == [[(2, BATCH, UNITS), (2, UNITS, 4 * UNITS)]]


def test_gradients_of_saturated_gates_are_finite() -> None:
    gates, recurrent, state = arguments()

    def loss(gates, recurrent, state):
        outputs, (_, cells) = recurrence.bidirectional_lstm(gates, recurrent, state)
        return jnp.sum(outputs) + jnp.sum(cells)

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(1e4 * gates, recurrent, state)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))
