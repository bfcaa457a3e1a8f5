"""Adaptation by alignment: supervised training on the source, and a loss that makes the domains' features alike.

`dan`, `dann` and `sw` differ in that loss; with none of them, what adapts is the batch statistics (`adabn`).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax

from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.models.functional import Network
from jaxpose.recipes import detector, inputs, supervised
from jaxpose.recipes.detector import WHOLE, Features, Trees
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads

AlignmentLoss = Callable[[Trees, Features, Features, jax.Array], tuple[jax.Array, Metrics]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """What a method adds to supervised training.

    Attributes:
      networks: its own, such as discriminators, by name.
      loss: (their parameters, source features, target features, progress from 0 to 1) -> (loss, metrics). One gradient
        goes to all networks, so whoever plays against the trunk sees it through `scale_gradient`.
    """

    networks: Mapping[str, Network]
    loss: AlignmentLoss


def stages(task: Task, config: Config, make: Callable[[detector.Detector], Alignment]) -> tuple[Stage, ...]:
    """Pretrain on the source, then align."""
    networks = detector.build(task, config)
    return supervised.pretrain(task, config, networks), adapt(task, config, networks, make(networks))


def adapt(task: Task, config: Config, networks: detector.Detector, alignment: Alignment) -> Stage:
    """Trains the pretrained detector on with the alignment's loss added."""
    networks = dataclasses.replace(networks, networks={**networks.networks, **alignment.networks})
    names = (*WHOLE, *alignment.networks)
    steps = config.steps_of("adapt")
    apply_gradients = detector.adaptation(config)

    def init(key: jax.Array, previous: State | None) -> State:
        rules = dict.fromkeys(names, apply_gradients.rule)
        return next_state(key, previous, networks, rules, fresh=tuple(alignment.networks))

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        source_key, target_key = jax.random.split(key)
        labels = inputs.labelled(source_key, batch["source"], task, networks.draw)
        images = inputs.unlabelled(target_key, batch["target"], task)
        progress = state.step / max(steps, 1)

        def objective(params: Trees) -> tuple[jax.Array, tuple[Trees, Metrics]]:
            source, target, stats = networks.features_of_both(params, state.stats, labels.images, images)
            maps, stats = networks.head("head", params["head"], stats, source.up, train=True)
            supervision = heatmap.masked_mean(heatmap.spatial_kl(labels.maps, maps), labels.mask)
            stats |= {"head": networks.before_target(state.stats["head"], stats["head"])}
            _, stats = networks.head("head", jax.lax.stop_gradient(params["head"]), stats, target.up, train=True)
            value, metrics = alignment.loss(params, source, target, progress)
            return supervision + value, (stats, {"loss/source": supervision, "loss/alignment": value} | metrics)

        grads, (stats, metrics) = jax.grad(objective, has_aux=True)(state.params)
        return dataclasses.replace(apply_gradients(state, grads), stats=stats), metrics

    return Stage(
        name="adapt",
        steps=steps,
        init=init,
        updates=(Update(reads=reads(source=inputs.LABELLED, target=inputs.UNLABELLED), step=step),),
        evaluations=(networks.evaluation(),),
        apply_gradients=apply_gradients,
    )
