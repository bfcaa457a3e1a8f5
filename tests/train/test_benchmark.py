import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from test_trainer import make_run, with_two_updates

from jaxpose.recipes.stage import State, initial_state
from jaxpose.report import benchmark as table
from jaxpose.train import benchmark


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = make_run(tmp_path_factory.mktemp("run"), devices=2)
    return benchmark.measure(run, steps=5) | {"devices": ["cpu", "cpu"]}


def test_the_result_is_json_with_what_the_docstring_promises(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found
    assert (found["stage"], found["batch_size"], found["image_size"], found["joints"]) == ("second", 4, 32, 16)
    assert 0 < found["step_s_low"] <= found["step_s"] <= found["step_s_high"]
    assert found["pairs_per_s"] == pytest.approx(4 / found["step_s"])
    assert found["images_per_s"] == found["pairs_per_s"]  # this stage reads one domain
    assert found["compile_s"] > 0
    assert found["update_step_s"] == [found["step_s"]]
    assert found["peak_bytes"] > 4 * 32 * 32 * 3 / 2
    assert found["model_flops"] == 0  # it holds no product
    assert found["bytes"] > 0
    assert found["matmul_flops_per_s"] > 1e8
    assert found["copy_bytes_per_s"] > 1e7
    assert set(found["host_images_per_s"]) == {"read", "decode", "crop", "batch", "transfer"}
    assert min(found["host_images_per_s"].values()) > 0
    assert found["data_images_per_s"] > 0
    assert found["data_first_images_per_s"] > 0
    assert found["loop_step_s"] > 0
    assert found["loop_fraction"] > 0
    assert 0 <= found["device_wait_fraction"] <= 1


def test_updates_in_turn_are_measured_together_and_one_by_one(tmp_path: Path) -> None:
    run = with_two_updates(make_run(tmp_path))
    found = benchmark.measure(run, steps=6)
    assert len(found["update_step_s"]) == 2
    assert min(found["update_step_s"]) > 0
    assert found["images_per_s"] == pytest.approx(3 / found["step_s"])  # four rows and two rows in turn
    assert found["model_flops"] == 2 * 2 * 2 * 32 * 32 * 3 / 2  # the other one has no product
    assert found["loop_step_s"] > 0
    assert "updates in turn: " in table.table(found | {"devices": ["cpu"]})


def test_a_stage_is_measured_by_its_name(tmp_path: Path) -> None:
    run = with_two_updates(make_run(tmp_path))
    with pytest.raises(ValueError, match="--stage: found 'third', expected one of first, second"):
        benchmark.measure(run, steps=2, stage="third")
    found = benchmark.measure(run, steps=2, stage="first")
    assert found["stage"] == "first"
    assert found["model_flops"] == 0  # other than those of the second
    assert len(found["update_step_s"]) == 1


def test_each_update_is_given_the_batches_of_its_turn() -> None:
    """Also after batches that were read ahead, and in blocks of whole turns."""
    seen = []

    def update(number: int) -> Any:
        def step(state: State, batch: int, *_: Any) -> tuple[State, jax.Array, dict[str, float]]:
            seen.append((number, batch % 3))
            time.sleep(0.01 * (number + 1))
            return state, jax.numpy.asarray(True), {"loss": 0.0}

        return step

    turn, batches = [(update(number), number) for number in range(3)], enumerate(itertools.count())
    for _ in range(4):
        next(batches)
    state = initial_state(params={}, stats={}, optimizers={})
    found = benchmark._together(turn, state, batches, jax.random.key(0), steps=8, step_s=0.02)
    assert len(seen) == 2 * 9  # three whole turns alone, and three with data
    assert all(number == wanted for number, wanted in seen)
    assert found["loop_step_s"] == pytest.approx(0.02, rel=0.3)


def test_slow_data_are_seen_as_waiting(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    domain = run.pair.domains["source"]

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Slow(type(domain.splits["train"])):
        def __getitem__(self, index: int) -> Any:
            time.sleep(0.02)
            return super().__getitem__(index)

    crops = domain.splits["train"]
    slow = Slow(**{field.name: getattr(crops, field.name) for field in dataclasses.fields(crops)})
    splits = {**domain.splits, "train": slow}
    pair = dataclasses.replace(
        run.pair, domains={**run.pair.domains, "source": dataclasses.replace(domain, splits=splits)}
    )
    found = benchmark.measure(dataclasses.replace(run, pair=pair), steps=20)
    assert found["loop_step_s"] > 0.02  # four images of 20 ms in at most two threads each
    assert found["device_wait_fraction"] > 0.5
    assert found["loop_fraction"] < 0.5


def test_the_loops_share_is_of_updates_without_data() -> None:
    def update(state: State, *_: Any) -> tuple[State, jax.Array, dict[str, float]]:
        time.sleep(0.02)
        return state, jax.numpy.asarray(True), {"loss": 0.0}

    def batches() -> Iterator[None]:
        while True:
            time.sleep(0.02)
            yield None

    state = initial_state(params={}, stats={}, optimizers={})
    found = benchmark._together([(update, None)], state, enumerate(batches()), jax.random.key(0), steps=10, step_s=0.02)
    assert found["loop_step_s"] == pytest.approx(0.04, rel=0.3)
    assert found["loop_fraction"] == pytest.approx(0.5, abs=0.1)
    assert found["device_wait_fraction"] == pytest.approx(0.5, abs=0.1)  # updates here are over when they return


def test_results_side_by_side(found: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps(found | {"step_s": 2 * found["step_s"], "batch_size": 8}))
    shown = table.table(found, table.read(path))
    update = next(line for line in shown.splitlines() if line.startswith("update "))
    assert update.endswith(" 0.50")
    assert "not comparable: batch_size was 8, is 4" in shown
    assert "ratio" not in table.table(found)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step_s": 1}'])
def test_what_is_no_result_is_an_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"--baseline=.*other.json: found no .*, expected a benchmark.json"):
        table.read(path)
    with pytest.raises(ValueError, match=r"--baseline=.*expected a benchmark.json"):
        table.read(tmp_path / "absent.json")


def test_compilation_is_measured_without_the_cache(tmp_path: Path) -> None:
    def compile_anew(number: int) -> None:
        jax.jit(lambda x: x * number + number).lower(1.0).compile()

    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    try:
        compile_anew(3)
        kept = len(list(tmp_path.iterdir()))
        assert kept > 0
        with benchmark._no_cache():
            compile_anew(5)
        assert len(list(tmp_path.iterdir())) == kept
        compile_anew(7)
        assert len(list(tmp_path.iterdir())) > kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
        compilation_cache.reset_cache()
