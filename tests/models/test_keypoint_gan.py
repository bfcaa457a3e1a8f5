"""Networks that translate images into skeletons and back, beside their description in NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
from scipy import signal

from jaxpose.models import functional, keypoint_gan

SIZE, WIDTH = (8, 16), 1 / 16


@functools.cache
def networks() -> dict[str, functional.Network]:
    skeleton = functools.partial(keypoint_gan.SkeletonNetwork, outputs=2, channels=(32, 64, 96), width=WIDTH)
    judge = functools.partial(keypoint_gan.PatchDiscriminator, inputs=2, scales=2, depth=2, width=1 / 32)
    return {
        "skeleton": functional.network(skeleton),
        "painter": functional.network(functools.partial(keypoint_gan.Painter, inputs=2, width=WIDTH)),
        "judge": functional.network(judge),
    }


def images(channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (2, *SIZE, channels)).astype(np.float32)


def run(name: str, x: Any) -> tuple[Any, Any]:
    """Outputs in training, and the slopes of numbers that depend on all of them."""
    params, stats = naive.filled(networks()[name])

    def loss(params):
        y, _ = networks()[name].apply(params, stats, x, train=True)
        leaves = jax.tree.leaves(y)
        uneven = [np.random.default_rng(i).normal(size=leaf.shape).astype(np.float32) for i, leaf in enumerate(leaves)]
        return sum(jnp.sum(leaf * weight) for leaf, weight in zip(leaves, uneven, strict=True)), y

    slopes, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    for leaf in jax.tree.leaves(slopes):
        assert np.isfinite(leaf).all()
        assert float(jnp.abs(leaf).max()) > 0
    return params, y


def pair(x: np.ndarray, made: Any) -> np.ndarray:
    return naive.conv_norm_relu(naive.conv_norm_relu(x, made["0"], None), made["1"], None)


def enlarged(x: np.ndarray) -> np.ndarray:
    """Bilinearly: three quarters of the nearest pixel and a quarter of the next, on either axis."""
    for axis in (1, 2):
        x = np.moveaxis(x, axis, 0)
        before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
        x = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=1).reshape(-1, *x.shape[1:])
        x = np.moveaxis(x, 0, axis)
    return x


def test_the_skeleton_network_is_the_description() -> None:
    params, found = run("skeleton", jnp.asarray(images(3)))
    full = pair(images(3).astype(np.float64), params["down0"])
    half = pair(naive.halved(full), params["down1"])
    y = pair(naive.halved(half), params["down2"])
    for level, skip in ((1, half), (0, full)):
        y = naive.conv_norm_relu(np.concatenate([enlarged(y), skip], axis=-1), params[f"fusion{level}"], None)
        y = pair(y, params[f"up{level}"])
    np.testing.assert_allclose(found, naive.conv(y, params["last"]), atol=1e-4)


def test_the_painter_is_the_description() -> None:
    picture, frame = images(2, 1), images(3, 2)
    params, found = run("painter", (jnp.asarray(picture), jnp.asarray(frame)))

    def encoded(x: np.ndarray, made: Any) -> np.ndarray:
        for number in range(8):
            own = made["convs"][str(number)]
            x = naive.conv(x, own["0"])
            x = naive.relu(naive.norm(x[:, ::2, ::2] if number in (2, 4, 6) else x, own["1"], None))
        return x

    y = np.concatenate([encoded(picture, params["pose"]), encoded(frame, params["frame"])], axis=-1)
    assert y.shape == (2, 1, 2, 32)
    y = pair(y, params["up0"])
    for level in (1, 2, 3):
        y = pair(enlarged(y), params[f"up{level}"])
    np.testing.assert_allclose(found, naive.conv(y, params["last"]), atol=2e-4)


def test_the_discriminator_is_the_description() -> None:
    params, found = run("judge", jnp.asarray(images(2)))

    def conv(x: np.ndarray, made: Any, stride: int) -> np.ndarray:
        kernel = np.asarray(made["kernel"], np.float64)
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        maps = [
            np.concatenate([signal.correlate(image, kernel[..., o], "valid") for o in range(kernel.shape[-1])], axis=-1)
            for image in padded
        ]
        return np.stack(maps)[:, ::stride, ::stride] + np.asarray(made.get("bias", 0.0))

    def leaky(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0.2 * x)

    x = images(2).astype(np.float64)
    for scale, scores in enumerate(found):
        own = params["scales"][str(scale)]
        y = leaky(conv(naive.halved(x) if scale else x, own["first"], 2))
        for level, stride in ((0, 2), (1, 1)):
            y = conv(y, own["convs"][str(level)]["0"], stride)
            y = leaky((y - y.mean((1, 2), keepdims=True)) / np.sqrt(y.var((1, 2), keepdims=True) + 1e-5))
        np.testing.assert_allclose(scores, conv(y, own["last"], 1)[..., 0], atol=1e-4)


def test_published_networks_have_their_parameters() -> None:
    def pairs(*channels: tuple[int, int]) -> int:
        return sum(9 * (a * b + b * b) + 4 * b for a, b in channels)

    skeleton = pairs((3, 32), (32, 64), (64, 128), (128, 256), (128, 128), (64, 64), (32, 32))
    skeleton += sum((3 * c) * c + 2 * c for c in (128, 64, 32)) + 33
    made = functools.partial(keypoint_gan.SkeletonNetwork, outputs=1)
    assert naive.count(functional.network(made)) == skeleton
    encoders = sum(49 * i * 32 + 9 * 32 * 32 + 4 * 32 for i in (1, 3))
    encoders += 2 * pairs((32, 64), (64, 128), (128, 256))
    painter = encoders + pairs((512, 256), (256, 128), (128, 64), (64, 32)) + 9 * 32 * 3 + 3
    assert naive.count(functional.network(functools.partial(keypoint_gan.Painter, inputs=1))) == painter
    judge = 16 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    made = functools.partial(keypoint_gan.PatchDiscriminator, inputs=1)
    assert naive.count(functional.network(made)) == 3 * judge


def test_small_pictures_are_judged_at_three_scales() -> None:
    network = functional.network(functools.partial(keypoint_gan.PatchDiscriminator, inputs=3, width=1 / 32))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    found, _ = jax.eval_shape(functools.partial(network.apply, train=True), *shapes, jnp.zeros((1, 32, 32, 3)))
    assert [scores.shape for scores in found] == [(1, 7, 7), (1, 5, 5), (1, 4, 4)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("skeleton", "skeleton network: found images of 6x9 pixels, expected multiples of 4"),
        ("judge", "patch discriminator: found images of 6x9 pixels, expected multiples of 2"),
    ],
)
def test_sizes_that_cannot_be_halved_are_refused(name: str, message: str) -> None:
    shapes = jax.eval_shape(networks()[name].init, jax.random.key(0))
    x = jnp.zeros((1, 6, 9, 3 if name == "skeleton" else 2))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(networks()[name].apply, train=False), *shapes, x)
