"""Supervised training of a detector: `source_only`, `oracle`, and the pretraining of the adaptation methods."""

import dataclasses
from collections.abc import Callable

import jax

from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.recipes import detector, inputs, optimizers, views
from jaxpose.recipes.detector import WHOLE
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (label maps, predicted maps) -> (B, K)
Reduction = Callable[[jax.Array, jax.Array], jax.Array]  # (values, mask), both (B, K) -> scalar


@dataclasses.dataclass(kw_only=True)
class Supervised:
    """Trains on the labels of one domain: the source (`source_only`) or, as the upper bound, the target (`oracle`).

    Attributes:
      loss, mean: of maps against labels, and the mean over joints.
      maps: belongs to the loss, see `views.ConfidenceMaps`.
      coding: how labels are drawn and predictions read.

    Source: RegDA Sec. 5.2.2: L2 with Adam; `heatmap.spatial_kl` is L_T.
    """

    name: str = "source_only"
    domain: str = "source"
    loss: Loss = heatmap.spatial_kl
    maps: views.ConfidenceMaps = views.softmax_maps
    coding: inputs.Coding = inputs.CLEAN
    mean: Reduction = heatmap.masked_mean

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """One stage, called `pretrain` because adaptation methods start from it."""
        networks = detector.build(task, config, coding=self.coding)
        return (pretrain(task, config, networks, domain=self.domain, loss=self.loss, maps=self.maps, mean=self.mean),)


def pretrain(
    task: Task,
    config: Config,
    networks: detector.Detector,
    *,
    domain: str = "source",
    loss: Loss = heatmap.spatial_kl,
    maps: views.ConfidenceMaps = views.softmax_maps,
    mean: Reduction = heatmap.masked_mean,
) -> Stage:
    """Trains trunk and head on the labels of one domain; the arguments are those of `Supervised`."""
    steps, settings = config.steps_of("pretrain"), config.optim
    rule = optimizers.transformation(settings.pretrain_rule, settings)
    high = optimizers.peak(settings.pretrain_rule, settings)
    rates = detector.learning_rates(optimizers.step_schedule(high, steps, settings), settings.pretrain_trunk_scale)

    def init(key: jax.Array, previous: State | None) -> State:
        return next_state(key, previous, networks, dict.fromkeys(WHOLE, rule), fresh=WHOLE)

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        labels = inputs.labelled(key, batch[domain], task, networks.draw)

        def objective(params: detector.Trees) -> tuple[jax.Array, detector.Trees]:
            predicted, stats = networks.maps(params, state.stats, labels.images, train=True)
            return mean(loss(labels.maps, predicted), labels.mask), stats

        (value, stats), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        state = optimizers.apply_gradients(state, grads, dict.fromkeys(WHOLE, rule), rates(state.step, WHOLE))
        return dataclasses.replace(state, stats=stats), {f"loss/{domain}": value}

    def load(state: State) -> State:
        params, stats = config.model.load(state.params, state.stats)
        return dataclasses.replace(state, params=params, stats=stats)

    return Stage(
        name="pretrain",
        steps=steps,
        init=init,
        load=None if config.model.weights is None else load,
        updates=(Update(reads=reads(**{domain: inputs.LABELLED}), step=step),),
        evaluations=(networks.evaluation(normal=maps),),
    )
