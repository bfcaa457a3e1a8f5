"""Views of target images, and pseudo-labels that are read in one view and used in another."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxpose.ops import affine, augment, warp
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import inputs
from jaxpose.recipes.inputs import Fields
from jaxpose.recipes.stage import State, Task

Points = Float[Array, "b k 2"]
Values = Float[Array, "b k"]
Mask = Bool[Array, "b k"]
Maps = Float[Array, "b h w k"]
ConfidenceMaps = Callable[[jax.Array], jax.Array]  # a network's maps -> maps >= 0 whose peak is its confidence
DecaySchedule = Callable[[jax.Array, float], jax.Array]  # (step, decay) -> the teacher's share of its next parameters
Evaluated = Callable[[State], State]  # a state -> the same with the parameters and statistics that predict


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Augmented images: normalised (B, S, S, 3), the affine maps from the crops (B, 2, 3), which are mirrored (B,).

    Where views share cuts (`augment.random_cuts`), crops are what was cut out.
    """

    images: Any  # Any: JAX also fills pytrees with shapes and placeholders
    matrix: Any
    mirrored: Any


def view(key: jax.Array, fields: Fields, settings: augment.Augmentation, cuts: affine.Affine | None = None) -> View:
    """A view of a domain's images, made from the crops by one warp."""
    images, drawn = augment.augment(key, fields["image"], fields["position"], settings, cuts)
    matrix = drawn.matrix
    if cuts is not None:
        matrix = affine.compose(matrix, affine.invert(cuts))
    return View(images=images, matrix=matrix, mirrored=drawn.mirrored)


def in_other_view(
    points: Points, values: Values, from_view: View, to_view: View, task: Task
) -> tuple[Points, Values, Mask]:
    """What was found in one view, in another view of the same crops.

    Args:
      points: in pixels of `from_view`.
      values: of the joints, such as confidences.
      from_view, to_view: the views.
      task: for the image's size and the joints that change places in mirrored images.

    Returns:
      points in pixels of `to_view`; the values, of the joints' names there; which points lie in the crop, where
      there was something to see, and in `to_view`.
    """
    permutation = task.skeleton.flip_permutation
    exchanged = (from_view.mirrored != to_view.mirrored)[:, None]
    moved = affine.apply(affine.compose(to_view.matrix, affine.invert(from_view.matrix)), points)
    in_crop = _inside(affine.apply(affine.invert(from_view.matrix), points), task.image_size)
    inside = in_crop & _inside(moved, task.image_size)
    return (
        jnp.where(exchanged[..., None], moved[:, permutation], moved),
        jnp.where(exchanged, values[:, permutation], values),
        jnp.where(exchanged, inside[:, permutation], inside),
    )


def read(maps: Maps, grid: Grid, coding: inputs.Coding = inputs.CLEAN) -> tuple[Points, Values]:
    """Points in image pixels and confidences, the peaks of maps >= 0."""
    # The logarithm of a Gaussian is the parabola that the sub-pixel fit expects.
    return coding.read(jnp.log(jnp.maximum(maps, 1e-12)), grid), jnp.max(maps, axis=(1, 2))


def softmax_maps(maps: Maps) -> Maps:
    """For networks trained by `spatial_kl`: probabilities over the pixels."""
    return jax.nn.softmax(maps.astype(jnp.float32), axis=(1, 2))


def label_peak(normal: ConfidenceMaps, grid: Grid) -> float:
    """The confidence of maps that are a label's: as probabilities, Gaussians have lower peaks the wider they are."""
    return 1 / (2 * np.pi * grid.sigma**2) if normal is softmax_maps else 1.0


def plain_maps(maps: Maps) -> Maps:
    """For networks trained by `l2` on Gaussians of peak 1: the maps, where they are positive."""
    return jnp.maximum(maps.astype(jnp.float32), 0.0)


def raw_maps(maps: Maps) -> Maps:
    """As `plain_maps`, but with what is negative, as released codes average and compare them."""
    return maps.astype(jnp.float32)


def on_crop(maps: Maps, view: View, grid: Grid, task: Task) -> Maps:
    """A view's maps brought back to the crop by nearest pixels, 0 where the view does not show it.

    First shifted, then turned and scaled, then sheared: three steps, each of which rounds, are those of UniFrame's
    released code. Joints of mirrored views get their names of the crop.
    """
    matrix, size = affine.on_heatmaps(view.matrix, grid.stride), grid.size
    linear = matrix[:, :, :2]
    # The first column of the linear part is that of the rotation; a negative determinant is a mirror's.
    x, y = linear[:, 0, 0], linear[:, 1, 0]
    mirror = jnp.sign(x * linear[:, 1, 1] - y * linear[:, 0, 1])
    turn = affine.about_middle(
        jnp.stack([jnp.stack([x, -mirror * y], -1), jnp.stack([y, mirror * x], -1)], axis=-2), size
    )
    still = affine.about_middle(linear, size)
    eye = jnp.broadcast_to(jnp.eye(2, dtype=jnp.float32)[None], linear.shape)
    shift = jnp.concatenate([eye, (still - matrix)[:, :, 2:]], axis=-1)
    for step in (shift, affine.invert(turn), affine.compose(affine.invert(still), turn)):
        maps = warp.nearest_maps(maps, step)
    return jnp.where(view.mirrored[:, None, None, None], maps[..., task.skeleton.flip_permutation], maps)


def share_threshold(confidence: Float[Array, "n k"], share: float, *, least: float = 0.0) -> Float[Array, ""]:
    """The value above which the share of the largest confidences lies; ties with the largest one below are out.

    Of n k confidences the smallest int((1 - share) n k) are below, as in UniFrame's released code. The value is `least`
    at least: a joint without any confidence is none of the surest.
    """
    below = int((1 - share) * confidence.size + 1e-9)  # a share is no binary fraction
    if below == 0:
        return jnp.full((), least)
    return jnp.maximum(jnp.sort(confidence.ravel())[below - 1], least)


def rising(step: jax.Array, decay: float) -> jax.Array:
    """Until the decay is reached the teacher is the plain average of all students so far; at step 0 the student.

    Source: Tarvainen & Valpola 2017, the released code.
    """
    return jnp.minimum(1 - 1 / (step.astype(jnp.float32) + 1), decay)


def constant(step: jax.Array, decay: float) -> jax.Array:
    """The decay at every step."""
    del step
    return jnp.float32(decay)


def ema_update(average: Any, new: Any, decay: jax.Array) -> Any:
    """`decay` of the average and the rest of the new parameters."""
    return jax.tree.map(lambda a, n: decay * a + (1 - decay) * n, average, new)


def student(state: State) -> State:
    """The network that is trained predicts."""
    return state


def teacher(state: State) -> State:
    """The averaged network predicts, with its own batch statistics."""
    return dataclasses.replace(state, **state.extra["teacher"])


def occluded(
    key: Array,
    images: Float[Array, "b s s 3"],
    positions: Int[Array, " b"],
    points: Points,
    candidates: Mask,
    *,
    side: int,
    probability: float,
) -> Float[Array, "b s s 3"]:
    """With a probability per image, one of the candidate keypoints is occluded by a patch from the same image.

    Args:
      key: of the draws; every image draws from its place in the global batch.
      images: (B, S, S, 3).
      positions: places in the global batch.
      points: in pixels; of a patch that reaches out of the image, the part inside is drawn.
      candidates: which may be occluded; an image without any is left alone.
      side: of the square patch in pixels.
      probability: that an image loses a keypoint.

    Source: UniFrame, arXiv:2204.00172, adaptive keypoint occlusion.
    """
    size = images.shape[1]

    def one(key: jax.Array, image: jax.Array, points: jax.Array, candidates: jax.Array) -> jax.Array:
        coin, choice, place = jax.random.split(key, 3)
        joint = jax.random.categorical(choice, jnp.where(candidates, 0.0, -jnp.inf))
        corner = jnp.round(points[joint]).astype(jnp.int32) - side // 2  # x, y
        low, high = (jnp.clip(edge, 0, size) for edge in (corner, corner + side))
        from_low = jax.random.randint(place, (2,), 0, size - (high - low) + 1, jnp.int32)
        # The patch is cut and put whole, with a border to reach into; only its part inside is seen.
        bordered = jnp.pad(image, ((side, side), (side, side), (0, 0)))
        (from_x, from_y), (x, y) = from_low - (low - corner) + side, jnp.clip(corner, -side, size) + side
        patch = jax.lax.dynamic_slice(bordered, (from_y, from_x, jnp.int32(0)), (side, side, 3))
        patched = jax.lax.dynamic_update_slice(bordered, patch, (y, x, jnp.int32(0)))[side:-side, side:-side]
        wanted = jax.random.bernoulli(coin, probability) & jnp.any(candidates)
        return jnp.where(wanted, patched, image)

    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
    return jax.vmap(one)(keys, images, points, candidates)


def _inside(points: Points, size: int) -> Mask:
    return jnp.all((points > -0.5) & (points < size - 0.5), axis=-1)
