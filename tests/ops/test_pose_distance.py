"""Distances between sets of poses against NumPy and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from jaxpose.ops import pose_distance

TREE = np.array([[0, 1], [1, 2], [1, 3]], np.int32)


def poses(count: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    rest = np.array([[0, 0], [0, 1], [1, 2], [-1, 2]])
    return (rest + spread * np.random.default_rng(seed).normal(size=(count, 4, 2))).astype(np.float32)


def of(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


def test_normalised_poses_have_no_place_and_no_size_in_the_image() -> None:
    found = np.asarray(pose_distance.normalized(of(poses(5))))
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose((found**2).sum((1, 2)) / 4, 1, rtol=1e-5)
    np.testing.assert_allclose(pose_distance.normalized(of(20 * poses(5) + 7)), found, atol=1e-5)
    np.testing.assert_array_equal(pose_distance.normalized(jnp.ones((1, 4, 2))), 0)


def test_mmd_is_the_formula() -> None:
    x, y = (poses(n, n).reshape(n, -1).astype(np.float64) for n in (6, 9))
    width = np.median(distance.pdist(y, "sqeuclidean"))
    assert float(pose_distance.squared_width(of(poses(9, 9)))) == pytest.approx(width, rel=1e-5)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = distance.cdist(a, b, "sqeuclidean")
        return sum(np.exp(-squared / (2 * factor * width)) for factor in (0.25, 0.5, 1, 2, 4))

    within = [(kernel(a, a).sum() - 5 * len(a)) / (len(a) * (len(a) - 1)) for a in (x, y)]
    found = pose_distance.mmd(of(poses(6, 6)), of(poses(9, 9)), squared_width=width)
    assert float(found) == pytest.approx(sum(within) - 2 * kernel(x, y).mean(), rel=1e-4)


@pytest.mark.parametrize("count", [7, 12])
def test_sliced_wasserstein_is_scipys_along_every_direction(count: int) -> None:
    key = jax.random.key(3)
    axes = np.asarray(jax.random.normal(key, (8, 10)), np.float64)
    axes /= np.sqrt((axes**2).sum(0))
    x, y = (poses(n, n).reshape(n, -1).astype(np.float64) @ axes for n in (count, 12))
    expected = np.mean([stats.wasserstein_distance(x[:, i], y[:, i]) for i in range(10)])
    found = pose_distance.sliced_wasserstein(of(poses(count, count)), of(poses(12, 12)), key, directions=10)
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_sets_are_as_far_apart_as_one_was_moved() -> None:
    """Along a unit vector u, a shift of all poses by s is one of s . u, which no other plan of transport undercuts."""
    x, key = of(poses(10)), jax.random.key(0)
    moved = x.at[:, 2, 0].add(0.5)
    axes = np.asarray(jax.random.normal(key, (8, 50)), np.float64)
    expected = np.abs(0.5 * axes[4] / np.linalg.norm(axes, axis=0)).mean()
    found = pose_distance.sliced_wasserstein(x, moved, key, directions=50)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(pose_distance.sliced_wasserstein(x, x[::-1], key)) == pytest.approx(0, abs=1e-6)


def test_both_distances_order_distributions() -> None:
    """What has the target's spread is nearer to it than what has not."""
    target, near, far = (pose_distance.normalized(of(poses(150, i, s))) for i, s in enumerate((0.3, 0.3, 0.6)))
    mmd = functools.partial(pose_distance.mmd, squared_width=pose_distance.squared_width(target))
    sliced = functools.partial(pose_distance.sliced_wasserstein, key=jax.random.key(0))
    assert abs(float(mmd(near, target))) < 0.1 * float(mmd(far, target))
    assert float(sliced(near, target)) < 0.5 * float(sliced(far, target))


def test_histograms_are_numpys() -> None:
    x = poses(60).astype(np.float64)
    along = x[:, TREE[:, 1]] - x[:, TREE[:, 0]]
    lengths = np.minimum(np.linalg.norm(along, axis=-1), 2.999)
    assert (np.linalg.norm(along, axis=-1) > 3).any()
    angles = np.arctan2(along[..., 1], along[..., 0])
    found = pose_distance.length_histograms(of(x), TREE, bins=7), pose_distance.angle_histograms(of(x), TREE, bins=8)
    for values, bounds, bins, shares in ((lengths, (0, 3), 7, found[0]), (angles, (-np.pi, np.pi), 8, found[1])):
        expected = [np.histogram(values[:, bone], bins, bounds)[0] / 60 for bone in range(3)]
        np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_bones_without_a_length_have_no_direction_and_half_a_turn_is_in_a_bin() -> None:
    left = np.zeros((2, 4, 2))
    left[0, 1, 0] = -1  # bone 0 of the first pose points to -x, at pi; all others have no length but 1 and 2
    found = np.asarray(pose_distance.angle_histograms(of(left), TREE, bins=4))
    np.testing.assert_array_equal(found[0], [1, 0, 0, 0])
    np.testing.assert_array_equal(found[1:], [[0, 0, 1, 0]] * 2)
    nothing = pose_distance.angle_histograms(jnp.zeros((2, 4, 2)), TREE, bins=4)
    np.testing.assert_array_equal(nothing, 0)


def test_total_variation_is_the_share_that_moves() -> None:
    before, after = of(np.array([[0.5, 0.5, 0], [1, 0, 0]])), of(np.array([[0.25, 0.5, 0.25], [0, 0, 1]]))
    np.testing.assert_allclose(pose_distance.total_variation(before, after), [0.25, 1])
