"""How the time and memory of RegDA's adaptation step grow, one quantity at a time.

    python tests/benchmarks/scaling.py --out=docs/scaling.svg

Rows of each domain, joints, side of the image, devices (of a CPU: its cores split) and processes on this machine are
varied around a ResNet-18 of width 16 with 16 joints at 64 px and 16 rows of each domain; float32 on CPU. Every point is
a process of its own; the median over up to 100 updates is plotted, and the memory is what XLA plans for one device.
Beside the figure stands a JSON with the numbers.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

BASE = {"batch": 16, "joints": 16, "size": 64, "devices": 1, "processes": 1}
AXES = {
    "batch": (4, 16, 64),
    "joints": (2, 16, 133),
    "size": (32, 64, 128, 256),
    "devices": (1, 2),
    "processes": (1, 2),
}
TITLES = {"batch": "rows of each domain", "size": "side of the image, px"}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("scaling.svg"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--point", help="worker: JSON of one point")
    options = parser.parse_args(argv[1:])
    if options.point:
        work(json.loads(options.point), options.steps)
        return
    found: dict[str, list[dict[str, Any]]] = {}
    base = measure(BASE, options.steps)
    for axis, values in AXES.items():
        for value in values:
            point = base if value == BASE[axis] else measure(BASE | {axis: value}, options.steps)
            found.setdefault(axis, []).append({axis: value} | point)
            print(f"{axis} {value}: {1000 * point['step_s']:.1f} ms, {point['peak_bytes'] / 2**20:.0f} MiB", flush=True)
    options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, options.out)


def measure(point: dict[str, int], steps: int) -> dict[str, Any]:
    """One point, in as many processes as it asks for; what process 0 prints."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(point["devices"])}
    command = [sys.executable, __file__, f"--point={json.dumps(point)}", f"--steps={steps}"]
    processes = []
    for number in range(point["processes"]):
        if point["processes"] > 1:
            environment |= {"JAXPOSE_COORDINATOR": address, "JAXPOSE_PROCESS": str(number)}
            environment |= {"JAXPOSE_PROCESSES": str(point["processes"])}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{point}: a worker failed")
    return json.loads(printed[0].splitlines()[-1])


def work(point: dict[str, int], steps: int) -> None:
    from jaxpose.train import benchmark, mesh

    mesh.initialize_processes()
    from regda_torch import make_fields, make_update, parse

    options = parse(["", f"--size={point['size']}", f"--joints={point['joints']}", "--width=16", "--head_width=32"])
    rows = point["batch"] // point["processes"]  # of this process
    fields = make_fields(options, rows)
    devices = point["devices"] * point["processes"]
    update, state, batch, key = make_update(options, "jax", fields, devices=devices)
    _, _, found = benchmark.measure_updates([(update, batch)], state, key, steps=steps)
    print(json.dumps(found))


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(2.4 * len(found), 4.2), sharey="row", layout="constrained")
    for column, (axis, points) in enumerate(found.items()):
        values = [point[axis] for point in points]
        for row, (key, scale) in enumerate((("step_s", 1e3), ("peak_bytes", 2.0**-20))):
            shown = axes[row, column]
            shown.plot(values, [scale * point[key] for point in points], marker="o", color="#2a6f97")
            shown.set_xscale("log", base=2)
            shown.set_yscale("log")
            shown.set_xticks(values, [str(value) for value in values])
            shown.minorticks_off()
            shown.grid(alpha=0.3)
        axes[1, column].set_xlabel(TITLES.get(axis, axis))
    axes[0, 0].set_ylabel("update, ms")
    axes[1, 0].set_ylabel("memory of a device, MiB")
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv)
