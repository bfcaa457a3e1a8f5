"""Compiles the updates of a recipe for devices that need not be here, and says what they will take."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jaxpose.train import flops, hlo
from jaxpose.train.run import Program
from jaxpose.train.topologies import Topology


def compiled(program: Program, number: int, topology: Topology) -> dict[str, Any]:
    """Compiles the update of a stage.

    Returns:
      JSON: `stage`; `compile_s`; of one device `bytes` (of memory at the most), `model_flops` as `flops.count` has
      them; of its program the number of `kernels`, their `traffic` in bytes, `convolutions` by type and `collectives`
      by kind; `step_s`, see `hlo.estimate`, None if the device's speed is not known.
    """
    traced = program.traced(number)
    clock = time.perf_counter()
    absent = topology.speed is not None
    # Without the device, its kernels cannot be compared.
    options = {"xla_gpu_autotune_level": 0} if absent and topology.mesh.devices.flat[0].platform == "gpu" else None
    executable = traced.lower().compile(compiler_options=options)
    seconds = time.perf_counter() - clock
    planned = executable.memory_analysis()
    found = hlo.kernels(executable.as_text())
    return {
        "stage": program.stages[number].name,
        "compile_s": seconds,
        "bytes": int(
            planned.argument_size_in_bytes
            + planned.output_size_in_bytes
            + planned.temp_size_in_bytes
            - planned.alias_size_in_bytes
        ),
        "model_flops": flops.count(traced.jaxpr.jaxpr) / topology.mesh.size,
        "kernels": len(found),
        "traffic": sum(kernel.bytes for kernel in found),
        "convolutions": hlo.convolutions(found),
        "collectives": hlo.collectives(found),
        "step_s": None if topology.speed is None else hlo.estimate(found, topology.speed),
    }


def in_turn(stages: Sequence[str], arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What this command line finds with `--stage` for each of the stages, in processes of their own.

    Where XLA has a fault it ends the process; the result then is `stage` and `fault`, what it said last.
    """
    for stage in stages:
        command = [sys.executable, "-m", "jaxpose.main", *arguments, f"--stage={stage}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode == 0:
            yield json.loads(done.stdout.splitlines()[-1])
        else:
            yield {"stage": stage, "fault": _fault(done.stderr) or f"ended with status {done.returncode}"}


def _fault(messages: str) -> str:
    """The line that says what was wrong, of all that a process said."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    telling = [line for line in lines if "Check failed" in line or line.startswith("jaxpose:") or "Error" in line]
    return (telling or lines or [""])[-1].removeprefix("jaxpose: ")
