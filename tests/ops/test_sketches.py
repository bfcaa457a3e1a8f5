"""Pictures of skeletons against distances to segments, one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops import bones, sketches

TREE = np.array([[0, 1], [1, 2], [3, 1], [3, 4]], np.int32)
SIZE = (9, 12)
COLOURS = np.array([[1, 0, 0.5], [0.2, 1, 0], [0, 0.7, 1], [0.9, 0.9, 0.9]], np.float32)


def poses(seed: int = 0, count: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (count, 5, 2)).astype(np.float32)


def to_segment(place: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """By cases: before the start, behind the end, beside it."""
    length = np.linalg.norm(b - a)
    if length == 0:
        return float(np.linalg.norm(place - a))
    along = (place - a) @ (b - a) / length
    if along < 0 or along > length:
        return float(min(np.linalg.norm(place - a), np.linalg.norm(place - b)))
    (dx, dy), (x, y) = b - a, place - a
    return float(abs(dx * y - dy * x) / length)


def drawn(points: np.ndarray, colours: np.ndarray, size: tuple[int, int], decay: float) -> np.ndarray:
    picture = np.full((len(points), *size, colours.shape[1]), -1.0)
    for b, row, column in np.ndindex(len(points), *size):
        place = np.array([2 * column / (size[1] - 1) - 1, 2 * row / (size[0] - 1) - 1])
        for (i, j), colour in zip(TREE, colours, strict=True):
            d = np.sqrt(to_segment(place, *points[b].astype(np.float64)[[i, j]]) ** 2 + 1e-6)
            picture[b, row, column] = np.maximum(picture[b, row, column], 2 * np.exp(-d / decay) * colour - 1)
    return picture


@pytest.mark.parametrize("colours", [COLOURS, sketches.one_channel(4), sketches.coloured(4)])
def test_pictures_are_the_formula(colours: np.ndarray) -> None:
    found = sketches.sketches(jnp.asarray(poses()), TREE, SIZE, colours=colours, decay=0.2)
    np.testing.assert_allclose(found, drawn(poses(), colours, SIZE, 0.2), atol=1e-5)


def test_a_line_of_the_published_width() -> None:
    """At 128 pixels it falls to a half within 1.8 pixels."""
    across = jnp.asarray([[[-0.9, 0.0], [0.9, 0.0]]])
    tree, white = np.array([[0, 1]], np.int32), sketches.one_channel(1)
    rows = np.asarray(sketches.sketches(across, tree, (129, 129), colours=white))[0, :, 64, 0]
    assert rows[64] > 0.9
    assert rows[64 + 1] > 0 > rows[64 + 2]  # 2v - 1 of a half is 0
    np.testing.assert_allclose(rows, rows[::-1], atol=1e-5)


def reference(points: jax.Array) -> jax.Array:
    """All bones at once."""
    maps = bones.bone_maps(points[:, TREE[:, 0]], points[:, TREE[:, 1]], SIZE, decay=0.2)
    return 2 * jnp.max(maps[..., None] * COLOURS[None, None, None], axis=3) - 1


def test_gradients_are_those_of_all_bones_at_once() -> None:
    uneven = jnp.asarray(np.random.default_rng(1).normal(size=(2, *SIZE, 3)), jnp.float32)

    def slope(draw):
        return jax.jit(jax.grad(lambda points: jnp.sum(uneven * draw(points))))(jnp.asarray(poses()))

    found = slope(lambda points: sketches.sketches(points, TREE, SIZE, colours=COLOURS, decay=0.2))
    expected = slope(reference)
    assert np.abs(expected).min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_coincident_joints_are_dots_with_finite_gradients() -> None:
    """Also where they lie on a pixel's centre, and where all bones are one."""
    same = jnp.zeros((1, 5, 2))
    draw = functools.partial(sketches.sketches, tree=TREE, size=(9, 9), colours=COLOURS, decay=0.2)
    beside = jnp.broadcast_to((jnp.arange(9) > 5)[None, None, :, None].astype(jnp.float32), (1, 9, 9, 3))

    @jax.jit
    def slopes(weights):
        picture, pull = jax.vjp(draw, same)
        return picture, jax.vmap(pull)(jnp.stack(weights))[0]

    picture, (everywhere, right) = slopes([jnp.ones_like(beside), beside])
    np.testing.assert_allclose(picture, drawn(np.zeros((1, 5, 2)), COLOURS, (9, 9), 0.2), atol=1e-5)
    assert np.isfinite(everywhere).all()
    assert float(right[..., 0].sum()) > 0  # brighter there, if it were moved there


def test_nothing_is_as_large_as_pictures_times_bones() -> None:
    tree = np.stack([np.arange(14), np.arange(1, 15)], axis=1).astype(np.int32)
    draw = functools.partial(sketches.sketches, tree=tree, size=(32, 32), colours=sketches.coloured(14))
    traced = jax.make_jaxpr(jax.grad(lambda points: jnp.sum(draw(points) ** 2)))(jnp.zeros((4, 15, 2)))
    assert largest(traced.jaxpr) <= 4 * 32 * 32 * 4  # the channels, or the four slopes of one bone


def largest(jaxpr) -> int:
    """Numbers of the largest array of a program and the loops in it."""
    sizes = [v.aval.size for equation in jaxpr.eqns for v in equation.outvars]
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            sizes += [largest(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


def test_bones_have_different_full_colours() -> None:
    colours = sketches.coloured(14)
    assert len(np.unique(colours, axis=0)) == 14
    np.testing.assert_array_equal(colours.max(axis=1), 1)
    np.testing.assert_array_equal(colours.min(axis=1), 0)


def test_every_bone_needs_a_colour() -> None:
    with pytest.raises(ValueError, match="sketches: found 3 colours, expected 4, one per bone"):
        sketches.sketches(jnp.zeros((1, 5, 2)), TREE, SIZE, colours=sketches.coloured(3))
