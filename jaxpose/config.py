"""The typed configuration: what a run is, validated before anything is built, written to the work directory."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from annotated_types import Interval, MinLen, MultipleOf, Predicate
from jax.typing import DTypeLike

from jaxpose import limits
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, POSITIVE, limited, one_of
from jaxpose.models import functional
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import measures
from jaxpose.recipes.optimizers import Optim
from jaxpose.recipes.stage import Stage, Task

_SCHEME = ("SCHEME:PATH, see jaxpose/data/schemes.py", MinLen(1))
_METRICS = (f"of {', '.join(measures.NAMED)}", MinLen(1), Predicate(set(measures.NAMED).issuperset))
_FRACTIONS = ("fractions of more than 0", MinLen(1), Predicate(lambda found: min(found) > 0))


def _is_pattern(found: str) -> bool:
    try:
        re.compile(found)
    except re.error:
        return False
    return True


class Method(Protocol):
    """A recipe with its hyper-parameters: a dataclass that makes its stages."""

    name: str

    def stages(self, task: Task, config: "Config") -> tuple[Stage, ...]:
        """The stages for a problem."""
        ...


@runtime_checkable
class OfMoreStages(Protocol):
    """A `Method` that has more stages than those to pretrain and to adapt, whose steps are known of a pair."""

    def share_out(self, steps: Mapping[str, int]) -> dict[str, int]:
        """Updates by stage."""
        ...


@runtime_checkable
class WithNotes(Protocol):
    """A `Method` of whose numbers there is something to know."""

    def notes(self) -> list[str]:
        """Sentences for terminal, results and report."""
        ...


class Model(Protocol):
    """An architecture with its settings: a dataclass that makes what a detector consists of.

    In `config.json` it is its fields: they tell it from other architectures.

    Attributes:
      target_statistics: while adapting, only target batches move the running batch statistics.
      weights: a file that `load` reads; None starts from random weights.
    """

    target_statistics: bool
    weights: str | None

    @property
    def source_head(self) -> functional.Head:
        """Makes the head of the source model."""
        ...

    def grid(self, image_size: int) -> Grid:
        """The heatmaps' pixels in square images."""
        ...

    def trunk(self, dtype: DTypeLike) -> functional.Trunk:
        """Backbone and upsampling, whose convolutions are computed in `dtype`."""
        ...

    def load(self, params: dict[str, Any], stats: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters and statistics by network with those of `weights` in their places."""
        ...


@dataclasses.dataclass(kw_only=True)
class Data:
    """Where images come from and how they are read.

    Attributes:
      source, target: `SCHEME:PATH?OPTION=VALUE&...`, see `jaxpose.data.schemes`.
      labelled: the same, images of the target's kind with labels, for recipes that read some; or `20` or `40%`: so many
        rows of the target's training split, drawn by the seed and spread over its clips, of which the others stay
        without labels; None for none.
      motions: the same, recorded motions without images.
      poses: the same, labelled images of which no pixel is read, or motions.
      root: folder that relative paths start from.
      image_size: side of the network's input in pixels.
      batch_size: rows of each domain in a global batch, over all devices and processes.
      eval_batch_size: rows of an evaluation batch.
      workers: reading processes; 0 reads in threads of the training process.
      memory: decoded crops kept per split, in MiB; reading processes share it.
      cache: a folder where the decoded crops of the training splits are kept from one run to the next; None for none.
      margin: side of the square crop relative to the longer side of a box.
    """

    source: str = limited("bodies:studio", *_SCHEME)
    target: str = limited("bodies:street", *_SCHEME)
    labelled: str | None = limited(None, "SCHEME:PATH, a number of rows, a share of them, or None", MinLen(1))
    motions: str | None = limited(None, "SCHEME:PATH, or None", MinLen(1))
    poses: str | None = limited(None, "SCHEME:PATH, or None", MinLen(1))
    root: str = "."
    image_size: int = limited(256, "a positive multiple of 32", Interval(gt=0), MultipleOf(32))
    batch_size: int = limited(32, *AT_LEAST_1)
    eval_batch_size: int = limited(64, *AT_LEAST_1)
    workers: int = limited(0, *AT_LEAST_0)
    memory: int = limited(512, *AT_LEAST_0)
    cache: str | None = limited(None, "a folder, or None", MinLen(1))
    margin: float = limited(1.25, *POSITIVE)


@dataclasses.dataclass(kw_only=True)
class Mesh:
    """How devices are used; `data` is the number of devices that share each batch, 0 for all."""

    data: int = limited(0, *AT_LEAST_0)


@dataclasses.dataclass(kw_only=True)
class Config:
    """A run.

    Attributes:
      method: the recipe, a `Method`.
      model: the architecture, a `Model`.
      pair: a name for the pair of domains, for the report.
      seed: of everything random.
      steps: updates per stage.
      dtype: of the convolutions, `float32` or `bfloat16`; `auto` is bfloat16 on accelerators and float32 on CPU.
      metrics: what is reported besides the error in pixels: `pck`, `sure_pck` (of the surer half of all
        points), `tllib_pck` (the released evaluation), `mae` (in the
        units of the data), `pckh`, `pckh_compat` (at 0.11, which released code prints as 0.1), `ap` (COCO's, of object
        keypoint similarity), `epe` (mean error in pixels of the image), `nme` (relative to a size); of 3D joints
        `mpjpe`, `n_mpjpe`, `pa_mpjpe`, `released_pa_mpjpe` (of poses with the labels' bone lengths, as relation
        distillation's released evaluation has it), `3dpck`, `pa_3dpck`. The target has the labels that they need;
        elsewhere, those that cannot be measured are left out.
      flip_test: whether evaluations read the mean of the maps of an image and of its mirror image.
      pck_thresholds, pckh_thresholds: fractions of the image side, and of the size of the head.
      nme_joints: two joints between whose labels lies what `nme` divides by; none for the longer side of the box.
      actions: a regular expression that finds the action in a clip's name, by which `mpjpe` and so on are reported
        too; empty for none. The default finds those of Human3.6M's clips.
      eval_every, checkpoint_every, log_every: in steps.
      oracle: work directory of a finished oracle run on the same target, to be shown beside this one.
      start: work directory of a finished run whose last stage is one of this one's, which goes on from there: several
        methods adapt one source model. Networks, joints and source data are the same; it is measured on the data of
        this run.
    """

    method: Any
    pair: str = "bodies"
    seed: int = limited(0, "0 to 4294967295", Interval(ge=0, lt=2**32))
    steps: dict[str, int] = limited(
        lambda: {"pretrain": 35_000, "adapt": 15_000}, "the updates of at least one stage", MinLen(1)
    )
    dtype: str = limited("auto", *one_of("auto", "float32", "bfloat16"))
    metrics: tuple[str, ...] = limited(("pck",), *_METRICS)
    flip_test: bool = False
    pck_thresholds: tuple[float, ...] = limited((0.05, 0.1), *_FRACTIONS)
    pckh_thresholds: tuple[float, ...] = limited((0.5,), *_FRACTIONS)
    nme_joints: tuple[str, ...] = limited((), "two joints, or none", Predicate(lambda found: len(set(found)) in (0, 2)))
    actions: str = limited(r"(?<![a-z])act_\d+", "a regular expression", Predicate(_is_pattern))
    eval_every: int = limited(1000, *AT_LEAST_1)
    checkpoint_every: int = limited(1000, *AT_LEAST_1)
    log_every: int = limited(50, *AT_LEAST_1)
    oracle: str | None = None
    start: str | None = None
    data: Data = dataclasses.field(default_factory=Data)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    model: Any = dataclasses.field(default_factory=SimpleBaseline)
    optim: Optim = dataclasses.field(default_factory=Optim)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)

    def steps_of(self, stage: str) -> int:
        """Updates of a stage.

        Raises:
          ValueError: if it is not among the steps.
        """
        if stage not in self.steps:
            raise ValueError(f"config.steps: found {', '.join(self.steps)}, expected steps of {stage!r}, too")
        return self.steps[stage]


@dataclasses.dataclass(kw_only=True)
class Comparison:
    """Several methods on one pair, from one source model.

    Attributes:
      base: everything but the method.
      source: makes the source model, and on the domain `target` the oracle.
      methods: by name.
      few: the same, of methods that read labelled target images; each of them is run with each of `labelled`.
      labelled: amounts of labelled target images, see `Data`.
    """

    base: Config
    source: Any
    methods: dict[str, Any]
    few: dict[str, Any] = dataclasses.field(default_factory=dict)
    labelled: tuple[str, ...] = ()


# What may change between the parts of a resumed run, because the result does not depend on it.
_FREE = ("data.workers", "data.root", "data.memory", "data.cache", "mesh", "log_every", "oracle")


def validate(config: Config) -> None:
    """Checks what can be checked without data.

    Raises:
      ValueError: naming the field, what was found and what was expected.
    """
    limits.check(config, "config")
    for name, count in config.steps.items():
        if count < 0:
            raise ValueError(f"config.steps.{name}: found {count}, expected at least 0")
    rules = {config.optim.pretrain_rule, config.optim.adapt_rule}
    for rule, unread, read in (
        ("adam", "learning_rate", "adam_learning_rate"),
        ("sgd", "adam_learning_rate", "learning_rate"),
    ):
        value, usual = getattr(config.optim, unread), getattr(Optim(), unread)
        if rules == {rule} and value != usual:
            raise ValueError(
                f"config.optim.{unread}: found {value}, expected {usual} as it is by default: both rules are {rule}, "
                f"which reads config.optim.{read}"
            )


def to_json(config: Config) -> dict[str, Any]:
    """The resolved configuration as plain JSON; functions and methods by name."""
    return _plain(config)


def fixed_part(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a JSON configuration that must be the same for a run to be resumed, by dotted name."""
    flat = _flatten(config)
    return {k: v for k, v in flat.items() if not any(k == free or k.startswith(free + ".") for free in _FREE)}


def completed(config: dict[str, Any], like: Any) -> dict[str, Any]:
    """A JSON configuration that an earlier version wrote, with the defaults of the fields that it did not have."""
    filled = dict(config)
    for field in dataclasses.fields(like):
        value = getattr(like, field.name)
        if field.name in filled:
            if dataclasses.is_dataclass(value) and isinstance(filled[field.name], dict):
                filled[field.name] = completed(filled[field.name], value)
        elif field.default is not dataclasses.MISSING:
            filled[field.name] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            filled[field.name] = _plain(field.default_factory())
    return filled


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if callable(value):
        return value.__name__
    return json.loads(json.dumps(value))


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}.{key}" if prefix else key).items()
    }
