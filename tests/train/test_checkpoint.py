"""Checkpoints under damage: no flipped bit restores other weights, and a damaged one is not gone on from."""

import random
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.recipes.stage import State, initial_state
from jaxpose.train.checkpoint import Checkpoints, newest_whole, set_aside_damaged
from jaxpose.train.progress import Progress


def make_state(step: int) -> State:
    weights = np.random.default_rng(step).normal(size=(40, 30)).astype(np.float32)
    params = {"head": {"kernel": jnp.asarray(weights), "bias": jnp.zeros(3)}}
    return initial_state(params=params, stats={"norm": {"mean": jnp.full(3, step, jnp.float32)}}, optimizers={})


def abstract() -> State:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: make_state(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def write(folder: Path, *steps: int) -> None:
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, make_state(step), {"stage": step, "broken": ["one", "two"]})
    checkpoints.close()


def equal(one: State, other: State) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


def go_on(folder: Path) -> tuple[int, State, Progress]:
    """What a run does that resumes."""
    set_aside_damaged(folder)
    checkpoints = Checkpoints(folder)
    step = checkpoints.latest()
    assert step is not None
    restored, record = checkpoints.restore(step, abstract()), Progress.read(checkpoints, step)
    checkpoints.close()
    return step, restored, record


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    write(folder, 2, 4)
    return folder


def flip_bits(whole: Path, folder: Path, count: int, seed: int) -> dict[str, int]:
    """Flips one bit of the newest checkpoint at a time; how often what the run goes on from was which one."""
    draw, found = random.Random(seed), {"the damaged one, unharmed": 0, "the one before": 0}
    files = sorted(path.relative_to(whole) for path in (whole / "4").rglob("*") if path.is_file())
    for number in range(count):
        # Half of them by file, so that small ones are hit, half by byte.
        sizes = [1 if number % 2 else (whole / name).stat().st_size for name in files]
        (name,) = draw.choices(files, sizes)
        shutil.copytree(whole, folder)
        data = bytearray((folder / name).read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (folder / name).write_bytes(data)
        step, state, record = go_on(folder)
        assert equal(state, make_state(step)), (name, number)
        assert (record.stage, record.broken) == (step, ["one", "two"])
        found["the damaged one, unharmed" if step == 4 else "the one before"] += 1
        shutil.rmtree(folder)
    return found


def test_no_flipped_bit_restores_other_weights(whole: Path, tmp_path: Path) -> None:
    found = flip_bits(whole, tmp_path / "checkpoints", 60, seed=0)
    assert found["the one before"] > 40, found


@pytest.mark.slow
def test_a_thousand_flipped_bits(whole: Path, tmp_path: Path) -> None:
    found = flip_bits(whole, tmp_path / "checkpoints", 1000, seed=1)
    print(found)
    assert found["the one before"] > 800, found


DAMAGE: dict[str, Any] = {
    "a cut file": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "an empty file": lambda path: path.write_bytes(b""),
    "an absent file": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["meta/metadata", "state/manifest.ocdbt", "digests.json", "_CHECKPOINT_METADATA"])
@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_set_aside_in_one_line(whole: Path, tmp_path: Path, name: str, harm: Any) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole, folder)
    harm(folder / "4" / name)
    if name == "digests.json" and harm is DAMAGE["an absent file"]:  # as earlier versions wrote them
        assert set_aside_damaged(folder) == []
        assert go_on(folder)[0] == 4
        return
    (line,) = set_aside_damaged(folder)
    assert line.startswith(f"{folder}/4: found ")
    assert name in line
    assert line.endswith("it is now 4.damaged, and the run goes on from 2")
    assert go_on(folder)[0] == 2
    write(folder, 4)
    assert (go_on(folder)[0], set_aside_damaged(folder)) == (4, [])


def test_damage_everywhere_is_one_line(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole, folder)
    for step in (2, 4):
        (folder / str(step) / "meta" / "metadata").write_bytes(b"{}")
    with pytest.raises(
        ValueError, match=r"found none that is whole \(4: found meta/metadata changed .*; 2: "
    ) as raised:
        set_aside_damaged(folder)
    assert "\n" not in str(raised.value)
    assert {path.name for path in folder.iterdir()} == {"2", "4"}


def test_looking_for_the_newest_whole_checkpoint_changes_nothing(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert newest_whole(folder) == (None, {})
    shutil.copytree(whole, folder)
    (folder / "4" / "state" / "_METADATA").unlink()
    assert newest_whole(folder) == (2, {4: "found no state/_METADATA"})
    assert {path.name for path in folder.iterdir()} == {"2", "4"}


def test_what_a_killed_process_left_unfinished_is_removed(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole, folder)
    shutil.copytree(whole / "4", folder / "6.orbax-checkpoint-tmp")
    assert set_aside_damaged(folder) == []
    assert {path.name for path in folder.iterdir()} == {"2", "4"}
