"""What a run is made of: its stages' states, its batches on the devices, and the compiled update."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpose.config import Config
from jaxpose.data import seeds
from jaxpose.data.domains import Pair
from jaxpose.data.host.elements import Elements
from jaxpose.data.host.pipeline import Rows, training_batches
from jaxpose.data.host.windows import Window
from jaxpose.metrics.metric import Metric
from jaxpose.ops.platform import platform
from jaxpose.recipes.stage import Evaluation, Read, Stage, State, Step, Task
from jaxpose.train import mesh as meshes
from jaxpose.train.evaluate import Evaluator, fields_of, mean_pose

_EVALUATED_SPLITS = ("validation", "test")
_LONGEST = 4096  # last axis of an array whose update is merged with others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What is compiled: the stages of a recipe on a mesh, whose devices need not be here."""

    config: Config
    stages: tuple[Stage, ...]
    task: Task
    mesh: meshes.AnyMesh

    def initial_state(self, number: int, previous: State | None) -> State:
        """The first state of a stage, given the last of the stage before."""
        stage, everywhere = self.stages[number], meshes.replicated(self.mesh)
        key = key_for(self.config.seed, "init", stage.name)
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

    def update_key(self, number: int) -> jax.Array:
        """The key of a stage's updates; each folds its step in."""
        return key_for(self.config.seed, "update", self.stages[number].name)

    def abstract_batch(self, stage: Stage) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """The shapes and shardings of a stage's batches."""
        size, joints = self.task.image_size, len(self.task.skeleton)
        shapes = {
            "image": ((size, size, 3), jnp.uint8),
            "keypoints": ((joints, 2), jnp.float32),
            "visible": ((joints,), jnp.uint8),
            "scale": ((), jnp.float32),
            "crop": ((2, 3), jnp.float32),
            "keypoints3d": ((joints, 3), jnp.float32),
            "pelvis": ((3,), jnp.float32),
            "intrinsics": ((3, 3), jnp.float32),
            "area": ((), jnp.float32),
            "head_size": ((), jnp.float32),
            "hand": ((), jnp.int32),
            "mask": ((size, size), jnp.uint8),
        }
        sharding = meshes.by_row(self.mesh)

        def fields(read: Read) -> dict[str, jax.ShapeDtypeStruct]:
            frames = () if read.window is None else (read.window.frames,)
            own = len(self.task.skeletons.get(read.domain, self.task.skeleton))
            of_joints = shapes | dict.fromkeys(("keypoints3d", "positions"), ((own, 3), jnp.float32))
            of_frames = {name: ((*frames, *shape), dtype) for name, (shape, dtype) in of_joints.items()}
            known = of_frames | dict.fromkeys(("index", "position"), ((), jnp.int32))
            return {
                name: jax.ShapeDtypeStruct((self.rows(read), *known[name][0]), known[name][1], sharding=sharding)
                for name in (*read.fields, "position")
            }

        return {word: fields(read) for word, read in stage.reads.items()}

    def rows(self, read: Read) -> int:
        """Rows of a global batch."""
        return self.config.data.batch_size if read.rows is None else read.rows

    def traced(self, number: int) -> Any:
        """The update of a stage, traced for the devices of the mesh, none of which need be here."""
        everywhere = meshes.replicated(self.mesh)
        key = jax.eval_shape(lambda: self.update_key(number))
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
        alive = jax.ShapeDtypeStruct((), jnp.bool_, sharding=everywhere)
        stage = self.stages[number]
        return self.update(stage.step).trace(self.abstract_states()[number], self.abstract_batch(stage), key, alive)

    def update(self, step: Step) -> Any:
        """The jitted update (state, batch, key, alive) -> (state, alive, metrics); lower and compile it for a batch.

        A compiled update takes batches of one shape; others are an error, never a recompilation. Once a loss is not
        finite `alive` is false and nothing changes any more, so that what is saved is the state before that update,
        whenever the host finds out.
        """

        def update(
            state: State, batch: Any, seed_key: jax.Array, alive: jax.Array
        ) -> tuple[State, jax.Array, dict[str, jax.Array]]:
            new, metrics = step(state, batch, jax.random.fold_in(seed_key, state.step))
            new = dataclasses.replace(new, step=state.step + 1)
            for name, value in metrics.items():
                if name.startswith("loss"):
                    alive &= jnp.isfinite(value)
            return _chosen(alive, new, state), alive, metrics

        everywhere, rows = meshes.replicated(self.mesh), meshes.by_row(self.mesh)
        return jax.jit(
            meshes.made_for(self.mesh, update),
            donate_argnums=(0,),
            in_shardings=(everywhere, rows, everywhere, everywhere),
            out_shardings=everywhere,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Program):
    """Everything fixed about a run."""

    mesh: Mesh
    pair: Pair
    metrics: tuple[Metric, ...]
    workdir: Path

    def steps_before(self, number: int) -> int:
        """Updates of the stages before a stage."""
        return sum(stage.steps for stage in self.stages[:number])

    def images_per_step(self, stage: Stage) -> int:
        """Rows of a mean global batch, over all that it reads."""
        return sum(self.rows(r) for update in stage.updates for r in update.reads.values()) // len(stage.updates)

    @property
    def evaluation_rows(self) -> int:
        """Rows of an evaluation batch, a multiple of the number of devices."""
        devices = self.mesh.size
        return -(-self.config.data.eval_batch_size // devices) * devices

    @functools.cached_property
    def mean_pose(self) -> np.ndarray:
        """The mean of the source's labels in crop pixels (K, 2), which needs no image to be predicted."""
        return mean_pose(self.pair.crops("source", "train"))

    def evaluators(self, stage: Stage) -> list[Evaluator]:
        """What evaluates a stage."""
        return [
            Evaluator(
                evaluation,
                self.task,
                self.metrics,
                self.mesh,
                self.evaluation_rows,
                self.mean_pose if any(map(self._of_images, evaluation.domains)) else None,
            )
            for evaluation in stage.evaluations
        ]

    def _of_images(self, domain: str) -> bool:
        """Whether the elements of a domain have the joints that are to be found in images."""
        return self.task.skeletons.get(domain) == self.task.skeleton

    @functools.cached_property
    def training(self) -> dict[tuple[str, Window | None], Elements]:
        """The elements of each domain and window that any stage reads, with all fields that are ever asked for."""
        fields: dict[tuple[str, Window | None], dict[str, None]] = {}
        words: dict[tuple[str, Window | None], str] = {}
        for stage in self.stages:
            for word, read in stage.reads.items():
                place = read.domain, read.window
                words.setdefault(place, word)
                fields.setdefault(place, {}).update(dict.fromkeys(name for name in read.fields if name != "index"))
        return {
            (domain, window): self._elements(
                domain, "train", tuple(fields[domain, window]), window, words[domain, window]
            )
            for domain, window in fields
        }

    def measured(self, evaluation: Evaluation) -> list[tuple[str, str]]:
        """Domains and splits on which something is evaluated: those with labels that are not for training."""
        return [
            (name, split)
            for name, domain in self.pair.domains.items()
            if name in evaluation.domains
            for split, part in domain.splits.items()
            if split in _EVALUATED_SPLITS and part.labelled
        ]

    def all_evaluated(self) -> list[tuple[str, str, Elements]]:
        """What is read to evaluate all stages, by domain and split."""
        evaluations = [evaluation for stage in self.stages for evaluation in stage.evaluations]
        return [(*place, self.evaluated(e, *place)) for e in evaluations for place in self.measured(e)]

    def evaluated(self, evaluation: Evaluation, domain: str, split: str) -> Elements:
        """The elements of a split to evaluate; those in memory stay there from one evaluation to the next."""
        place = domain, split, fields_of(evaluation, self.metrics), evaluation.window
        if place not in self._evaluated:
            self._evaluated[place] = self._elements(*place, domain)
        return self._evaluated[place]

    def _elements(self, name: str, split: str, fields: tuple[str, ...], window: Window | None, word: str) -> Elements:
        domain = self.pair.domains[name]
        try:
            return domain.elements(split, fields, window, word=word)
        except ValueError as error:
            raise ValueError(f"data.{name}={domain.spec}: {error}") from None

    @functools.cached_property
    def _evaluated(self) -> dict[tuple[str, str, tuple[str, ...], Window | None], Elements]:
        return {}

    def batches(self, stage: Stage, *, start: int, broken: Callable[[str, str], None], **options: Any) -> Iterator[Any]:
        """Batches on the devices, from step `start` on; `options` are those of `training_batches`.

        `broken` is told word and name of the broken records among them, of each once.
        """
        turns = [
            {
                word: Rows(elements=self.training[r.domain, r.window], count=self.rows(r), fields=r.fields)
                for word, r in update.reads.items()
            }
            for update in stage.updates
        ]
        read = {word: rows for rows_of in turns for word, rows in rows_of.items()}
        batches = training_batches(
            turns,
            seed=self.config.seed,
            order=stage.order or stage.name,
            start=start,
            workers=self.config.data.workers,
            process=jax.process_index(),
            processes=jax.process_count(),
            **options,
        )
        told = set()
        for batch in batches:
            for word, fields in batch.items():
                for index in fields.pop("broken").tolist():
                    if index >= 0 and (word, index) not in told:
                        told.add((word, index))
                        broken(word, read[word].elements.name(index))
                if "index" not in read[word].fields:
                    del fields["index"]
            yield meshes.to_devices(self.mesh, batch)


def key_for(seed: int, *names: str) -> jax.Array:
    """The random key of a purpose and a stage."""
    key = jax.random.key(seed)
    for number in seeds.numbers(*names):
        key = jax.random.fold_in(key, number)
    return key


def _chosen(alive: jax.Array, new: State, old: State) -> State:
    """The new state if `alive`, else the old one."""
    if platform() != "gpu":
        return jax.tree.map(lambda n, o: jnp.where(alive, n, o), new, old)
    # XLA's GPU compiler makes one kernel of updates that share an operand, unless it is a scalar: hundreds of updates
    # of small arrays become a few kernels if what they share is a vector.
    vector = jax.lax.optimization_barrier(jnp.full((_LONGEST,), alive))

    def choose(n: jax.Array, o: jax.Array) -> jax.Array:
        if o.ndim == 0 or o.shape[-1] > _LONGEST:
            return jnp.where(alive, n, o)
        return jnp.where(vector[: o.shape[-1]].reshape((1,) * (o.ndim - 1) + (-1,)), n, o)

    return jax.tree.map(choose, new, old)


def next_batch(batches: Iterator[Any], running: Any) -> tuple[Any, float, float]:
    """The next batch, the seconds spent waiting for it, and for how many of them, at most, the devices stood still.

    `running` is an output array of the update that the devices are busy with. If it is finished when the batch has
    come, the whole wait is counted.
    """
    clock = time.perf_counter()
    batch = next(batches)
    waited = time.perf_counter() - clock
    return batch, waited, waited if running.is_ready() else 0.0
