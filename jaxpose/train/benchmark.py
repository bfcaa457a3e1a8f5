"""How fast a stage of a run is on this machine, and what holds it back."""

import concurrent.futures
import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxpose.data.host.elements import Crops
from jaxpose.data.host.rates import measure_stages
from jaxpose.recipes import detector
from jaxpose.recipes.stage import Stage, State
from jaxpose.train import flops, hlo
from jaxpose.train import mesh as meshes
from jaxpose.train.run import Run, next_batch

_WARM_UP = 3
_BLOCK_S = 0.1  # shorter updates are timed several at a time, so that the host's clock and dispatch do not count
_TURN_S = 1.0  # updates with and without data take turns of this length
_READ_AHEAD = 6  # batches, more than what the pipeline has ready
_CAP = 20.0  # seconds that no measurement of updates exceeds by much

Turn = Sequence[tuple[Any, Any]]  # updates that follow one another, each with a batch
Batches = Iterator[tuple[int, Any]]  # with their numbers: each is for the update whose turn it is


def measure(run: Run, *, steps: int, stage: str | None = None) -> dict[str, Any]:
    """Measures a stage, the last one if none is named, with parameters as they are before any training.

    Raises:
      ValueError: if there is no such stage.

    Returns:
      JSON. Of the update alone, with one batch that stays on the devices: `step_s`, the median over blocks of updates,
      with `step_s_low` and `step_s_high`, the least and the greatest; `pairs_per_s` and `images_per_s` (a pair is one
      row of every domain); `compile_s`, without a cache; `peak_bytes` of a device's memory. Of one device's share of
      it: `flops` and `bytes` by XLA's cost analysis, `model_flops` as `flops.count` has them; `matmul_fraction` and
      `copy_fraction`: how much of the measured rates `matmul_flops_per_s` and `copy_bytes_per_s` these are. Of several
      updates in turn all these are means, but for the sum `compile_s` and the greatest of `peak_bytes`; `update_step_s`
      is what each takes that is applied again and again.
      Of the data: `host_images_per_s`, each stage of the pipeline in one thread, and all of it with the run's threads
      or workers, batches on the devices: `data_first_images_per_s` in the first epoch, `data_images_per_s` once what
      fits is kept in memory. Of both together, then: `loop_step_s`; `loop_fraction`, its share of the pure rate,
      measured in turn with it; `device_wait_fraction`, for how much of the time at most the devices waited for data.
    """
    names = [of.name for of in run.stages]
    if stage is not None and stage not in names:
        raise ValueError(f"--stage: found {stage!r}, expected one of {', '.join(names)}")
    last = names.index(stage) if stage else len(names) - 1
    return _measure(run, last, steps)


def _measure(run: Run, last: int, steps: int) -> dict[str, Any]:
    stage = run.stages[last]
    # What a large buffer gives away would not be the rate at which it is filled.
    batches = enumerate(run.batches(stage, start=0, ahead=0, broken=lambda *_: None))
    key, state = run.update_key(last), None
    for number in range(last + 1):
        state = run.initial_state(number, state)
    assert state is not None
    turn = [(run.update(update.step), next(batches)[1]) for update in stage.updates]
    turn, state, measured = measure_updates(turn, state, key, steps=steps)
    measured = {
        "stage": stage.name,
        "batch_size": run.config.data.batch_size,
        "image_size": run.task.image_size,
        "joints": len(run.task.skeleton),
        "pairs_per_s": run.config.data.batch_size / measured["step_s"],
        "images_per_s": run.images_per_step(stage) / measured["step_s"],
    } | measured
    measured |= _limits(measured, detector.compute_dtype(run.config.dtype))
    measured |= _data(run, stage, batches)
    return measured | _together(turn, state, batches, key, steps, measured["step_s"])


def measure_updates(turn: Turn, state: State, key: jax.Array, *, steps: int) -> tuple[Turn, State, dict[str, Any]]:
    """Compiles and times jitted updates (`Run.update`) in turn, each on one batch that stays on the devices.

    Returns:
      the compiled updates with their batches; the state after all of it; and, as in `measure`, `compile_s`, `steps`,
      `step_s` with its extremes, `update_step_s`, `peak_bytes`, `flops`, `bytes` and `model_flops`.
    """
    finite, count = jnp.asarray(True), len(turn)
    traced = [update.trace(state, batch, key, finite) for update, batch in turn]
    with _no_cache():
        clock = time.perf_counter()
        turn = [(update.lower().compile(), batch) for update, (_, batch) in zip(traced, turn, strict=True)]
        compile_s = time.perf_counter() - clock
    state, times = _alone(turn, state, key, steps)
    each = [statistics.median(times)]
    if count > 1:
        each = []
        for one in turn:
            state, own = _alone([one], state, key, steps)
            each.append(statistics.median(own))
    costs = [update.cost_analysis() for update, _ in turn]
    devices = len(jax.tree.leaves(turn[0][1])[0].sharding.device_set)
    # Of one device: what the allocator saw where it keeps count, else what XLA planned.
    seen = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return (
        turn,
        state,
        {
            "steps": steps,
            "compile_s": compile_s,
            "step_s": statistics.median(times),
            "step_s_low": min(times),
            "step_s_high": max(times),
            "update_step_s": each,
            "peak_bytes": int(seen or max(hlo.planned_bytes(update) for update, _ in turn)),
            "flops": float(sum(cost.get("flops", 0.0) for cost in costs)) / count,
            "bytes": float(sum(cost.get("bytes accessed", 0.0) for cost in costs)) / count,
            "model_flops": sum(flops.count(update.jaxpr.jaxpr) for update in traced) / count / devices,
        },
    )


def _alone(turn: Turn, state: State, key: jax.Array, steps: int) -> tuple[State, list[float]]:
    """Seconds per update in each of several blocks of whole turns."""
    state, _ = _block(turn, state, key, _WARM_UP)
    state, once = _block(turn, state, key, 1)
    turns = -(-steps // len(turn))
    size = max(1, min(turns, math.ceil(_BLOCK_S / (once * len(turn)))))
    times: list[float] = []
    started = time.perf_counter()
    while len(times) * size < turns and (not times or time.perf_counter() - started < _CAP):
        state, seconds = _block(turn, state, key, size)
        times.append(seconds)
    return state, times


def _block(turn: Turn, state: State, key: jax.Array, turns: int) -> tuple[State, float]:
    """Seconds per update of so many turns on the same batches."""
    finite, clock = jnp.asarray(True), time.perf_counter()
    for _ in range(turns):
        for update, batch in turn:
            state, _, _ = update(state, batch, key, finite)
    jax.block_until_ready(state)
    return state, (time.perf_counter() - clock) / (turns * len(turn))


def _limits(measured: dict[str, Any], dtype: jnp.dtype) -> dict[str, float]:
    """The rates of a matrix product and of a copy on the same device, and how much of them the update comes to."""
    accelerator = jax.default_backend() != "cpu"
    side = 8192 if accelerator else 2048
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    multiply = jax.jit(lambda a: a @ a)
    product = 2.0 * side**3 / _seconds(lambda: multiply(matrix))
    numbers = jnp.zeros(2**29 if accelerator else 2**26, jnp.float32)
    add = jax.jit(lambda a: a + 1.0, donate_argnums=(0,))

    def copied() -> jax.Array:
        nonlocal numbers
        numbers = add(numbers)
        return numbers

    copy = 2.0 * numbers.nbytes / _seconds(copied)
    return {
        "matmul_flops_per_s": product,
        "copy_bytes_per_s": copy,
        "matmul_fraction": measured["model_flops"] / measured["step_s"] / product,
        "copy_fraction": measured["bytes"] / measured["step_s"] / copy,
    }


def _seconds(call: Callable[[], Any]) -> float:
    """The best of five calls, after one that does not count."""
    times = []
    for _ in range(6):
        clock = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - clock)
    return min(times[1:])


def _data(run: Run, stage: Stage, batches: Batches, *, seconds: float = 2.0) -> dict[str, Any]:
    """Images per second of the host pipeline: its stages in one thread, and as a whole."""
    rates: dict[str, list[float]] = {}
    for read in stage.reads.values():
        elements = run.training[read.domain, read.window]
        measured = measure_stages(elements, fields=read.fields, batch_size=run.rows(read), seconds=0.3)
        for name, rate in measured.items():
            rates.setdefault(name, []).append(rate)
    # Domains take turns image by image, so their seconds per image are averaged.
    host = {name: len(several) / sum(1 / rate for rate in several) for name, several in rates.items()}
    here = [jax.tree.map(_rows_here, next(batches)[1]) for _ in stage.updates]
    images = run.images_per_step(stage) * len(here) / jax.process_count()
    host["transfer"] = images / _seconds(lambda: meshes.to_devices(run.mesh, here))
    first = _rate(batches, run.images_per_step(stage), seconds)
    if not run.config.data.workers:
        for read in stage.reads.values():
            elements = run.training[read.domain, read.window]
            if isinstance(elements, Crops):
                _fill_memory(elements)
    whole = _rate(batches, run.images_per_step(stage), seconds)
    return {"host_images_per_s": host, "data_first_images_per_s": first, "data_images_per_s": whole}


def _rate(batches: Batches, images: int, seconds: float) -> float:
    """Images per second that arrive on the devices; what was read ahead is not counted."""
    for _ in range(_READ_AHEAD):
        jax.block_until_ready(next(batches))
    clock, count = time.perf_counter(), 0
    while time.perf_counter() - clock < seconds:
        jax.block_until_ready(next(batches))
        count += 1
    return count * images / (time.perf_counter() - clock)


def _fill_memory(crops: Crops) -> None:
    """Reads what a run keeps in memory after its first epoch."""
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in pool.map(crops.__getitem__, range(min(len(crops), crops.memory))):
            if time.perf_counter() - started > _CAP:
                pool.shutdown(cancel_futures=True)
                return


def _rows_here(field: jax.Array) -> np.ndarray:
    """This process's rows."""
    return np.concatenate([shard.data for shard in field.addressable_shards])


def _together(
    turn: Turn, state: State, batches: Batches, key: jax.Array, steps: int, step_s: float
) -> dict[str, float]:
    """Updates fed by the pipeline, in turn with updates on one batch, so that a machine's changing speed tells less."""
    finite, count = jnp.asarray(True), len(turn)
    turns = -(-steps // count)
    size = max(1, min(turns, math.ceil(_TURN_S / (step_s * count))))
    alone, loop, waited = [], [], 0.0
    started = time.perf_counter()
    while len(loop) * size < turns and (not loop or time.perf_counter() - started < _CAP):
        state, seconds = _block(turn, state, key, size)
        alone.append(seconds)
        for _ in range(_READ_AHEAD):
            number, batch = next(batches)
        clock, before = time.perf_counter(), None
        for _ in range(size * count):  # with the metrics fetched one step late, as when training
            state, running, metrics = turn[number % count][0](state, batch, key, finite)
            (number, batch), _, idle = next_batch(batches, running)
            waited += idle
            if before is not None:
                jax.tree.map(float, before)
            before = metrics
        jax.block_until_ready(state)
        loop.append((time.perf_counter() - clock) / (size * count))
    return {
        "loop_step_s": statistics.median(loop),
        "loop_fraction": statistics.median(a / b for a, b in zip(alone, loop, strict=True)),
        "device_wait_fraction": waited / (size * count * sum(loop)),
    }


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Compiles anew, whatever was kept of earlier runs."""
    before = jax.config.values["jax_enable_compilation_cache"]
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(wanted: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", wanted)
    compilation_cache.reset_cache()  # which asks for the setting once
