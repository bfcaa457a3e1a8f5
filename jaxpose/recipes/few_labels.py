"""Training on with few labelled target images: the two baselines of every method that reads some.

`source_and_labelled` trains on the source's labels and theirs (S+T), `fine_tuning` on theirs alone; neither sees the
target's other images.

Source: what Xu & Zou, ACM MM 2020, Sec. 4 and the literature on semi-supervised adaptation compare with.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, limited
from jaxpose.losses import heatmap
from jaxpose.recipes import detector, inputs, supervised, views
from jaxpose.recipes.detector import WHOLE, Detector, Trees
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads


@dataclasses.dataclass(kw_only=True)
class FewLabels:
    """Supervised training of the source model on more domains than the source, or another one.

    Attributes:
      domains: whose labels; each has batches of its own, normalised by themselves.
      labelled: weight of the labelled target images beside the source's.
      loss, maps, mean: as in `supervised.Supervised`.
    """

    name: str = "source_and_labelled"
    domains: tuple[str, ...] = ("source", "labelled")
    labelled: float = limited(1.0, *AT_LEAST_0)
    loss: supervised.Loss = heatmap.spatial_kl
    maps: views.ConfidenceMaps = views.softmax_maps
    mean: supervised.Reduction = heatmap.masked_mean

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source, then go on with the labels of all domains."""
        networks = detector.build(task, config)
        first = supervised.pretrain(task, config, networks, loss=self.loss, maps=self.maps, mean=self.mean)
        return first, adapt(task, config, networks, self)


def fine_tuning() -> FewLabels:
    """The source model goes on on the labelled target images alone."""
    return FewLabels(name="fine_tuning", domains=("labelled",))


def adapt(task: Task, config: Config, networks: Detector, settings: FewLabels) -> Stage:
    """Trains the pretrained detector on."""
    apply_gradients = detector.adaptation(config)

    def init(key: jax.Array, previous: State | None) -> State:
        return next_state(key, previous, networks, dict.fromkeys(WHOLE, apply_gradients.rule))

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        keys = jax.random.split(key, len(settings.domains))
        labels = {
            domain: inputs.labelled(k, batch[domain], task, networks.draw)
            for domain, k in zip(settings.domains, keys, strict=True)
        }

        def objective(params: Trees) -> tuple[jax.Array, tuple[Trees, Metrics]]:
            total, stats, metrics = jnp.zeros(()), state.stats, {}
            for domain, of in labels.items():
                before = networks.before_target(state.stats, stats) if domain == "labelled" else stats
                maps, stats = networks.maps(params, before, of.images, train=True)
                value = settings.mean(settings.loss(of.maps, maps), of.mask)
                total += value * (settings.labelled if domain == "labelled" else 1.0)
                metrics[f"loss/{domain}"] = value
            return total, (stats, metrics)

        grads, (stats, metrics) = jax.grad(objective, has_aux=True)({name: state.params[name] for name in WHOLE})
        return dataclasses.replace(apply_gradients(state, grads), stats=stats), metrics

    return Stage(
        name="adapt",
        steps=config.steps_of("adapt"),
        init=init,
        updates=(Update(reads=reads(**dict.fromkeys(settings.domains, inputs.LABELLED)), step=step),),
        evaluations=(networks.evaluation(normal=settings.maps),),
        apply_gradients=apply_gradients,
    )
