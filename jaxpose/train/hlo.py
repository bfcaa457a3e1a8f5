"""What a compiled program does, read from its text: kernels, their traffic and operations, collectives."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxpose.train.topologies import Speed

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8, "c64": 8}
_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALLERS = {"while": "body", "call": "to_apply"}
_SLICES, _SAME_PLACE = {"slice", "dynamic-slice", "gather"}, {"bitcast", "convert"}
_MATRIX = ("dot", "convolution")
_GAP_S, _PRODUCTS, _COPIES = 2e-6, 0.4, 0.85


def planned_bytes(executable: Any) -> int:
    """The memory of one device that a compiled program needs at the most, as XLA planned it."""
    planned = executable.memory_analysis()
    needed = planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
    return int(needed - planned.alias_size_in_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """One launch.

    Attributes:
      kind: the operation; of library calls, which.
      dtype: of what is convolved or multiplied, else "".
      bytes: of operands and results, each once; of an operand that is only sliced, the slices.
      flops: of convolutions and products.
      cycles: as a TPU's compiler estimates them.
    """

    kind: str
    dtype: str
    bytes: int
    flops: float
    cycles: int


def kernels(text: str) -> list[Kernel]:
    """The kernels of an optimised program, those of a loop's body once."""
    computations = _computations(text)
    return [_kernel(line, types, computations) for line, types in _launched("ENTRY", computations)]


def collectives(kernels: Sequence[Kernel]) -> dict[str, int]:
    """How many there are of each kind."""
    kinds = (kernel.kind.removesuffix("-start") for kernel in kernels)
    return dict(collections.Counter(kind for kind in kinds if kind in _COLLECTIVES))


def convolutions(kernels: Sequence[Kernel]) -> dict[str, int]:
    """How many kernels hold convolutions or products, by the type of their operands."""
    return dict(collections.Counter(kernel.dtype for kernel in kernels if kernel.dtype))


def estimate(kernels: Sequence[Kernel], speed: Speed) -> float:
    """Seconds on one device, without waiting for others.

    TPU: the compiler's own cycles. GPU: of every kernel the longer of its operations, at 40 % of a large product's
    rate, which is what good programs of small convolutions reach, and its traffic at 85 % of a copy's, and 2
    microseconds between kernels. At 35 and 50 % an update of a ResNet-101 takes 8 % more and 11 % less.
    """
    if speed.clock:
        return sum(kernel.cycles for kernel in kernels) / speed.clock
    products, memory = _PRODUCTS * speed.products, _COPIES * speed.memory
    return sum(max(kernel.flops / products, kernel.bytes / memory) + _GAP_S for kernel in kernels)


@dataclasses.dataclass(frozen=True)
class _Line:
    """`name = type operation(operands), rest`."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    rest: str


def _computations(text: str) -> dict[str, list[_Line]]:
    computations: dict[str, list[_Line]] = {}
    name = None
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line):
            name = "ENTRY" if head[1] else head[2]
            computations[name] = []
        elif line.startswith("}"):
            name = None
        elif name and (parts := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line)):
            given, _, rest = parts[4].partition(")")
            operands = (given,) if parts[3] == "parameter" else tuple(re.findall(r"%([\w.\-]+)", given))
            computations[name].append(_Line(parts[1], parts[2], parts[3], operands, rest))
    return computations


def _launched(name: str, computations: Mapping[str, list[_Line]]) -> Iterator[tuple[_Line, dict[str, str]]]:
    """The lines that launch something, with the types of everything beside them."""
    types = {line.name: line.type for line in computations[name]}
    for line in computations[name]:
        if line.operation in _CALLERS:
            yield from _launched(_called(line, _CALLERS[line.operation]), computations)
        elif line.operation not in _NOTHING and not line.operation.endswith("-done"):
            yield line, types


def _kernel(line: _Line, types: Mapping[str, str], computations: Mapping[str, list[_Line]]) -> Kernel:
    operands = [types.get(operand, "") for operand in line.operands]
    kind, read = line.operation, sum(_size(operand) for operand in operands)
    work: list[tuple[float, str]] = []  # operations and the type of the operands
    if line.operation == "fusion":
        inner = computations[_called(line, "calls")]
        within = {other.name: other.type for other in inner}
        work = [(_flops(part, within), within[part.operands[0]]) for part in inner if part.operation in _MATRIX]
        read = sum(_read(inner, number, operand) for number, operand in enumerate(operands))
    elif target := re.search(r'custom_call_target="([^"]+)"', line.rest):
        kind = target[1]
        if "conv" in kind:
            work = [(_library_convolution(kind, line, operands), operands[0])]
    elif line.operation in _MATRIX:
        work = [(_flops(line, types), operands[0])]
    cycles = re.search(r'"estimated_cycles":"(\d+)"', line.rest)
    return Kernel(
        kind=kind,
        dtype=_shapes(work[0][1])[0][0] if work else "",
        bytes=_size(line.type) + read,
        flops=math.fsum(operations for operations, _ in work),
        cycles=int(cycles[1]) if cycles else 0,
    )


def _called(line: _Line, attribute: str) -> str:
    match = re.search(rf"{attribute}=%?([\w.\-]+)", line.rest)
    assert match is not None
    return match[1]


def _flops(line: _Line, types: Mapping[str, str]) -> float:
    """Of a product or a convolution that XLA computes itself: operations of a multiply-add are two."""
    results = math.prod(_shapes(line.type)[0][1])
    first, second = (_shapes(types[operand])[0][1] for operand in line.operands[:2])
    if line.operation == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        return 2.0 * results * math.prod(first[int(i)] for i in contracted[1].split(",") if i) if contracted else 0.0
    labels = re.search(r"dim_labels=\w+_(\w+)->", line.rest)
    return 2.0 * results * math.prod(second) / (second[labels[1].index("o")] if labels else 1)


def _library_convolution(kind: str, line: _Line, operands: Sequence[str]) -> float:
    """Every output pixel is a product with the whole kernel, in each of cuDNN's three directions."""
    result = next(shape for name, shape in _shapes(line.type) if name != "u8")
    first, second = (_shapes(operand)[0][1] for operand in operands[:2])
    if "BackwardInput" in kind:
        outputs, kernel = first, second
    elif "BackwardFilter" in kind:
        outputs, kernel = second, result
    else:
        outputs, kernel = result, second
    labels = re.search(r"->(\w+)", line.rest)
    channels = outputs[labels[1].index("f") if labels else -1]
    return 2.0 * math.prod(outputs) / channels * math.prod(kernel)


def _read(inner: Sequence[_Line], number: int, type_: str) -> int:
    """Bytes that a fusion reads of its operand."""
    names = {line.name for line in inner if line.operation == "parameter" and line.operands == (str(number),)}
    users: list[_Line] = []
    for line in inner:  # operands come before what uses them
        if names.intersection(line.operands):
            names.update([line.name] if line.operation in _SAME_PLACE else [])
            users += [] if line.operation in _SAME_PLACE else [line]
    if users and all(line.operation in _SLICES for line in users):
        width = _BYTES.get(_shapes(type_)[0][0], 4)
        return min(_size(type_), sum(width * math.prod(_shapes(line.type)[0][1]) for line in users))
    return _size(type_)


@functools.cache
def _shapes(type_: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    matches = re.findall(r"(\w+)\[([\d,]*)\]", type_)
    return tuple((name, tuple(int(n) for n in sides.split(",") if n)) for name, sides in matches)


def _size(type_: str) -> int:
    return sum(_BYTES.get(name, 4) * math.prod(sides) for name, sides in _shapes(type_))
