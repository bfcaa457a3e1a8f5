"""A skeleton in a small TOML file, for data that names its joints but says nothing about their structure.

```toml
name = "mouse"
joints = ["nose", "left_ear", "right_ear", "tail_base"]   # in the order of the labels
bones = [["nose", "left_ear"], ["nose", "right_ear"]]
flips = [["left_ear", "right_ear"]]                       # left, right

[groups]                                                  # rows of the report
head = ["nose", "left_ear", "right_ear"]

[sigmas]                                                  # of object keypoint similarity
nose = 0.026

[aliases]                                                 # names in the other domain
left_ear = "earL"
```

Every key may be absent: `apply` takes it from the data.
"""

import collections
import dataclasses
import os
import pathlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxpose import untrusted
from jaxpose.data.joints.skeletons import Skeleton


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkeletonFile:
    """What a file states; None where it says nothing.

    Attributes:
      path: the file, for messages.
      name, joints, bones, flips, groups: as in `Skeleton`.
      sigmas: joint to constant.
      aliases: joint to its name in the other domain, as `matching.match` takes them.
    """

    path: str
    name: str | None = None
    joints: tuple[str, ...] | None = None
    bones: tuple[tuple[str, str], ...] | None = None
    flips: tuple[tuple[str, str], ...] | None = None
    groups: Mapping[str, tuple[str, ...]] | None = None
    sigmas: Mapping[str, float] | None = None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_skeleton(path: str | os.PathLike) -> SkeletonFile:
    """Reads and checks a skeleton file (see this module).

    Raises:
      FileNotFoundError: if `path` is no file.
      ValueError: naming the file and the key, if it is no TOML, a key is unknown or a value is not as expected.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a skeleton in TOML")
    data = untrusted.read_file(path, "a skeleton in TOML")
    with untrusted.reading(path, "TOML"):
        content = tomllib.loads(data.decode("utf-8-sig"))
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise ValueError(f"{path}: found key {unknown[0]!r}, expected one of: {', '.join(_KEYS)}")
    fields: dict[str, Any] = {}
    for key, value in content.items():
        try:
            fields[key] = _KEYS[key](value)
        except _WrongError as error:
            raise ValueError(f"{path}: {key}: {error}") from None
    file = SkeletonFile(path=str(path), **fields)
    if file.joints is not None:
        _check_joints(file, file.joints)
    return file


def apply(skeleton: Skeleton, file: SkeletonFile) -> Skeleton:
    """The data's skeleton with what the file states in place of its own.

    `joints` of the file rename the data's joints one by one, also in what the file leaves alone. They cannot change
    the order, which is that of the labels. `sigmas` of the file may leave out joints that have one in the data.

    Raises:
      ValueError: naming the file and the key, if it does not fit the data.
    """
    joints = skeleton.joints if file.joints is None else file.joints
    if len(joints) != len(skeleton):
        raise ValueError(
            f"{file.path}: joints: found {len(joints)}, expected {len(skeleton)}, one for each of "
            f"{', '.join(skeleton.joints)}"
        )
    for old, new in zip(skeleton.joints, joints, strict=True):
        if new != old and new in skeleton.joints:
            raise ValueError(f"{file.path}: joints: {new} stands for {old}, expected the order of the data's labels")
    _check_joints(file, joints)
    renamed = dict(zip(skeleton.joints, joints, strict=True))
    sigmas = dict(zip(joints, skeleton.sigmas, strict=True)) if skeleton.sigmas else {}
    sigmas |= file.sigmas or {}
    if sigmas and (absent := [joint for joint in joints if joint not in sigmas]):
        raise ValueError(f"{file.path}: sigmas: found none of {', '.join(absent)}, expected one of every joint")
    groups = {group: _renamed(members, renamed) for group, members in skeleton.groups.items()}
    return Skeleton(
        name=skeleton.name if file.name is None else file.name,
        joints=joints,
        bones=_renamed_pairs(skeleton.bones, renamed) if file.bones is None else file.bones,
        flips=_renamed_pairs(skeleton.flips, renamed) if file.flips is None else file.flips,
        groups=groups if file.groups is None else file.groups,
        sigmas=tuple(sigmas[joint] for joint in joints) if sigmas else (),
    )


def _check_joints(file: SkeletonFile, joints: tuple[str, ...]) -> None:
    """That the file names no joint but these."""
    named: dict[str, Iterable[str]] = {
        "bones": [joint for bone in file.bones or () for joint in bone],
        "flips": [joint for flip in file.flips or () for joint in flip],
        **{f"groups.{group}": members for group, members in (file.groups or {}).items()},
        "sigmas": file.sigmas or (),
        "aliases": file.aliases,
    }
    known = set(joints)
    for key, names in named.items():
        for name in names:
            if name not in known:
                raise ValueError(f"{file.path}: {key}: found {name!r}, expected one of: {', '.join(joints)}")


def _renamed(joints: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names[joint] for joint in joints)


def _renamed_pairs(pairs: tuple[tuple[str, str], ...], names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((names[a], names[b]) for a, b in pairs)


class _WrongError(Exception):
    """A value that is not as expected."""


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongError(f"found {value!r}, expected a name")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _WrongError(f"found {value!r}, expected a list of names")
    names = tuple(_name(item) for item in value)
    if twice := _twice(names):
        raise _WrongError(f"found {twice[0]!r} more than once, expected different names")
    return names


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in collections.Counter(names).items() if count > 1]


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise _WrongError(f"found {value!r}, expected a list of pairs of joints")
    pairs = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2:
            raise _WrongError(f"found {item!r}, expected a pair of joints")
        a, b = _names(item)
        pairs.append((a, b))
    return tuple(pairs)


def _flips(value: object) -> tuple[tuple[str, str], ...]:
    pairs = _pairs(value)
    joints = [joint for pair in pairs for joint in pair]
    if twice := _twice(joints):
        raise _WrongError(f"found {twice[0]!r} in more than one pair, expected one at most")
    return pairs


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _WrongError(f"found {value!r}, expected a table")
    return value


def _groups(value: object) -> dict[str, tuple[str, ...]]:
    groups = {}
    for name, members in _table(value).items():
        if name == "all":
            raise _WrongError("found the group all, expected other names: every joint is always reported as all")
        try:
            groups[name] = _names(members)
        except _WrongError as error:
            raise _WrongError(f"{name}: {error}") from None
    return groups


def _sigmas(value: object) -> dict[str, float]:
    sigmas = {}
    for joint, sigma in _table(value).items():
        if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < 1e9:
            raise _WrongError(f"{joint}: found {sigma!r}, expected a number above 0")
        sigmas[joint] = float(sigma)
    return sigmas


def _aliases(value: object) -> dict[str, str]:
    aliases = {}
    for joint, other in _table(value).items():
        try:
            aliases[joint] = _name(other)
        except _WrongError as error:
            raise _WrongError(f"{joint}: {error}") from None
    return aliases


_KEYS: dict[str, Callable[[object], Any]] = {
    "name": _name,
    "joints": _names,
    "bones": _pairs,
    "flips": _flips,
    "groups": _groups,
    "sigmas": _sigmas,
    "aliases": _aliases,
}
