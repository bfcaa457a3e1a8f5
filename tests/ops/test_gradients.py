import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops.activation import relu
from jaxpose.ops.gradients import scale_gradient


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
