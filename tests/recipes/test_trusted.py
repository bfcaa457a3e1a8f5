"""Which predictions become labels, and how they are carried from one view to another."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import GRID, NONE, SIZE, make_networks, make_task

from jaxpose.data.generators.embedded import EmbeddedSource
from jaxpose.data.joints.skeletons import HAND21, Skeleton
from jaxpose.losses import heatmap
from jaxpose.ops import affine, lifting
from jaxpose.recipes import anatomy, depths, trusted, views
from jaxpose.recipes.trusted import Taught
from jaxpose.recipes.views import View

CHAIN = Skeleton(name="chain", joints=("a", "b", "c"), bones=(("a", "b"), ("b", "c")), flips=(("a", "c"),))
TASK = make_task(skeleton=CHAIN)
ROWS = 16
CAMERA = np.array([[40.0, 0, 15.5], [0, 40, 15.5], [0, 0, 1]], np.float32)
WIDE = dataclasses.replace(NONE, rotation=40.0, scale=(0.8, 1.2), translation=0.1, mirror=0.5)


def trust(**changes: float) -> trusted.Trust:
    settings = {"share": 0.5, "shift": 1 / 16} | changes
    body = anatomy.body_of(CHAIN)
    detector = depths.PoseDetector(
        task=TASK,
        networks=make_networks(),
        body=body,
        loss=heatmap.spatial_kl,
        mean=heatmap.masked_mean,
        maps=views.softmax_maps,
        probabilities=views.softmax_maps,
        weight=1.0,
    )
    return trusted.Trust(detector=detector, body=body, **settings)


def statistics() -> dict[str, dict[str, jax.Array]]:
    """Of a skeleton whose second bone is as long as its first, within a tenth."""
    found = anatomy.body_of(CHAIN).initial()
    bone = {"count": jnp.ones(2), "mean": jnp.ones(2), "variance": jnp.full(2, (0.1 / 3) ** 2)}
    return found | {"lengths": bone}


def identity(rows: int = ROWS) -> View:
    eye = jnp.broadcast_to(jnp.asarray([[1.0, 0, 0], [0, 1, 0]])[None], (rows, 2, 3))
    return View(images=jnp.zeros((rows, SIZE, SIZE, 3)), matrix=eye, mirrored=jnp.zeros(rows, bool))


def maps_at(points: np.ndarray, heights: np.ndarray) -> jax.Array:
    """Logits whose softmax is a Gaussian around points, the surer the higher."""
    grid = (np.asarray(points) + 0.5) / GRID.stride - 0.5
    y, x = np.mgrid[: GRID.size, : GRID.size]
    dx, dy = (of[None, ..., None] - grid[:, None, None, :, axis] for axis, of in enumerate((x, y)))
    return jnp.asarray(-(dx**2 + dy**2) / 2 * heights[:, None, None], jnp.float32)


@functools.cache
def taught(seed: int = 0) -> tuple[Taught, np.ndarray, np.ndarray]:
    """What a teacher says, its points, and how sure it is."""
    rng = np.random.default_rng(seed)
    points, heights = rng.uniform(8, SIZE - 9, (ROWS, 3, 2)), rng.uniform(1, 2, (ROWS, 3))
    by_pixel = jnp.asarray(np.broadcast_to(rng.normal(0, 0.5, (ROWS, 1, 1, 3)), (ROWS, 8, 8, 3)), jnp.float32)
    return Taught(view=identity(), maps=maps_at(points, heights), depths=by_pixel), points, heights


def labels(learner: trusted.Trust, view: View, *, together: bool) -> tuple[trusted.PseudoLabels, dict[str, jax.Array]]:
    camera = jnp.broadcast_to(jnp.asarray(CAMERA)[None], (ROWS, 3, 3))
    made = jax.jit(lambda t, v, s: learner.labels(t, v, camera, s, together=jnp.asarray(together)))
    return made(taught()[0], view, statistics())


def expected_pose() -> tuple[np.ndarray, np.ndarray]:
    """The corrected pose's places and depths, in double precision, and how far joints moved in pixels."""
    teacher, _, _ = taught()
    maps = np.asarray(teacher.maps, np.float64)
    p = np.exp(maps - maps.max((1, 2), keepdims=True))
    p /= p.sum((1, 2), keepdims=True)
    y, x = np.mgrid[: GRID.size, : GRID.size]
    places = np.stack([np.einsum("bhwk,hw->bk", p, of) for of in (x, y)], -1)
    places = (places + 0.5) * GRID.stride - 0.5
    found = np.einsum("bhwk,bhwk->bk", p, np.asarray(teacher.depths, np.float64))
    pose = np.asarray(
        lifting.lift(
            jnp.asarray(places, jnp.float32),
            jnp.asarray(found, jnp.float32),
            jnp.broadcast_to(jnp.asarray(CAMERA)[None], (ROWS, 3, 3)),
            bone=(0, 1),
        )
    )
    corrected = pose.copy()
    for row in corrected:
        for parent, child in ((0, 1), (1, 2)):
            bone = row[child] - row[parent]
            length = np.linalg.norm(bone)
            moved = bone * (np.clip(length, 0.9, 1.1) / length) - bone
            row[child:] += moved
    seen = corrected @ CAMERA.T
    back = seen[..., :2] / np.maximum(seen[..., 2:], 1e-6)
    by_depth = corrected[..., 2:] - corrected[:, :1, 2:]
    return np.concatenate([back, by_depth], -1), np.linalg.norm(back - places, axis=-1)


@pytest.mark.parametrize("together", [False, True])
def test_high_maps_and_possible_poses_are_trusted(together: bool) -> None:
    learner = trust()
    found, metrics = labels(learner, identity(), together=together)
    confidence = np.asarray(jax.nn.softmax(taught()[0].maps, axis=(1, 2))).max((1, 2))
    sure = confidence > np.sort(confidence.ravel())[confidence.size // 2 - 1]
    pose, moved = expected_pose()
    possible = moved <= SIZE / 16
    assert 0.2 < possible.mean() < 0.8
    assert (sure != possible).mean() > 0.2
    both = sure | possible
    # A corrected joint that lies outside the image is none to learn.
    there = ((pose[..., :2] > -0.5) & (pose[..., :2] < SIZE - 0.5)).all(-1)
    np.testing.assert_array_equal(found.mask, both if together else sure)
    np.testing.assert_array_equal(found.found_mask, (both if together else possible) & there)
    np.testing.assert_allclose(found.found.points, pose[..., :2], atol=2e-2, rtol=1e-5)
    np.testing.assert_allclose(found.found.depths, pose[..., 2], atol=1e-2)
    assert float(metrics["pseudo_labels"]) == pytest.approx(sure.mean())


def test_labels_in_another_view_are_those_of_the_first_turned_with_it() -> None:
    """What is learned in a view that is turned, magnified and mirrored lies where it lies in the image."""
    fields = {"image": jnp.zeros((ROWS, SIZE, SIZE, 3), jnp.uint8), "position": jnp.arange(ROWS)}
    student = views.view(jax.random.key(1), fields, WIDE)
    plain, _ = labels(trust(), identity(), together=False)
    turned, _ = labels(trust(), student, together=False)
    mirrored = np.asarray(student.mirrored)
    assert 0 < mirrored.sum() < ROWS
    points = np.array(affine.apply(student.matrix, plain.found.points))
    by_depth = np.array(plain.found.depths)
    points[mirrored], by_depth[mirrored] = points[mirrored][:, [2, 1, 0]], by_depth[mirrored][:, [2, 1, 0]]
    np.testing.assert_allclose(turned.found.points, points, atol=1e-3)
    np.testing.assert_allclose(turned.found.depths, by_depth, atol=1e-5)
    # A length of 1 is as many pixels longer as the view magnifies.
    magnified = np.sqrt(np.abs(np.linalg.det(np.asarray(student.matrix)[:, :, :2])))
    clear = ~mirrored  # of others, another bone is of length 1
    ratio = np.asarray(turned.pixels / plain.pixels)[clear]
    np.testing.assert_allclose(ratio, magnified[clear], rtol=0.02)


def test_a_loss_of_what_is_right_is_nothing_and_of_what_is_not_trusted_too() -> None:
    found, _ = labels(trust(), identity(), together=True)
    right = dataclasses.replace(found.found)
    maps = jnp.log(jnp.maximum(found.maps, 1e-9))

    def value(points: depths.Found) -> jax.Array:
        kl = lambda target, own: jnp.zeros(target.shape[::3])  # noqa: E731
        return trusted.loss(maps, points, found, of_maps=kl, mean=lambda v, m: jnp.mean(v), weight=1.0)[0]

    assert float(value(right)) == 0
    away = dataclasses.replace(right, depths=right.depths + jnp.where(found.found_mask, 0.0, 5.0))
    assert float(value(away)) == 0
    assert float(value(dataclasses.replace(right, depths=right.depths + 0.5))) == pytest.approx(0.25, rel=1e-4)


@functools.cache
def hands(style: str, count: int = 48) -> jax.Array:
    """Right hands of the embedded data set, in metres."""
    source = EmbeddedSource(kind="hand", style=style, split="train", size=8 * count)
    return jnp.asarray([source[8 * i].get("keypoints3d") for i in range(count)])


def test_hands_are_told_apart_and_hardly_corrected_where_they_are_possible() -> None:
    """Statistics of hands of one domain let most hands of the other pass."""
    body = anatomy.body_of(HAND21)
    assert body.hand

    @jax.jit
    def made(source: jax.Array, target: jax.Array) -> tuple[jax.Array, ...]:
        found = body.initial()
        for flip in (1.0, -1.0):
            found = body.updated(found, source * jnp.asarray([[[flip, 1.0, 1.0]]]), jnp.ones(source.shape[:2], bool))
        unit = target / lifting.bone_length(target, body.reference.bone)[:, None, None]
        left = unit * jnp.asarray([[[-1.0, 1.0, 1.0]]])
        broken = unit.at[:, 7].multiply(1.5)
        return (
            anatomy.length(found),
            jnp.mean(anatomy.is_left(unit)),
            jnp.mean(anatomy.is_left(left)),
            *(jnp.linalg.norm(body.corrected(pose, found) - pose, axis=-1) for pose in (unit, left, broken)),
        )

    length, wrong, right, moved, of_left, of_broken = made(hands("studio"), hands("street"))
    truth = np.asarray(hands("studio"))
    expected = np.linalg.norm(truth[:, body.reference.bone[0]] - truth[:, body.reference.bone[1]], axis=-1).mean()
    assert float(length) == pytest.approx(expected, rel=1e-4)
    assert float(wrong) < 0.05
    assert float(right) > 0.95
    assert float(jnp.median(moved)) < 0.05
    np.testing.assert_allclose(of_left, moved, atol=1e-3)
    assert float(jnp.median(of_broken[:, 7])) > 0.5
