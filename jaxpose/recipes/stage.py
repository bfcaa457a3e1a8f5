"""What a recipe is made of: stages over one state, and the problem they are given."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from jaxpose.data.host.windows import Window
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.metrics.metric import Metric, Predictions
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
      augmentation: of training images.
      sizes: training records by domain; `index` among a stage's fields says which of them a row of single frames is.
      skeletons: the joints of each domain: motions, and poses that are motions, have their own.
      area: first and last image pixel, on both axes, where keypoints can lie, if that is known.
    """

    skeleton: Skeleton
    image_size: int
    augmentation: Augmentation
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    skeletons: Mapping[str, Skeleton] = dataclasses.field(default_factory=dict)
    area: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """What a stage reads of a domain's training split.

    Attributes:
      domain: `source`, `target`, `labelled`, `motions` or `poses`.
      fields: of each row, see `data.host.elements.Crops` and `data.motion.source.MotionSource`.
      rows: of a global batch; None: `config.data.batch_size`.
      window: frames that are one row; None: one.
    """

    domain: str
    fields: tuple[str, ...]
    rows: int | None = None
    window: Window | None = None


def reads(**fields: tuple[str, ...]) -> dict[str, Read]:
    """Single frames of domains, which are called as they are."""
    return {domain: Read(domain=domain, fields=of) for domain, of in fields.items()}


Step = Callable[[State, Batch, jax.Array], tuple[State, Metrics]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """One of several updates that a stage applies in turn.

    Attributes:
      reads: what its batches hold, by the recipe's own words.
      step: (state, batch, key) -> (state, metrics). It need not count `state.step`.
    """

    reads: Mapping[str, Read]
    step: Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a stage finds, and where that is measured.

    Attributes:
      predict: from the fields of a batch.
      domains: on whose labelled splits, those for training excepted.
      fields: that `predict` reads.
      window: frames that are one row; None: one.
      metrics: None: those of the configuration for which there are predictions.
    """

    predict: Callable[[State, Mapping[str, jax.Array]], Predictions]
    domains: tuple[str, ...] = ("source", "target")
    fields: tuple[str, ...] = ("image",)
    window: Window | None = None
    metrics: tuple[Metric, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a stage shows in the report when it is over.

    Attributes:
      reads: of what it is shown, by the recipe's own words: elements from all over the validation split, or where a
        domain has none, the training split; the same in every run. `rows` are how many; None: four.
      draw: (state, batch) -> images (B, H, W, 3) by caption, all of one shape; uint8, or floats from 0 to 1.
    """

    reads: Mapping[str, Read]
    draw: Callable[[State, Batch], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a recipe.

    Attributes:
      name: as in `config.steps`, the logs and the results.
      steps: how many updates.
      init: makes the state from a key and the final state of the stage before (None for the first); jitted.
      updates: one, or several that are applied in turn.
      load: puts what lies in files, such as published weights, into a state that `init` made; not jitted.
      files: that `load` reads.
      evaluations: none if the stage has nothing to measure.
      pictures: None if it has nothing to show but what an evaluation finds in the target's images.
      apply_gradients: (state, gradients by network) -> state, one more update within a step by the stage's own
        optimizers and schedule, for what is added to a recipe; None if it has no such.
      order: in which training elements come, by name: stages of the same order read parts of the same one. None: the
        stage's own.
      first_batch: where in the shuffled data the stage begins; rounds that follow one another go on from there.
    """

    name: str
    steps: int
    init: Callable[[jax.Array, State | None], State]
    updates: tuple[Update, ...]
    load: Callable[[State], State] | None = None
    files: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    pictures: Pictures | None = None
    apply_gradients: Callable[[State, dict[str, Tree]], State] | None = None
    order: str | None = None
    first_batch: int = 0

    def __post_init__(self) -> None:
        for update in self.updates:
            for word, read in update.reads.items():
                if read != self.reads[word]:
                    raise ValueError(f"the stage {self.name}: found several meanings of the word {word}, expected one")

    @property
    def reads(self) -> dict[str, Read]:
        """What all updates read."""
        return {word: read for update in self.updates for word, read in update.reads.items()}

    @property
    def step(self) -> Step:
        """The update of a stage that has only one.

        Raises:
          ValueError: if it has several.
        """
        if len(self.updates) != 1:
            raise ValueError(f"the stage {self.name}: found {len(self.updates)} updates in turn, expected one")
        return self.updates[0].step


@runtime_checkable
class Networks(Protocol):
    """What makes networks by name."""

    def init(self, key: jax.Array, names: tuple[str, ...]) -> tuple[dict[str, Tree], dict[str, Tree]]:
        """Fresh parameters and statistics."""
        ...


def next_state(
    key: jax.Array,
    previous: State | None,
    networks: Networks,
    rules: Mapping[str, optax.GradientTransformation],
    *,
    fresh: tuple[str, ...] = (),
    renamed: Mapping[str, str] | None = None,
    dropped: tuple[str, ...] = (),
    extra: dict[str, Any] | None = None,
) -> State:
    """The state of a stage that goes on from the one before: every network is carried, every optimizer begins anew.

    Args:
      key: of the networks that start anew.
      previous: final state of the stage before; None for the first.
      networks: makes them.
      rules: the optimizer of each network that is trained; the others stay as they are.
      fresh: networks that start anew.
      renamed: networks that go on from another one of `previous`.
      dropped: networks of `previous` that nobody needs any more.
      extra: of the new state.
    """
    made = networks.init(key, fresh)
    parts = []
    for kind, new in zip(("params", "stats"), made, strict=True):
        before = {} if previous is None else getattr(previous, kind)
        kept = {name: tree for name, tree in before.items() if name not in dropped}
        parts.append(kept | {name: before[old] for name, old in (renamed or {}).items()} | new)
    params, stats = parts
    optimizers = {name: rule.init(params[name]) for name, rule in rules.items()}
    return initial_state(params=params, stats=stats, optimizers=optimizers, extra=extra or {})


def initial_state(**parts: dict[str, Tree]) -> State:
    """A state at step 0."""
    return State(step=jnp.zeros((), jnp.int32), **parts)
