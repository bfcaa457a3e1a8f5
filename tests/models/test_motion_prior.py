"""The motion prior's networks beside loops over frames in NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
from naive import sigmoid

from jaxpose.models import functional, motion_prior

LATENT, MOTION, UNITS, FRAMES = 3, 6, 4, 5


def network(kind: Any, **options: Any) -> functional.Network:
    return functional.network(functools.partial(kind, latent=LATENT, **options))


@functools.cache
def encoder() -> functional.Network:
    return network(motion_prior.MotionEncoder, motion=MOTION, units=UNITS, bound=2.0)


@functools.cache
def decoder(motion: int = MOTION) -> functional.Network:
    return network(motion_prior.MotionDecoder, motion=motion, units=UNITS, frames=FRAMES)


@functools.cache
def filled(made: functional.Network) -> Any:
    rng = np.random.default_rng(1)
    shapes, stats = jax.eval_shape(made.init, jax.random.key(0))
    assert stats == {}
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.7, jnp.float32), shapes)


def applied(made: functional.Network, x: np.ndarray) -> jax.Array:
    x32 = jnp.asarray(x, jnp.float32)
    return jax.jit(functools.partial(made.apply, train=True))(filled(made), {}, x32)[0]


def lstm(made: Any, x: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (B, T, 2 U) and what each direction put out last, (B, 2 U); all states are `start` before the first."""
    outputs, last = np.zeros((*x.shape[:2], 2, UNITS)), []
    for direction, steps in enumerate((range(x.shape[1]), reversed(range(x.shape[1])))):
        kernel, recurrent, bias = (
            np.asarray(value, np.float64)
            for value in (made["kernel"][:, direction], made["recurrent"][direction], made["bias"][direction])
        )
        hidden = cell = start
        for t in steps:
            i, f, g, o = np.split(x[:, t] @ kernel + hidden @ recurrent + bias, 4, axis=-1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            outputs[:, t, direction] = hidden = sigmoid(o) * np.tanh(cell)
        last.append(hidden)
    return outputs.reshape(*x.shape[:2], 2 * UNITS), np.concatenate(last, axis=-1)


def affine(made: Any, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(made["kernel"], np.float64) + np.asarray(made["bias"])


@functools.cache
def sequences() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, FRAMES, LATENT))


def test_encoding_is_what_both_directions_put_out_last() -> None:
    params, zeros = filled(encoder()), np.zeros((2, UNITS))
    y, _ = lstm(params["lstm1"], sequences(), zeros)
    _, last = lstm(params["lstm2"], y, zeros)
    expected = 2 * np.tanh(affine(params["motion"], last) / 2)
    assert expected.std() > 0.2
    np.testing.assert_allclose(applied(encoder(), sequences()), expected, atol=1e-5)
    # The order of frames matters, their number does not.
    assert float(jnp.abs(applied(encoder(), sequences()[:, ::-1]) - expected).max()) > 0.01
    assert applied(encoder(), sequences()[:, :2]).shape == expected.shape


@pytest.mark.parametrize("motion", [UNITS, MOTION])
def test_decoding_reads_the_motion_at_every_step_and_as_the_first_states(motion: int) -> None:
    v = np.random.default_rng(2).uniform(-1, 1, (2, motion))
    params = filled(decoder(motion))
    assert ("start" in params) == (motion != UNITS)
    start = affine(params["start"], v) if motion != UNITS else v
    y, _ = lstm(params["lstm1"], np.repeat(v[:, None], FRAMES, axis=1), start)
    y, _ = lstm(params["lstm2"], y, start)
    expected = np.tanh(affine(params["latent"], y))
    found = applied(decoder(motion), v)
    assert found.shape == (2, FRAMES, LATENT)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_published_sizes() -> None:
    def lstm(inputs: int) -> int:
        return 2 * 4 * 128 * (inputs + 128 + 1)

    encoding = functional.network(motion_prior.MotionEncoder)
    decoding = functional.network(motion_prior.MotionDecoder)
    assert naive.count(encoding) == lstm(32) + lstm(256) + 257 * 128
    assert naive.count(decoding) == lstm(128) + lstm(256) + 257 * 32


def test_new_memories_keep_what_they_hold() -> None:
    params, _ = encoder().init(jax.random.key(0))
    bias = np.asarray(params["lstm1"]["bias"]).reshape(2, 4, UNITS)
    np.testing.assert_array_equal(bias, np.broadcast_to([[[0], [1], [0], [0]]], bias.shape))


def test_one_product_projects_all_steps() -> None:
    """Of the decoder, whose first layer has the same inputs at all steps, only one step's."""
    jaxpr = jax.make_jaxpr(functools.partial(decoder().apply, train=True))(filled(decoder()), {}, jnp.ones((2, MOTION)))
    products = [
        {v.aval.shape for v in equation.invars}
        for equation in jaxpr.jaxpr.eqns
        if equation.primitive.name == "dot_general"
    ]
    assert {(2, 1, MOTION), (MOTION, 2, 4 * UNITS)} in products
    assert {(2, FRAMES, 2 * UNITS), (2 * UNITS, 2, 4 * UNITS)} in products


def test_every_parameter_has_a_gradient() -> None:
    def loss(encoding, decoding):
        v, _ = encoder().apply(encoding, {}, jnp.asarray(sequences(), jnp.float32), train=True)
        return jnp.sum(jnp.square(decoder().apply(decoding, {}, v, train=True)[0] - 0.5))

    slope = jax.jit(jax.grad(loss, argnums=(0, 1)))(filled(encoder()), filled(decoder()))
    for leaf in jax.tree.leaves(slope):
        assert np.isfinite(leaf).all()
        assert float(jnp.abs(leaf).max()) > 0
