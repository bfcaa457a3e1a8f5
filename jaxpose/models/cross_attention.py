"""Attention between the feature maps of two domains."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers

Maps = Float[Array, "b h w c"]


class CrossAttention(nnx.Module):
    """Bi-directional spatial attention: every place of one image's features receives those of the other that are alike.

    The gates are zero at the start, where the features leave as they came, and so is then the gradient of everything
    else: first the gates are learned.

    Attributes:
      query, key: 1x1 convolutions of the source's and the target's features to an eighth of their channels (A and B).
      value: one 1x1 convolution of both (S_c and T_c).
      source_gate, target_gate: how much is received (lambda_s and lambda_t).

    Source: Xu & Zou 2020 (CAFA), Eqs. 1-2, which lack a transpose: each place of the source receives a mean of the
    target's features over the *target's* places, and the other way round.
    """

    def __init__(self, *, inputs: int, dtype: DTypeLike, rngs: nnx.Rngs):
        narrow = max(inputs // 8, 1)
        options = {"use_bias": True, "init": layers.he_normal, "dtype": dtype, "rngs": rngs}
        self.query, self.key = (layers.Conv(inputs, narrow, 1, **options) for _ in range(2))
        self.value = layers.Conv(inputs, inputs, 1, **options)
        self.source_gate, self.target_gate = (nnx.Param(jnp.zeros(())) for _ in range(2))

    def __call__(self, both: tuple[Maps, Maps], train: bool) -> tuple[Maps, Maps]:
        """The features of as many source images and target images, each paired with one of the other."""
        source, target = both
        query, key, source_value, target_value = (
            x.reshape(len(x), -1, x.shape[-1])
            for x in (self.query(source), self.key(target), self.value(source), self.value(target))
        )
        # The gradient of wide scores is a wide product, which TPUs round unless told.
        highest = jax.lax.Precision.HIGHEST
        alike = jnp.einsum("bic,bjc->bij", query, key, precision=highest, preferred_element_type=jnp.float32)
        from_target = jax.nn.softmax(alike, axis=2).astype(query.dtype)  # over the target's places
        from_source = jax.nn.softmax(alike, axis=1).astype(query.dtype)  # over the source's
        to_source = jnp.einsum("bij,bjc->bic", from_target, target_value).reshape(source.shape)
        to_target = jnp.einsum("bij,bic->bjc", from_source, source_value).reshape(target.shape)
        source_gate, target_gate = (g[...].astype(source.dtype) for g in (self.source_gate, self.target_gate))
        return source + source_gate * to_source, target + target_gate * to_target
