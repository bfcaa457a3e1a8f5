"""What `--mode=compile` found, as lines to print."""

from collections.abc import Mapping
from typing import Any

from jaxpose.report import text

HEAD = ("stage", "memory", "operations", "traffic", "kernels", "convolutions", "collectives", "estimate", "compiled in")
MEANING = """memory: at most, of a device. operations: of its share, from the program. traffic: operands and results of
all kernels. estimate: of an update on one device that never waits for others; for GPUs from operations and traffic at
rates that good programs reach, for TPUs by the compiler's own cycles. It tells programs from one another; what a device
does only --mode=benchmark measures."""


def row(compiled: Mapping[str, Any]) -> tuple[str, ...]:
    """A stage's line under `HEAD`."""
    if "fault" in compiled:
        return (compiled["stage"], f"does not compile: {compiled['fault']}")
    step = compiled["step_s"]
    return (
        compiled["stage"],
        f"{compiled['bytes'] / 2**30:.2f} GiB",
        f"{compiled['model_flops'] / 1e9:,.1f} GFLOP",
        f"{compiled['traffic'] / 1e9:.2f} GB",
        str(compiled["kernels"]),
        _counts(compiled["convolutions"]),
        _counts(compiled["collectives"]),
        "-" if step is None else f"{1e3 * step:.1f} ms",
        f"{compiled['compile_s']:.0f} s",
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """Lines under `HEAD`, aligned."""
    good = [line for line in rows if len(line) == len(HEAD)]
    return "\n".join([*text.align([HEAD, *good]), *(": ".join(line) for line in rows if len(line) != len(HEAD))])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
