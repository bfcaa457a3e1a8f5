"""What a run is made of: its stages' states, its batches on the devices, and the compiled update."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxpose.config import Config
from jaxpose.data.domains import Pair
from jaxpose.data.pipeline import Read, training_batches
from jaxpose.recipes.stage import Stage, State, Task
from jaxpose.train import mesh as meshes
from jaxpose.train.evaluate import Measures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything fixed about a run."""

    config: Config
    stages: tuple[Stage, ...]
    task: Task
    pair: Pair
    measures: Measures
    mesh: Mesh
    workdir: Path

    def initial_state(self, number: int, previous: State | None) -> State:
        """The first state of a stage, given the last of the stage before."""
        stage, everywhere = self.stages[number], meshes.replicated(self.mesh)
        key = jax.random.fold_in(jax.random.key(self.config.seed), number)
        state = jax.jit(stage.init, out_shardings=everywhere)(key, previous)
        return state if stage.load is None else jax.device_put(stage.load(state), everywhere)

    def abstract_states(self) -> list[State]:
        """The shapes and shardings of every stage's state."""
        sharding = meshes.replicated(self.mesh)
        states: list[State] = []
        for stage in self.stages:
            shapes = jax.eval_shape(stage.init, jax.random.key(0), states[-1] if states else None)
            states.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes))
        return states

    def steps_before(self, number: int) -> int:
        """Updates of the stages before a stage."""
        return sum(stage.steps for stage in self.stages[:number])

    def update_key(self, number: int) -> jax.Array:
        """The key of a stage's updates; each folds its step in."""
        return jax.random.fold_in(jax.random.key(self.config.seed + 1), number)

    def images_per_step(self, stage: Stage) -> int:
        """Training images in a global batch, over all domains."""
        return self.config.data.batch_size * len(stage.reads)

    @property
    def evaluation_rows(self) -> int:
        """Rows of an evaluation batch, a multiple of the number of devices."""
        devices = self.mesh.size
        return -(-self.config.data.eval_batch_size // devices) * devices

    def batches(self, stage: Stage, *, start: int, broken: Callable[[str, str], None], **options: Any) -> Iterator[Any]:
        """Batches on the devices, from step `start` on; `options` are those of `training_batches`.

        `broken` is told domain and name of the broken records among them.
        """
        reads = {
            domain: Read(
                crops=self.pair.domains[domain].splits["train"],
                batch_size=self.config.data.batch_size,
                fields=fields,
            )
            for domain, fields in stage.reads.items()
        }
        batches = training_batches(
            reads,
            seed=self.config.seed,
            start=start,
            workers=self.config.data.workers,
            process=jax.process_index(),
            processes=jax.process_count(),
            **options,
        )
        for batch in batches:
            for domain, fields in batch.items():
                for index in fields.pop("broken"):
                    if index >= 0:
                        broken(domain, reads[domain].crops.name(int(index)))
                if "index" not in reads[domain].fields:
                    del fields["index"]
            yield meshes.to_devices(self.mesh, batch)

    def update(self, stage: Stage) -> Any:
        """The jitted update (state, batch, key, alive) -> (state, alive, metrics); lower and compile it for a batch.

        A compiled update takes batches of one shape; others are an error, never a recompilation. Once a loss is not
        finite `alive` is false and nothing changes any more, so that what is saved is the state before that update,
        whenever the host finds out.
        """

        def update(
            state: State, batch: Any, seed_key: jax.Array, alive: jax.Array
        ) -> tuple[State, jax.Array, dict[str, jax.Array]]:
            new, metrics = stage.step(state, batch, jax.random.fold_in(seed_key, state.step))
            new = dataclasses.replace(new, step=state.step + 1)
            for name, value in metrics.items():
                if name.startswith("loss"):
                    alive &= jnp.isfinite(value)
            return jax.tree.map(lambda n, o: jnp.where(alive, n, o), new, state), alive, metrics

        everywhere, rows = meshes.replicated(self.mesh), meshes.by_row(self.mesh)
        return jax.jit(
            update,
            donate_argnums=(0,),
            in_shardings=(everywhere, rows, everywhere, everywhere),
            out_shardings=everywhere,
        )


def next_batch(batches: Iterator[Any], running: Any) -> tuple[Any, float, float]:
    """The next batch, the seconds spent waiting for it, and for how many of them, at most, the devices stood still.

    `running` is an output array of the update that the devices are busy with. If it is finished when the batch has
    come, the whole wait is counted.
    """
    clock = time.perf_counter()
    batch = next(batches)
    waited = time.perf_counter() - clock
    return batch, waited, waited if running.is_ready() else 0.0
