"""`released` of CC-SSL against numbers of its released code.

`goldens/cc_ssl.npz` holds what functions of JitengMu/Learning-from-Synthetic-Animals at 1ff5b52 returned, with torch
2.13 on CPU: `prediction_check` (in which one line that NumPy 2 refuses takes its only element) of maps that all five
views share, its normal numbers zero; `transform` and `draw_labelmap` of the keypoints and points below; and
`JointsMSELoss` of `shallow.py`'s network on both domains, whose gradients, the target's ten times, made one step of
plain descent in float64. Images, maps and weights are `goldens/formula.py`'s.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shallow
from goldens import formula
from tiny import SIZE, K, drawn_as, make_task

from jaxpose.ops import augment
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import cc_ssl, consensus, views
from jaxpose.recipes.stage import State

# Peaks of maps of 64: corners, borders, between pixels.
PLACES = [(0, 0), (63, 63), (0, 30), (30, 0), (63, 9), (1, 1), (62, 62), (20.3, 40.8), (33.5, 12.5), (5.1, 5.9)]
PLACES += [(40, 50.49), (10, 10), (22, 33), (61.8, 3.2), (45.25, 45.75), (31, 32)]
# From the image's left and upper edge, on and off the borders of image and map.
KEYPOINTS = [
    [[0, 0.1], [31.9, 5], [3.99, 4]],
    [[-3, 9], [50.1, 3], [-20, -1]],
    [[15, 47.9], [7.3, 8.2], [44.5, 30.2]],
    [[12, -15.9], [-16.4, 4], [2, 2]],
]
VISIBLE = [[1, 2, 1], [2, 2, 2], [1, 2, 2], [2, 2, 0]]
POINTS = [
    [[2, 3], [18, 30], [9, 1]],
    [[14, 14], [22, 6], [30, 29]],
    [[1, 2], [2, 1], [17, 25]],
    [[10, 11], [25, 3], [6, 19]],
]
CONFIDENCE = [[0.9, 0.2, 0.35], [0.5, 0.51, 0.52], [0, 0, 0.97], [0.1, -0.2, 0.6]]


@functools.cache
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "goldens" / "cc_ssl.npz") as stored:
        return dict(stored)


def test_points_are_read_off_averaged_maps_like_there() -> None:
    maps = 0.05 * formula.numbers("ccssl.maps", (18, 64, 64))
    y, x = np.mgrid[:64, :64]
    for joint, (px, py) in enumerate(PLACES):
        maps[joint] += np.exp(-((x - px) ** 2 + (y - py) ** 2) / 2)
    maps[16] = 0.25  # a tie everywhere
    maps[17] = -1 - maps[17] ** 2
    given = jnp.asarray(maps.transpose(1, 2, 0)[None], jnp.float32)
    settings, grid = cc_ssl.released_settings(), Grid(size=64, stride=4.0, sigma=1.0)
    still = dataclasses.replace(settings.random_views, scale_deviation=0.0, rotation_deviation=0.0)

    @jax.jit
    def read(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        def predict(images: jax.Array) -> jax.Array:
            return jnp.broadcast_to(settings.maps(given), (images.shape[0], 64, 64, 18))

        return consensus.of_views(jax.random.key(0), images, jnp.zeros(1, int), grid, still, predict, settings.read)

    points, confidence = read(jnp.zeros((1, 256, 256, 3), jnp.uint8))
    np.testing.assert_allclose(confidence[0], golden()["confidence"], atol=1e-6)
    # There, the first pixel is 1, and its left edge is meant; a joint without anything positive is not read.
    np.testing.assert_allclose(points[0, :17], golden()["points"][:17] - 1.5, atol=1e-4)
    assert float(confidence[0, 17]) < 0


def test_views_show_a_part_of_the_image_of_that_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale of 1.25 shows 1.25 times as much, as `get_transform` does, so that things are smaller in the view."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.broadcast_to(jnp.asarray([1.0, 0.0]), shape))
    matrix = np.asarray(consensus._views(jax.random.key(0), jnp.arange(2), SIZE, consensus.RandomViews()))
    np.testing.assert_allclose(matrix[:, 1:, 0, 0], 0.8, rtol=1e-6)
    np.testing.assert_allclose(matrix[:, 0, 0, 0], 1.0, rtol=1e-6)


@functools.cache
def stepped() -> tuple[State, dict[str, jax.Array], list[Any]]:
    """The state and the metrics after one step of the second round, and the labels of both domains."""
    settings = cc_ssl.released_settings()
    task = make_task(sizes={"target": 4})
    drawn, coding = [], settings.coding

    def draw(*args: Any) -> Any:
        drawn.append(coding.draw(*args))
        return drawn[-1]

    networks = dataclasses.replace(shallow.NETWORKS, coding=dataclasses.replace(coding, draw=draw))
    stages = (
        f(task, shallow.config(settings), networks, settings, i) for f, i in ((cc_ssl.relabel, 0), (cc_ssl.adapt, 1))
    )
    relabel, adapt = stages
    start = relabel.init(jax.random.key(0), shallow.state("student"))
    memory = {
        "points": jnp.asarray(POINTS, jnp.float32) - 0.5,
        "confidence": jnp.asarray(CONFIDENCE, jnp.float32),
    }
    start = adapt.init(jax.random.key(0), dataclasses.replace(start, extra=start.extra | memory))
    eye = jnp.broadcast_to(jnp.eye(2, 3)[None], (4, 2, 3))
    given = iter(jnp.asarray(shallow.images(f"ccssl.{name}", 4), jnp.float32) for name in ("source", "target"))
    blank = {"image": jnp.zeros((4, SIZE, SIZE, 3), jnp.uint8), "position": jnp.arange(4)}
    keypoints, visible = jnp.asarray(KEYPOINTS, jnp.float32) - 0.5, jnp.asarray(VISIBLE, jnp.uint8)
    batch = {
        "source": blank | {"keypoints": keypoints, "visible": visible},
        "target": blank | {"index": jnp.arange(4)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "augment", lambda *_: drawn_as(next(given), eye))
        return jax.jit(lambda *given: (*adapt.step(*given), drawn))(start, batch, jax.random.key(0))


def test_labels_and_who_counts_are_those_of_the_released_code() -> None:
    (maps, mask), (_, chosen) = stepped()[2]
    np.testing.assert_array_equal(mask, golden()["mask_source"])
    np.testing.assert_array_equal(chosen, golden()["mask_target"])
    kept = np.where(np.asarray(mask)[:, None, None], maps, 0)
    np.testing.assert_allclose(kept.sum((1, 2)), golden()["mass"] * np.array(mask), atol=1e-5)
    np.testing.assert_array_equal(kept.reshape(4, -1, K).argmax(1), golden()["peak"] * np.array(mask))


def test_an_update_is_that_of_the_released_code() -> None:
    after, metrics, _ = stepped()
    for name in ("loss_source", "loss_target"):
        assert float(metrics[name.replace("_", "/")]) == pytest.approx(float(golden()[name]), rel=1e-5)
    for name, found in shallow.as_torch(after.params).items():
        np.testing.assert_allclose(found, golden()[name], atol=1e-6, err_msg=name)


def test_the_rounds_take_the_released_shares() -> None:
    """`CCSSL.py`: every tenth epoch the confidence at int(p N) of N sorted ones, with p = 1 - (epoch + 10) / 50."""
    settings = cc_ssl.released_settings()
    confidence = np.random.default_rng(0).permutation(np.linspace(0.01, 0.99, 300)).reshape(100, 3)
    for number, epoch in enumerate(range(0, 60, 10)):
        rank = int(max(1.0 - 0.02 * (epoch + 10), 0.2) * 301)
        there = confidence > np.sort(np.append(confidence, 0.0))[rank]
        threshold = views.share_threshold(jnp.asarray(confidence, jnp.float32), settings.share(number))
        assert abs(int((confidence > float(threshold)).sum()) - there.sum()) <= 1
    assert settings.rounds == 6


def test_a_previous_frame_without_confidence_is_not_followed() -> None:
    """As in `prediction_check`, whose maps can be negative."""
    points, tracked = jnp.zeros((1, 2, 2)), jnp.ones((1, 2, 2))
    moved, _ = consensus.temporally_consistent(
        points, jnp.asarray([[-0.5, -0.5]]), tracked, jnp.asarray([[-0.1, 0.1]]), jnp.ones((1, 2), bool)
    )
    np.testing.assert_array_equal(moved[0, :, 0], [0, 1])
