"""Temporal consistency beside any method: heatmaps of neighbouring frames of target clips shall be alike.

Source: the addition "temporal L2" to RegDA and UniFrame in the comparison of POST (NeurIPS 2023).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.data.host.windows import consecutive
from jaxpose.limits import AT_LEAST_0, limited
from jaxpose.losses import heatmap
from jaxpose.models import functional
from jaxpose.recipes import detector, inputs, views
from jaxpose.recipes.detector import WHOLE, Trees
from jaxpose.recipes.stage import Batch, Metrics, Read, Stage, State, Task, Update

CLIPS = "target_clips"


@dataclasses.dataclass(kw_only=True)
class Temporal:
    """A method with one more update in each of its steps on the target.

    The update goes through the method's own optimizers of trunk and head, at its learning rate of that step. Batch
    statistics are the clips' own for the loss, and are not kept: those of the method see the same images.

    Attributes:
      method: the recipe that is added to.
      weight: of the loss.
      head: that predicts; None: the source model's, `functional.regressor` for RegDA and MCD.
      maps: makes comparable maps out of the network's.
    """

    method: Any  # a config.Method
    name: str = "temporal"
    weight: float = limited(1.0, *AT_LEAST_0)
    head: functional.Head | None = None
    maps: views.ConfidenceMaps = views.softmax_maps

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """The method's; those that train on the target also read `target_clips`."""
        networks = detector.build(task, config, heads=None if self.head is None else {"head": self.head})
        return tuple(
            consistent(stage, task, networks, self)
            if stage.apply_gradients is not None and any(read.domain == "target" for read in stage.reads.values())
            else stage
            for stage in self.method.stages(task, config)
        )


def consistent(stage: Stage, task: Task, networks: detector.Detector, settings: Temporal) -> Stage:
    """A stage whose every step ends with an update towards steady heatmaps."""
    assert stage.apply_gradients is not None
    apply_gradients = stage.apply_gradients

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        own, clip_key = jax.random.split(key)
        fields = batch[CLIPS]
        images = inputs.unlabelled(clip_key, fields, task)  # what stands still in a clip stays still
        state, metrics = stage.step(state, batch, own)

        def objective(params: Trees) -> jax.Array:
            maps, _ = networks.maps(params, state.stats, images.reshape(-1, *images.shape[2:]), train=True)
            maps = settings.maps(maps).reshape(*images.shape[:2], *maps.shape[1:])
            every = jnp.ones((*images.shape[:2], maps.shape[-1]), bool)
            return settings.weight * jnp.mean(heatmap.temporal_l2(maps, every))

        loss, grads = jax.value_and_grad(objective)({name: state.params[name] for name in WHOLE})
        return apply_gradients(state, grads), metrics | {"loss/temporal": loss}

    clips = {CLIPS: Read(domain="target", fields=inputs.UNLABELLED, window=consecutive(2))}
    return dataclasses.replace(stage, updates=(Update(reads=clips | stage.reads, step=step),))
