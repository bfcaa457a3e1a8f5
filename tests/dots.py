"""A detector that finds the middle of what is red, of what is green and of what is blue: exact, and soon compiled."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.metrics.metric import Predictions
from jaxpose.model import Model
from jaxpose.recipes.stage import Evaluation, State
from jaxpose.train import mesh as meshes

JOINTS = Skeleton(
    name="dots", joints=("left_red", "right_green", "blue"), bones=(("left_red", "blue"), ("blue", "right_green"))
)
SIZE = 48


def middles(state: State, fields: dict[str, jax.Array]) -> Predictions:
    weights = jnp.maximum(fields["image"].astype(jnp.float32) - 90, 0) + state.params["little"]
    total = jnp.sum(weights, axis=(1, 2))
    place = jnp.arange(SIZE, dtype=jnp.float32)
    x = jnp.sum(weights * place[None, None, :, None], axis=(1, 2)) / total
    y = jnp.sum(weights * place[None, :, None, None], axis=(1, 2)) / total
    return Predictions(points=jnp.stack([x, y], axis=-1), scores=jnp.max(weights, axis=(1, 2)) / 110)


@functools.cache  # which compiles once
def dots_model(*, step: int = 7, margin: float = 1.5, little: float = 1e-6) -> Model:
    state = State(step=jnp.int32(step), params={"little": jnp.float32(little)}, stats={}, optimizers={})
    return Model(
        skeleton=JOINTS,
        image_size=SIZE,
        margin=margin,
        recipe="dots",
        pair="none",
        stage="adapt",
        step=step,
        state=state,
        evaluation=Evaluation(predict=middles),
        mesh=meshes.make_mesh(0),
    )


def dotted(places: np.ndarray, *, height: int = 60, width: int = 80) -> np.ndarray:
    """A black image (H, W, 3) with a dot of its own colour at each of three places (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x, y) in enumerate(np.asarray(places).tolist()):
        plane = np.zeros((height, width), np.uint8)
        cv2.circle(plane, (round(x * 16), round(y * 16)), 4 * 16, 200, cv2.FILLED, cv2.LINE_AA, 4)
        image[..., channel] = plane
    return image


def some_places(count: int, seed: int = 0) -> np.ndarray:
    """Places (N, 3, 2) in images of the usual size."""
    return np.random.default_rng(seed).uniform((8, 8), (70, 50), (count, 3, 2))


def write_images(folder, places: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, those in enumerate(places):
        cv2.imwrite(str(folder / f"img{i:03d}.png"), cv2.cvtColor(dotted(those), cv2.COLOR_RGB2BGR))


def write_video(path, places: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (80, 60))
    for those in places:
        writer.write(cv2.cvtColor(dotted(those), cv2.COLOR_RGB2BGR))
    writer.release()
