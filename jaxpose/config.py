"""The typed configuration: what a run is, validated before anything is built, written to the work directory."""

import dataclasses
import json
from typing import Any, Protocol

from jaxpose.data.augment import Augmentation
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
      memory: decoded crops kept per split, in MiB.
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
      oracle: work directory of a finished oracle run, to be shown beside this one.
      start: work directory of a finished run whose last stage stands for this one's first: several methods adapt one
        source model.
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


def validate(config: Config) -> None:
    """Checks what can be checked without data.

    Raises:
      ValueError: naming the field, what was found and what was expected.
    """
    _check_types(config, "config")
    size, stride = config.data.image_size, 32
    rules = (
        ("data.source", config.data.source, bool(config.data.source), "SCHEME:PATH, see jaxpose/data/schemes.py"),
        ("data.target", config.data.target, bool(config.data.target), "SCHEME:PATH, see jaxpose/data/schemes.py"),
        ("data.image_size", size, size > 0 and size % stride == 0, f"a positive multiple of {stride}"),
        ("data.batch_size", config.data.batch_size, config.data.batch_size > 0, "at least 1"),
        ("data.eval_batch_size", config.data.eval_batch_size, config.data.eval_batch_size > 0, "at least 1"),
        ("data.workers", config.data.workers, config.data.workers >= 0, "at least 0"),
        (
            "data.cache",
            config.data.cache,
            config.data.cache is None or (isinstance(config.data.cache, str) and config.data.cache != ""),
            "a folder, or None",
        ),
        ("data.margin", config.data.margin, config.data.margin > 0, "more than 0"),
        (
            "model.depth",
            config.model.depth,
            config.model.depth in (18, 34, 50, 101, 152),
            "18, 34, 50, 101 or 152",
        ),
        ("model.width", config.model.width, config.model.width > 0, "at least 1"),
        ("model.sigma", config.model.sigma, config.model.sigma > 0, "more than 0"),
        ("model.upsampling", config.model.upsampling, 0 < config.model.upsampling <= 5, "1 to 5"),
        ("optim.learning_rate", config.optim.learning_rate, config.optim.learning_rate > 0, "more than 0"),
        ("mesh.data", config.mesh.data, config.mesh.data >= 0, "at least 0"),
        ("eval_every", config.eval_every, config.eval_every > 0, "at least 1"),
        ("checkpoint_every", config.checkpoint_every, config.checkpoint_every > 0, "at least 1"),
        ("log_every", config.log_every, config.log_every > 0, "at least 1"),
        ("model.head", config.model.head, config.model.head in _HEADS, f"one of {', '.join(_HEADS)}"),
        ("dtype", config.dtype, config.dtype in _DTYPES, f"one of {', '.join(_DTYPES)}"),
        *(
            (f"optim.{name}", rule, rule in _RULES, f"one of {', '.join(_RULES)}")
            for name, rule in (
                ("pretrain_rule", config.optim.pretrain_rule),
                ("adapt_rule", config.optim.adapt_rule),
            )
        ),
        ("metrics", config.metrics, set(config.metrics) <= set(_METRICS), f"of {', '.join(_METRICS)}"),
        *((f"steps.{name}", n, n >= 0, "at least 0") for name, n in config.steps.items()),
    )
    for field, found, good, expected in rules:
        if not good:
            raise ValueError(f"config.{field}: found {found!r}, expected {expected}")


def to_json(config: Config) -> dict[str, Any]:
    """The resolved configuration as plain JSON; functions and methods by name."""
    return _plain(config)


def fixed_part(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a JSON configuration that must be the same for a run to be resumed, by dotted name."""
    flat = _flatten(config)
    return {k: v for k, v in flat.items() if not any(k == free or k.startswith(free + ".") for free in _FREE)}


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


def _check_types(value: Any, name: str) -> None:
    """Checks the types of plain fields."""
    for field in dataclasses.fields(value):
        found, path = getattr(value, field.name), f"{name}.{field.name}"
        if dataclasses.is_dataclass(found):
            _check_types(found, path)
            continue
        accepted = {int: (int,), float: (int, float), str: (str,)}
        for kind, types in accepted.items():
            if field.type is kind and (not isinstance(found, types) or isinstance(found, bool)):
                raise ValueError(f"{path}: found {found!r}, expected {kind.__name__}")
