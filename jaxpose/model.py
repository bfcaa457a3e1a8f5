"""The detector of a run, to be applied to any images.

model = jaxpose.load("runs/DATE")
found = model.predict([image], boxes=[(20, 30, 120, 200)])
found.points, found.confidence
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from jaxpose.config import Config
from jaxpose.data.host import elements
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record
from jaxpose.ops import affine
from jaxpose.recipes.stage import Evaluation, State, Task
from jaxpose.train import build, rebuild
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import Checkpoints, newest_whole
from jaxpose.train.progress import Progress
from jaxpose.train.run import Program

MOST_ROWS = 64  # of a batch
Box = Sequence[int | float] | np.ndarray  # x, y, width, height
_CAN_BE_GIVEN = {"image", "intrinsics"}  # fields that an image without labels may have


class Keypoints(NamedTuple):
    """What is found in N images.

    Attributes:
      points: float32 (N, K, 2), x and y in pixels of the images as they were given; the centre of the top-left pixel is
        (0, 0). None of models that find poses in space alone.
      confidence: float32 (N, K), 0 to 1: the peak of a joint's map relative to that of a label's; no probability.
      points3d: float32 (N, K, 3) metres in the camera's frame; None of models that find none, or that need intrinsics
        and are given none.
    """

    points: Any  # Any: JAX also fills pytrees with shapes and placeholders
    confidence: Any
    points3d: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A detector with its weights; `apply` is its pure function, `predict` what is done around it.

    Attributes:
      skeleton: names the K joints.
      image_size: side S of the network's square input in pixels.
      margin: side of the square that is cut out, relative to the longer side of a box.
      recipe, pair: of the run.
      stage, step: where in the run the weights are from.
      state: parameters and batch statistics.
      evaluation: how the stage predicts.
      mesh: the devices.
    """

    skeleton: Skeleton
    image_size: int
    margin: float
    recipe: str
    pair: str
    stage: str
    step: int
    state: State
    evaluation: Evaluation
    mesh: Mesh

    def predict(
        self,
        images: Sequence[np.ndarray] | np.ndarray,
        boxes: Sequence[Box | None] | np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
    ) -> Keypoints:
        """The keypoints of images, of one object each.

        Args:
          images: N times uint8 (H, W, 3) RGB, of any sizes.
          boxes: x, y, width, height of the object in each of them, in pixels; None: the whole image.
          intrinsics: (N, 3, 3) of the images, for models that find joints in 3D.

        Raises:
          ValueError: if an image is no such array, or there are not as many boxes or intrinsics as images.
        """
        for name, given in (("boxes", boxes), ("intrinsics", intrinsics)):
            if given is not None and len(given) != len(images):
                raise ValueError(f"{name}: found {len(given)}, expected {len(images)}, one of each image")
        parts = []
        rows = self.batch_rows(len(images))
        for start in range(0, len(images), rows):
            chosen = range(start, min(start + rows, len(images)))
            cuts = [self.crop(images[i], None if boxes is None else boxes[i]) for i in chosen]
            given = None if intrinsics is None else padded(np.asarray(intrinsics, np.float32)[start:][:rows], rows)
            found = self.apply(
                self.state, *(self.to_devices(padded(np.stack(a), rows)) for a in zip(*cuts, strict=True)), given
            )
            parts.append(jax.tree.map(np.asarray, found))
        if not parts:
            return Keypoints(
                np.zeros((0, len(self.skeleton), 2), np.float32), np.zeros((0, len(self.skeleton)), np.float32)
            )
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(images)], *parts)

    def crop(
        self, image: UInt8[np.ndarray, "h w 3"], box: Box | None = None
    ) -> tuple[UInt8[np.ndarray, "s s 3"], Float[np.ndarray, "2 3"]]:
        """The network's input of an image (H, W, 3), and the affine map from the image's pixels to it."""
        nothing = np.zeros((0,), np.float32)
        record = Record(image=image, keypoints=nothing, visible=nothing, name="image")
        there = None if box is None else np.asarray(box, np.float32)
        if there is not None and (there.shape != (4,) or not np.isfinite(there).all() or there[2:].min() <= 0):
            raise ValueError(f"boxes: found {np.asarray(box).tolist()}, expected x, y, width, height")
        fields = ("image", "crop")
        cut = elements.crop(record, image, size=self.image_size, margin=self.margin, box=there, fields=fields)
        return cut["image"], cut["crop"]

    @functools.cached_property
    def apply(self) -> Callable[..., Keypoints]:
        """Pure and jitted: (state, crops uint8 (B, S, S, 3), maps to them (B, 2, 3), intrinsics or None) -> Keypoints.

        The points are those of the images that the crops were cut out of, whose intrinsics (B, 3, 3) are meant.
        """
        predict, with_depth = self.evaluation.predict, "intrinsics" in self.evaluation.fields

        def apply(state: State, crops: jax.Array, matrix: jax.Array, intrinsics: jax.Array | None) -> Keypoints:
            fields = {"image": crops}
            if with_depth:
                whole = jnp.concatenate([matrix, jnp.broadcast_to(jnp.float32([[[0, 0, 1]]]), (len(matrix), 1, 3))], 1)
                fields["intrinsics"] = (
                    whole if intrinsics is None else jnp.matmul(whole, intrinsics, precision="highest")
                )
            found = predict(state, fields)
            points3d = None if with_depth and intrinsics is None else found.points3d
            if found.points is None:
                return Keypoints(None, None, points3d)
            points = affine.apply(affine.invert(matrix), found.points)
            confidence = jnp.ones(points.shape[:2], jnp.float32) if found.scores is None else found.scores
            return Keypoints(points, jnp.clip(confidence, 0, 1), points3d)

        return jax.jit(meshes.with_mesh(self.mesh, apply))

    @functools.cached_property
    def finds_points(self) -> bool:
        """Whether there is something to draw into images."""
        crops = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), jnp.uint8)
        found = jax.eval_shape(self.apply, self.state, crops, jax.ShapeDtypeStruct((1, 2, 3), jnp.float32), None)
        return found.points is not None

    def batch_rows(self, count: int) -> int:
        """Rows of a batch for so many images: few shapes, as every one is compiled for; all devices have as many."""
        rows = min(MOST_ROWS, 1 << max(count - 1, 0).bit_length())
        return -(-rows // self.mesh.size) * self.mesh.size

    def to_devices(self, rows: np.ndarray) -> jax.Array:
        """Rows of a batch, split over the devices."""
        return jax.device_put(rows, meshes.by_row(self.mesh))

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.recipe} on {self.pair}, {self.stage} step {self.step}"


def load(workdir: str | Path, config: Config | None = None) -> Model:
    """The detector of the newest whole checkpoint of a run, finished or not.

    Args:
      workdir: the run's work directory.
      config: the run's configuration, for recipes that are not jaxpose's own; else it is in the work directory.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if it has no checkpoint of a stage that predicts, or a file is damaged; naming it.
    """
    workdir = Path(workdir)
    if config is None:
        config, task = rebuild.config_of(workdir), rebuild.task_of(workdir)
    else:
        task = _task(config, workdir)
    program = _program(config, task)
    folder = workdir / "checkpoints"
    step, _ = newest_whole(folder)
    if step is None:
        raise ValueError(f"{folder}: found no checkpoint, expected the work directory of a run")
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        number = Progress.read(checkpoints, step).stage
        stage = program.stages[number]
        evaluation = _of_images(stage.evaluations)
        if evaluation is None:
            raise ValueError(
                f"{folder / str(step)}: found the stage {stage.name}, expected one that predicts keypoints"
            )
        state = checkpoints.restore(step, program.abstract_states()[number])
    return Model(
        skeleton=task.skeleton,
        image_size=task.image_size,
        margin=config.data.margin,
        recipe=config.method.name,
        pair=config.pair,
        stage=stage.name,
        step=int(state.step),
        state=dataclasses.replace(state, optimizers={}),  # which may be twice as large as what predicts
        evaluation=evaluation,
        mesh=program.mesh,  # pyright: ignore[reportArgumentType]
    )


def padded(rows: np.ndarray, count: int) -> np.ndarray:
    """So many rows, of which those that are added repeat the first."""
    return np.concatenate([rows, np.repeat(rows[:1], count - len(rows), axis=0)]) if len(rows) < count else rows


def _task(config: Config, workdir: Path) -> Task:
    """The problem of a run whose configuration is given; of earlier versions' runs, its data say it."""
    build.check_same_run(config, workdir)
    if (workdir / rebuild.FILE).is_file():
        return rebuild.task_of(workdir)
    return build.task_of(config, build.open_data(config))


def _program(config: Config, task: Task) -> Program:
    """On all devices here, whatever those were that trained."""
    mesh = meshes.make_mesh(0)
    return Program(
        config=config, stages=meshes.with_mesh(mesh, config.method.stages)(task, config), task=task, mesh=mesh
    )


def _of_images(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The first that finds something in single images of the target, whatever else is known of them."""
    for evaluation in evaluations:
        if evaluation.window is None and "target" in evaluation.domains and _CAN_BE_GIVEN.issuperset(evaluation.fields):
            return evaluation
    return None
