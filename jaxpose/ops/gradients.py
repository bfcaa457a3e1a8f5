"""Values whose gradient is changed on its way back."""

from collections.abc import Callable
from typing import Any

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


def split_gradient(function: Callable[..., tuple[Any, Any]], params: Any, x: Any, *rest: Any) -> tuple[Any, Any, Any]:
    """`y, aux = function(params, x, *rest)` in one pass, as `(y, y, aux)` whose gradients go separate ways.

    That of the first `y` goes to `params` alone, that of the second to `x` alone, so that a network and what it reads
    can be given different losses. No gradient reaches the rest, which is whatever else depends on trained parameters,
    and none leaves `aux`. Only reverse mode is defined.
    """

    @jax.custom_vjp
    def apply(params, x, rest):
        y, aux = function(params, x, *rest)
        return y, y, aux

    def forward(params, x, rest):
        y, pull, aux = jax.vjp(lambda params, x: function(params, x, *rest), params, x, has_aux=True)
        return (y, y, aux), pull

    def backward(pull, gradients):
        for_params, for_x, _ = gradients
        return pull(for_params)[0], pull(for_x)[1], None

    apply.defvjp(forward, backward)
    return apply(params, x, jax.lax.stop_gradient(rest))
