"""A reader of pickles that calls nothing but what its user names, and ends."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

_Base: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class RefusedError(Exception):
    """Something in a pickle that is not taken."""


class Unpickler(_Base):
    """Python's own unpickler, in which names mean what `named` says, with bounds.

    It is the one in Python: the one in C cannot be told which keys to take. Keys are checked before they are hashed,
    for nested tuples that share their parts take for ever, deep ones overflow the stack, and whoever may choose long
    numbers can make all keys collide. What calls copy is counted, as a few bytes can ask for the same again and again.

    Subclasses override `named`, and `persistent_load` where pickles refer to other files.
    """

    def __init__(self, data: bytes, **options: Any):
        super().__init__(io.BytesIO(data), **options)
        self._size = len(data)
        self._left = 8 * len(data) + 2**26  # of what may be copied

    def named(self, module: str, name: str) -> Any:
        """What stands for a name; raises an exception where it is refused."""
        raise RefusedError(f"refused {module}.{name}")

    def find_class(self, module: str, name: str) -> Any:
        """What the base class asks."""
        return self.named(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Refuses."""
        raise RefusedError("refused a reference to outside of the pickle")

    def load_reduce(self) -> None:
        """A call."""
        self._spend_on(self.stack[-1])
        super().load_reduce()

    def load_build(self) -> None:
        """A state."""
        self._spend_on(self.stack[-1])
        super().load_build()

    def _instantiate(self, klass: Any, args: Any) -> None:
        self._spend_on(args)
        super()._instantiate(klass, args)

    def _spend_on(self, parts: Any) -> None:
        self._left -= len(parts) if isinstance(parts, _SIZED) else 0
        if isinstance(parts, tuple | list):
            self._left -= sum(len(part) for part in parts if isinstance(part, _SIZED))
        if self._left < 0:
            raise RefusedError("refused to copy its parts so many times")

    def _check_number(self, number: int) -> None:
        if not 0 <= number <= self._size:
            raise RefusedError(f"refused to number an object {number} in {self._size} bytes")

    def load_put(self) -> None:
        """A number for an object."""
        number = int(self.readline())
        self._check_number(number)
        self.memo[number] = self.stack[-1]

    def load_long_binput(self) -> None:
        """A number for an object."""
        number = int.from_bytes(self.read(4), "little")
        self._check_number(number)
        self.memo[number] = self.stack[-1]

    def load_bytearray8(self) -> None:
        """Python's own makes room for as many bytes as are stated before it reads them."""
        size = int.from_bytes(self.read(8), "little")
        if size > self._left:
            raise RefusedError(f"refused an array of {size} bytes")
        self.append(bytearray(self.read(size)))

    def load_setitem(self) -> None:
        """One key."""
        check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Several keys."""
        check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """Several keys."""
        check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        """Elements of a set."""
        check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """Elements of a set."""
        check_keys(self.stack)
        super().load_frozenset()

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **_Base.dispatch,
        pickle.PUT[0]: load_put,
        pickle.LONG_BINPUT[0]: load_long_binput,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }


def check_keys(keys: Iterable[Any]) -> None:
    """That keys, or elements of a set, are cheap to hash and no tool to make others collide.

    Raises:
      RefusedError: if one is anything but text, a number of 64 bits, or a small tuple of text and numbers of 32 bits.
    """
    for key in keys:
        if isinstance(key, tuple):
            good = len(key) <= _PARTS and all(_is_plain(part, bits=32) for part in key)
        else:
            good = _is_plain(key, bits=64) or isinstance(key, float) or _is_number(key)
        if not good:
            raise RefusedError(f"refused a {type(key).__name__} as a key that is not text or a plain number")


def ordered_dict(items: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    """An OrderedDict of what a pickle hands over."""
    pairs = list(items.items() if isinstance(items, Mapping) else items)
    check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _is_plain(value: Any, *, bits: int) -> bool:
    return value is None or isinstance(value, str | bytes) or (isinstance(value, int) and value.bit_length() <= bits)


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic) and value.dtype.kind in "biuf"


_PARTS = 100  # of a key
_SIZED = (str, bytes, bytearray, tuple, list, dict, set, frozenset)


class Named:
    """What a pickle sees under a name: it can be called and nothing else."""

    __slots__ = ("_call", "_name")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str, call: Any):
        self._name, self._call = name, call

    def __call__(self, *args: Any) -> Any:
        """Calls what stands for the name."""
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError(f"refused to change {self._name}")

    def __repr__(self) -> str:
        return self._name
