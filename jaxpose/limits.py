"""What the fields of settings may hold: said beside each of them, checked by pydantic.

    brightness: float = limited(0.25, *SHARE)

Flags set fields one by one, after construction, and understand only plain types: so limits are the fields' metadata,
not part of their types, and are checked when all is set.
"""

import dataclasses
import types
import typing
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval, Predicate
from pydantic import ConfigDict, InstanceOf, TypeAdapter, ValidationError

AT_LEAST_0 = ("at least 0", Ge(0))
AT_LEAST_1 = ("at least 1", Ge(1))
POSITIVE = ("more than 0", Gt(0))
SHARE = ("0 to 1", Interval(ge=0, le=1))

_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def limited(default: Any, expected: str, *constraints: Any) -> Any:
    """A field with a default, or what makes it; what is expected in words, and as `annotated_types`."""
    metadata = {"expected": expected, "constraints": constraints}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*values: str) -> tuple[str, Predicate]:
    """Some words."""
    return f"one of {', '.join(values)}", Predicate(lambda found: found in values)


def check(settings: Any, name: str) -> None:
    """Checks types and limits of a dataclass's fields, and of the dataclasses within.

    Raises:
      ValueError: naming the field, what was found and what was expected.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        given, path = getattr(settings, field.name), f"{name}.{field.name}"
        # Names of files need not be text, which pydantic's strings are.
        value = given.encode(errors="backslashreplace").decode() if isinstance(given, str) else given
        kinds = [_plain(hints[field.name])]
        if field.metadata:
            kinds += [(Annotated[hints[field.name], *field.metadata["constraints"]], field.metadata["expected"])]
        for kind, expected in kinds:
            one: Any = types.GenericAlias(tuple, kind)  # a dataclass by itself would take no configuration
            try:
                TypeAdapter(one, config=_STRICT).validate_python((value,))
            except ValidationError as error:
                expected = "a finite number" if error.errors()[0]["type"] == "finite_number" else expected
                raise ValueError(f"{path}: found {given!r}, expected {expected}") from None
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            check(given, path)


def _plain(hint: Any) -> tuple[Any, str]:
    """What a type without limits is checked as, and in words."""
    words = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return InstanceOf[hint] if dataclasses.is_dataclass(hint) else hint, words
