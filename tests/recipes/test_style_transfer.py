"""Style transfer: what the stage learns and leaves alone, and when and how images are styled."""

import functools
import json
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tiny import make_batch, make_config, make_task

from jaxpose import config as configs
from jaxpose.ops import style as ops
from jaxpose.ops.augment import normalize
from jaxpose.recipes import style
from jaxpose.recipes.stage import Stage, State, initial_state, reads

KEY = jax.random.key(7)


def make_stage(**settings: Any) -> Stage:
    method = style.Style(**({"width": 4, "learning_rate": 3e-3} | settings))
    config = make_config(method)
    config.steps = {"style": 10}
    (stage,) = method.stages(make_task(), config)
    return stage


@functools.cache
def run_step() -> Any:
    """The jitted step of the default stage."""
    stage = make_stage()

    # optax's Adam takes a power of an integer, which strict promotion forbids.
    def step(state: State, batch: Any, key: jax.Array) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return stage.step(state, batch, key)

    return jax.jit(step)


@functools.cache
def trained() -> tuple[State, State, list[dict[str, float]]]:
    """First and last state, and the losses."""
    stage = make_stage()
    assert (stage.name, stage.steps, stage.evaluations, stage.load) == ("style", 10, (), None)
    assert stage.reads == reads(source=("image",), target=("image",))
    first = state = jax.jit(stage.init)(KEY, None)
    step, batch, losses = run_step(), make_batch(0), []
    for _ in range(40):
        state, metrics = step(state, batch, jax.random.key(3))
        losses.append({name: float(value) for name, value in metrics.items()})
    return first, state, losses


def total(losses: dict[str, float]) -> float:
    return losses["loss/content"] + 0.1 * losses["loss/style"]


def test_training_lowers_the_loss() -> None:
    _, _, losses = trained()
    assert set(losses[0]) == {"loss/content", "loss/style"}
    assert total(losses[-1]) < 0.6 * total(losses[0])


def test_the_encoder_stays_bit_for_bit() -> None:
    first, last, _ = trained()
    jax.tree.map(np.testing.assert_array_equal, last.params["style_encoder"], first.params["style_encoder"])
    assert set(last.optimizers) == {"style_decoder"}
    moved = [
        float(jnp.abs(a - b).max())
        for a, b in zip(*(jax.tree.leaves(s.params["style_decoder"]) for s in (first, last)), strict=True)
    ]
    assert min(moved) > 0


def directions() -> dict[bool, jax.Array]:
    """A key for each direction."""
    found: dict[bool, jax.Array] = {}
    for seed in range(20):
        key = jax.random.key(seed)
        found.setdefault(bool(jax.random.bernoulli(jax.random.split(key, 3)[2])), key)
    return found


@pytest.mark.parametrize("to_source", [False, True])
def test_losses_are_the_papers_in_both_directions(to_source: bool) -> None:
    state = trained()[0]
    batch = make_batch(0)
    _, metrics = run_step()(state, batch, directions()[to_source])
    source, target = (normalize(batch[name]["image"].astype(jnp.float32)) for name in ("source", "target"))
    content, look = (target, source) if to_source else (source, target)
    networks = style._networks(4, jnp.float32)

    def encode(images: jax.Array) -> list[np.ndarray]:
        outputs = networks["style_encoder"].apply(state.params["style_encoder"], {}, images, train=False)[0]
        return [np.asarray(y, np.float64) for y in outputs]

    wanted = np.asarray(
        ops.adain(jnp.asarray(encode(content)[-1], jnp.float32), jnp.asarray(encode(look)[-1], jnp.float32))
    )
    decoded, _ = networks["style_decoder"].apply(state.params["style_decoder"], {}, jnp.asarray(wanted), train=False)
    found = encode(decoded)
    assert len(found) == 4
    assert float(metrics["loss/content"]) == pytest.approx(((found[-1] - wanted) ** 2).mean(), rel=1e-3)
    expected = 0.0
    for f, w in zip(found, encode(look), strict=True):
        expected += ((f.mean((1, 2)) - w.mean((1, 2))) ** 2).mean()
        expected += ((np.sqrt(f.var((1, 2)) + 1e-5) - np.sqrt(w.var((1, 2)) + 1e-5)) ** 2).mean()
    assert float(metrics["loss/style"]) == pytest.approx(expected, rel=1e-3)


def test_the_gradient_is_that_of_the_weighted_losses() -> None:
    """Adam's first moment after one update is a tenth of the gradient."""
    state, batch = trained()[0], make_batch(0)
    after, _ = run_step()(state, batch, directions()[False])
    content, look = (normalize(batch[name]["image"].astype(jnp.float32)) for name in ("source", "target"))
    networks = style._networks(4, jnp.float32)

    def moments(x: jax.Array) -> jax.Array:
        return jnp.stack([x.mean((1, 2)), jnp.sqrt(x.var((1, 2)) + 1e-5)])

    def objective(params: Any) -> jax.Array:
        def encode(images: jax.Array) -> Any:
            return networks["style_encoder"].apply(params["style_encoder"], {}, images, train=False)[0]

        wanted = ops.adain(encode(content)[-1], encode(look)[-1])
        found = encode(networks["style_decoder"].apply(params["style_decoder"], {}, wanted, train=False)[0])
        value = jnp.mean((found[-1] - wanted) ** 2)
        for f, w in zip(found, encode(look), strict=True):
            value += 0.1 * 2 * jnp.mean((moments(f) - moments(w)) ** 2)
        return value

    expected = jax.jit(jax.grad(objective))(state.params)["style_decoder"]
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert scale > 0.01
    moment = after.optimizers["style_decoder"].mu
    jax.tree.map(lambda m, e: np.testing.assert_allclose(10 * m, e, atol=5e-3 * scale), moment, expected)


def test_constant_images_train_finitely() -> None:
    batch = make_batch(0)
    for fields in batch.values():
        fields["image"] = jnp.full_like(fields["image"], 77)
    after, metrics = run_step()(trained()[0], batch, KEY)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((after.params, metrics)))


def test_vgg_weights_are_put_into_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "vgg19.safetensors"
    stage = make_stage(vgg=str(path))
    state = jax.eval_shape(stage.init, KEY, None)
    assert stage.load is not None
    with pytest.raises(FileNotFoundError, match=r"vgg: no file .*vgg19\.safetensors"):
        stage.load(state)
    shapes = state.params["style_encoder"]["features"]
    assert shapes["19"]["kernel"].shape == (3, 3, 256, 512)
    weights = {}
    for number, conv in shapes.items():
        rows, columns, inputs, outputs = conv["kernel"].shape
        weights[f"features.{number}.weight"] = np.full((outputs, inputs, rows, columns), int(number), np.float32)
        weights[f"features.{number}.bias"] = np.arange(outputs, dtype=np.float32)
    safetensors.numpy.save_file(weights, path)
    loaded = stage.load(state)
    for number, conv in loaded.params["style_encoder"]["features"].items():
        assert float(conv["kernel"].min()) == float(conv["kernel"].max()) == int(number)
        np.testing.assert_array_equal(conv["bias"], np.arange(conv["bias"].size))
    assert loaded.params["style_decoder"] is state.params["style_decoder"]
    assert loaded.optimizers is state.optimizers


def pair() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(1)
    dark = rng.integers(0, 90, (4, 32, 32, 3))
    bright = rng.integers(120, 256, (4, 32, 32, 3))
    return normalize(jnp.asarray(dark, jnp.float32)), normalize(jnp.asarray(bright, jnp.float32))


def pixels(images: jax.Array) -> np.ndarray:
    return np.asarray(images) * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])


TRANSFERS = (style.colour, style.fourier, style.adain)


def parameters() -> dict[str, Any]:
    return trained()[1].params


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_transfers_stay_in_range_and_follow_their_key(transfer: style.StyleTransfer) -> None:
    source, target = pair()
    apply = jax.jit(functools.partial(transfer, parameters()))
    first, again, other = (apply(jax.random.key(seed), source, target) for seed in (0, 0, 1))
    assert first.shape == source.shape
    assert first.dtype == jnp.float32
    assert -1e-6 < pixels(first).min() < pixels(first).max() < 1 + 1e-6
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3


@pytest.mark.parametrize("name", ["colour", "fourier"])
def test_alpha_is_the_way_from_content_to_style(name: str) -> None:
    source, target = pair()
    source, target = 0.3 * source, 0.3 * target  # nothing is cut off
    whole = {"colour": ops.statistics_transfer, "fourier": lambda c, s: ops.fourier_transfer(c, s, 0.04)}[name]
    content, look = (jnp.asarray(pixels(x), jnp.float32) for x in (source, target))
    moved = np.asarray(whole(content, look))
    transfer = {"colour": style.colour, "fourier": functools.partial(style.fourier, share=0.04)}[name]
    ways = []
    for seed in range(8):
        found = pixels(transfer({}, jax.random.key(seed), source, target))
        way = ((found - content) * (moved - content)).sum() / ((moved - content) ** 2).sum()
        np.testing.assert_allclose(found, content + way * (moved - content), atol=1e-4)
        ways.append(float(way))
    assert 0 <= min(ways) < 0.4 < 0.6 < max(ways) <= 1


def test_adain_decodes_mixed_features(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = pair()
    networks, params = style._networks(4, jnp.float32), parameters()

    def relu4_1(images: jax.Array) -> jax.Array:
        return networks["style_encoder"].apply(params["style_encoder"], {}, images, train=False)[0][-1]

    own = relu4_1(source)
    for alpha in (0.0, 0.25, 1.0):
        monkeypatch.setattr(jax.random, "uniform", lambda key, alpha=alpha: jnp.asarray(alpha, jnp.float32))
        mixed = alpha * ops.adain(own, relu4_1(target)) + (1 - alpha) * own
        decoded, _ = networks["style_decoder"].apply(params["style_decoder"], {}, mixed, train=False)
        expected = np.clip(pixels(decoded), 0, 1)
        np.testing.assert_allclose(pixels(style.adain(params, KEY, source, target)), expected, atol=1e-4)


def test_the_stage_shows_images_and_their_whole_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, batch, state = make_stage(), make_batch(0), trained()[1]
    assert stage.pictures is not None
    assert stage.pictures.reads == stage.reads
    found = stage.pictures.draw(state, batch)
    source, target = (normalize(batch[name]["image"].astype(jnp.float32)) for name in ("source", "target"))
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.ones(()))
    expected = {
        "source": pixels(source),
        "source in the style of the target": pixels(style.adain(state.params, KEY, source, target)),
        "target": pixels(target),
        "target in the style of the source": pixels(style.adain(state.params, KEY, target, source)),
    }
    assert list(found) == list(expected)
    for caption, images in expected.items():
        np.testing.assert_allclose(found[caption], images, atol=1e-5)


def test_batches_are_styled_with_the_probability() -> None:
    source, target = pair()
    source, target = source[:, :8, :8], target[:, :8, :8]
    counted = jax.jit(
        jax.vmap(lambda key: jnp.any(style.stylised(key, style.colour, {}, source, target, 0.25) != source))
    )(jax.random.split(KEY, 300))
    assert 0.18 < float(counted.astype(jnp.float32).mean()) < 0.32
    never, always = (style.stylised(KEY, style.colour, {}, source, target, p) for p in (0.0, 1.0))
    np.testing.assert_array_equal(never, source)
    assert bool(jnp.any(always != source, axis=(1, 2, 3)).all())


def test_no_gradient_goes_through_styled_images() -> None:
    source, target = pair()

    def loss(params: Any) -> jax.Array:
        return jnp.sum(style.stylised(KEY, style.adain, params, source, target, 1.0) ** 2)

    gradient = jax.jit(jax.grad(loss))(parameters())
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(gradient))


def test_networks_of_the_stage_before_stay() -> None:
    task, config = make_task(), make_config(None)
    config.steps["style"] = 1
    stage = style.train(task, config, style.Style(width=4))
    before = initial_state(params={"head": {"a": jnp.ones(2)}}, stats={"head": {}}, optimizers={})
    state = stage.init(jax.random.key(0), before)
    assert set(state.params) == {"style_encoder", "style_decoder", "head"}
    np.testing.assert_array_equal(state.params["head"]["a"], 1)
    assert set(state.optimizers) == {"style_decoder"}


def test_config_file() -> None:
    get_config = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "style.py"))["get_config"]
    short, published = get_config("bodies,quick"), get_config("published")
    for config in (short, published):
        configs.validate(config)
        assert json.dumps(configs.to_json(config))
        assert set(config.steps) == {"style"}
    assert published.method == style.Style(width=64, style_weight=0.1, learning_rate=1e-5)
    assert published.steps == {"style": 500_000}
    with pytest.raises(ValueError, match="found 'nonsense'"):
        get_config("nonsense")
