"""`released` of the mean teacher against numbers of UniFrame's released code.

`goldens/uniframe.npz` holds what one call of the unmodified `train` of `train_human.py` (VisionLearningGroup/
UDA_PoseEstimation at baf85f1) left behind, with torch 2.13 on CPU in float64 and without a style network: the network
of `shallow.py`, 32 pixels, maps of 8, sigma 1, a moving average of 0.9, plain gradient descent, labels by its
`generate_target`. Images and weights are `goldens/formula.py`'s, views and keypoints those below. What `train` calls of
torchvision, the affine map of a tensor by nearest pixels, was made of torch's `grid_sample`. In "still", nothing is
moved, one image is empty, half of another, and one joint's maps are negative; "odd" has nine joints, which the share
divides into four and five. `RECTANGLES` were read off what the same call did to images when it covered keypoints.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shallow
from tiny import GRID, NONE, SIZE, K, drawn_as, make_batch, make_task

from jaxpose.losses import heatmap
from jaxpose.ops import augment, heatmaps
from jaxpose.recipes import inputs, mean_teacher, teaching, views
from jaxpose.recipes.stage import State, Task

NETWORKS = dataclasses.replace(shallow.NETWORKS, coding=inputs.RELEASED)

# Degrees, scale, shift in pixels and degrees of shear of each image; no place is near the middle between two pixels.
STILL = [(0, 1, 0, 0, 0)]
VIEWS = {
    "turned": {
        "stu": [
            (17.3, 0.83, 3.1, -2.3, 29.1),
            (-171.7, 1.29, -1.37, 4.61, -12.7),
            (0, 1, 9.13, 6.71, 0),
            (88.9, 0.61, -7.77, 0.93, -29.3),
        ],
        "tea": [
            (-58.1, 1.21, -0.87, 1.91, -21.3),
            (123.4, 0.67, 5.23, -4.19, 28.7),
            (179.3, 1.03, 12.7, -9.41, 3.1),
            *STILL,
        ],
    },
    "still": {"stu": 4 * STILL, "tea": 4 * STILL},
    "odd": {
        "stu": [(33.3, 1.1, 1.3, 2.9, -6.1), (-61.2, 0.9, 0.7, -3.3, 17.9), (12.1, 0.71, -5.1, 2.2, 22.3)],
        "tea": [(-5.5, 0.95, -2.3, 1.1, 30), (71.9, 1.27, 3.3, 0.6, -27.1), (140.2, 0.8, 0.4, -0.9, -14.9)],
    },
}
# On and off the borders of the image and of the map, and 1 for seen.
KEYPOINTS = [
    [[0, 0], [30.1, 5], [29.9, 12]],
    [[-2.5, 9], [33, 3], [-1.9, -1.9]],
    [[15, -6.1], [7.3, 8.2], [29.9, 30.2]],
    [[12, 40], [-20, 4], [2, 2]],
]
VISIBLE = [[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]]
# The peak of a map of 8 (x, y), and the rows and columns of 32 that a patch of 8 around it covers.
RECTANGLES = {
    (0, 0): (0, 4, 0, 4),
    (7, 0): (0, 4, 24, 32),
    (7, 7): (24, 32, 24, 32),
    (3, 4): (12, 20, 8, 16),
    (0, 5): (16, 24, 0, 4),
    (6, 1): (0, 8, 20, 28),
    (1, 7): (24, 32, 0, 8),
}


@functools.cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "goldens" / "uniframe.npz") as stored:
        return {name.removeprefix(f"{case}/"): stored[name] for name in stored if name.startswith(f"{case}/")}


def images(case: str, name: str, rows: int) -> jax.Array:
    made = shallow.images(f"{case}.{name}", rows)
    if (case, name) == ("still", "tea"):
        made[0], made[1, :, :12] = 0, 0
    return jnp.asarray(made, jnp.float32)


def matrices(draws: list[tuple[float, ...]]) -> jax.Array:
    made = []
    for degrees, scale, x, y, lean in draws:
        turn = scale * np.exp(1j * np.deg2rad(degrees))
        linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
        linear = linear @ np.array([[1, -np.tan(np.deg2rad(lean))], [0, 1]])
        middle = np.full(2, (SIZE - 1) / 2)
        made.append(np.column_stack([linear, middle + np.array([x, y]) - linear @ middle]))
    return jnp.asarray(np.stack(made), jnp.float32)


@functools.cache
def stepped(case: str) -> tuple[State, dict[str, jax.Array]]:
    """The state and the metrics after one step under the preset."""
    rows = len(VIEWS[case]["stu"])
    settings = dataclasses.replace(
        mean_teacher.released_settings(), decay=0.9, style_probability=0.0, cover_probability=0.0
    )
    stage = mean_teacher.adapt(make_task(), shallow.config(settings), NETWORKS, settings)
    start, teacher = stage.init(jax.random.key(0), shallow.state("student")), shallow.state("teacher").params
    if case == "still":
        bias = teacher["head"]["conv"]["bias"]
        teacher["head"]["conv"]["bias"] = bias - jnp.asarray([0.0, 6.0, 0.0])
    start = dataclasses.replace(start, extra={"teacher": {"params": teacher, "stats": start.stats}})
    # In the order in which the step asks for them.
    given = iter(
        [
            (images(case, "source", rows), matrices(rows * STILL)),
            (images(case, "tea", rows), matrices(VIEWS[case]["tea"])),
            (images(case, "stu", rows), matrices(VIEWS[case]["stu"])),
        ]
    )
    batch = {
        "source": {
            "image": jnp.zeros((rows, SIZE, SIZE, 3), jnp.uint8),
            "keypoints": jnp.asarray(KEYPOINTS[:rows], jnp.float32),
            "visible": 2 * jnp.asarray(VISIBLE[:rows], jnp.uint8),
            "position": jnp.arange(rows),
        },
        "target": {"image": jnp.zeros((rows, SIZE, SIZE, 3), jnp.uint8), "position": jnp.arange(rows)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "random_cuts", lambda *_: None)
        patch.setattr(augment, "augment", lambda *_: drawn_as(*next(given)))
        return jax.jit(stage.step)(start, batch, jax.random.key(0))


def taught(maps: jax.Array, view: views.View, task: Task) -> teaching.PseudoLabels:
    """What the preset makes of maps where teacher and student have one view."""
    align = None

    @jax.jit
    def compiled(maps: jax.Array) -> dict[str, jax.Array]:
        nonlocal align
        lesson = vars(teaching.in_the_crop(maps, view, view, 0.5, NETWORKS, task))
        align = lesson["align"]
        return {name: value for name, value in lesson.items() if name != "align"}

    values = compiled(maps)
    assert align is not None
    return teaching.PseudoLabels(**values, align=jax.jit(align))


@pytest.mark.parametrize("case", VIEWS)
def test_losses_and_masks_are_those_of_the_released_code(case: str) -> None:
    metrics, expected = stepped(case)[1], golden(case)
    assert float(metrics["loss/source"]) == pytest.approx(float(expected["loss_source"]), rel=1e-5)
    # There, the loss on pseudo-labels is of whole squares and has weight 1.
    assert 2 * float(metrics["loss/target"]) == pytest.approx(float(expected["loss_target"]), rel=1e-5)
    assert mean_teacher.released_settings().weight == 2.0
    assert float(metrics["pseudo_labels"]) == pytest.approx(expected["mask"].mean())
    assert float(metrics["confidence"]) == pytest.approx(expected["confidence"].mean(), rel=1e-5)


@pytest.mark.parametrize("case", VIEWS)
def test_student_and_teacher_become_those_of_the_released_code(case: str) -> None:
    after, expected = stepped(case)[0], golden(case)
    teacher = after.extra["teacher"]
    for owner, params in (("student", after.params), ("teacher", teacher["params"])):
        for name, found in shallow.as_torch(params).items():
            np.testing.assert_allclose(found, expected[f"{owner}.{name}"], atol=1e-6, err_msg=f"{owner}.{name}")
    # torch's running variance is the unbiased one; source and target move the student's in turn.
    many = 64 * len(VIEWS[case]["stu"])
    for owner, stats, left in (("student", after.stats, 0.81), ("teacher", teacher["stats"], 0.9)):
        bn = stats["backbone"]["bn"]
        np.testing.assert_allclose(bn["mean"], expected[f"{owner}.bn.running_mean"], atol=1e-6)
        variance = left + (bn["var"] - left) * many / (many - 1)
        np.testing.assert_allclose(variance, expected[f"{owner}.bn.running_var"], atol=1e-6)


def test_patches_lie_where_the_released_code_puts_them() -> None:
    peaks = np.array(list(RECTANGLES), np.float32)
    n, side = len(peaks), 8
    images = shallow.images("covered", n).astype(np.float32)
    maps = np.zeros((n, 8, 8, K), np.float32)
    maps[np.arange(n), peaks[:, 1].astype(int), peaks[:, 0].astype(int), 1] = 1

    @jax.jit
    def covered(maps: jax.Array, images: jax.Array) -> jax.Array:
        still = views.View(images=None, matrix=matrices(n * STILL), mirrored=jnp.zeros(n, bool))
        lesson = teaching.in_the_crop(maps, still, still, 0.5, NETWORKS, make_task())
        sure = lesson.known & (lesson.confidence >= 0.9)
        key, rows = jax.random.key(0), jnp.arange(n)
        return views.occluded(key, images, rows, lesson.points, sure, side=side, probability=1.0)

    found = covered(jnp.asarray(maps), jnp.asarray(images))
    for image, after, (top, bottom, left, right) in zip(images, np.asarray(found), RECTANGLES.values(), strict=True):
        rows, columns = (np.flatnonzero((image != after).any((axis, 2))) for axis in (1, 0))
        assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (top, bottom, left, right)
        patch = after[top:bottom, left:right]
        windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape)[:, :, 0]
        assert (windows == patch).all((2, 3, 4)).any()


def test_what_may_be_covered_is_sure_whether_it_is_a_label_or_not() -> None:
    """The released code covered just these of two images' joints in 60 calls, at 0.9 and with a share of one half."""
    sure = {(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 2)}
    confidence = np.array([[0.95, 0.93, 0.2, 0.91], [0.99, 0.98, 0.97, 0.5]], np.float32)
    corners = jnp.asarray([[[1.0, 1], [6, 1], [1, 6], [6, 6]]] * 2)
    maps = heatmaps.gaussian_maps(corners, (8, 8), sigma=0.3) * confidence[:, None, None]
    still = views.View(images=None, matrix=matrices(2 * STILL), mirrored=jnp.zeros(2, bool))
    four = dataclasses.replace(make_task().skeleton, joints=("a", "b", "c", "d"))
    lesson = taught(maps, still, make_task(skeleton=four))
    candidates = lesson.known & (lesson.confidence >= mean_teacher.released_settings().cover_confidence)
    assert {(int(i), int(j)) for i, j in np.argwhere(candidates)} == sure
    assert int(lesson.mask.sum()) == 4


def test_maps_that_are_all_alike_are_no_labels() -> None:
    """As there: no confidence is above that in the middle, the loss is 0, and nothing is sure enough to cover."""
    view = views.View(images=None, matrix=matrices(VIEWS["turned"]["tea"]), mirrored=jnp.zeros(4, bool))
    lesson = taught(jnp.zeros((4, 8, 8, K)), view, make_task())
    assert not bool(lesson.mask.any())
    assert not bool((lesson.confidence >= 0.9).any())

    def loss(maps: jax.Array) -> jax.Array:
        return heatmap.mean_with_zeros(heatmap.l2(lesson.maps, lesson.align(maps)), lesson.mask)

    value, gradient = jax.value_and_grad(loss)(jnp.ones((4, 8, 8, K)))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_mirrored_views_are_brought_back_with_their_names() -> None:
    """Which the released code does not have."""
    names = ("left", "right", "middle")
    skeleton = dataclasses.replace(make_task().skeleton, joints=names, flips=(("left", "right"),))
    task = make_task(skeleton=skeleton)
    settings = dataclasses.replace(NONE, mirror=0.5, translation=0.1)
    crop = jnp.asarray([[[8.0, 14], [20, 9], [14, 22]]] * 4)

    @jax.jit
    def brought_back(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        view = views.view(jax.random.key(1), {"image": images, "position": jnp.arange(4)}, settings)
        drawn = augment.Drawn(matrix=view.matrix, mirrored=view.mirrored, colours=None, noise=None)
        moved = augment.keypoints_of(drawn, crop, skeleton.flip_permutation)
        maps = heatmaps.gaussian_maps(heatmaps.image_to_heatmap(moved, 4.0), (8, 8), sigma=1.0)
        back = views.on_crop(maps, view, GRID, task)
        return heatmaps.heatmap_to_image(heatmaps.argmax_points(back), 4.0), view.mirrored

    found, mirrored = brought_back(make_batch(0)["source"]["image"])
    assert 0 < int(mirrored.sum()) < 4
    np.testing.assert_allclose(found, crop, atol=4.1)
