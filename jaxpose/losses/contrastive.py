"""Contrastive losses: what belongs together is more alike than what does not; values per row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def info_nce(
    features: Float[Array, "b c"],
    positives: Float[Array, "b c"],
    *,
    temperature: float = 0.5,
    decoupled: bool = False,
) -> Float[Array, " b"]:
    """How well each row's own positive can be told from all other rows and their positives, by cosine.

    With `decoupled` the positive is no part of the sum that it is compared with, as POST prints it: the loss then goes
    below 0. A single row has nothing to be told from, and the loss 0.

    Source: Lin et al. 2023 (POST), Eq. 2, which sums over rows; Chen et al. 2020 (SimCLR); Yeh et al. 2022 for the
    decoupled form.
    """
    if len(features) == 1:
        return jnp.zeros_like(features[:, 0])
    anchors, others = _unit(features), _unit(positives)
    among, across = (
        jnp.einsum("ac,bc->ab", anchors, rows, precision="highest") / temperature for rows in (anchors, others)
    )
    own = jnp.eye(len(features), dtype=bool)
    positive = jnp.diagonal(across)
    negatives = jnp.concatenate(
        [jnp.where(own, -jnp.inf, among), jnp.where(own, -jnp.inf, across) if decoupled else across], axis=1
    )
    return jax.nn.logsumexp(negatives, axis=1) - positive


def _unit(x: Float[Array, "b c"]) -> Float[Array, "b c"]:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return jnp.where(square > 0, x / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
