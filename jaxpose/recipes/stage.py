"""What a recipe is made of: stages over one state, and the problem they are given.

A recipe is an ordered tuple of stages. This interface was checked against every method that jaxpose is to hold:

- `source_only`, `oracle`: one supervised stage; they differ in the domain that it reads.
- `dan`, `dann`, `mcd`, `dd`, `regda`: pretrain -> adapt. `init` takes over networks from the stage before by name and
  adds its own (a second regressor, a discriminator). MCD's alternating updates and RegDA's released order of updates
  are several optimizer applications inside one `step`, each optimizer a named entry of the state.
- `cc_ssl`, `mean_teacher`: the EMA teacher lives in `State.extra` beside the student. Pseudo-labels are made inside
  `step`; relabelling rounds are stages that follow one another.
- `cafa`: one stage whose `reads` has up to three domains (`source`, `target`, `target_labelled`).
- `post`: style -> pretrain -> warm-start -> finetune. Image pairs are a domain whose elements carry a leading axis of
  two frames: what an element is belongs to the domain, not to the trainer. Frozen parts (VGG, the style network)
  are networks without an optimizer.
- `relation`: pose prior -> motion prior -> relation networks -> source network -> adapt. The first stages read only
  `motions` and have `predict=None`: the trainer then evaluates nothing. Thirty-frame sequences are an element's
  leading axis. Five optimizers in turn are five entries of `State.optimizers` and a `jax.lax.switch` on
  `state.step % 5`.
- `flexpose`: pose generator -> transfer -> pose regressor -> detector; a GAN update is two gradients and two named
  optimizers in one `step`. The pool of generated poses that the next stage reads is drawn from the generator handed
  on in the state.

None of them needs the trainer to know its name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.metrics.metric import Predictions
from jaxpose.ops.augment import Augmentation

Tree = Any
Batch = Mapping[str, Mapping[str, jax.Array]]  # {domain: {field: array}}
Metrics = dict[str, jax.Array]  # scalars; names that start with "loss" must stay finite


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """Everything that training changes, as plain dicts of arrays.

    Attributes:
      step: updates done in this stage, int32 scalar.
      params: float32 parameters, a dict by network.
      stats: batch statistics, a dict by network.
      optimizers: optimizer states, a dict by name.
      extra: a dict of what a method carries besides, such as an EMA teacher.
    """

    step: Any  # Any: JAX also fills pytrees with shapes, shardings and placeholders
    params: Any
    stats: Any
    optimizers: Any
    extra: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The problem a recipe is given.

    Attributes:
      skeleton: the joints to find.
      image_size: side of the input images in pixels.
      heatmap_size: side of the heatmaps in pixels.
      sigma: of the label heatmaps, in heatmap pixels.
      augmentation: of training images.
      sizes: training records by domain; `index` among a stage's fields says which of them a row is.
      area: first and last heatmap pixel where the keypoint of a one-joint skeleton can lie, for its ground-false
        maps.
    """

    skeleton: Skeleton
    image_size: int
    heatmap_size: int
    sigma: float
    augmentation: Augmentation
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    area: tuple[float, float] | None = None

    @property
    def stride(self) -> float:
        """Image pixels per heatmap pixel."""
        return self.image_size / self.heatmap_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a recipe.

    Attributes:
      name: as in `config.steps`, the logs and the results.
      steps: how many updates.
      reads: the fields that each training batch holds, by domain.
      init: makes the state from a key and the final state of the stage before (None for the first); jitted.
      first_batch: where in the shuffled data the stage begins; rounds that follow one another go on from there.
      load: puts what lies in files, such as published weights, into a state that `init` made; not jitted.
      step: one pure update: (state, batch, key) -> (state, metrics). It need not count `state.step`.
      predict: what is found in normalised images, for evaluation; None if the stage has no detector.
      descend: (state, gradients by network) -> state, one more update within a step by the stage's own optimizers and
        schedule, for what is added to a recipe; None if it has no such.
      order: in which training elements come, by name: stages of the same order read parts of the same one. None: the
        stage's own.
    """

    name: str
    steps: int
    reads: Mapping[str, tuple[str, ...]]
    init: Callable[[jax.Array, State | None], State]
    step: Callable[[State, Batch, jax.Array], tuple[State, Metrics]]
    predict: Callable[[State, jax.Array], Predictions] | None
    descend: Callable[[State, dict[str, Tree]], State] | None = None
    order: str | None = None
    first_batch: int = 0
    load: Callable[[State], State] | None = None


def initial_state(**parts: dict[str, Tree]) -> State:
    """A state at step 0."""
    return State(step=jnp.zeros((), jnp.int32), **parts)
