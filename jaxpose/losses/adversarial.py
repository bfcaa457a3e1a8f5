"""Losses of generators and discriminators; logits and scores are positive, or 1, for what is true.

Values are as the logits are, or one per image (B,); float32.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Logits = Float[Array, "*b"]
Images = Float[Array, "b h w c"]
Values = Float[Array, " b"]


def logistic(logits: Logits, *, true: bool) -> Logits:
    """Minus the log-likelihood that images are true, or that they are made.

    A discriminator has it of true images and of made ones; a generator's non-saturating loss is that its own are true.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, Sec. 3.
    """
    return jax.nn.softplus(-logits if true else logits)


def least_squares(scores: Sequence[Float[Array, "b _ _"]], *, true: bool) -> Values:
    """Mean squared distance of scores from 1, or from 0 for made images, over the pixels and then over the maps.

    Source: Mao et al. 2017 (LSGAN), arXiv:1611.04076, Eq. 9, with b = c = 1 and a = 0.
    """
    goal = 1.0 if true else 0.0
    values = [jnp.mean(jnp.square(score.astype(jnp.float32) - goal), axis=(1, 2)) for score in scores]
    return jnp.mean(jnp.stack(values), axis=0)


def r1(logits_of: Callable[[Images], Float[Array, " b"]], images: Images) -> Values:
    """Squared length of the gradient of the logits with respect to each (true) image; in the loss, times gamma / 2.

    Where a discriminator compares the images of a batch, an image's gradient includes what it does to others' logits,
    as in the released codes.

    Source: Mescheder et al. 2018, arXiv:1801.04406, Eq. 9.
    """
    slopes = jax.grad(lambda x: jnp.sum(logits_of(x).astype(jnp.float32)))(images)
    return jnp.sum(jnp.square(slopes.astype(jnp.float32)), axis=(1, 2, 3))
