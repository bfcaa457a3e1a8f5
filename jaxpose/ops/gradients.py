"""Values whose gradient is changed on its way back."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def scale_gradient(x: jax.Array, factor: jax.Array | float) -> jax.Array:
    """`x`, with `factor` (a scalar) times its gradient; a negative one turns it round (Ganin et al. 2016, Eq. 18).

    Only reverse mode is defined, and no gradient reaches the factor.
    """
    return x


def _forward(x, factor):
    return x, factor


def _backward(factor, gradient):
    return jnp.asarray(factor, gradient.dtype) * gradient, None


scale_gradient.defvjp(_forward, _backward)
