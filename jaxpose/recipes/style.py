"""Style transfer: images of one domain that look like another's, labels untouched.

`Style` trains the network behind `adain`. Its encoder describes an image by VGG-19's features; a decoder learns to
turn features back into images, also those whose channels were given another image's mean and deviation. `colour` and
`fourier` need neither training nor weights.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, POSITIVE, limited
from jaxpose.models import functional, vgg
from jaxpose.ops import augment, style
from jaxpose.recipes import detector, inputs, optimizers
from jaxpose.recipes.detector import Trees
from jaxpose.recipes.stage import Batch, Metrics, Pictures, Stage, State, Task, Update, initial_state, reads

ENCODER, DECODER = "style_encoder", "style_decoder"
NETWORKS = (ENCODER, DECODER)

# (parameters by network, key, content images, style images) -> images; all normalised, row i styled like row i.
StyleTransfer = Callable[[Trees, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(kw_only=True)
class Style:
    """Trains the decoder of `adain` on both domains, each in the style of the other.

    The published encoder is a VGG-19 whose channels were rescaled to a mean activation of one. With torchvision's the
    losses are larger, and layers weigh differently in the style loss.

    Attributes:
      vgg: torchvision's file of VGG-19 (`.pth` or `.safetensors`) for the encoder; None leaves it random. A random
        encoder passes brightness and tint on but blurs the content: without a file, take `colour` or `fourier`.
      width: channels of a random encoder's first convolution; with `vgg` it is 64.
      content_weight, style_weight: of the losses. The paper's style weight is 10, UniFrame's 0.1.
      learning_rate: of Adam, constant; UniFrame's, for 500,000 updates.

    Source: Huang and Belongie 2017, arXiv:1703.06868, Eq. 11-13; UniFrame, arXiv:2204.00172, and its released code.
    """

    name: str = "style"
    vgg: str | None = None
    width: int = limited(64, *AT_LEAST_1)
    content_weight: float = limited(1.0, *AT_LEAST_0)
    style_weight: float = limited(0.1, *AT_LEAST_0)
    learning_rate: float = limited(1e-5, *POSITIVE)

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """One stage without a detector."""
        return (train(task, config, self),)


def train(task: Task, config: Config, settings: Style) -> Stage:
    """The stage `style`; recipes put it before their own."""
    rule = optimizers.transformation("adam", config.optim)
    dtype = detector.compute_dtype(config.dtype)
    networks = _networks(64 if settings.vgg else settings.width, dtype)

    def init(key: jax.Array, previous: State | None) -> State:
        keys = dict(zip(NETWORKS, jax.random.split(key), strict=True))
        params = {name: networks[name].init(k)[0] for name, k in keys.items()}
        before = (previous.params, previous.stats) if previous is not None else ({}, {})
        optimizers = {DECODER: rule.init(params[DECODER])}
        return initial_state(params=before[0] | params, stats=before[1], optimizers=optimizers)

    def load(state: State) -> State:
        assert settings.vgg is not None
        encoder = vgg.load_vgg(settings.vgg, state.params[ENCODER])
        return dataclasses.replace(state, params=state.params | {ENCODER: encoder})

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        source_key, target_key, turn = jax.random.split(key, 3)
        source = inputs.unlabelled(source_key, batch["source"], task)
        target = inputs.unlabelled(target_key, batch["target"], task)
        turned = jax.random.bernoulli(turn)
        content, look = jnp.where(turned, target, source), jnp.where(turned, source, target)

        def encode(images: jax.Array) -> tuple[jax.Array, ...]:
            return networks[ENCODER].apply(state.params[ENCODER], {}, images, train=True)[0]

        wanted_style = encode(look)
        wanted = style.adain(encode(content)[-1], wanted_style[-1])

        def objective(decoder: Trees) -> tuple[jax.Array, Metrics]:
            images, _ = networks[DECODER].apply(decoder, {}, wanted, train=True)
            features = encode(images)
            losses = {
                "loss/content": content_loss(features[-1], wanted),
                "loss/style": style_loss(features, wanted_style),
            }
            total = settings.content_weight * losses["loss/content"] + settings.style_weight * losses["loss/style"]
            return total, losses

        grads, metrics = jax.grad(objective, has_aux=True)(state.params[DECODER])
        rate = jnp.asarray(settings.learning_rate, jnp.float32)
        return optimizers.apply_gradients(state, {DECODER: grads}, {DECODER: rule}, {DECODER: rate}), metrics

    def draw(state: State, batch: Batch) -> dict[str, jax.Array]:
        """Both domains, and each in the style of the other, all the way."""
        (low, high), params = _range(), state.params
        source, target = (augment.normalize(batch[name]["image"].astype(jnp.float32)) for name in ("source", "target"))
        images = {
            "source": source,
            "source in the style of the target": _decoded(params, source, target, jnp.ones(()), config.dtype),
            "target": target,
            "target in the style of the source": _decoded(params, target, source, jnp.ones(()), config.dtype),
        }
        return {caption: (image - low) / (high - low) for caption, image in images.items()}

    domains = reads(source=inputs.UNLABELLED, target=inputs.UNLABELLED)
    return Stage(
        name="style",
        steps=config.steps_of("style"),
        init=init,
        load=None if settings.vgg is None else load,
        files=() if settings.vgg is None else (settings.vgg,),
        updates=(Update(reads=domains, step=step),),
        pictures=Pictures(reads=domains, draw=draw),
    )


def content_loss(features: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean squared error of relu4_1 of the decoded image. Source: Huang and Belongie 2017, Eq. 12."""
    return jnp.mean(jnp.square(features.astype(jnp.float32) - wanted))


def style_loss(features: tuple[jax.Array, ...], wanted: tuple[jax.Array, ...]) -> jax.Array:
    """Mean squared errors of the channels' means and deviations, summed over layers.

    Source: Huang and Belongie 2017, Eq. 13, with torch codes' mean over channels and images for the norm.
    """
    moments = [(style.channel_moments(f), style.channel_moments(w)) for f, w in zip(features, wanted, strict=True)]
    errors = [jnp.mean(jnp.square(f - w)) for pair in moments for f, w in zip(*pair, strict=True)]
    return jnp.sum(jnp.stack(errors))


def stylised(
    key: jax.Array,
    transfer: StyleTransfer,
    params: Trees,
    source_images: jax.Array,
    target_images: jax.Array,
    probability: float = 0.5,
) -> jax.Array:
    """With a probability, the whole batch of source images in the style of the target's, row by row.

    The coin is thrown once for a batch, as in the released code, so that a transfer that is not wanted is not computed.
    Exchange the images to give target images the style of the source.

    Args:
      key: of the coin and the transfer.
      transfer: what to do; see `StyleTransfer`.
      params: parameters by network, with those that the transfer needs.
      source_images, target_images: normalised, (B, S, S, 3).
      probability: of a styled batch.

    Returns:
      normalised images in the range of pixels, without a gradient.

    Source: UniFrame, arXiv:2204.00172, Sec. 3.2, and its released code.
    """
    coin, inner = jax.random.split(key)
    wanted = jax.random.bernoulli(coin, probability)
    images = jax.lax.cond(wanted, lambda: transfer(params, inner, source_images, target_images), lambda: source_images)
    return jax.lax.stop_gradient(images)


def colour(params: Trees, key: jax.Array, content: jax.Array, style_images: jax.Array) -> jax.Array:
    """Colour statistics, part of the way; see `ops.style.statistics_transfer`."""
    del params
    return _between(key, content, style_images, style.statistics_transfer)


def fourier(
    params: Trees, key: jax.Array, content: jax.Array, style_images: jax.Array, share: float = 0.02
) -> jax.Array:
    """Low-frequency amplitudes, part of the way; see `ops.style.fourier_transfer`.

    A `share` of 0.02 reaches 5 cycles in images of 256 pixels, as the paper's 0.01 does in its images of 1024 x 512.
    """
    del params
    return _between(key, content, style_images, lambda c, s: style.fourier_transfer(c, s, share))


def adain(params: Trees, key: jax.Array, content: jax.Array, style_images: jax.Array, dtype: str = "auto") -> jax.Array:
    """The style networks' decoding of relu4_1 moved by alpha ~ U(0, 1) towards the style's statistics.

    Args:
      params: with `style_encoder` and `style_decoder`, from the stage `style`.
      key: of alpha.
      content, style_images: normalised, (B, S, S, 3).
      dtype: of the convolutions, as in `config.dtype`.

    Source: Huang and Belongie 2017, Eq. 14.
    """
    return _decoded(params, content, style_images, jax.random.uniform(key), dtype)


def _decoded(params: Trees, content: jax.Array, style_images: jax.Array, alpha: jax.Array, dtype: str) -> jax.Array:
    # Any recipe can hand over its parameters: what the networks look like follows from them.
    width = params[ENCODER]["features"]["0"]["kernel"].shape[-1]
    networks = _networks(width, detector.compute_dtype(dtype))
    own, look = (networks[ENCODER].apply(params[ENCODER], {}, x, train=False)[0][-1] for x in (content, style_images))
    own = own.astype(jnp.float32)
    mixed = own + alpha * (style.adain(own, look) - own)
    images, _ = networks[DECODER].apply(params[DECODER], {}, mixed, train=False)
    return jnp.clip(images, *_range())


def _networks(width: int, dtype: DTypeLike) -> dict[str, functional.Network]:
    encoder = functools.partial(vgg.VGG, width=width, blocks=4, borders="reflected")
    decoder = functools.partial(vgg.Decoder, width=width)
    return {ENCODER: functional.network(encoder, dtype=dtype), DECODER: functional.network(decoder, dtype=dtype)}


def _between(
    key: jax.Array, content: jax.Array, style_images: jax.Array, transfer: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """The content moved by alpha ~ U(0, 1) towards what a transfer of pixels in [0, 1] makes of it."""
    low, high = _range()
    pixels, look = ((images - low) / (high - low) for images in (content, style_images))
    moved = pixels + jax.random.uniform(key) * (transfer(pixels, look) - pixels)
    return low + jnp.clip(moved, 0.0, 1.0) * (high - low)


def _range() -> tuple[jax.Array, jax.Array]:
    """Normalised black and white, (1, 1, 1, 3)."""
    ends = augment.normalize(jnp.asarray([0.0, 255.0]).reshape(2, 1, 1, 1) * jnp.ones((1, 1, 1, 3)))
    return ends[:1], ends[1:]
