"""A run made again from its work directory: its configuration and its problem, without data and without the command.

`run.json` holds dataclasses and functions as names within this package, and their fields. Nothing is unpickled, and no
code is run but that of jaxpose.
"""

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxpose import config as configs
from jaxpose import untrusted
from jaxpose.config import Config
from jaxpose.recipes.stage import Task

FILE = "run.json"
_PACKAGE = "jaxpose."
_EXPECTED = "what a run is made of, written by this version of jaxpose"
_NAME_IT = "expected its recipe in --config=FILE[:WORDS], with the flags of its training"


def described(config: Config, task: Task) -> dict[str, Any]:
    """What `run.json` holds: the problem and the configuration, or why that cannot be made again from names."""
    try:
        made = {"config": _named(config, "config")}
    except _ForeignError as error:
        made = {"foreign": str(error)}
    return made | {"task": _named(task, "task")}


def config_of(workdir: str | Path) -> Config:
    """The configuration of the run in a work directory.

    Raises:
      FileNotFoundError: if there is no run, or one of an earlier version.
      ValueError: naming the file, if it is damaged, of another version, or of a recipe that is not jaxpose's own.
    """
    path, found = _read(workdir)
    if "foreign" in found:
        raise ValueError(
            f"{path}: found {untrusted.one_line(found['foreign'])}, which is not part of jaxpose, {_NAME_IT}"
        )
    with untrusted.reading(path, _EXPECTED):
        config = _made(found["config"])
        if not isinstance(config, Config):
            raise ValueError(f"found a {type(config).__name__}")
        configs.validate(config)
    return config


def task_of(workdir: str | Path) -> Task:
    """The problem of the run in a work directory.

    Raises:
      FileNotFoundError, ValueError: as `config_of`.
    """
    path, found = _read(workdir)
    with untrusted.reading(path, _EXPECTED):
        task = _made(found["task"])
        if not isinstance(task, Task):
            raise ValueError(f"found a {type(task).__name__}")
    return task


def _read(workdir: str | Path) -> tuple[Path, dict[str, Any]]:
    path = Path(workdir) / FILE
    if path.is_file():
        return path, untrusted.read_json(path, dict, _EXPECTED)
    if (path.parent / "config.json").is_file():
        raise FileNotFoundError(f"{path}: found none, as this run is of an earlier version, {_NAME_IT}")
    raise FileNotFoundError(f"{workdir}: found no run there, expected the work directory of one")


class _ForeignError(Exception):
    """Something that has no name within jaxpose."""


def _named(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _named(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
        return {"made by": _name(type(value), where), "fields": fields}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _named(item, f"{where}.{key}") for key, item in value.items()}}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_named(item, f"{where}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, functools.partial):
        given = {"args": _named(value.args, where), "keywords": _named(value.keywords, where)}
        return {"partial": _name(value.func, where)} | given
    if callable(value):
        return {"name": _name(value, where)}
    raise _ForeignError(f"a {type(value).__name__} in {where}")


def _name(value: Any, where: str) -> str:
    """`MODULE:NAME`, which leads back to the value."""
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__name__)
    try:
        if _found(f"{module}:{name}") is value:
            return f"{module}:{name}"
    except ValueError:
        pass
    raise _ForeignError(f"{module}:{name} in {where}")


def _found(name: str) -> Any:
    """What a name within jaxpose means: a function or a class that is defined there."""
    module, _, rest = name.partition(":")
    if not module.startswith(_PACKAGE) or not all(
        part.isidentifier() for part in (*module.split("."), *rest.split("."))
    ):
        raise ValueError(f"found the name {name!r}, expected one of jaxpose's own")
    try:
        found: Any = importlib.import_module(module)
        for part in rest.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise ValueError(f"found the name {name!r}, which jaxpose does not have") from None
    if getattr(found, "__module__", None) != module or not callable(found):
        raise ValueError(f"found the name {name!r}, expected a function or a class")
    return found


def _made(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    for kind, make in _KINDS.items():
        if kind in value:
            return make(value)
    raise ValueError(f"found {untrusted.one_line(value)}")


def _dataclass(value: Mapping[str, Any]) -> Any:
    kind = _found(value["made by"])
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise ValueError(f"found {value['made by']!r}, expected a dataclass")
    return kind(**{name: _made(item) for name, item in value["fields"].items()})


_KINDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "made by": _dataclass,
    "dict": lambda value: {key: _made(item) for key, item in value["dict"].items()},
    "tuple": lambda value: tuple(map(_made, value["tuple"])),
    "list": lambda value: list(map(_made, value["list"])),
    "float": lambda value: float(value["float"]),
    "partial": lambda value: functools.partial(
        _found(value["partial"]), *_made(value["args"]), **_made(value["keywords"])
    ),
    "name": lambda value: _found(value["name"]),
}
