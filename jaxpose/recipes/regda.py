"""RegDA: regressive domain adaptation (Jiang et al., CVPR 2021).

A regressor f is trained on labelled source images. An adversarial regressor f' agrees with f on the source and is led
away from it on the target, towards the other joints (L_F); the trunk then learns target features on which the two
agree (L_T). Both sides minimise.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.models import functional
from jaxpose.ops import gradients, heatmaps
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import detector, inputs, supervised
from jaxpose.recipes.detector import WHOLE, Trees
from jaxpose.recipes.inputs import Labelled
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads

Objective = Callable[[Array, Array], Array]  # (L_T, L_F) -> what is minimised
UpdateOrder = Callable[["Adaptation", State, Labelled, Labelled], tuple[State, Metrics]]  # by source and target
LossAndAux = tuple[Array, tuple[Trees, Metrics]]  # with all statistics after it


def minimize_true(true: Array, false: Array) -> Array:
    """The regressors shall agree (RegDA's trunk, Eq. 14; DD's trunk)."""
    return true


def minimize_false(true: Array, false: Array) -> Array:
    """f' shall find other joints (RegDA's f', Eq. 13)."""
    return false


def maximize_true(true: Array, false: Array) -> Array:
    """f' shall disagree: the disparity discrepancy's minimax game on L_T (Eq. 4)."""
    return -true


def maximize_false(true: Array, false: Array) -> Array:
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
    update: UpdateOrder = dataclasses.field(default_factory=lambda: simultaneous)
    trade_off: float = 1.0
    margin: float = 1.0
    trunk_weight: float = 0.1
    trunk_warmup: float = 0.0
    coding: inputs.Coding = inputs.CLEAN
    mean: supervised.Reduction = heatmap.masked_mean
    pseudo_points: Callable[[Array], Array] = heatmaps.argmax_points
    support: heatmaps.Support = "full"
    eps: float = 0.0
    clip_false: bool = False
    target_weights: bool = False

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source, then adapt."""
        networks = detector.build(task, config, coding=self.coding)
        heads = {"head": functional.regressor, "head_adv": functional.regressor}
        regressors = detector.build(task, config, heads=heads, coding=self.coding)
        return supervised.pretrain(task, config, networks, mean=self.mean), adapt(task, config, regressors, self)

    def trunk_share(self, step: Array) -> Array:
        """Of the gradient through f', what reaches the trunk."""
        if not self.trunk_warmup:
            return jnp.asarray(self.trunk_weight, jnp.float32)
        return self.trunk_weight * jnp.tanh(step.astype(jnp.float32) / (2 * self.trunk_warmup))


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
    apply_gradients = detector.adaptation(config)
    area = None if task.area is None else whole_pixels(task.area, networks.grid)

    def init(key: Array, previous: State | None) -> State:
        rules = dict.fromkeys(networks.networks, apply_gradients.rule)
        if config.model.source_head is functional.regressor:
            return next_state(key, previous, networks, rules, renamed={"head_adv": "head"})
        return next_state(key, previous, networks, rules, fresh=("head", "head_adv"))

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        source_key, target_key = jax.random.split(key)
        source = inputs.labelled(source_key, batch["source"], task, networks.draw)
        if settings.target_weights:
            target = inputs.labelled(target_key, batch["target"], task, networks.draw)
        else:
            images = inputs.unlabelled(target_key, batch["target"], task)
            target = inputs.Labelled(images=images, maps=None, mask=jnp.ones((len(images), len(task.skeleton)), bool))
        share = settings.trunk_share(state.step)
        adaptation = Adaptation(
            networks=networks, settings=settings, area=area, apply_gradients=apply_gradients, share=share
        )
        return settings.update(adaptation, state, source, target)

    target = inputs.LABELLED if settings.target_weights else inputs.UNLABELLED
    return Stage(
        name="adapt",
        steps=config.steps_of("adapt"),
        init=init,
        updates=(Update(reads=reads(source=inputs.LABELLED, target=target), step=step),),
        evaluations=(networks.evaluation(),),
        apply_gradients=apply_gradients,
    )


def whole_pixels(area: tuple[float, float], grid: Grid) -> tuple[float, float]:
    """First and last image pixel of an area as the heatmap pixels next to them."""
    first, last = jnp.round(heatmaps.image_to_heatmap(jnp.asarray(area), grid.stride))
    return float(first), float(last)


def simultaneous(adaptation: "Adaptation", state: State, source: Labelled, target: Labelled) -> tuple[State, Metrics]:
    """All three objectives at the same parameters, one update of each network (Sec. 4.4)."""
    networks, settings = adaptation.networks, adaptation.settings

    def loss(params: Trees) -> LossAndAux:
        on_source, on_target, stats = networks.features_of_both(params, state.stats, source.images, target.images)
        source_loss, (moved, metrics) = adaptation.source(params, on_source.up, stats, source)
        stats = networks.before_target(stats, moved)
        _, points, stats = adaptation.regressor(params["head"], on_target.up, stats)
        # f' passes once, its logits count twice: by the first Eq. 13 moves f' alone, by the second Eq. 14 the trunk.
        adversary_logits, trunk_logits, stats = gradients.split_gradient(
            adaptation.adversary, params["head_adv"], on_target.up, stats
        )
        adversary, apart = adaptation.disparity(settings.adversary, points, adversary_logits, target.mask)
        trunk, _ = adaptation.disparity(settings.trunk, points, trunk_logits, target.mask)
        metrics |= {"loss/target_adversary": settings.trade_off * adversary, "disparity_px/target": apart}
        return source_loss + settings.trade_off * (adversary + trunk), (stats, metrics)

    grads, (stats, metrics) = jax.grad(loss, has_aux=True)(state.params)
    return dataclasses.replace(adaptation.apply_gradients(state, grads), stats=stats), metrics


def released(adaptation: "Adaptation", state: State, source: Labelled, target: Labelled) -> tuple[State, Metrics]:
    """The released code's order: objective 1, update; objective 2, update of f'; objective 3, update of the trunk.

    The trunk and f' are updated twice a step through one momentum buffer each. The released code runs the target
    through the network again for objective 3. Only f' has changed by then, so the trunk's and f's second pass equal
    their first, but for moving their running statistics once more.
    """
    networks, settings, apply_gradients = adaptation.networks, adaptation.settings, adaptation.apply_gradients
    features, trunk_vjp, stats = networks.trunk_with_vjp(state.params, state.stats, source.images)
    fit = jax.grad(adaptation.source, argnums=(0, 1), has_aux=True)
    (grads, feature_grads), (before, metrics) = fit(state.params, features, stats, source)
    state = apply_gradients(state, grads | trunk_vjp(feature_grads))

    features, trunk_vjp, stats = networks.trunk_with_vjp(state.params, before, target.images)
    _, points, once = adaptation.regressor(state.params["head"], features, stats)

    def loss(f_adv: Trees, features: Array, stats: Trees, choose: Objective) -> LossAndAux:
        logits, stats = adaptation.adversary(f_adv, features, stats)
        disparity, apart = adaptation.disparity(choose, points, logits, target.mask)
        weighted = settings.trade_off * disparity
        return weighted, (stats, {"loss/target_adversary": weighted, "disparity_px/target": apart})

    adversary, trunk = (jax.grad(loss, argnums=argument, has_aux=True) for argument in (0, 1))
    grads, (stats, target_metrics) = adversary(state.params["head_adv"], features, once, settings.adversary)
    state = apply_gradients(state, {"head_adv": grads})
    feature_grads, (stats, _) = trunk(state.params["head_adv"], features, stats, settings.trunk)
    twice = {name: detector.moved_twice(before[name], once[name]) for name in WHOLE}
    return dataclasses.replace(
        apply_gradients(state, trunk_vjp(feature_grads)), stats=stats | twice
    ), metrics | target_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptation:
    """The method (Sec. 4) in one step; its functions of the trunk's features also return all statistics after them."""

    networks: detector.Detector
    settings: RegDA
    area: tuple[float, float] | None  # first and last heatmap pixel where keypoints can lie, if that is known
    apply_gradients: detector.ApplyGradients
    share: Array  # of the gradient through f', what reaches the trunk

    def source(self, params: Trees, features: Array, stats: Trees, labels: Labelled) -> LossAndAux:
        """Objective 1 (Eq. 12): f agrees with the labels, and f' with f."""
        settings = self.settings
        logits, points, stats = self.regressor(params["head"], features, stats)
        logits_adv, stats = self.adversary(params["head_adv"], features, stats)
        loss = settings.mean(heatmap.spatial_kl(labels.maps, logits), labels.mask)
        disparity, apart = self.disparity(minimize_true, points, logits_adv, labels.mask)
        metrics = {"loss/source": loss, "loss/source_disparity": disparity, "disparity_px/source": apart}
        return loss + settings.margin * settings.trade_off * disparity, (stats, metrics)

    def regressor(self, params: Trees, features: Array, stats: Trees) -> tuple[Array, Array, Trees]:
        """f's logits (B, H, W, K) and, without a gradient, where on them its joints are (B, K, 2)."""
        logits, stats = self.networks.head("head", params, stats, features, train=True)
        return logits, self.settings.pseudo_points(jax.lax.stop_gradient(logits)), stats

    def adversary(self, params: Trees, features: Array, stats: Trees) -> tuple[Array, Trees]:
        """The logits of f', through which a share of the gradient reaches the features."""
        return self.networks.head("head_adv", params, stats, gradients.scale_gradient(features, self.share), train=True)

    def disparity(self, choose: Objective, points: Array, logits: Array, mask: Array) -> tuple[Array, Array]:
        """How far f' is from f's points: a choice of L_T and L_F (Eqs. 8 and 11), and image pixels (Fig. 9)."""
        settings, grid = self.settings, self.networks.grid
        true = grid.gaussians(points, support=settings.support)
        if self.area is not None:
            false = heatmaps.area_false_maps(true, self.area, sigma=grid.sigma)
        else:
            false = heatmaps.ground_false_maps(true, clip=settings.clip_false)
        losses = (heatmap.spatial_kl(maps, logits, eps=settings.eps) for maps in (true, false))
        pixels = jnp.linalg.norm(heatmaps.argmax_points(logits) - points, axis=-1) * grid.stride
        return settings.mean(choose(*losses), mask), heatmap.masked_mean(pixels, mask)
