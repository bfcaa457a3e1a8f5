"""What a run is made of: its stages' states, its batches on the devices, and the compiled update."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpose.config import Config
from jaxpose.data import seeds
from jaxpose.data.domains import OpenedPair
from jaxpose.data.host.elements import Crops, Elements, shapes
from jaxpose.data.host.pipeline import BatchPart, training_batches
from jaxpose.data.host.windows import Window
from jaxpose.data.wrappers import Subset
from jaxpose.metrics.metric import Metric
from jaxpose.ops.platform import platform
from jaxpose.recipes.stage import Evaluation, Read, Stage, State, Step, Task, Update
from jaxpose.train import mesh as meshes
from jaxpose.train.evaluate import Evaluator, Scores, fields_of, mean_pose

_EVALUATED_SPLITS = ("validation", "test")
_PICTURED = 512  # training images of a target without a test split that are predicted for the report
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

    def abstract_batch(self, update: Update) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """The shapes and shardings of an update's batches."""
        size = self.task.image_size
        batch = {}
        for word, read in update.reads.items():
            frames, fields = None if read.window is None else read.window.frames, (*read.fields, "position")
            joints = len(self.task.skeletons.get(read.domain, self.task.skeleton))
            batch[word] = {
                name: jax.ShapeDtypeStruct((self.rows(read), *shape), kind, sharding=meshes.by_row(self.mesh))
                for name, (shape, kind) in shapes(fields, size=size, joints=joints, frames=frames).items()
            }
        return batch

    def rows(self, read: Read) -> int:
        """Rows of a global batch."""
        return self.config.data.batch_size if read.rows is None else read.rows

    def traced(self, number: int, turn: int = 0) -> Any:
        """An update of a stage, traced for the devices of the mesh, none of which need be here."""
        everywhere, update = meshes.replicated(self.mesh), self.stages[number].updates[turn]
        key = jax.eval_shape(lambda: self.update_key(number))
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
        finite = jax.ShapeDtypeStruct((), jnp.bool_, sharding=everywhere)
        return self.update(update.step).trace(self.abstract_states()[number], self.abstract_batch(update), key, finite)

    def update(self, step: Step) -> Any:
        """The jitted update (state, batch, key, finite) -> (state, finite, metrics); lower and compile it for a batch.

        A compiled update takes batches of one shape; others are an error, never a recompilation. Once a loss is not
        finite, `finite` is false and nothing changes any more, so that what is saved is the state before that update,
        whenever the host finds out.
        """

        def update(
            state: State, batch: Any, seed_key: jax.Array, finite: jax.Array
        ) -> tuple[State, jax.Array, dict[str, jax.Array]]:
            new, metrics = step(state, batch, jax.random.fold_in(seed_key, state.step))
            new = dataclasses.replace(new, step=state.step + 1)
            for name, value in metrics.items():
                if name.startswith("loss"):
                    finite &= jnp.isfinite(value)
            return _select_state(finite, new, state), finite, metrics

        everywhere, rows = meshes.replicated(self.mesh), meshes.by_row(self.mesh)
        return jax.jit(
            meshes.with_mesh(self.mesh, update),
            donate_argnums=(0,),
            in_shardings=(everywhere, rows, everywhere, everywhere),
            out_shardings=everywhere,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Program):
    """Everything fixed about a run."""

    mesh: Mesh
    pair: OpenedPair
    metrics: tuple[Metric, ...]
    workdir: Path

    def steps_before(self, number: int) -> int:
        """Updates of the stages before a stage."""
        return sum(stage.steps for stage in self.stages[:number])

    def images_per_step(self, stage: Stage) -> int:
        """Images of a mean global batch, over all that it reads."""
        every = [read for update in stage.updates for read in update.reads.values()]
        frames = (self.rows(read) * (1 if read.window is None else read.window.frames) for read in every)
        return sum(frames) // len(stage.updates)

    @functools.cached_property
    def mean_pose(self) -> np.ndarray:
        """The mean of the source's labels in crop pixels (K, 2), which needs no image to be predicted."""
        return mean_pose(self.pair.crops("source", "train"))

    def evaluators(self, stage: Stage) -> list[Evaluator]:
        """What evaluates a stage."""
        rows = -(-self.config.data.eval_batch_size // self.mesh.size) * self.mesh.size  # devices have as many each
        return [
            Evaluator(
                evaluation,
                self.task,
                self.metrics,
                self.mesh,
                rows,
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

    def evaluate(
        self, evaluators: Sequence[Evaluator], state: State, *, pictured: bool = False
    ) -> dict[tuple[str, str], Scores]:
        """Scores on every labelled split that is not for training, by domain and split.

        With `pictured` also on the images of the target that a report shows, which need not have labels.
        """
        found: dict[tuple[str, str], Scores] = {}
        for evaluator in evaluators:
            for name, split in self.measured(evaluator.evaluation):
                elements, skeleton = self.evaluated(evaluator.evaluation, name, split), self.task.skeletons[name]
                scores = evaluator(state, elements, skeleton=skeleton, clips=name != "source")
                found[name, split] = scores.beside(found.get((name, split)))
        if not pictured:
            return found
        split, crops = self.pictured
        for evaluator in evaluators:
            single = evaluator.evaluation.window is None
            if single and "target" in evaluator.evaluation.domains and ("target", split) not in found:
                fields = fields_of(evaluator.evaluation, self.metrics, crops.known, labelled=crops.labelled)
                found["target", split] = evaluator(state, dataclasses.replace(crops, fields=fields))
        return found

    @property
    def pictured(self) -> tuple[str, Crops]:
        """The split of the target that a report shows; of training images, which may be many, some."""
        if "test" in self.pair.domains["target"].splits:
            return "test", self.pair.crops("target", "test")
        crops = self.pair.crops("target", "train")
        some = np.unique(np.linspace(0, len(crops) - 1, min(len(crops), _PICTURED)).astype(int))
        return "train", dataclasses.replace(crops, source=Subset(source=crops.source, index=some), memory=0)

    def shown(self, stage: Stage) -> dict[str, tuple[str, str, Elements]]:
        """Domain, split and elements that a stage's pictures are made of, by the recipe's words."""
        found = {}
        for word, read in (stage.pictures.reads if stage.pictures else {}).items():
            split = "validation" if "validation" in self.pair.domains[read.domain].splits else "train"
            fields = tuple(name for name in read.fields if name != "index")
            found[word] = read.domain, split, self._elements(read.domain, split, fields, read.window, word)
        return found

    def all_evaluated(self) -> list[tuple[str, str, Elements]]:
        """What is read to evaluate all stages, by domain and split."""
        evaluations = [evaluation for stage in self.stages for evaluation in stage.evaluations]
        return [(*place, self.evaluated(e, *place)) for e in evaluations for place in self.measured(e)]

    def evaluated(self, evaluation: Evaluation, domain: str, split: str) -> Elements:
        """The elements of a split to evaluate; those in memory stay there from one evaluation to the next."""
        known = self.pair.domains[domain].splits[split].known
        place = domain, split, fields_of(evaluation, self.metrics, known), evaluation.window
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
                word: BatchPart(elements=self.training[r.domain, r.window], count=self.rows(r), fields=r.fields)
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


def _select_state(finite: jax.Array, new: State, old: State) -> State:
    """The new state if `finite`, else the old one."""
    if platform() != "gpu":
        return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    # XLA's GPU compiler makes one kernel of updates that share an operand, unless it is a scalar: hundreds of updates
    # of small arrays become a few kernels if what they share is a vector.
    vector = jax.lax.optimization_barrier(jnp.full((_LONGEST,), finite))

    def choose(n: jax.Array, o: jax.Array) -> jax.Array:
        if o.ndim == 0 or o.shape[-1] > _LONGEST:
            return jnp.where(finite, n, o)
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
