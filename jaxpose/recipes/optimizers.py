"""Optimizers and schedules.

An optimizer here is an optax transformation *without* a learning rate: recipes multiply it in from the step of the
stage, so that one counter drives every optimizer, however often each of them is applied in a step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from annotated_types import Interval, Predicate

from jaxpose.limits import AT_LEAST_0, POSITIVE, SHARE, limited, one_of
from jaxpose.recipes.stage import State

Schedule = Callable[[jax.Array], jax.Array]

_FRACTIONS = ("fractions of 0 to 1", Predicate(lambda found: all(0 <= x <= 1 for x in found)))


@dataclasses.dataclass(kw_only=True)
class Optim:
    """How networks are updated.

    Attributes:
      learning_rate: of heads; the peak of the schedules.
      pretrain_trunk_scale: pretraining's learning rate of backbone and upsampling relative to the head's; 0.1 suits
        ImageNet weights, 1 random ones.
      adapt_trunk_scale: the same for adaptation.
      pretrain_rule, adapt_rule: `sgd` with Nesterov momentum, or `adam`. Adam takes `adam_learning_rate`.
      momentum: of SGD.
      weight_decay: of SGD; on every parameter, biases and batch-norm scales included.
      adam_learning_rate: the peak learning rate where a rule is Adam.
      warmup: fraction of the pretraining steps in which the learning rate rises from 0.
      drops: fractions of the pretraining steps at which the learning rate falls to a tenth.
      adapt_decay: `a` of the adaptation schedule (1 + a i / steps)^-0.75.
    """

    learning_rate: float = limited(0.1, *POSITIVE)
    pretrain_trunk_scale: float = limited(0.1, *AT_LEAST_0)
    adapt_trunk_scale: float = limited(0.1, *AT_LEAST_0)
    pretrain_rule: str = limited("sgd", *one_of("sgd", "adam"))
    adapt_rule: str = limited("sgd", *one_of("sgd", "adam"))
    momentum: float = limited(0.9, "0 to less than 1", Interval(ge=0, lt=1))
    weight_decay: float = limited(1e-4, *AT_LEAST_0)
    adam_learning_rate: float = limited(1e-3, *POSITIVE)
    warmup: float = limited(0.0, *SHARE)
    drops: tuple[float, ...] = limited((44 / 70, 59 / 70), *_FRACTIONS)
    adapt_decay: float = limited(1.5, *AT_LEAST_0)


MakeSchedule = Callable[[float, int, Optim], Schedule]  # (peak learning rate, steps, settings) -> learning rate


def transformation(rule: str, settings: Optim) -> optax.GradientTransformation:
    """The update direction of a rule; `apply_gradients` scales it by the learning rate."""
    if rule == "adam":
        return optax.scale_by_adam()
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), optax.trace(settings.momentum, nesterov=True))


def peak(rule: str, settings: Optim) -> float:
    """The highest learning rate of a rule's schedule."""
    return settings.adam_learning_rate if rule == "adam" else settings.learning_rate


def step_schedule(high: float, steps: int, settings: Optim) -> Schedule:
    """Linear warm-up, then a constant rate that falls to a tenth at each of the drops."""
    warmup = max(1.0, settings.warmup * steps)

    def rate(step: jax.Array) -> jax.Array:
        i = step.astype(jnp.float32)
        fallen = sum((i >= drop * steps).astype(jnp.float32) for drop in settings.drops)
        return high * jnp.minimum(1.0, (i + 1) / warmup) * 0.1 ** jnp.asarray(fallen, jnp.float32)

    return rate


def inverse_schedule(high: float, steps: int, settings: Optim) -> Schedule:
    """`high` (1 + a i / steps)^-0.75: the paper's schedule at the paper's 15,000 steps for a = 1.5.

    Source: RegDA Sec. 5.1; Ganin et al. (2016).
    """
    a = settings.adapt_decay / max(steps, 1)
    return lambda step: high * (1 + a * step.astype(jnp.float32)) ** -0.75


def cosine_schedule(high: float, steps: int, settings: Optim | None = None) -> Schedule:
    """`high` at the start and 0 at the end. Source: Loshchilov and Hutter 2017, without restarts."""
    del settings
    share = jnp.pi / max(steps, 1)
    return lambda step: high * 0.5 * (1 + jnp.cos(share * step.astype(jnp.float32)))


def apply_gradients(
    state: State,
    grads: dict[str, Any],
    transformations: dict[str, optax.GradientTransformation],
    rates: dict[str, jax.Array],
) -> State:
    """Applies gradients, given by network, with each network's own optimizer and learning rate."""
    params, optimizers = dict(state.params), dict(state.optimizers)
    for name, grad in grads.items():
        updates, optimizers[name] = transformations[name].update(grad, optimizers[name], params[name])
        rate = rates[name]
        params[name] = jax.tree.map(lambda p, u, rate=rate: p - rate * u, params[name], updates)
    return dataclasses.replace(state, params=params, optimizers=optimizers)
