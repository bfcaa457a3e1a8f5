"""The generator beside its description in NumPy, and what it must do whatever its weights are."""

import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxpose.models import functional, generator
from jaxpose.ops import convolution

SIZE, SMALL = (16, 12), (4, 3)
TINY = functools.partial(generator.Generator, width=2, halvings=2, blocks=1)


@functools.cache
def tiny() -> functional.Network:
    return functional.network(TINY)


@functools.cache
def compiled() -> Any:
    return jax.jit(functools.partial(tiny().apply, train=False))


def generated(base: np.ndarray, places: np.ndarray, inpainting: np.ndarray) -> np.ndarray:
    arrays = tuple(jnp.asarray(x, jnp.float32) for x in (base, places, inpainting))
    return np.asarray(compiled()(*naive.filled(tiny()), arrays)[0])


def pictures(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (2, *SIZE, 3)).astype(np.float32)


def unmoved() -> np.ndarray:
    return np.broadcast_to(naive.places(SMALL), (2, *SMALL, 2)).astype(np.float32)


def everywhere(value: float) -> np.ndarray:
    return np.full((2, *SMALL, 1), value, np.float32)


@functools.cache
def motion() -> tuple[np.ndarray, np.ndarray]:
    """Places, of which some lie outside, and an inpainting map."""
    rng = np.random.default_rng(1)
    places = unmoved() * 1.1 + rng.normal(size=(2, *SMALL, 2)) * 0.3
    return places.astype(np.float32), rng.uniform(0.1, 0.9, (2, *SMALL, 1)).astype(np.float32)


def described(params: Any, stats: Any, base: np.ndarray, places: np.ndarray, inpainting: np.ndarray) -> np.ndarray:
    def step(name: str, x: np.ndarray) -> np.ndarray:
        return naive.conv_norm_relu(x, params[name], stats and stats[name])

    def shown(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = naive.resized(inpainting, x.shape[1:3])
        return count * naive.sample(x, naive.resized(places, x.shape[1:3])), 1 - count

    def blended(skip: np.ndarray, made: np.ndarray) -> np.ndarray:
        moved, hidden = shown(skip)
        return moved + hidden * made

    base = base.astype(np.float64)
    full = step("first", base)
    half = naive.halved(step("down0", full))
    quarter = naive.halved(step("down1", half))

    x, block, running = shown(quarter)[0], params["block0"], stats and stats["block0"]
    y = naive.conv(naive.relu(naive.norm(x, block["norm1"], running and running["norm1"])), block["conv1"])
    x = x + naive.conv(naive.relu(naive.norm(y, block["norm2"], running and running["norm2"])), block["conv2"])

    x = step("up1", naive.doubled(blended(quarter, x)))
    x = step("up0", naive.doubled(blended(half, x)))
    return blended(base, naive.sigmoid(naive.conv(blended(full, x), params["last"])))


@functools.cache
def trained() -> tuple[Any, Any, Any]:
    """Images and new statistics of a training step, and the gradients of uneven sums of them."""
    params, stats = naive.filled(tiny())

    def loss(params, places, inpainting):
        images, new = tiny().apply(params, stats, (jnp.asarray(pictures()), places, inpainting), train=True)
        uneven = jnp.asarray(np.random.default_rng(2).normal(size=images.shape), jnp.float32)
        return jnp.sum(images * uneven), (images, new)

    gradient, (images, new) = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(params, *motion())
    return images, new, gradient


def test_images_equal_the_description() -> None:
    expected = described(*naive.filled(tiny()), pictures(), *motion())
    assert expected.std() > 0.1
    np.testing.assert_allclose(generated(pictures(), *motion()), expected, atol=5e-6)


def test_training_normalises_by_the_batch_and_remembers_it() -> None:
    images, new, _ = trained()
    params, stats = naive.filled(tiny())
    np.testing.assert_allclose(images, described(params, None, pictures(), *motion()), atol=1e-5)
    first = naive.conv(pictures().astype(np.float64), params["first"]["0"])
    for name, found in (("mean", first.mean((0, 1, 2))), ("var", first.var((0, 1, 2)))):
        running = 0.9 * np.asarray(stats["first"]["1"][name]) + 0.1 * found
        np.testing.assert_allclose(new["first"]["1"][name], running, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_array_less(0, np.abs(np.asarray(a - b))), new, stats)


def test_what_did_not_move_and_is_shown_is_the_base_image() -> None:
    """Up to what places in float32 lose to rounding, a hundredth of a grey level of 255 at most."""
    np.testing.assert_allclose(generated(pictures(), unmoved(), everywhere(1.0)), pictures(), atol=4e-6)


def test_a_picture_moves_against_its_places() -> None:
    """What lies two pixels to the right and one further down comes here; nothing comes from outside."""
    offset = np.array([2 * 2 / (SIZE[1] - 1), 2 * 1 / (SIZE[0] - 1)], np.float32)
    expected = np.zeros_like(pictures())
    expected[:, :-1, :-2] = pictures()[:, 1:, 2:]
    np.testing.assert_allclose(generated(pictures(), unmoved() + offset, everywhere(1.0)), expected, atol=4e-6)


def test_a_base_image_that_does_not_count_has_no_say() -> None:
    places = motion()[0]
    nothing, half = ([generated(pictures(i), places, everywhere(c)) for i in (0, 5)] for c in (0.0, 0.5))
    np.testing.assert_array_equal(nothing[0], nothing[1])
    assert np.abs(half[0] - half[1]).max() > 0.1
    assert nothing[0].std() > 0.01


def test_places_and_inpainting_and_every_parameter_have_a_gradient() -> None:
    for leaf in jax.tree.leaves(trained()[2]):
        assert np.isfinite(leaf).all()
        assert float(jnp.abs(leaf).max()) > 0


def test_the_published_network_has_its_parameters() -> None:
    assert naive.count(functional.network(generator.Generator)) == sum(
        [
            49 * 3 * 64 + 2 * 64,
            9 * 64 * 128 + 2 * 128,
            9 * 128 * 256 + 2 * 256,
            6 * (2 * 9 * 256 * 256 + 2 * 2 * 256 + 256),  # two normalisations, one bias
            9 * 256 * 128 + 2 * 128,
            9 * 128 * 64 + 2 * 64,
            49 * 64 * 3 + 3,
        ]
    )


def test_a_new_network_paints_no_extremes() -> None:
    network = functional.network(functools.partial(generator.Generator, width=32, halvings=1, blocks=1))
    x = tuple(jnp.asarray(y) for y in (pictures(), unmoved(), everywhere(0.1)))
    images = jax.jit(lambda key: network.apply(*network.init(key), x, train=True)[0])(jax.random.key(0))
    assert float(jnp.std(images)) > 0.05
    assert float(jnp.mean(jnp.abs(images - 0.5) > 0.4)) < 0.05


@pytest.mark.parametrize("size", [(16, 10), (6, 12)])
def test_sizes_that_cannot_be_halved_are_refused(size: tuple[int, int]) -> None:
    shapes = jax.eval_shape(tiny().init, jax.random.key(0))
    x = (jnp.zeros((2, *size, 3)), jnp.asarray(unmoved()), jnp.asarray(everywhere(1.0)))
    message = rf"generator: found images of {size[0]}x{size[1]} pixels, expected multiples of 4"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(tiny().apply, train=False), *shapes, x)


def test_narrow_dtype_is_what_convolutions_compute_in_and_nothing_else() -> None:
    narrow = functional.network(TINY, dtype=jnp.bfloat16)
    params, stats = naive.filled(narrow)
    x = tuple(jnp.asarray(y) for y in (pictures(), unmoved(), everywhere(1.0)))
    with mock.patch.object(convolution, "conv2d", wraps=convolution.conv2d) as calls:
        images, _ = jax.jit(functools.partial(narrow.apply, train=False))(params, stats, x)
    assert len(calls.call_args_list) == 8
    assert {x.dtype for call in calls.call_args_list for x in call.args[:2]} == {jnp.dtype(jnp.bfloat16)}
    assert images.dtype == jnp.float32
    np.testing.assert_allclose(images, pictures(), atol=4e-6)  # the base image does not go through them
