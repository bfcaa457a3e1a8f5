"""The typed configuration: what a run is, validated before anything is built, written to the work directory."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Protocol

from jaxpose.ops.augment import Augmentation
from jaxpose.recipes.optimizers import Optim
from jaxpose.recipes.stage import Stage, Task


class Method(Protocol):
    """A recipe with its hyper-parameters: a dataclass that makes its stages."""

    name: str

    def stages(self, task: Task, config: "Config") -> tuple[Stage, ...]:
        """The stages for a problem."""
        ...


@dataclasses.dataclass(kw_only=True)
class Data:
    """Where images come from and how they are read.

    Attributes:
      source, target: `SCHEME:PATH?OPTION=VALUE&...`, see `jaxpose.data.domains`.
      root: folder that relative paths start from.
      image_size: side of the network's input in pixels.
      batch_size: rows of each domain in a global batch, over all devices and processes.
      eval_batch_size: rows of an evaluation batch.
      workers: reading processes; 0 reads in threads of the training process.
      memory: decoded crops kept per split, in MiB; reading processes share it.
      cache: a folder where the decoded crops of the training splits are kept from one run to the next; None for none.
      margin: side of the square crop relative to the longer side of a box.
    """

    source: str = "bodies:studio"
    target: str = "bodies:street"
    root: str = "."
    image_size: int = 256
    batch_size: int = 32
    eval_batch_size: int = 64
    workers: int = 0
    memory: int = 512
    cache: str | None = None
    margin: float = 1.25


@dataclasses.dataclass(kw_only=True)
class Model:
    """The networks.

    Attributes:
      depth: of the ResNet: 18, 34, 50, 101 or 152.
      width: channels of its first stage; 64 is the published network.
      head_width: channels of the upsampling layers and regressors.
      upsampling: transposed convolutions, each of which doubles the resolution.
      sigma: of the label heatmaps, in heatmap pixels.
      head: of the source model: `linear`, one 1x1 convolution, or `regressor`, RegDA's two layers. RegDA's and MCD's
        regressors go on from the latter and start anew after the former.
      target_statistics: while adapting, only target batches move the running batch statistics, so that the adapted
        detector normalises by the target alone; else source batches move them too.
      weights: a torchvision `.pth` or `.safetensors` file for the backbone; None starts from random weights.
    """

    depth: int = 50
    width: int = 64
    head_width: int = 256
    upsampling: int = 3
    sigma: float = 2.0
    head: str = "linear"
    target_statistics: bool = False
    weights: str | None = None


@dataclasses.dataclass(kw_only=True)
class Mesh:
    """How devices are used; `data` is the number of devices that share each batch, 0 for all."""

    data: int = 0


@dataclasses.dataclass(kw_only=True)
class Config:
    """A run.

    Attributes:
      method: the recipe.
      pair: a name for the pair of domains, for the report.
      seed: of everything random.
      steps: updates per stage.
      dtype: of the convolutions, `float32` or `bfloat16`; `auto` is bfloat16 on accelerators and float32 on CPU.
      metrics: what is reported: `pck`, `tllib_pck` (the released evaluation), `mae` (in the units of the data).
      pck_thresholds: fractions of the image side.
      eval_every, checkpoint_every, log_every: in steps.
      oracle: work directory of a finished oracle run on the same target, to be shown beside this one.
      start: work directory of a finished run whose last stage stands for this one's first: several methods adapt one
        source model. Networks, joints and source data are the same; it is measured on this run's data.
    """

    method: Any
    pair: str = "bodies"
    seed: int = 0
    steps: dict[str, int] = dataclasses.field(default_factory=lambda: {"pretrain": 35_000, "adapt": 15_000})
    dtype: str = "auto"
    metrics: tuple[str, ...] = ("pck",)
    pck_thresholds: tuple[float, ...] = (0.05, 0.1)
    eval_every: int = 1000
    checkpoint_every: int = 1000
    log_every: int = 50
    oracle: str | None = None
    start: str | None = None
    data: Data = dataclasses.field(default_factory=Data)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    model: Model = dataclasses.field(default_factory=Model)
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
      methods: by name.
    """

    base: Config
    methods: dict[str, Any]


# What may change between the parts of a resumed run, because the result does not depend on it.
_FREE = ("data.workers", "data.root", "data.memory", "data.cache", "mesh", "log_every", "oracle")

_METRICS = ("pck", "tllib_pck", "mae")
_DTYPES = ("auto", "float32", "bfloat16")
_RULES = ("sgd", "adam")
_HEADS = ("linear", "regressor")
_STRIDE = 32

Rule = tuple[Callable[[Any], bool], str]  # what holds, and in words

_AT_LEAST_0: Rule = (lambda n: n >= 0, "at least 0")
_AT_LEAST_1: Rule = (lambda n: n >= 1, "at least 1")
_POSITIVE: Rule = (lambda x: x > 0, "more than 0")
_SHARE: Rule = (lambda x: 0 <= x <= 1, "0 to 1")
_SCHEME: Rule = (bool, "SCHEME:PATH, see jaxpose/data/schemes.py")


def _one_of(*names: str) -> Rule:
    return (lambda found: found in names), f"one of {', '.join(names)}"


# Of the fields of every dataclass in a configuration, wherever it lies.
_FIELDS: dict[type, dict[str, Rule]] = {
    Config: {
        "seed": (lambda n: 0 <= n < 2**32, "0 to 4294967295"),
        "steps": (bool, "the updates of at least one stage"),
        "dtype": _one_of(*_DTYPES),
        "metrics": (lambda names: names and set(names) <= set(_METRICS), f"of {', '.join(_METRICS)}"),
        "pck_thresholds": (lambda values: values and min(values) > 0, "fractions of more than 0"),
        "eval_every": _AT_LEAST_1,
        "checkpoint_every": _AT_LEAST_1,
        "log_every": _AT_LEAST_1,
    },
    Data: {
        "source": _SCHEME,
        "target": _SCHEME,
        "image_size": (lambda n: n > 0 and n % _STRIDE == 0, f"a positive multiple of {_STRIDE}"),
        "batch_size": _AT_LEAST_1,
        "eval_batch_size": _AT_LEAST_1,
        "workers": _AT_LEAST_0,
        "memory": _AT_LEAST_0,
        "cache": (lambda folder: folder != "", "a folder, or None"),
        "margin": _POSITIVE,
    },
    Model: {
        "depth": (lambda n: n in (18, 34, 50, 101, 152), "18, 34, 50, 101 or 152"),
        "width": _AT_LEAST_1,
        "head_width": _AT_LEAST_1,
        "upsampling": (lambda n: 1 <= n <= 5, "1 to 5"),
        "sigma": _POSITIVE,
        "head": _one_of(*_HEADS),
        "weights": (lambda file: file != "", "a file, or None"),
    },
    Mesh: {"data": _AT_LEAST_0},
    Optim: {
        "learning_rate": _POSITIVE,
        "adam_learning_rate": _POSITIVE,
        "pretrain_trunk_scale": _AT_LEAST_0,
        "adapt_trunk_scale": _AT_LEAST_0,
        "pretrain_rule": _one_of(*_RULES),
        "adapt_rule": _one_of(*_RULES),
        "momentum": (lambda x: 0 <= x < 1, "0 to less than 1"),
        "weight_decay": _AT_LEAST_0,
        "warmup": _SHARE,
        "drops": (lambda values: all(0 <= x <= 1 for x in values), "fractions of 0 to 1"),
        "adapt_decay": _AT_LEAST_0,
    },
    Augmentation: {
        "rotation": (lambda x: 0 <= x <= 180, "0 to 180 degrees"),
        "scale": (lambda pair: 0 < pair[0] <= pair[1], "two magnifications of more than 0, the smaller one first"),
        "translation": _SHARE,
        "shear": (lambda x: 0 <= x < 90, "0 to less than 90 degrees"),
        "area": (lambda x: 0 < x <= 1, "a fraction of more than 0, 1 at most"),
        "mirror": _SHARE,
        "brightness": _SHARE,
        "contrast": _SHARE,
        "saturation": _SHARE,
        "blur": _AT_LEAST_0,
        "noise": _AT_LEAST_0,
    },
}


def validate(config: Config) -> None:
    """Checks what can be checked without data.

    Raises:
      ValueError: naming the field, what was found and what was expected.
    """
    _check(config, "config")
    for name, count in config.steps.items():
        if count < 0:
            raise ValueError(f"config.steps.{name}: found {count}, expected at least 0")
    rules = {config.optim.pretrain_rule, config.optim.adapt_rule}
    for rule, unread, read in (
        ("adam", "learning_rate", "adam_learning_rate"),
        ("sgd", "adam_learning_rate", "learning_rate"),
    ):
        found, usual = getattr(config.optim, unread), getattr(Optim(), unread)
        if rules == {rule} and found != usual:
            raise ValueError(
                f"config.optim.{unread}: found {found}, expected {usual} as it is by default: both rules are {rule}, "
                f"which reads config.optim.{read}"
            )


def _check(value: Any, name: str) -> None:
    """Types of plain fields, and what `_FIELDS` says of them, in a dataclass and those within."""
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        found, path = getattr(value, field.name), f"{name}.{field.name}"
        if not _fits(found, hints[field.name]):
            raise ValueError(f"{path}: found {found!r}, expected {_words(hints[field.name])}")
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{path}: found {found!r}, expected a finite number")
        good, expected = _FIELDS.get(type(value), {}).get(field.name, (lambda _: True, ""))
        if not good(found):
            raise ValueError(f"{path}: found {found!r}, expected {expected}")
        if dataclasses.is_dataclass(found) and not isinstance(found, type):
            _check(found, path)


def _fits(found: Any, hint: Any) -> bool:
    """Whether a value is of a type; of types that are not plain, everything is."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return isinstance(found, int | float) and not isinstance(found, bool)
    if hint is int:
        return isinstance(found, int) and not isinstance(found, bool)
    if hint in (str, bool, types.NoneType):
        return isinstance(found, hint)
    if kind in (types.UnionType, typing.Union):
        return any(_fits(found, one) for one in inner)
    if kind is tuple:
        repeated = inner[1:] == (...,)
        same = isinstance(found, tuple | list) and (repeated or len(found) == len(inner))
        return same and all(map(_fits, found, inner[:1] * len(found) if repeated else inner))
    if kind is dict:
        return isinstance(found, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in found.items())
    return not dataclasses.is_dataclass(hint) or isinstance(found, typing.cast("type", hint))


def _words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def to_json(config: Config) -> dict[str, Any]:
    """The resolved configuration as plain JSON; functions and methods by name."""
    return _plain(config)


def fixed_part(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a JSON configuration that must be the same for a run to be resumed, by dotted name."""
    flat = _flatten(config)
    return {k: v for k, v in flat.items() if not any(k == free or k.startswith(free + ".") for free in _FREE)}


def completed(config: dict[str, Any], like: Any) -> dict[str, Any]:
    """A JSON configuration that an earlier version wrote, with the defaults of the fields that it did not have."""
    found = dict(config)
    for field in dataclasses.fields(like):
        value = getattr(like, field.name)
        if field.name in found:
            if dataclasses.is_dataclass(value) and isinstance(found[field.name], dict):
                found[field.name] = completed(found[field.name], value)
        elif field.default is not dataclasses.MISSING:
            found[field.name] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = _plain(field.default_factory())
    return found


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
