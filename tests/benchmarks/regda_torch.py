"""Seconds per RegDA adaptation step: jaxpose beside the released algorithm in PyTorch, on the same hardware.

    python tests/benchmarks/regda_torch.py                # CPU: ResNet-18, 128 px, 8 + 8 images, float32
    python tests/benchmarks/regda_torch.py --device=gpu   # ResNet-101, 256 px, 32, 64 and 128 of each domain, bfloat16
    python tests/benchmarks/regda_torch.py --check        # that both compute the same, in float64, at the size of CPU

Needs torch (`pip install -e '.[bench]'`). One worker process at a time runs one of

    torch              the released iteration: three forward and backward passes, pseudo-labels in NumPy on the host.
                       float32; on CPU in channels-last, its fastest form there, on GPU NCHW with TF32 allowed
    torch_tuned        the same with torch.compile, fused SGD, channels-last, pseudo-labels on the device and, where
                       --dtype=bfloat16, autocast; measured on GPU, on CPU with --also=tuned
    torch_shared       with --also=shared: `torch` with one pass of the target where the release has two, which is the
                       algebra that jaxpose's step owes its smaller number of operations to
    torch_tuned_shared with --also=tuned_shared: both
    jax_released       the trainer's update with `regda.released_settings()`: the same maths as `torch`
    jax                the trainer's update with the defaults, `regda.RegDA()`

in turn, in `--rounds` rounds whose order alternates. Every worker warms up, then times blocks of steps on one batch of
random images that lies on the device. Reading and augmentation are on neither side. jaxpose gets uint8 images and
keypoints, as in training: warping (by nothing), normalising, drawing label maps, the metrics of its log and the check
for losses that are not finite are in its time. PyTorch gets float images and finished label maps. The release also
computes an accuracy four times an iteration on the host; that is left out, in PyTorch's favour. Peak memory is the
allocator's on GPU and the resident set of the whole process, compiler included, on CPU.

Threads are the CPUs that the process may use (`taskset -c` limits both sides).
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

SIGMA, STRIDE, ROW = 2.0, 4, "{:<19} {:>20} {:>9} {:>9} {:>11}"
DEFAULTS = {
    "cpu": {"depth": 18, "size": 128, "batch": [8], "steps": 15, "block": 1, "dtype": "float32"},
    "gpu": {"depth": 101, "size": 256, "batch": [32, 64, 128], "steps": 100, "block": 10, "dtype": "bfloat16"},
    "check": {"depth": 18, "size": 128, "batch": [8], "dtype": "float64"},
}
KINDS = ("torch", "torch_tuned", "torch_shared", "torch_tuned_shared", "jax_released", "jax")
Step = Callable[[], Any]  # one step on the worker's batch; returns what to wait for


def main(argv: list[str]) -> None:
    options = parse(argv)
    if options.check:
        check(options)
    elif options.only:
        print(json.dumps(measure(options)))
    else:
        drive(options)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RegDA's adaptation step in jaxpose and in PyTorch")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--depth", type=int, choices=(18, 34, 50, 101, 152))
    parser.add_argument("--width", type=int, help="channels of the network's first stage")
    parser.add_argument("--head_width", type=int, help="channels of the upsampling and the regressors")
    parser.add_argument("--size", type=int, help="side of the images")
    parser.add_argument("--joints", type=int)
    parser.add_argument("--batch", type=lambda text: [int(n) for n in text.split(",")], help="rows of each domain")
    parser.add_argument("--steps", type=int, help="timed steps of a worker")
    parser.add_argument("--block", type=int, help="steps that are timed together")
    parser.add_argument("--warmup", type=int, default=3, help="steps before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float64"), help="of jaxpose and of tuned PyTorch")
    parser.add_argument("--also", default="", help="of shared, tuned, tuned_shared; with commas")
    parser.add_argument("--only", choices=KINDS, help="be a worker: print one line of JSON")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", help="a file for everything measured, as JSON")
    options = parser.parse_args(argv[1:])
    defaults = {"width": 64, "head_width": 256, "joints": 21} | DEFAULTS["check" if options.check else options.device]
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    kinds = {"torch", "jax_released", "jax"} | {f"torch_{word}" for word in options.also.split(",") if word}
    if not kinds <= set(KINDS):
        parser.error(f"--also: found {options.also!r}, expected shared, tuned, tuned_shared")
    if options.device == "gpu":
        kinds.add("torch_tuned")
    options.kinds = [kind for kind in KINDS if kind in kinds]
    if options.size < 32 or options.size % 32:
        parser.error(f"--size: found {options.size}, expected a multiple of 32")
    if options.only and len(options.batch) != 1:
        parser.error(f"--batch: found {options.batch}, expected one number with --only")
    if not options.check and options.steps % options.block:
        parser.error(f"--steps: found {options.steps}, expected a multiple of --block, {options.block}")
    return options


def drive(options: argparse.Namespace) -> None:
    """Starts the workers, prints a table for each batch size and writes `--out`."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": cpu_name(),
        "threads": len(os.sched_getaffinity(0)),
        "options": {k: v for k, v in vars(options).items() if k not in ("only", "check", "out")},
        "batches": [],
    }
    print(
        f"RegDA step, ResNet-{options.depth} of width {options.width}, {options.size} px, {options.joints} joints, "
        f"{options.device}, {options.dtype}; {found['machine']}, {found['threads']} threads; {options.rounds} rounds"
    )
    for batch in options.batch:
        rounds: list[dict[str, Any]] = []
        for number in range(options.rounds):
            order = options.kinds if number % 2 == 0 else options.kinds[::-1]
            rounds.append({kind: work(options, kind, batch) for kind in order})
        summary = {kind: summarise(kind, rounds, batch) for kind in options.kinds}
        found["batches"].append({"batch": batch, "summary": summary, "rounds": rounds})
        table(batch, summary)
        if options.out:
            Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


def work(options: argparse.Namespace, kind: str, batch: int) -> dict[str, Any]:
    """What a worker process measured; its last words as `error` if it failed on the device, else the end."""
    names = ("device", "depth", "width", "head_width", "size", "joints", "steps", "block", "warmup", "dtype")
    flags = [f"--{name}={getattr(options, name)}" for name in names]
    command = [sys.executable, __file__, f"--only={kind}", f"--batch={batch}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if options.device == "gpu" and "out of memory" in done.stderr.lower():
        return {"error": last}
    raise SystemExit(f"{kind}, batch {batch}: {last}")


def summarise(kind: str, rounds: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """Medians and extremes over the rounds, and over `torch`'s time of the same round."""
    if errors := [r[kind]["error"] for r in rounds if "error" in r[kind]]:
        return {"error": errors[0]}
    seconds = [r[kind]["median_s"] for r in rounds]
    summary = {
        "step_s": statistics.median(seconds),
        "step_s_range": [min(seconds), max(seconds)],
        "images_per_s": 2 * batch / statistics.median(seconds),
        "compile_s": statistics.median(r[kind]["compile_s"] for r in rounds),
        "peak_mib": max(r[kind]["peak_mib"] for r in rounds),
    }
    for base in ("torch", "torch_tuned", "torch_shared", "torch_tuned_shared"):
        if all("median_s" in r.get(base, {}) for r in rounds):
            ratios = [r[base]["median_s"] / r[kind]["median_s"] for r in rounds]
            summary[f"times_{base}"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return summary


def table(batch: int, summary: dict[str, dict[str, Any]]) -> None:
    print(f"\n{batch} + {batch} images")
    print(ROW.format("", "ms per step", "images/s", "peak MiB", "first step s"))
    for kind, row in summary.items():
        if "error" in row:
            print(f"{kind:<19} {row['error']}")
            continue
        low, high = (f"{1e3 * s:.4g}" for s in row["step_s_range"])
        middle = f"{1e3 * row['step_s']:.4g}"
        cells = (f"{row['images_per_s']:.4g}", f"{row['peak_mib']:.0f}", f"{row['compile_s']:.1f}")
        print(ROW.format(kind, f"{middle} ({low}-{high})", *cells))
    for kind in ("jax_released", "jax"):
        for name, (middle, low, high) in ((k, v) for k, v in summary[kind].items() if k.startswith("times_")):
            print(f"{kind} is {middle:.2f} times as fast as {name.removeprefix('times_')} ({low:.2f}-{high:.2f})")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One worker's timings: seconds per step over blocks, after the first step and the warm-up."""
    (batch,) = options.batch
    fields = make_fields(options, batch)
    prepare = torch_worker if options.only.startswith("torch") else jax_worker
    step, wait, about = prepare(options, options.only, fields)
    clock = time.perf_counter()
    wait(step())
    first = time.perf_counter() - clock
    for _ in range(options.warmup):
        losses = step()
    wait(losses)
    seconds = []
    for _ in range(options.steps // options.block):
        clock = time.perf_counter()
        for _ in range(options.block):
            losses = step()
        wait(losses)
        seconds.append((time.perf_counter() - clock) / options.block)
    losses = {name: float(value) for name, value in losses.items()}
    if not all(np.isfinite(list(losses.values()))):
        raise SystemExit(f"{options.only}: found losses {losses}, expected finite ones")
    found = {
        "kind": options.only,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "steps": options.steps,
        "compile_s": first,
        "losses": losses,
    }
    return found | about()


def make_fields(options: argparse.Namespace, batch: int) -> dict[str, dict[str, np.ndarray]]:
    """Random uint8 images, keypoints in pixels and visibility, a tenth of it 0, by domain."""
    rng = np.random.default_rng(0)
    return {
        domain: {
            "image": rng.integers(0, 256, (batch, options.size, options.size, 3), np.uint8),
            "keypoints": rng.uniform(-8, options.size + 7, (batch, options.joints, 2)).astype(np.float32),
            "visible": rng.choice(np.array([0, 1, 2], np.uint8), (batch, options.joints), p=(0.05, 0.05, 0.9)),
            "position": np.arange(batch, dtype=np.int32),
        }
        for domain in ("source", "target")
    }


def torch_worker(options: argparse.Namespace, kind: str, fields: dict) -> tuple[Step, Callable, Callable]:
    """The PyTorch side, ready to step."""
    torch, _ = import_torch()
    gpu = options.device == "gpu"
    if gpu and not torch.cuda.is_available():
        raise SystemExit("--device=gpu: torch found no CUDA device")
    iteration, batch = make_iteration(options, kind, fields)
    number = 0

    def step() -> dict:
        nonlocal number
        number += 1
        return iteration(batch, number - 1)

    def wait(losses: dict) -> None:
        if gpu:
            torch.cuda.synchronize()

    def about() -> dict[str, Any]:
        return {
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if gpu else resident_mib(),
            "device": torch.cuda.get_device_name() if gpu else cpu_name(),
            "threads": torch.get_num_threads(),
            "settings": dataclasses.asdict(iteration.settings),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        }

    return step, wait, about


def import_torch() -> tuple[Any, Any]:
    try:
        import torch  # noqa: TID251  the other side of the comparison
    except ImportError:
        raise SystemExit("torch: not installed, expected it for this comparison: pip install -e '.[bench]'") from None
    import torch_pose

    return torch, torch_pose


def make_iteration(options: argparse.Namespace, kind: str, fields: dict) -> tuple[Any, dict]:
    """RegDA's iteration in PyTorch on its device, and its batch of float images, label maps and weights."""
    torch, torch_pose = import_torch()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high" if options.device == "gpu" else "highest")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    tuned = "tuned" in kind
    settings = torch_pose.Settings(
        shared="shared" in kind,
        tuned=tuned,
        channels_last=tuned or options.device == "cpu",
        autocast=tuned and options.dtype == "bfloat16",
    )
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    device = "cuda" if options.device == "gpu" else "cpu"
    model = torch_pose.Detector(
        depth=options.depth, width=options.width, head_width=options.head_width, joints=options.joints
    )
    dtype = torch.float64 if options.dtype == "float64" else torch.float32
    model = model.to(device, dtype, memory_format=layout).train()
    iteration = torch_pose.Iteration(model, settings, heatmap_size=options.size // STRIDE, sigma=SIGMA)
    batch = {}
    for domain, given in fields.items():
        mean, deviation = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        images = ((given["image"] / 255 - mean) / deviation).transpose(0, 3, 1, 2)
        maps, weight = torch_pose.label_maps(
            given["keypoints"], given["visible"], size=options.size, heatmap_size=options.size // STRIDE, sigma=SIGMA
        )
        batch[domain] = {
            "image": torch.tensor(images, dtype=dtype, device=device).contiguous(memory_format=layout),
            "maps": torch.tensor(maps, dtype=dtype, device=device),
            "weight": torch.tensor(weight, dtype=dtype, device=device),
        }
    return iteration, batch


def jax_worker(options: argparse.Namespace, kind: str, fields: dict) -> tuple[Step, Callable, Callable]:
    """jaxpose's side, ready to step; the update compiles in the first step."""
    update, state, batch, key = make_update(options, kind, fields)
    import jax

    finite = jax.numpy.asarray(True)

    def step() -> dict:
        nonlocal state, finite
        state, finite, metrics = update(state, batch, key, finite)
        return {name: value for name, value in metrics.items() if name.startswith("loss")}

    def wait(losses: dict) -> None:
        # The losses are known before the parameters are updated.
        jax.block_until_ready((losses, state))

    def about() -> dict[str, Any]:
        device = jax.devices()[0]
        gpu = device.platform == "gpu"
        return {
            "peak_mib": device.memory_stats()["peak_bytes_in_use"] / 2**20 if gpu else resident_mib(),
            "device": device.device_kind if gpu else cpu_name(),
            "threads": len(os.sched_getaffinity(0)),
            "versions": {
                "python": platform.python_version(),
                "jax": jax.__version__,
                "jaxlib": metadata.version("jaxlib"),
            },
        }

    return step, wait, about


def make_update(options: argparse.Namespace, kind: str, fields: dict, devices: int = 1) -> tuple[Any, Any, Any, Any]:
    """The trainer's compiled-on-call update of the adaptation stage, its first state, its batch and its key."""
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda"}[options.device]
    import jax

    if options.dtype == "float64":  # what is float32 on purpose in jaxpose, too
        jax.config.update("jax_enable_x64", True)
        jax.numpy.float32 = jax.numpy.float64
    from jaxpose.config import Config, Data, Mesh
    from jaxpose.data.joints.skeletons import Skeleton
    from jaxpose.models.simple_baseline import SimpleBaseline
    from jaxpose.ops.augment import Augmentation
    from jaxpose.recipes import regda
    from jaxpose.recipes.stage import Task
    from jaxpose.train import mesh as meshes
    from jaxpose.train.run import Run

    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # the latter where the plugin is not installed
        raise SystemExit(f"--device={options.device}: jax found no such device") from None
    method = regda.released_settings() if kind == "jax_released" else regda.RegDA()
    nothing = Augmentation(
        rotation=0.0, scale=(1.0, 1.0), translation=0.0, brightness=0.0, contrast=0.0, saturation=0.0, blur=0.0
    )
    config = Config(
        method=method,
        steps={"pretrain": 1, "adapt": 15_000},
        dtype=options.dtype,
        data=Data(image_size=options.size, batch_size=len(fields["source"]["image"])),
        augmentation=nothing,
        model=SimpleBaseline(depth=options.depth, width=options.width, head_width=options.head_width, sigma=SIGMA),
        mesh=Mesh(data=devices),
    )
    task = Task(
        skeleton=Skeleton(name="benchmark", joints=tuple(f"joint{k}" for k in range(options.joints))),
        image_size=options.size,
        augmentation=nothing,
    )
    mesh = meshes.make_mesh(devices)
    stages = method.stages(task, config)
    unread: Any = None
    run = Run(config=config, stages=stages, task=task, pair=unread, metrics=unread, mesh=mesh, workdir=Path())
    state = run.initial_state(1, run.initial_state(0, None))
    stage = stages[1]
    batch = {word: {f: fields[word][f] for f in (*read.fields, "position")} for word, read in stage.reads.items()}
    return run.update(stage.step), state, meshes.to_devices(mesh, batch), run.update_key(1)


def check(options: argparse.Namespace) -> None:
    """Steps PyTorch and the released preset from the same parameters, as in the middle of a run, on the CPU.

    Raises:
      AssertionError: if losses differ by more than 1e-9, or parameters, running means or their changes by more than
        1e-9 of their norm; without weight decay it would be 4e-4.
    """
    options.device, options.dtype = "cpu", "float64"
    fields = make_fields(options, options.batch[0])
    update, state, batch, key = make_update(options, "jax_released", fields)
    import jax

    # A share of the gradient that is not 0, and heads that have an opinion.
    number = 1000
    params = dict(state.params)
    for name in ("head", "head_adv"):
        params[name] = params[name] | {"conv2": jax.tree.map(lambda w: 300 * w, params[name]["conv2"])}
    state = dataclasses.replace(state, params=params, step=jax.numpy.asarray(number, jax.numpy.int32))
    before = to_torch(state.params) | to_torch(state.stats)
    state, _, metrics = update(state, batch, key, jax.numpy.asarray(True))
    after = to_torch(state.params) | to_torch(state.stats)
    for kind in (kind for kind in options.kinds if kind.startswith("torch")):
        compare(options, kind, fields, number, before, after, metrics)


def compare(options: argparse.Namespace, kind: str, fields: dict, number: int, before, after, metrics) -> None:
    torch, _ = import_torch()
    iteration, batch = make_iteration(options, kind, fields)
    missing = iteration.model.load_state_dict({k: torch.tensor(v) for k, v in before.items()}, strict=False)
    assert not missing.unexpected_keys, missing
    assert all(k.endswith("num_batches_tracked") for k in missing.missing_keys), missing
    losses = iteration(batch, number)
    pairs = {
        "source": "loss/source",
        "source_disparity": "loss/source_disparity",
        "target_false": "loss/target_adversary",
    }
    for ours, theirs in pairs.items():
        a, b = float(losses[ours]), float(metrics[theirs])
        print(f"{kind}: {ours} {a:.12f} in torch, {b:.12f} in jaxpose")
        assert abs(a - b) < 1e-9, f"{kind}: found {ours} {a} in torch and {b} in jaxpose, expected the same to 1e-9"
    found = {name: value.numpy() for name, value in iteration.model.state_dict().items()}
    # Running variances differ by n / (n - 1), see jaxpose/models/layers.py.
    compared = [name for name in before if not name.endswith("running_var")]
    for network in ("backbone", "upsampling", "head", "head_adv"):
        for what in ("weight", "bias", "running_mean"):
            names = [n for n in compared if n.startswith(f"{network}.") and n.endswith(what)]
            old, ours, theirs = (np.concatenate([t[n].ravel() for n in names]) for t in (before, found, after))
            value = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            change = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - old)
            print(f"{kind}: {network} {what}: {value:.1e} of the values, {change:.1e} of their change")
            assert max(value, change) < 1e-9, f"{kind}: {network} {what}: found {value}, {change}, expected under 1e-9"


def to_torch(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Parameters or statistics under torch's names and in its layouts."""
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    found = {}
    for name, value in tree.items():
        if hasattr(value, "items"):
            found |= to_torch(value, f"{prefix}{name}.")
            continue
        array = np.array(value)
        if name == "kernel":
            array = array.transpose((2, 3, 0, 1) if "deconv" in prefix else (3, 2, 0, 1))
        found[prefix + names.get(name, name)] = np.ascontiguousarray(array)
    return found


def resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main(sys.argv)
