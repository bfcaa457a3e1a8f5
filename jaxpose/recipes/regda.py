"""RegDA: regressive domain adaptation (Jiang et al., CVPR 2021).

A regressor f is trained on labelled source images. An adversarial regressor f' agrees with f on the source and is led
away from it on the target, towards the other joints (L_F); the trunk then learns target features on which the two
agree (L_T). Both sides minimise.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.ops import gradients, heatmaps
from jaxpose.recipes import detector, inputs, supervised
from jaxpose.recipes.detector import TRUNK, WHOLE, Trees
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, reads

HEADS = ("head", "head_adv")
NETWORKS = (*TRUNK, *HEADS)

Objective = Callable[[jax.Array, jax.Array], jax.Array]  # (L_T, L_F) -> what is minimised


def minimize_true(true: jax.Array, false: jax.Array) -> jax.Array:
    """The regressors shall agree (RegDA's trunk, Eq. 14; DD's trunk)."""
    return true


def minimize_false(true: jax.Array, false: jax.Array) -> jax.Array:
    """f' shall find other joints (RegDA's f', Eq. 13)."""
    return false


def maximize_true(true: jax.Array, false: jax.Array) -> jax.Array:
    """f' shall disagree: the disparity discrepancy's minimax game on L_T (Eq. 4)."""
    return -true


def maximize_false(true: jax.Array, false: jax.Array) -> jax.Array:
    """The trunk of the minimax game on L_F (Table 3)."""
    return -false


@dataclasses.dataclass(kw_only=True)
class RegDA:
    """RegDA's hyper-parameters; the defaults are the paper's objectives and published schedule.

    Attributes:
      adversary, trunk: what f' and the trunk minimise on the target; Table 3's ablations exchange them.
      update: how the objectives become updates: `simultaneous`, or `released` one after the other.
      trade_off: eta of Eqs. 12-14.
      margin: weight of f' on the source relative to `trade_off`; the released code has 4.
      trunk_weight: the share of the gradient through f' that reaches the trunk. Read literally, the paper has 1, which
        costs much accuracy on the source; the released code lets it rise to 0.1.
      trunk_warmup: that share rises as tanh(step / (2 trunk_warmup)); 0: it is constant.
      coding: how labels are drawn and predictions read.
      mean: over joints.
      pseudo_points: where f's predictions lie on its maps.
      support, eps, clip_false: how pseudo-label maps are cut off, what is added to every pixel of a disparity's
        map, and whether ground-false maps are limited to 1.
      target_weights: mask pseudo-labels by the target's *labels*, as the released code does; not unsupervised.
    """

    name: str = "regda"
    adversary: Objective = minimize_false
    trunk: Objective = minimize_true
    update: "Order" = dataclasses.field(default_factory=lambda: simultaneous)
    trade_off: float = 1.0
    margin: float = 1.0
    trunk_weight: float = 0.1
    trunk_warmup: float = 0.0
    coding: inputs.Coding = inputs.CLEAN
    mean: supervised.Mean = heatmap.masked_mean
    pseudo_points: Callable[[jax.Array], jax.Array] = heatmaps.argmax_points
    support: heatmaps.Support = "full"
    eps: float = 0.0
    clip_false: bool = False
    target_weights: bool = False

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source, then adapt."""
        networks = detector.build(task, config, heads={"head": config.model.head})
        first = supervised.pretrain(task, config, networks, coding=self.coding, mean=self.mean)
        regressors = detector.build(task, config, heads={"head": "regressor", "head_adv": "regressor"})
        return first, adapt(task, config, regressors, self)


def short_settings() -> RegDA:
    """For schedules of hundreds of steps and heatmaps of a few pixels.

    Pseudo-labels lie between pixels, as a pixel is a large part of PCK's threshold.
    """
    return RegDA(pseudo_points=heatmaps.subpixel_points)


def released_settings() -> RegDA:
    """Every quirk of the released code.

    Source: tllib's `examples/domain_adaptation/keypoint_detection/regda.py`.
    """
    return RegDA(
        name="regda_released",
        update=released,
        margin=4.0,
        trunk_weight=0.1,
        trunk_warmup=1000.0,
        coding=inputs.RELEASED,
        mean=heatmap.mean_with_zeros,
        pseudo_points=heatmaps.argmax_points_released,
        support="square",
        eps=1e-7,
        clip_false=True,
        target_weights=True,
    )


def adapt(task: Task, config: Config, networks: detector.Detector, settings: RegDA) -> Stage:
    """The adversarial stage: regressors f (`head`) and f' (`head_adv`) on the pretrained trunk.

    Raises:
      ValueError: if the skeleton has one joint and its task names no area for the ground-false maps.
    """
    if len(task.skeleton) == 1 and task.area is None:
        raise ValueError(f"regda: found one joint ({task.skeleton.joints[0]}), expected several or a task with an area")
    descend = detector.adaptation(config)
    objectives = Objectives(networks=networks, settings=settings, task=task)

    def init(key: jax.Array, previous: State | None) -> State:
        assert previous is not None
        heads = {"head": "head", "head_adv": "head"} if config.model.head == "regressor" else {}
        kept = {name: name for name in TRUNK} | heads
        return detector.continued(key, previous, networks, dict.fromkeys(NETWORKS, descend.rule), kept=kept)

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        source_key, target_key = jax.random.split(key)
        labels = inputs.labelled(source_key, batch["source"], task, settings.coding.draw)
        if settings.target_weights:
            target = inputs.labelled(target_key, batch["target"], task, settings.coding.draw)
            images, mask = target.images, target.mask
        else:
            images = inputs.unlabelled(target_key, batch["target"], task)
            mask = jnp.ones((images.shape[0], len(task.skeleton)), bool)

        return settings.update(objectives, descend, state, labels, images, mask)

    target = inputs.LABELLED if settings.target_weights else inputs.UNLABELLED
    return Stage(
        name="adapt",
        steps=config.steps_of("adapt"),
        init=init,
        updates=(Update(reads=reads(source=inputs.LABELLED, target=target), step=step),),
        evaluations=(networks.evaluation(task, coding=settings.coding),),
        descend=descend,
    )


Descend = Callable[[State, Trees], State]
Order = Callable[["Objectives", Descend, State, inputs.Labelled, jax.Array, jax.Array], tuple[State, Metrics]]


def simultaneous(
    objectives: "Objectives",
    descend: Descend,
    state: State,
    labels: inputs.Labelled,
    images: jax.Array,
    mask: jax.Array,
) -> tuple[State, Metrics]:
    """All three objectives at the same parameters, one update of each network (Sec. 4.4)."""
    networks, params = objectives.networks, state.params

    def trunk(params: Trees) -> tuple[tuple[jax.Array, jax.Array], Trees]:
        source, target, stats = networks.features_of_both(params, state.stats, labels.images, images)
        return (source.up, target.up), stats

    (source, target), pull, stats = jax.vjp(trunk, _part(params, TRUNK), has_aux=True)
    fitted = objectives.source(state.step, params, stats, source, labels)
    heads = networks.before_target(_part(state.stats, HEADS), _part(fitted.stats, HEADS))
    guess = objectives.target(params, stats | heads, target, mask)
    adversary = objectives.regress(params["head_adv"], guess.stats, guess)
    (grads,) = pull((fitted.by_features, objectives.features_gradient(state.step, adversary)))
    grads |= fitted.grads
    grads["head_adv"] = jax.tree.map(jnp.add, grads["head_adv"], objectives.adversary_gradient(adversary))
    state = dataclasses.replace(descend(state, grads), stats=adversary.stats)
    return state, fitted.metrics | objectives.metrics(guess, adversary)


def released(
    objectives: "Objectives",
    descend: Descend,
    state: State,
    labels: inputs.Labelled,
    images: jax.Array,
    mask: jax.Array,
) -> tuple[State, Metrics]:
    """The released code's order: objective 1, update; objective 2, update of f'; objective 3, update of the trunk.

    The trunk and f' are updated twice a step through one momentum buffer each. The released code runs the target
    through the network again for objective 3. Only f' has changed by then, so the trunk's and f's second pass equal
    their first, but for moving their running statistics once more.
    """

    def trunk(state: State, images: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], tuple[Trees]], Trees]:
        return jax.vjp(
            lambda params: objectives.networks.trunk(params, state.stats, images, train=True),
            _part(state.params, TRUNK),
            has_aux=True,
        )

    features, pull, stats = trunk(state, labels.images)
    fitted = objectives.source(state.step, state.params, stats, features, labels)
    state = dataclasses.replace(descend(state, fitted.grads | pull(fitted.by_features)[0]), stats=fitted.stats)
    before = state.stats
    features, pull, stats = trunk(state, images)
    guess = objectives.target(state.params, stats, features, mask)
    misled = objectives.regress(state.params["head_adv"], guess.stats, guess)
    state = descend(state, {"head_adv": objectives.adversary_gradient(misled)})
    again = objectives.regress(state.params["head_adv"], misled.stats, guess)
    twice = {name: detector.moved_twice(before[name], guess.stats[name]) for name in WHOLE}
    state = descend(state, pull(objectives.features_gradient(state.step, again))[0])
    state = dataclasses.replace(state, stats=again.stats | twice)
    return state, fitted.metrics | objectives.metrics(guess, misled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fitted:
    """Both regressors on a source batch's features."""

    grads: Trees  # of the regressors
    by_features: jax.Array  # the gradient for the trunk
    stats: Trees
    metrics: Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Guess:
    """f on a target batch's features."""

    features: jax.Array
    points: jax.Array  # f's predictions, pixels of the heatmap
    true: jax.Array  # their maps P_T
    false: jax.Array  # and P_F
    mask: jax.Array
    stats: Trees


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Adversary:
    """f' on a target batch's features."""

    logits: jax.Array
    pull: Callable[[jax.Array], tuple[Any, jax.Array]]  # from the logits' gradient to f' and the features
    loss: jax.Array
    gradients: tuple[jax.Array, jax.Array]  # of the adversary's and the trunk's objective by the logits
    stats: Trees


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objectives:
    """The objectives of Sec. 4.4 on the trunk's features, each with the gradients that it routes to its networks."""

    networks: detector.Detector
    settings: RegDA
    task: Task

    def source(
        self, step: jax.Array, params: Trees, stats: Trees, features: jax.Array, labels: inputs.Labelled
    ) -> _Fitted:
        """Objective 1 (Eq. 12)."""
        settings, networks = self.settings, self.networks
        share = self._trunk_share(step)

        def objective(heads: Trees, features: jax.Array) -> tuple[jax.Array, tuple[Trees, Metrics]]:
            logits, moved = networks.head("head", heads["head"], stats, features, train=True)
            seen = gradients.scale_gradient(features, share)
            adverse, moved = networks.head("head_adv", heads["head_adv"], moved, seen, train=True)
            points = settings.pseudo_points(jax.lax.stop_gradient(logits))
            loss = settings.mean(heatmap.spatial_kl(labels.maps, logits), labels.mask)
            disparity = heatmap.spatial_kl(self._true_maps(points), adverse, eps=settings.eps)
            agreement = settings.mean(disparity, labels.mask)
            metrics = {
                "loss/source": loss,
                "loss/source_disparity": agreement,
                "disparity_px/source": self._distance(points, adverse, labels.mask),
            }
            return loss + settings.margin * settings.trade_off * agreement, (moved, metrics)

        (grads, by_features), (moved, metrics) = jax.grad(objective, argnums=(0, 1), has_aux=True)(
            _part(params, HEADS), features
        )
        return _Fitted(grads=grads, by_features=by_features, stats=moved, metrics=metrics)

    def target(self, params: Trees, stats: Trees, features: jax.Array, mask: jax.Array) -> _Guess:
        """What f finds, which objectives 2 and 3 share."""
        logits, moved = self.networks.head("head", params["head"], stats, features, train=True)
        points = self.settings.pseudo_points(logits)
        true = self._true_maps(points)
        return _Guess(features=features, points=points, true=true, false=self._false_maps(true), mask=mask, stats=moved)

    def regress(self, params: Any, stats: Trees, guess: _Guess) -> _Adversary:
        """f' on the target's features, with the gradients of objectives 2 and 3 by its output."""
        settings = self.settings
        logits, pull, updated = jax.vjp(
            lambda p, x: self.networks.head("head_adv", p, stats, x, train=True),
            params,
            guess.features,
            has_aux=True,
        )

        def objective(choose: Objective, logits: jax.Array) -> jax.Array:
            true = heatmap.spatial_kl(guess.true, logits, eps=settings.eps)
            false = heatmap.spatial_kl(guess.false, logits, eps=settings.eps)
            return settings.trade_off * settings.mean(choose(true, false), guess.mask)

        loss, adversary = jax.value_and_grad(lambda z: objective(settings.adversary, z))(logits)
        trunk = jax.grad(lambda z: objective(settings.trunk, z))(logits)
        return _Adversary(logits=logits, pull=pull, loss=loss, gradients=(adversary, trunk), stats=updated)

    def adversary_gradient(self, adversary: _Adversary) -> Any:
        """Objective 2 (Eq. 13): the gradient of f'."""
        return adversary.pull(adversary.gradients[0])[0]

    def features_gradient(self, step: jax.Array, adversary: _Adversary) -> jax.Array:
        """Objective 3 (Eq. 14): the gradient of the trunk's features, through f'."""
        features = adversary.pull(adversary.gradients[1])[1]
        return self._trunk_share(step).astype(features.dtype) * features

    def metrics(self, guess: _Guess, adversary: _Adversary) -> Metrics:
        """What the logs say about the target."""
        return {
            "loss/target_adversary": adversary.loss,
            "disparity_px/target": self._distance(guess.points, adversary.logits, guess.mask),
        }

    def _true_maps(self, points: jax.Array) -> jax.Array:
        size = (self.task.heatmap_size, self.task.heatmap_size)
        return heatmaps.gaussian_maps(points, size, sigma=self.task.sigma, support=self.settings.support)

    def _false_maps(self, true: jax.Array) -> jax.Array:
        if self.task.area is not None:
            return heatmaps.area_false_maps(true, self.task.area, sigma=self.task.sigma)
        return heatmaps.ground_false_maps(true, clip=self.settings.clip_false)

    def _trunk_share(self, step: jax.Array) -> jax.Array:
        settings = self.settings
        if not settings.trunk_warmup:
            return jnp.asarray(settings.trunk_weight, jnp.float32)
        return settings.trunk_weight * jnp.tanh(step.astype(jnp.float32) / (2 * settings.trunk_warmup))

    def _distance(self, points: jax.Array, logits: jax.Array, mask: jax.Array) -> jax.Array:
        """How far f' predicts from f, in image pixels (Fig. 9)."""
        between = jnp.linalg.norm(heatmaps.argmax_points(logits) - points, axis=-1) * self.task.stride
        return heatmap.masked_mean(between, mask)


def _part(trees: Trees, names: tuple[str, ...]) -> Trees:
    return {name: trees[name] for name in names}
