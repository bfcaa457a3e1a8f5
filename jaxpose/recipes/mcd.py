"""MCD: maximum classifier discrepancy (Saito et al., CVPR 2018) for regressors of heatmaps.

Two regressors fit the source; they are led to disagree on the target, and then the trunk makes them agree.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, limited
from jaxpose.losses import heatmap
from jaxpose.models import functional
from jaxpose.recipes import detector, inputs, supervised
from jaxpose.recipes.detector import TRUNK, Trees
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads

HEADS = ("head", "head2")
NETWORKS = (*TRUNK, *HEADS)


@dataclasses.dataclass(kw_only=True)
class MCD:
    """Steps A, B and C of Sec. 3.3, one after the other in every update.

    Attributes:
      trade_off: weight of the discrepancy.
      trunk_updates: how often step C is repeated, n of the paper.
    """

    name: str = "mcd"
    trade_off: float = limited(1.0, *AT_LEAST_0)
    trunk_updates: int = limited(4, *AT_LEAST_1)

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source, then adapt."""
        networks = detector.build(task, config, heads=dict.fromkeys(HEADS, functional.regressor))
        first = supervised.pretrain(task, config, detector.build(task, config))
        return first, adapt(task, config, networks, self)


def adapt(task: Task, config: Config, networks: detector.Detector, settings: MCD) -> Stage:
    """The adversarial stage.

    Step B leaves the trunk alone, so the first step C would find the features that B has found, but for the running
    statistics of the trunk, which move towards the same batch once more.
    """
    steps = config.steps_of("adapt")
    apply_gradients = detector.adaptation(config)
    goes_on = config.model.source_head is functional.regressor  # the source model's head, as the first regressor

    def init(key: jax.Array, previous: State | None) -> State:
        assert previous is not None
        start, key = jax.random.split(key)
        fresh = ("head2",) if goes_on else ("head", "head2")
        state = next_state(start, previous, networks, dict.fromkeys(NETWORKS, apply_gradients.rule), fresh=fresh)
        return dataclasses.replace(state, params=state.params | {"head2": _second(key, state)})

    def _second(key: jax.Array, state: State) -> Trees:
        """The second regressor: as different from the first as two random ones are, or as a head can be disturbed."""
        if not goes_on:
            return state.params["head2"]
        # Gains and biases are no noise: fresh ones are the same for everybody.
        return jax.tree.map(
            lambda trained, new: trained + new if new.ndim > 1 else trained, state.params["head"], state.params["head2"]
        )

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        source_key, target_key = jax.random.split(key)
        labels = inputs.labelled(source_key, batch["source"], task, networks.draw)
        images = inputs.unlabelled(target_key, batch["target"], task)

        def supervision(heads: Trees, stats: Trees, features: jax.Array) -> tuple[jax.Array, Trees]:
            losses = []
            for name in HEADS:
                maps, stats = networks.head(name, heads[name], stats, features, train=True)
                losses.append(heatmap.masked_mean(heatmap.spatial_kl(labels.maps, maps), labels.mask))
            return sum(losses, jnp.zeros(())), stats

        def discrepancy(heads: Trees, stats: Trees, features: jax.Array) -> tuple[jax.Array, Trees]:
            first, stats = networks.head("head", heads["head"], stats, features, train=True)
            second, stats = networks.head("head2", heads["head2"], stats, features, train=True)
            return settings.trade_off * jnp.mean(difference(first, second)), stats

        # A: everything fits the source.
        def fit(params: Trees) -> tuple[jax.Array, Trees]:
            features, stats = networks.trunk(params, state.stats, labels.images, train=True)
            return supervision(params, stats, features)

        (loss, stats), grads = jax.value_and_grad(fit, has_aux=True)(state.params)
        before = networks.before_target(state.stats, stats)
        state = apply_gradients(state, grads)

        # B: the regressors disagree on the target without leaving the source.
        source, _ = networks.trunk(state.params, before, labels.images, train=True)
        target, trunk_vjp, once = networks.trunk_with_vjp(state.params, before, images)

        def disagree(heads: Trees) -> tuple[jax.Array, Trees]:
            apart, stats = discrepancy(heads, once, target)
            return supervision(heads, before, source)[0] - apart, stats

        grads, stats = jax.grad(disagree, has_aux=True)({name: state.params[name] for name in HEADS})
        state = apply_gradients(state, grads)

        # C: the trunk makes them agree.
        apart = jnp.zeros(())
        for repeat in range(settings.trunk_updates):
            if repeat:
                target, trunk_vjp, stats = networks.trunk_with_vjp(state.params, stats, images)
            else:
                stats |= {name: detector.moved_twice(before[name], once[name]) for name in TRUNK}
            (apart, stats), feature_grads = jax.value_and_grad(
                lambda features, stats=stats, state=state: discrepancy(state.params, stats, features), has_aux=True
            )(target)
            state = apply_gradients(state, trunk_vjp(feature_grads))
        metrics = {"loss/source": loss, "loss/discrepancy": apart}
        return dataclasses.replace(state, stats=stats), metrics

    return Stage(
        name="adapt",
        steps=steps,
        init=init,
        updates=(Update(reads=reads(source=inputs.LABELLED, target=inputs.UNLABELLED), step=step),),
        evaluations=(networks.evaluation(),),
        apply_gradients=apply_gradients,
    )


def difference(first: jax.Array, second: jax.Array) -> jax.Array:
    """The L1 distance of two heatmaps' spatial softmax per joint, (B, K): 0 where they agree, 2 where they are apart.

    Source: MCD Eq. 9, with pixels for classes.
    """
    p, q = (jax.nn.softmax(maps.astype(jnp.float32), axis=(1, 2)) for maps in (first, second))
    return jnp.sum(jnp.abs(p - q), axis=(1, 2))
