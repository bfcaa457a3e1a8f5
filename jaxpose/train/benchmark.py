"""How fast the last stage of a run is on this machine, and what holds it back."""

import concurrent.futures
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxpose.data.host.elements import Crops
from jaxpose.data.host.rates import measure_stages
from jaxpose.recipes import detector
from jaxpose.recipes.stage import Stage, State
from jaxpose.train import flops
from jaxpose.train import mesh as meshes
from jaxpose.train.run import Run, next_batch

_WARM_UP = 3
_BLOCK_S = 0.1  # shorter updates are timed several at a time, so that the host's clock and dispatch do not count
_TURN_S = 1.0  # updates with and without data take turns of this length
_READ_AHEAD = 6  # batches, more than what the pipeline has ready
_CAP = 20.0  # seconds that no measurement of updates exceeds by much


def measure(run: Run, *, steps: int) -> dict[str, Any]:
    """Measures the last stage, with parameters as they are before any training.

    Returns:
      JSON. Of the update alone, with one batch that stays on the devices: `step_s`, the median over blocks of updates,
      with `step_s_low` and `step_s_high`, the least and the greatest; `pairs_per_s` and `images_per_s` (a pair is one
      row of every domain); `compile_s`, without a cache; `peak_bytes` of a device's memory. Of one device's share of
      it: `flops` and `bytes` by XLA's cost analysis, `model_flops` as `flops.count` has them; `matmul_fraction` and
      `copy_fraction`: how much of the measured rates `matmul_flops_per_s` and `copy_bytes_per_s` these are.
      Of the data: `host_images_per_s`, each stage of the pipeline in one thread, and all of it with the run's threads
      or workers, batches on the devices: `data_first_images_per_s` in the first epoch, `data_images_per_s` once what
      fits is kept in memory. Of both together, then: `loop_step_s`; `loop_fraction`, its share of the pure rate,
      measured in turn with it; `device_wait_fraction`, for how much of the time at most the devices waited for data.
    """
    stage = run.stages[-1]
    # What a large buffer gives away would not be the rate at which it is filled.
    batches = run.batches(stage, start=0, ahead=0, broken=lambda *_: None)
    key, state = run.update_key(len(run.stages) - 1), _untrained(run)
    update, state, found = measure_update(run.update(stage.step), state, next(batches), key, steps=steps)
    step_s = found["step_s"]
    found = {
        "stage": stage.name,
        "batch_size": run.config.data.batch_size,
        "image_size": run.task.image_size,
        "joints": len(run.task.skeleton),
        "pairs_per_s": run.config.data.batch_size / step_s,
        "images_per_s": run.images_per_step(stage) / step_s,
    } | found
    found |= _limits(found, detector.compute_dtype(run.config.dtype))
    found |= _data(run, stage, batches)
    return found | _together(update, state, batches, key, steps, step_s)


def measure_update(
    update: Any, state: State, batch: Any, key: jax.Array, *, steps: int
) -> tuple[Any, State, dict[str, Any]]:
    """Compiles and times a jitted update (`Run.update`) on one batch that stays on the devices.

    Returns:
      the compiled update; the state after all of it; and, as in `measure`, `compile_s`, `steps`, `step_s` with its
      extremes, `peak_bytes`, `flops`, `bytes` and `model_flops`.
    """
    alive = jnp.asarray(True)
    traced = update.trace(state, batch, key, alive)
    with _no_cache():
        clock = time.perf_counter()
        compiled = traced.lower().compile()
        compile_s = time.perf_counter() - clock
    state, times = _alone(compiled, state, batch, key, alive, steps)
    cost = compiled.cost_analysis()
    devices = len(jax.tree.leaves(batch)[0].sharding.device_set)
    return (
        compiled,
        state,
        {
            "steps": steps,
            "compile_s": compile_s,
            "step_s": statistics.median(times),
            "step_s_low": min(times),
            "step_s_high": max(times),
            "peak_bytes": _peak_bytes(compiled),
            "flops": float(cost.get("flops", 0.0)),
            "bytes": float(cost.get("bytes accessed", 0.0)),
            "model_flops": flops.count(traced.jaxpr.jaxpr) / devices,
        },
    )


def _untrained(run: Run) -> State:
    state = None
    for number in range(len(run.stages)):
        state = run.initial_state(number, state)
    assert state is not None
    return state


def _alone(
    update: Any, state: State, batch: Any, key: jax.Array, alive: jax.Array, steps: int
) -> tuple[State, list[float]]:
    """Seconds per update in each of several blocks of updates."""
    state, _ = _block(update, state, batch, key, alive, _WARM_UP)
    state, once = _block(update, state, batch, key, alive, 1)
    size = max(1, min(steps, math.ceil(_BLOCK_S / once)))
    times: list[float] = []
    started = time.perf_counter()
    while len(times) * size < steps and (not times or time.perf_counter() - started < _CAP):
        state, seconds = _block(update, state, batch, key, alive, size)
        times.append(seconds)
    return state, times


def _block(update: Any, state: State, batch: Any, key: jax.Array, alive: jax.Array, count: int) -> tuple[State, float]:
    """Seconds per update of so many updates on one batch."""
    clock = time.perf_counter()
    for _ in range(count):
        state, _, _ = update(state, batch, key, alive)
    jax.block_until_ready(state)
    return state, (time.perf_counter() - clock) / count


def _peak_bytes(update: Any) -> int:
    """Of one device: what the allocator saw where it keeps count, else what XLA planned for the update."""
    seen = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if seen is not None:
        return int(seen)
    planned = update.memory_analysis()
    return int(
        planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        + planned.temp_size_in_bytes
        - planned.alias_size_in_bytes
    )


def _limits(found: dict[str, Any], dtype: jnp.dtype) -> dict[str, float]:
    """The rates of a matrix product and of a copy on the same device, and how much of them the update comes to."""
    accelerator = jax.default_backend() != "cpu"
    side = 8192 if accelerator else 2048
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = 2.0 * side**3 / _seconds(jax.jit(lambda a: a @ a), matrix)
    numbers = jnp.zeros((512 if accelerator else 64) * 2**20, jnp.float32)
    copy = 2.0 * numbers.nbytes / _seconds(jax.jit(lambda a: a + 1.0, donate_argnums=(0,)), numbers, chained=True)
    return {
        "matmul_flops_per_s": product,
        "copy_bytes_per_s": copy,
        "matmul_fraction": found["model_flops"] / found["step_s"] / product,
        "copy_fraction": found["bytes"] / found["step_s"] / copy,
    }


def _seconds(function: Callable[[jax.Array], jax.Array], argument: jax.Array, *, chained: bool = False) -> float:
    """The best of five calls; a chained function gives the argument of its next call."""
    times = []
    for _ in range(6):
        clock = time.perf_counter()
        result = jax.block_until_ready(function(argument))
        times.append(time.perf_counter() - clock)
        argument = result if chained else argument
    return min(times[1:])


def _data(run: Run, stage: Stage, batches: Iterator[Any], *, seconds: float = 2.0) -> dict[str, Any]:
    """Images per second of the host pipeline: its stages in one thread, and as a whole."""
    rates: dict[str, list[float]] = {}
    for read in stage.reads.values():
        elements = run.training[read.domain, read.window]
        found = measure_stages(elements, fields=read.fields, batch_size=run.rows(read), seconds=0.3)
        for name, rate in found.items():
            rates.setdefault(name, []).append(rate)
    # Domains take turns image by image, so their seconds per image are averaged.
    host = {name: len(several) / sum(1 / rate for rate in several) for name, several in rates.items()}
    rows = {domain: {name: np.asarray(value) for name, value in fields.items()} for domain, fields in _local(batches)}
    images = run.images_per_step(stage) / jax.process_count()
    host["transfer"] = images / _best(lambda: jax.block_until_ready(meshes.to_devices(run.mesh, rows)), 5)
    first = _rate(batches, run.images_per_step(stage), seconds)
    if not run.config.data.workers:
        for read in stage.reads.values():
            elements = run.training[read.domain, read.window]
            if isinstance(elements, Crops):
                _fill_memory(elements)
    whole = _rate(batches, run.images_per_step(stage), seconds)
    return {"host_images_per_s": host, "data_first_images_per_s": first, "data_images_per_s": whole}


def _rate(batches: Iterator[Any], images: int, seconds: float) -> float:
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


def _local(batches: Iterator[Any]) -> Any:
    """This process's rows of a batch, by domain."""
    parts = jax.tree.map(lambda x: np.concatenate([s.data for s in x.addressable_shards]), next(batches))
    return parts.items()


def _best(call: Callable[[], Any], times: int) -> float:
    def once() -> float:
        clock = time.perf_counter()
        call()
        return time.perf_counter() - clock

    return min(once() for _ in range(times))


def _together(
    update: Any, state: State, batches: Iterator[Any], key: jax.Array, steps: int, step_s: float
) -> dict[str, float]:
    """Updates fed by the pipeline, in turn with updates on one batch, so that a machine's changing speed tells less."""
    alive = jnp.asarray(True)
    size = max(1, min(steps, math.ceil(_TURN_S / step_s)))
    alone, loop, waited = [], [], 0.0
    started = time.perf_counter()
    while len(loop) * size < steps and (not loop or time.perf_counter() - started < _CAP):
        state, seconds = _block(update, state, next(batches), key, alive, size)
        alone.append(seconds)
        for _ in range(_READ_AHEAD):
            batch = next(batches)
        clock, before = time.perf_counter(), None
        for _ in range(size):  # with the metrics fetched one step late, as when training
            state, running, metrics = update(state, batch, key, alive)
            batch, _, idle = next_batch(batches, running)
            waited += idle
            if before is not None:
                jax.tree.map(float, before)
            before = metrics
        jax.block_until_ready(state)
        loop.append((time.perf_counter() - clock) / size)
    return {
        "loop_step_s": statistics.median(loop),
        "loop_fraction": statistics.median(a / b for a, b in zip(alone, loop, strict=True)),
        "device_wait_fraction": waited / (size * sum(loop)),
    }


class _no_cache:
    """Compiles anew, whatever was kept of earlier runs."""

    def __enter__(self) -> None:
        self._before = jax.config.values["jax_enable_compilation_cache"]
        self._use(False)

    def __exit__(self, *_: Any) -> None:
        self._use(self._before)

    def _use(self, wanted: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", wanted)
        compilation_cache.reset_cache()  # which asks for the setting once
