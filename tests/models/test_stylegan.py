"""The generator by styles and its discriminator beside their description in NumPy."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxpose.losses import adversarial
from jaxpose.models import functional, layers, stylegan

SIZE, WIDTH, LATENT, LAYERS = 8, 1 / 128, 6, 4  # four channels
ROOT = np.sqrt(2)


@functools.cache
def networks() -> dict[str, functional.Network]:
    sized = {"size": SIZE, "width": WIDTH}
    return {
        "mapping": functional.network(functools.partial(stylegan.Mapping, latent=LATENT, depth=2)),
        "affine": functional.network(functools.partial(stylegan.Affine, latent=LATENT, **sized)),
        "synthesis": functional.network(functools.partial(stylegan.Synthesis, **sized)),
        "discriminator": functional.network(functools.partial(stylegan.Discriminator, group=2, **sized)),
    }


@functools.cache
def filled(name: str) -> Any:
    """Parameters none of which is 0, as they would be at the start."""
    shapes, _ = jax.eval_shape(networks()[name].init, jax.random.key(0))
    rng = np.random.default_rng(len(name))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


def run(name: str, x: Any, params: Any = None) -> Any:
    params = filled(name) if params is None else params
    return jax.jit(lambda params, x: networks()[name].apply(params, {}, x, train=True)[0])(params, x)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense(x: np.ndarray, made: Any, gain: float) -> np.ndarray:
    return x.astype(np.float64) @ np.asarray(made["kernel"]) * gain / np.sqrt(x.shape[1]) + np.asarray(made["bias"])


def conv(x: np.ndarray, made: Any, gain: float) -> np.ndarray:
    kernel = np.asarray(made["kernel"], np.float64)
    return naive.conv(x, {"kernel": kernel * gain / np.sqrt(kernel[..., 0].size), "bias": made["bias"]})


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def blurred(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    h, w = x.shape[1:3]
    return sum(weights[i, j] * padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3))


def styled(x: np.ndarray, own: np.ndarray) -> np.ndarray:
    half = own.shape[1] // 2
    normalised = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    return own[:, None, None, :half] * normalised + own[:, None, None, half:]


def synthesised(params: Any, styles: list[np.ndarray], noise: list[np.ndarray] | None) -> np.ndarray:
    def after(x: np.ndarray, number: int) -> np.ndarray:
        strength = np.asarray(params["noises"][str(number)])
        x = x if noise is None else x + noise[number - 1] * strength
        return styled(leaky(x), styles[number - 1])

    x = after(np.repeat(np.asarray(params["constant"], np.float64)[None], len(styles[0]), axis=0), 1)
    x = after(conv(x, params["convs"]["2"], ROOT), 2)
    small = conv(x, params["colours"]["4"], 1)
    x = after(blurred(conv(naive.doubled(x), params["convs"]["3"], ROOT)), 3)
    x = after(conv(x, params["convs"]["4"], ROOT), 4)
    return blurred(naive.doubled(small)) + conv(x, params["colours"]["8"], 1)


def test_mapping_is_the_formula_and_knows_directions_only() -> None:
    z = normal(0, 3, LATENT)
    x = z / np.sqrt((z.astype(np.float64) ** 2).mean(1, keepdims=True))
    for i in range(2):
        x = leaky(dense(x, filled("mapping")["denses"][str(i)], ROOT))
    np.testing.assert_allclose(run("mapping", z), x, atol=1e-5)
    np.testing.assert_allclose(run("mapping", 5 * z), x, atol=1e-5)


def test_styles_are_of_every_layers_own_w() -> None:
    w = normal(1, 2, LAYERS, LATENT)
    found = run("affine", w)
    assert len(found) == LAYERS
    for i, own in enumerate(found):
        np.testing.assert_allclose(own, dense(w[:, i], filled("affine")["styles"][str(i + 1)], 1), atol=1e-5)
    fresh, _ = networks()["affine"].init(jax.random.key(0))
    for own in run("affine", 0 * w, fresh):
        np.testing.assert_array_equal(own, np.repeat([[1] * 4 + [0] * 4], 2, axis=0))


@pytest.mark.parametrize("noisy", [True, False])
def test_synthesis_is_the_description(noisy: bool) -> None:
    styles = tuple(normal(i, 2, 8) for i in range(LAYERS))
    noise = stylegan.noise(jax.random.key(0), 2, SIZE) if noisy else None
    assert noise is None or [n.shape for n in noise] == [(2, s, s, 1) for s in (4, 4, 8, 8)]
    found = run("synthesis", (styles, noise))
    expected = synthesised(filled("synthesis"), list(styles), noise and [np.asarray(n) for n in noise])
    assert expected.std() > 0.5
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_new_transfer_reproduces_the_generator_bit_for_bit(rank: int | None) -> None:
    made = functools.partial(stylegan.Transfer, size=SIZE, layers=(1, 3), rank=rank, width=WIDTH)
    network = functional.network(made)
    params, _ = network.init(jax.random.key(1))
    w = jnp.asarray(normal(2, 2, LAYERS, LATENT))

    @jax.jit
    def pictures(move):
        styles, _ = networks()["affine"].apply(filled("affine"), {}, w, train=False)
        styles = styles if move is None else network.apply(move, {}, styles, train=False)[0]
        return styles, networks()["synthesis"].apply(filled("synthesis"), {}, (styles, None), train=False)[0]

    jax.tree.map(np.testing.assert_array_equal, pictures(None), pictures(params))
    moved = jax.tree.map(lambda leaf: leaf + jnp.asarray(normal(3, *leaf.shape)) / 4, params)
    before, after = (pictures(move)[0] for move in (None, moved))
    for i in range(LAYERS):
        delta = np.eye(8)
        if i in (0, 2):
            own = {name: np.asarray(leaf, np.float64) for name, leaf in moved["moves"][str(i + 1)].items()}
            delta = delta + (own["all"] if rank is None else own["down"] @ own["up"])
        np.testing.assert_allclose(after[i], before[i] @ delta, atol=1e-4)
    # It can leave the start: not all that it is made of has a zero slope there.
    slopes = jax.jit(jax.grad(lambda move: jnp.sum(pictures(move)[1] ** 2)))(params)
    assert all(
        max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(move)) > 0 for move in slopes["moves"].values()
    )


def test_the_discriminator_is_the_description() -> None:
    params, x = filled("discriminator"), normal(5, 4, SIZE, SIZE, 3)
    y = leaky(conv(x.astype(np.float64), params["colours"], ROOT))
    y = blurred(leaky(conv(y, params["convs"]["8"]["0"], ROOT)))
    y = leaky(naive.halved(conv(y, params["convs"]["8"]["1"], ROOT)))
    variation = [np.sqrt(pair.var(0) + 1e-8).mean() for pair in (y[:2], y[2:])]
    plane = np.broadcast_to(np.repeat(variation, 2)[:, None, None, None], (4, 4, 4, 1))
    y = leaky(conv(np.concatenate([y, plane], axis=-1), params["convs"]["4"]["0"], ROOT))
    y = dense(leaky(dense(y.reshape(4, -1), params["hidden"], ROOT)), params["logit"], 1)
    np.testing.assert_allclose(run("discriminator", x), y[:, 0], atol=5e-5)


def test_all_learn_and_equal_images_have_finite_gradients() -> None:
    """Of every loss of both, through made images, in one program."""
    same = jnp.zeros((2, SIZE, SIZE, 3))
    noise = stylegan.noise(jax.random.key(1), 2, SIZE)

    def apply(params, name, x):
        return networks()[name].apply(params[name], {}, x, train=True)[0]

    @jax.jit
    @jax.grad
    def slopes(params):
        w = apply(params, "mapping", jnp.asarray(normal(7, 2, LATENT)))
        made = apply(params, "synthesis", (apply(params, "affine", stylegan.spread(w, LAYERS)), noise))
        judge = functools.partial(apply, params, "discriminator")
        values = adversarial.logistic(judge(made), true=True) + adversarial.r1(judge, same)
        return jnp.sum(values + adversarial.logistic(judge(same), true=True))

    for leaf in jax.tree.leaves(slopes({name: filled(name) for name in networks()})):
        assert np.isfinite(leaf).all()
        assert float(jnp.abs(leaf).max()) > 0


def test_mixed_styles_are_the_first_before_the_second() -> None:
    first, second = jnp.zeros((500, 1)), jnp.ones((500, 1))
    found = np.asarray(stylegan.mixed(jax.random.key(0), first, second, 6, share=0.8))[..., 0]
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_array_equal(found[:, 0], 0)
    counts = np.bincount(found.sum(1).astype(int), minlength=6)  # layers of the second
    assert counts[0] / 500 == pytest.approx(0.2, abs=0.06)
    assert counts[1:].min() > 50
    np.testing.assert_array_equal(stylegan.spread(second, 3), np.ones((500, 3, 1)))


def test_blurring_what_was_doubled_interpolates_it() -> None:
    x = jnp.asarray(normal(8, 2, 3, 5, 2))
    expected = jax.image.resize(x, (2, 6, 10, 2), "bilinear")
    np.testing.assert_allclose(layers.blurred(layers.doubled(x)), expected, atol=1e-6)


def test_layers_keep_their_order_where_there_are_ten_and_more() -> None:
    """Styles of 128 pixels have layer 10 beside layer 2; what w they read tells them apart."""
    network = functional.network(functools.partial(stylegan.Affine, size=128, latent=2, width=WIDTH))
    params, _ = network.init(jax.random.key(0))
    own = {
        name: jax.tree.map(lambda leaf, value=float(name): jnp.full_like(leaf, value), made)
        for name, made in params["styles"].items()
    }
    found, _ = network.apply({"styles": own}, {}, jnp.zeros((1, 12, 2)), train=False)
    assert [(float(style[0, 0]), style.shape[1] // 2) for style in found] == [
        (i, channels) for i, channels in enumerate(stylegan.style_channels(128, WIDTH), start=1)
    ]


def test_published_sizes() -> None:
    assert stylegan.style_channels(128) == [512] * 8 + [256] * 2 + [128] * 2
    shapes, _ = jax.eval_shape(
        functional.network(functools.partial(stylegan.Transfer, size=128)).init, jax.random.key(0)
    )
    assert shapes["moves"]["3"]["all"].shape == (1024, 1024)
    channels = stylegan.style_channels(128)
    expected = 16 * 512 + sum(9 * a * b + b for a, b in itertools.pairwise(channels)) + sum(channels)
    expected += sum((c + 1) * 3 for c in channels[::2])
    assert naive.count(functional.network(functools.partial(stylegan.Synthesis, size=128))) == expected


def test_wrong_sizes_layers_and_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="stylegan: found a size of 24 pixels, expected 4, 8, 16"):
        stylegan.style_channels(24)
    with pytest.raises(ValueError, match="transfer: found layer 5, expected 1 to 4 at 8 pixels"):
        functional.network(functools.partial(stylegan.Transfer, size=8, layers=(5,)))
    with pytest.raises(ValueError, match="affine: found w for 3 layers, expected 4"):
        run("affine", normal(0, 2, 3, LATENT))
    with pytest.raises(ValueError, match="discriminator: found a batch of 3, expected a multiple of 2"):
        run("discriminator", normal(0, 3, SIZE, SIZE, 3))
