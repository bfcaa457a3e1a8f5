"""Keys and orders by purpose, stage, domain and seed."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.data import seeds
from jaxpose.ops.augment import Augmentation, augment
from jaxpose.train import run


def test_no_two_uses_share_a_key() -> None:
    stages = ("pretrain", "adapt", "style", "adapt_1", "adapt_2", "relabel_1")
    found = [run.key_for(seed, purpose, s) for seed in range(8) for purpose in ("init", "update") for s in stages]
    by_step = jax.vmap(lambda key: jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(100)))
    keys = [np.asarray(jax.random.key_data(k)).reshape(-1, 2) for k in (jnp.stack(found), by_step(jnp.stack(found)))]
    seen = {tuple(key) for key in np.concatenate(keys).tolist()}
    assert len(seen) == len(found) * 101


def test_names_are_told_apart_also_where_their_letters_are_not() -> None:
    names = [*itertools.product(("a", "ab", "abc", ""), repeat=2), ("a",), ("ab",)]
    assert len({seeds.numbers(*words) for words in names}) == len(names)


def draws_twice(key: jax.Array) -> Any:
    return jax.random.uniform(key), jax.random.normal(key)


def augments(key: jax.Array) -> Any:
    settings = Augmentation(noise=3.0, mirror=0.5)
    return augment(key, jnp.zeros((2, 32, 32, 3), jnp.uint8), jnp.arange(2), settings)[0]


@pytest.mark.parametrize(("function", "once"), [(draws_twice, False), (augments, True)])
def test_augmentation_uses_each_key_once(function: Callable[[jax.Array], Any], once: bool) -> None:
    with jax.debug_key_reuse(True):
        if once:
            jax.jit(function).trace(jax.random.key(0))
            return
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(function).trace(jax.random.key(0))
