import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops.activation import relu
from jaxpose.ops.gradients import scale_gradient, split_gradient


def test_relu_passes_what_is_positive() -> None:
    x = jnp.asarray([-1.0, 0.0, 2.0])
    y, pull = jax.vjp(relu, x)
    np.testing.assert_array_equal(y, [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(pull(jnp.ones(3))[0], [0.0, 0.0, 1.0])


@pytest.mark.parametrize("factor", [-0.3, 0.0, jnp.float32(0.1)])
def test_scaled_gradients_leave_the_value(factor: jax.Array | float) -> None:
    x = jnp.asarray([1.0, -2.0])
    np.testing.assert_array_equal(scale_gradient(x, factor), x)
    slope = jax.grad(lambda x: jnp.sum(scale_gradient(x, factor) ** 2))(x)
    np.testing.assert_allclose(slope, factor * 2 * x, rtol=1e-6)


def test_split_gradients_go_to_parameters_and_input_through_one_pass() -> None:
    def function(w: jax.Array, x: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jnp.tanh(w @ x)
        return y, seen + jnp.sum(y)

    def loss(w: jax.Array, x: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second, seen = split_gradient(function, w, x, jnp.sum(v**2))
        return jnp.sum(first**3) + jnp.sum(jnp.exp(second)) + seen, seen

    w, x, v = jax.random.normal(jax.random.key(0), (3, 2)), jnp.asarray([0.3, -0.7]), jnp.asarray([1.0, 2.0])
    step = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    (by_w, by_x, by_v), seen = step(w, x, v)
    np.testing.assert_allclose(by_w, jax.grad(lambda w: jnp.sum(jnp.tanh(w @ x) ** 3))(w), rtol=1e-5)
    np.testing.assert_allclose(by_x, jax.grad(lambda x: jnp.sum(jnp.exp(jnp.tanh(w @ x))))(x), rtol=1e-5)
    np.testing.assert_array_equal(by_v, 0.0)
    np.testing.assert_allclose(seen, 5 + jnp.sum(jnp.tanh(w @ x)), rtol=1e-6)
    assert step.lower(w, x, v).as_text().count("tanh") == 1
