"""Made images of earlier steps, which a discriminator sees among those of now, so that it forgets no trick.

A pool is a plain dict of arrays that a train state can hold.

Source: Shrivastava et al. 2017, arXiv:1612.07828, Sec. 2.3, as in the code of Zhu et al. 2017 (CycleGAN), which
KeypointGAN takes up.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

Pool = dict[str, Array]  # "images" (N, H, W, C), and how many of them there are: "count", int32
Images = Float[Array, "b h w c"]


def empty(shape: tuple[int, int, int], *, size: int = 50) -> Pool:
    """A pool for so many images (H, W, C), with none."""
    return {"images": jnp.zeros((size, *shape)), "count": jnp.zeros((), jnp.int32)}


def exchanged(pool: Pool, images: Images, key: PRNGKeyArray) -> tuple[Pool, Images]:
    """The pool afterwards, and as many images, some of them from it.

    Images come one after the other. As long as there is room, an image is kept and returned; then, with a probability
    of one half, it takes the place of a random one, which is returned, and else it is returned itself. No gradient
    flows.
    """
    size = len(pool["images"])
    room = pool["count"] + jnp.arange(len(images), dtype=jnp.int32)
    chosen, place = jax.random.split(key)
    exchanges = jax.random.bernoulli(chosen, 0.5, (len(images),))
    places = jnp.where(room < size, room, jax.random.randint(place, (len(images),), 0, size))

    def step(kept, each):
        image, place, fills, exchanges = each
        old = lax.dynamic_index_in_dim(kept, place, keepdims=False)
        kept = lax.dynamic_update_index_in_dim(kept, jnp.where(fills | exchanges, image, old), place, 0)
        return kept, jnp.where(exchanges & ~fills, old, image)

    images = lax.stop_gradient(images).astype(jnp.float32)
    kept, found = lax.scan(step, pool["images"], (images, places, room < size, exchanges))
    count = jnp.minimum(pool["count"] + len(images), size)
    return {"images": kept, "count": count}, found
