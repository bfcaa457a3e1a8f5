"""The networks that recipes share, addressed by name in `State.params` and `State.stats`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxpose.config import Config, Model
from jaxpose.metrics.metric import Predictions
from jaxpose.models import functional, layers
from jaxpose.ops import augment, normalization
from jaxpose.ops.heatmaps import Grid
from jaxpose.ops.platform import platform
from jaxpose.recipes import inputs, optimizers, views
from jaxpose.recipes.stage import Evaluation, State, Task

Trees = dict[str, Any]

TRUNK = ("backbone", "upsampling")
WHOLE = (*TRUNK, "head")  # what predicts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What the trunk makes of images.

    Attributes:
      layers: of each of the backbone's layers, (B, h, w, c).
      up: of the upsampling, (B, H, W, C).
    """

    layers: Any  # Any: JAX also fills pytrees with shapes and placeholders
    up: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detector:
    """A trunk (backbone and upsampling), the heads that read its features, and how keypoints lie on their heatmaps.

    Attributes:
      networks: by name.
      grid: the heatmaps' pixels.
      coding: how label maps are drawn and heatmaps read.
      channels: of each of the backbone's layers.
      width: channels of what heads read.
      target_statistics: see `config.Model`.
      mirror: which joint is which in a mirrored image (K,), if what is evaluated are the mean maps of an image and of
        its mirror image.
    """

    networks: Mapping[str, functional.Network]
    grid: Grid
    coding: inputs.Coding = inputs.CLEAN
    channels: tuple[int, ...] = ()
    width: int = 0
    target_statistics: bool = False
    mirror: tuple[int, ...] | None = None

    def init(self, key: jax.Array, names: tuple[str, ...]) -> tuple[Trees, Trees]:
        """Fresh parameters and statistics of the named networks."""
        return functional.init_networks(self.networks, key, names)

    def features_of_both(
        self, params: Trees, stats: Trees, source: jax.Array, target: jax.Array
    ) -> tuple["Features", "Features", Trees]:
        """Features of training batches of both domains, each normalised by itself, and all statistics updated.

        On accelerators both go through the trunk side by side, which halves the number of kernels; on CPU one after
        the other, as their maps then stay in the cache.
        """
        if platform() == "cpu":
            first, after = self.features(params, stats, source, train=True)
            second, after = self.features(params, self.before_target(stats, after), target, train=True)
            return first, second, after
        both, moved = self.features(params, stats, normalization.stack_domains(source, target), train=True)
        first, second = (
            Features(layers=tuple(layers), up=up)
            for *layers, up in zip(*(normalization.unstack_domains(x) for x in (*both.layers, both.up)), strict=True)
        )
        before = {name: stats[name] for name in TRUNK}
        by_source, by_target = (
            jax.tree.map(lambda s, i=i: s[i], {name: moved[name] for name in TRUNK}) for i in (0, 1)
        )
        after = by_target if self.target_statistics else moved_in_turn(before, by_source, by_target)
        return first, second, stats | after

    def trunk(self, params: Trees, stats: Trees, images: jax.Array, *, train: bool) -> tuple[jax.Array, Trees]:
        """Features (B, H, W, C) of normalised images, and all statistics with the trunk's updated."""
        features, stats = self.features(params, stats, images, train=train)
        return features.up, stats

    def trunk_with_vjp(
        self, params: Trees, stats: Trees, images: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], Trees], Trees]:
        """As `trunk` in training, with the map from the features' gradient to that of the trunk's parameters."""
        features, vjp, stats = jax.vjp(
            lambda params: self.trunk(params, stats, images, train=True),
            {name: params[name] for name in TRUNK},
            has_aux=True,
        )
        return features, lambda gradient: vjp(gradient)[0], stats

    def features(self, params: Trees, stats: Trees, images: jax.Array, *, train: bool) -> tuple["Features", Trees]:
        """As `trunk`, with the features of the backbone's layers."""
        by_layer, stats = self.backbone(params, stats, images, train=train)
        up, stats = self.upsample(params, stats, by_layer, train=train)
        return Features(layers=by_layer, up=up), stats

    def backbone(
        self, params: Trees, stats: Trees, images: jax.Array, *, train: bool
    ) -> tuple[tuple[jax.Array, ...], Trees]:
        """Features of the backbone's layers, and all statistics with its own updated."""
        return self._applied("backbone", params, stats, images, train)

    def upsample(
        self, params: Trees, stats: Trees, by_layer: tuple[jax.Array, ...], *, train: bool
    ) -> tuple[jax.Array, Trees]:
        """What heads read, made of the features of the backbone's layers, and all statistics."""
        return self._applied("upsampling", params, stats, by_layer, train)

    def _applied(self, name: str, params: Trees, stats: Trees, x: Any, train: bool) -> tuple[Any, Trees]:
        y, moved = self.networks[name].apply(params[name], stats[name], x, train=train)
        return y, stats | {name: moved}

    def head(
        self, name: str, params: Any, stats: Trees, features: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Trees]:
        """Heatmaps (B, H, W, K) of one head, whose parameters are given, and all statistics with its own updated."""
        maps, updated = self.networks[name].apply(params, stats[name], features, train=train)
        return maps, stats | {name: updated}

    def maps(self, params: Trees, stats: Trees, images: jax.Array, *, train: bool) -> tuple[jax.Array, Trees]:
        """Heatmaps (B, H, W, K) of the head `head`, and all statistics with those of the pass updated."""
        features, stats = self.trunk(params, stats, images, train=train)
        return self.head("head", params["head"], stats, features, train=train)

    def before_target(self, before: Trees, after_source: Trees) -> Trees:
        """The statistics that a target batch moves on, given those before and after the source batch."""
        return before if self.target_statistics else after_source

    def predict(self, state: State, fields: Mapping[str, jax.Array]) -> jax.Array:
        """Heatmaps of the head `head` with running statistics, of the images of a batch."""
        images = augment.normalize(fields["image"].astype(jnp.float32))
        return self.maps(state.params, state.stats, images, train=False)[0]

    def draw(self, keypoints: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Label maps (B, H, W, K) of keypoints (B, K, 2) in image pixels, and which of them count (B, K)."""
        return self.coding.draw(keypoints, visible, self.grid)

    def read(self, maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Points (B, K, 2) in image pixels and confidences (B, K), see `views.read`."""
        return views.read(maps, self.grid, self.coding)

    def evaluation(
        self,
        *,
        normal: views.ConfidenceMaps = views.softmax_maps,
        evaluated: Callable[[State], State] = lambda state: state,
    ) -> Evaluation:
        """What the head `head` finds, read off its maps in the way in which its labels were drawn.

        Args:
          normal: belongs to the loss that the head was trained with.
          evaluated: see `views.Evaluated`.
        """

        def find(state: State, fields: Mapping[str, jax.Array]) -> Predictions:
            state = evaluated(state)
            maps = self.predict(state, fields)
            if self.mirror is not None:
                others = self.predict(state, {**fields, "image": fields["image"][:, :, ::-1]})
                maps = (maps + inputs.mirrored_back(others, self.mirror, self.coding)) / 2
            points, confidence = self.read(normal(maps))
            scores = confidence / views.label_peak(normal, self.grid)
            peaks = points if self.coding.peaks is None else self.coding.peaks(maps, self.grid)
            return Predictions(points=points, peaks=peaks, scores=scores)

        return Evaluation(predict=find)


def build(
    task: Task,
    config: Config,
    *,
    heads: Mapping[str, functional.Head] | None = None,
    coding: inputs.Coding = inputs.CLEAN,
) -> Detector:
    """The detector of `config.model` with heads by name; None: that of the source model, as `head`."""
    model: Model = config.model
    dtype = compute_dtype(config.dtype)
    trunk = model.trunk(dtype)
    made = {
        name: make(trunk.width, len(task.skeleton), dtype)
        for name, make in (heads or {"head": model.source_head}).items()
    }
    return Detector(
        networks={**trunk.networks, **made},
        grid=model.grid(task.image_size),
        coding=coding,
        channels=trunk.channels,
        width=trunk.width,
        target_statistics=model.target_statistics,
        mirror=tuple(task.skeleton.flip_permutation.tolist()) if config.flip_test else None,
    )


def moved_in_turn(before: Any, first: Any, second: Any) -> Any:
    """Running statistics after updates towards two batches, given those before and after each of them alone."""
    return jax.tree.map(lambda r, a, b: b + layers.MOMENTUM * (a - r), before, first, second)


def moved_twice(before: Any, once: Any) -> Any:
    """Running statistics after a second update towards the same batch, given those before and after the first."""
    return moved_in_turn(before, once, once)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplyGradients:
    """How a stage's networks are updated: one rule for all, and the learning rate of each.

    Attributes:
      rule: see `optimizers.transformation`.
      rates: (step, names) -> learning rate by network.
    """

    rule: optax.GradientTransformation
    rates: "Rates"

    def __call__(self, state: State, grads: Trees, *, before: jax.Array | int = 0) -> State:
        """One update by gradients, given by network, `before` steps after the schedule's beginning at step 0."""
        names = tuple(grads)
        rates = self.rates(state.step + before, names)
        return optimizers.apply_gradients(state, grads, dict.fromkeys(names, self.rule), rates)


Rates = Callable[[jax.Array, tuple[str, ...]], dict[str, jax.Array]]  # (step, names) -> rate by network


def learning_rates(schedule: optimizers.Schedule, trunk_scale: float) -> Rates:
    """Rates by network: trunk and heads follow one schedule, the trunk's scaled."""
    return lambda step, names: {name: schedule(step) * (trunk_scale if name in TRUNK else 1.0) for name in names}


def adaptation(
    config: Config,
    schedule: optimizers.MakeSchedule | None = None,
    *,
    steps: int | None = None,
) -> ApplyGradients:
    """The optimizer of the adaptation stage, with rates over so many steps, or those of `config.steps["adapt"]`.

    Without a schedule, that of `optimizers.inverse_schedule`.
    """
    optim = config.optim
    high = optimizers.peak(optim.adapt_rule, optim)
    steps = config.steps_of("adapt") if steps is None else steps
    made = (schedule or optimizers.inverse_schedule)(high, steps, optim)
    rates = learning_rates(made, optim.adapt_trunk_scale)
    return ApplyGradients(rule=optimizers.transformation(optim.adapt_rule, optim), rates=rates)


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of convolutions; `auto` is bfloat16 where the device has it and float32 on CPU."""
    if name == "auto":
        name = "float32" if platform() == "cpu" else "bfloat16"
    return jnp.dtype(name)
