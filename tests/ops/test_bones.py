"""Bones as pictures and their motion, against numerical integration and images that were really moved."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxpose.ops import bones

SIZE = (41, 57)
DECAY = 0.04


def one(x: float, y: float) -> jax.Array:
    return jnp.asarray([[[x, y]]], jnp.float32)


def segment(x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
    """Distance to a bone along x around the origin."""
    return np.hypot(np.maximum(np.abs(x) - length / 2, 0), y)


@pytest.mark.parametrize("length", [0.0, 0.1, 0.5, 1.2])
@pytest.mark.parametrize("decay", [0.01, 0.04, 0.2])
def test_moments_are_the_integrals(length: float, decay: float) -> None:
    def integral(weight: Callable[[float, float], float]) -> float:
        # By quadrants, strip and disc apart, each smooth.
        strip = integrate.dblquad(
            lambda y, x: weight(x, y) * np.exp(-y / decay), 0, length / 2, 0, 40 * decay, epsrel=1e-9
        )[0]
        disc = integrate.dblquad(
            lambda r, t: r * weight(length / 2 + r * np.cos(t), r * np.sin(t)) * np.exp(-r / decay),
            *(0, np.pi / 2, 0, 40 * decay),
            epsrel=1e-9,
        )[0]
        return 4 * (strip + disc)

    found = [float(x[0, 0]) for x in bones.moments(jnp.full((1, 1), length), decay)]
    expected = [integral(lambda x, y: 1.0), integral(lambda x, y: x * x), integral(lambda x, y: y * y)]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_maps_fade_with_the_distance_to_the_bone() -> None:
    found = np.asarray(bones.bone_maps(one(-0.5, 0.25), one(0.5, 0.25), SIZE, decay=DECAY))[0, :, :, 0]
    x, y = np.meshgrid(np.linspace(-1, 1, SIZE[1]), np.linspace(-1, 1, SIZE[0]))
    np.testing.assert_allclose(found, np.exp(-segment(x, y - 0.25, 1.0) / DECAY), atol=0.03)


def test_frames_measured_on_a_map_are_those_in_closed_form() -> None:
    """Where the map's border cuts nothing off; at any angle, to either side."""
    size = (161, 161)
    for angle in np.linspace(0.1, 2 * np.pi + 0.1, 7, endpoint=False):
        along = 0.35 * np.array([np.cos(angle), np.sin(angle)])
        start, end = (one(*(0.1 + sign * along)) for sign in (-1, 1))
        closed = bones.frames(start, end, decay=DECAY, scales=bones.by_moments)
        measured = bones.frames_of_maps(bones.bone_maps(start, end, size, decay=DECAY), start, end)
        np.testing.assert_allclose(measured[0, 0], closed[0, 0], atol=4e-3)
        matrix = np.asarray(closed[0, 0, :2, :2])
        assert np.linalg.det(matrix) > 0


def test_the_closed_form_is_the_singular_value_decomposition() -> None:
    start, end = one(-0.3, -0.4), one(0.2, 0.3)
    frame = np.asarray(bones.frames(start, end, decay=DECAY, scales=bones.by_moments))[0, 0, :2, :2]
    picture = np.asarray(bones.bone_maps(start, end, (301, 301), decay=DECAY), np.float64)[0, :, :, 0]
    offsets = np.asarray(bones.places((301, 301)), np.float64) - [-0.05, -0.05]
    matrix = np.einsum("hw,hwx,hwy->xy", picture, offsets, offsets) * (2 / 300) ** 2
    u, s, _ = np.linalg.svd(matrix)
    np.testing.assert_allclose(np.linalg.norm(frame, axis=0), np.sqrt(s), rtol=2e-2)
    np.testing.assert_allclose(np.abs(np.sum(frame / np.sqrt(s) * u, axis=0)), 1, atol=2e-2)


def moved(picture: jax.Array, base: jax.Array, driving: jax.Array) -> np.ndarray:
    """A picture of the base bone as the driving frame shows it, everything being that bone."""
    masks = jnp.zeros((1, *SIZE, 2)).at[..., 1].set(1.0)
    return np.asarray(bones.sample(picture, bones.sampling_grid(bones.motion(base, driving), masks)))


@pytest.mark.parametrize("scales", [bones.by_ends, bones.by_moments, bones.by_normalized_moments])
@pytest.mark.parametrize("change", ["nothing", "translation", "turn by 150 degrees", "length"])
def test_pixels_of_a_bone_go_where_it_goes(scales: bones.Scales, change: str) -> None:
    start, end = np.array([-0.3, -0.1]), np.array([0.1, 0.2])
    middle, half = (start + end) / 2, (end - start) / 2
    angle = np.radians(150) if "turn" in change else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    there = middle + ([0.3, 0.25] if change == "translation" else [0.0, 0.0])
    half = turn @ half * (1.5 if change == "length" else 1.0)
    ends = [(one(*start), one(*end)), (one(*(there - half)), one(*(there + half)))]
    pictures = [bones.bone_maps(*pair, SIZE, decay=DECAY) for pair in ends]
    base, driving = (bones.frames(*pair, decay=DECAY, scales=scales) for pair in ends)
    expected, right, printed = pictures[1], moved(pictures[0], base, driving), moved(pictures[0], driving, base)
    if change == "nothing":
        np.testing.assert_allclose(right, expected, atol=1e-5)
        return
    wrong = [float(np.mean(np.abs(found - expected)) / np.mean(expected)) for found in (right, printed)]
    if change == "length":  # which stretches the round ends, too, and moments do not take ends to ends
        assert wrong[0] < min(0.25 if scales is bones.by_ends else 0.5, wrong[1])
    else:
        assert wrong[0] < 0.12
        assert wrong[1] > 1


def test_by_ends_the_ends_come_to_lie_on_the_ends() -> None:
    ends = [(one(-0.3, -0.1), one(0.1, 0.2)), (one(0.5, 0.5), one(-0.4, 0.6))]
    base, driving = (bones.frames(*pair, decay=DECAY) for pair in ends)
    where = bones.motion(base, driving)[0, 0]
    for there, here in zip(ends[1], ends[0], strict=True):
        point = np.append(np.asarray(there)[0, 0], 1.0)
        np.testing.assert_allclose(where @ point, np.append(np.asarray(here)[0, 0], 1.0), atol=1e-5)


@pytest.mark.parametrize("size", [(41, 57), (20, 28), (7, 5)])
def test_nothing_moves_an_image_exactly_nowhere(size: tuple[int, int]) -> None:
    """Also by a grid of another size, up to its border."""
    image = jax.random.uniform(jax.random.key(0), (2, *SIZE, 3))
    grid = bones.resize(jnp.broadcast_to(jnp.asarray(bones.places(size)), (2, *size, 2)), SIZE)
    np.testing.assert_allclose(bones.sample(image, grid), image, atol=2e-5)


def test_masks_choose_whose_motion_a_place_follows() -> None:
    frame = bones.frames(one(0, -0.5), one(0, 0.5), decay=DECAY)
    there = bones.frames(one(0.5, -0.5), one(0.5, 0.5), decay=DECAY)
    masks = jnp.zeros((1, *SIZE, 2)).at[:, :, :30, 0].set(1.0).at[:, :, 30:, 1].set(1.0)
    grid = np.asarray(bones.sampling_grid(bones.motion(frame, there), masks))[0]
    own = bones.places(SIZE)
    np.testing.assert_allclose(grid[:, :30], own[:, :30], atol=1e-6)
    np.testing.assert_allclose(grid[:, 30:], own[:, 30:] - [0.5, 0], atol=1e-6)


def test_pixels_outside_the_image_are_black() -> None:
    grid = jnp.full((1, 2, 2, 2), 1.5)
    assert not bones.sample(jnp.ones((1, *SIZE, 1)), grid).any()


@pytest.mark.parametrize("end", [(0.1, 0.2), (0.1 + 1e-5, 0.2), (0.1 + 2e-3, 0.2)], ids=["point", "end-on", "short"])
@pytest.mark.parametrize("scales", [bones.by_ends, bones.by_moments, bones.by_normalized_moments])
def test_gradients_of_bones_without_length_are_finite(end: tuple[float, float], scales: bones.Scales) -> None:
    image = jax.random.uniform(jax.random.key(1), (1, *SIZE, 3))

    def loss(points: jax.Array) -> jax.Array:
        start, other = points[None, :1], points[None, 1:]
        base = bones.frames(one(-0.2, 0.0), one(0.4, 0.1), decay=DECAY, scales=scales)
        drawn = bones.bone_maps(start, other, SIZE, decay=DECAY)
        grid = bones.sampling_grid(
            bones.motion(base, bones.frames(start, other, decay=DECAY, scales=scales)),
            jnp.concatenate([1 - drawn, drawn], axis=-1),
        )
        measured = bones.frames_of_maps(drawn, start, other)
        return jnp.sum(bones.sample(image, grid)) + jnp.sum(measured)

    value, slope = jax.value_and_grad(loss)(jnp.asarray([(0.1, 0.2), end], jnp.float32))
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(slope).all())


def test_units_and_pixels_are_inverse() -> None:
    points = jnp.asarray([[0.0, 0.0], [56.0, 40.0], [28.0, 20.0]])
    np.testing.assert_allclose(bones.unit(points, SIZE), [[-1, -1], [1, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(bones.pixels(bones.unit(points, SIZE), SIZE), points, atol=1e-5)
