"""Compiles the updates of a recipe for devices that need not be here, and says what they will take."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jaxpose.train import flops, hlo
from jaxpose.train.run import Program
from jaxpose.train.topologies import Topology


def names_of(program: Program) -> dict[str, tuple[int, int]]:
    """The number of its stage and of the update in it, by what each update is called: `STAGE`, of several `STAGE/1`."""
    return {
        stage.name + (f"/{turn + 1}" if len(stage.updates) > 1 else ""): (number, turn)
        for number, stage in enumerate(program.stages)
        for turn in range(len(stage.updates))
    }


def compiled(program: Program, name: str, topology: Topology) -> dict[str, Any]:
    """Compiles an update, one of `names_of`.

    Returns:
      JSON: `stage`, that name; `compile_s`; of one device `bytes` (of memory at the most), `model_flops` as
      `flops.count` has them; of its program the number of `kernels`, their `traffic` in bytes, `convolutions` by type
      and `collectives` by kind; `step_s`, see `hlo.estimate`, None if the device's speed is not known.
    """
    traced = program.traced(*names_of(program)[name])
    clock = time.perf_counter()
    absent = topology.speed is not None
    # Without the device, its kernels cannot be compared.
    options = {"xla_gpu_autotune_level": 0} if absent and topology.mesh.devices.flat[0].platform == "gpu" else None
    executable = traced.lower().compile(compiler_options=options)
    seconds = time.perf_counter() - clock
    kernels = hlo.kernels(executable.as_text())
    return {
        "stage": name,
        "compile_s": seconds,
        "bytes": hlo.planned_bytes(executable),
        "model_flops": flops.count(traced.jaxpr.jaxpr) / topology.mesh.size,
        "kernels": len(kernels),
        "traffic": sum(kernel.bytes for kernel in kernels),
        "convolutions": hlo.convolutions(kernels),
        "collectives": hlo.collectives(kernels),
        "step_s": None if topology.speed is None else hlo.estimate(kernels, topology.speed),
    }


def in_turn(names: Iterable[str], arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What this command line finds with `--stage` for each of the updates, in processes of their own.

    Where XLA has a fault it ends the process; the result then is `stage` and `fault`, what it said last.
    """
    for name in names:
        command = [sys.executable, "-m", "jaxpose.main", *arguments, f"--stage={name}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode == 0:
            yield json.loads(done.stdout.splitlines()[-1])
        else:
            yield {"stage": name, "fault": _fault(done.stderr) or f"ended with status {done.returncode}"}


def _fault(messages: str) -> str:
    """The line that says what was wrong, of all that a process said."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    telling = [line for line in lines if "Check failed" in line or line.startswith("jaxpose:") or "Error" in line]
    return (telling or lines or [""])[-1].removeprefix("jaxpose: ")
