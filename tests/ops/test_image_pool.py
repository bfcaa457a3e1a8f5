"""The pool of images against what it promises: nothing is lost, doubled, or exchanged before there is enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops import image_pool

exchanged = jax.jit(image_pool.exchanged)


def numbered(*numbers: int) -> jax.Array:
    """Images whose pixels say which they are."""
    return jnp.broadcast_to(jnp.asarray(numbers, jnp.float32)[:, None, None, None], (len(numbers), 2, 3, 1))


def numbers(images: jax.Array) -> list[int]:
    np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1, :1, :1], images.shape))
    return [int(image[0, 0, 0]) for image in images]


def test_an_empty_pool_keeps_and_returns_what_comes() -> None:
    pool = image_pool.empty((2, 3, 1), size=5)
    for start in (1, 3):
        pool, found = exchanged(pool, numbered(start, start + 1), jax.random.key(start))
        assert numbers(found) == [start, start + 1]
    assert numbers(pool["images"]) == [1, 2, 3, 4, 0]
    assert int(pool["count"]) == 4


def test_a_full_pool_gives_one_of_its_own_for_half_of_what_comes() -> None:
    size, rounds, batch = 5, 60, 4
    pool = image_pool.empty((2, 3, 1), size=size)
    came, returned, swaps, places = [], [], 0, set()
    for step in range(rounds):
        new = [1 + step * batch + i for i in range(batch)]
        before = numbers(pool["images"])
        pool, found = exchanged(pool, numbered(*new), jax.random.key(step))
        came, returned = came + new, returned + numbers(found)
        if step > 1:
            swaps += sum(a != b for a, b in zip(new, numbers(found), strict=True))
            after = numbers(pool["images"])
            places |= {i for i in range(size) if before[i] != after[i]}
    assert int(pool["count"]) == size
    # What filled it was returned as it came, and once more when it left.
    filled = came[:size]
    inside = numbers(pool["images"])
    assert sorted(returned + inside) == sorted(came + filled)
    assert swaps / ((rounds - 2) * batch) == pytest.approx(0.5, abs=0.1)
    assert places == set(range(size))


def test_one_batch_may_fill_the_last_place_and_exchange_one_place_twice() -> None:
    """With one place, an image that was just kept can be given back for the next."""
    results = set()
    for seed in range(30):
        pool, found = exchanged(image_pool.empty((2, 3, 1), size=1), numbered(1, 2, 3), jax.random.key(seed))
        results.add((*numbers(found), *numbers(pool["images"])))
    assert results == {(1, 2, 3, 1), (1, 1, 3, 2), (1, 2, 1, 3), (1, 1, 2, 3)}


def test_the_key_alone_decides_and_no_gradient_flows() -> None:
    pool = {"images": numbered(1, 2), "count": jnp.asarray(2, jnp.int32)}
    first, second = (exchanged(pool, numbered(3, 4), jax.random.key(7)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    slope = jax.grad(lambda x: jnp.sum(image_pool.exchanged(pool, x, jax.random.key(0))[1]))(numbered(3, 4))
    np.testing.assert_array_equal(slope, 0)
