"""Floating-point operations of convolutions and matrix products, counted in a traced program."""

import math
from typing import Any

from jax.extend import core


def count(jaxpr: core.Jaxpr) -> float:
    """Operations (a multiply-add is two) of every convolution and matrix product of a program, over all devices.

    Zeros between the elements of a dilated input are not counted, unlike in XLA's cost analysis, so that a transposed
    convolution costs the same in every way of writing it; zeros of the padding are. Loops count as often as they run;
    of a `while` whose number of rounds is unknown, one round counts, and of a conditional the dearest branch. What the
    compiler will remove because nothing uses it is counted.
    """
    return math.fsum(_OPERATIONS.get(eqn.primitive.name, _nested)(eqn) for eqn in jaxpr.eqns)


def _convolution(eqn: Any) -> float:
    kernel, output = eqn.invars[1].aval, eqn.outvars[0].aval
    layout = eqn.params["dimension_numbers"].rhs_spec  # (output channels, input channels, *space)
    taps = math.prod(kernel.shape[axis] for axis in layout[1:])
    return 2.0 * math.prod(output.shape) * taps / math.prod(eqn.params["lhs_dilation"])


def _product(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left, output = eqn.invars[0].aval, eqn.outvars[0].aval
    return 2.0 * math.prod(output.shape) * math.prod(left.shape[axis] for axis in contracted)


def _scan(eqn: Any) -> float:
    return eqn.params["length"] * count(eqn.params["jaxpr"].jaxpr)


def _conditional(eqn: Any) -> float:
    return max(count(branch.jaxpr) for branch in eqn.params["branches"])


def _nested(eqn: Any) -> float:
    total = 0.0
    for value in eqn.params.values():
        if isinstance(value, core.ClosedJaxpr):
            total += count(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            total += count(value)
    return total


_OPERATIONS = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "scan": _scan,
    "cond": _conditional,
}
