"""Statistics of labelled poses, batch by batch, against those of all poses at once."""

import functools

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxpose.data.joints.skeletons import MPII16
from jaxpose.ops import pose_statistics, trees

TREE = trees.tree(MPII16.joints, MPII16.bones)
PALM_JOINTS = [0, 1, 5, 9, 13, 17]

add_lengths = jax.jit(functools.partial(pose_statistics.updated_lengths, tree=TREE))
add_palms = jax.jit(pose_statistics.updated_palm)


def test_lengths_are_those_of_all_labelled_bones() -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(96, 16, 3)) + 5 * np.arange(16)[:, None]
    mask = rng.uniform(size=(96, 16)) < 0.7
    mask[:, 0] = False
    mask[32:64] = False
    given = np.where(mask[..., None], poses, np.nan)
    statistics = pose_statistics.initial_lengths(TREE)
    for i in range(0, 96, 32):
        statistics = add_lengths(statistics, jnp.asarray(given[i : i + 32], jnp.float32), jnp.asarray(mask[i : i + 32]))
    found = np.asarray(pose_statistics.bounds(statistics, 2.0))
    assert found[0].tolist() == [0, np.inf]  # to a joint without labels
    for bone, (parent, child) in list(enumerate(TREE))[1:]:
        known = mask[:, parent] & mask[:, child]
        lengths = np.linalg.norm(poses[known, parent] - poses[known, child], axis=-1)
        expected = lengths.mean() + 2 * lengths.std() * np.array([-1, 1])
        np.testing.assert_allclose(found[bone], np.maximum(expected, 0), rtol=1e-4)
        assert float(statistics["count"][bone]) == known.sum()


def test_small_variances_keep_their_digits_over_many_batches() -> None:
    rng = np.random.default_rng(1)
    poses = np.zeros((64, 8, 16, 3))
    poses[..., MPII16.joints.index("head_top"), 1] = 10 + 0.01 * rng.normal(size=(64, 8))
    statistics = pose_statistics.initial_lengths(TREE)
    for batch in poses:
        statistics = add_lengths(statistics, jnp.asarray(batch, jnp.float32), jnp.ones((8, 16), bool))
    lengths = poses[..., MPII16.joints.index("head_top"), 1]
    np.testing.assert_allclose(np.sqrt(statistics["variance"][8]), lengths.std(), rtol=1e-2)


def gather(poses: np.ndarray, mask: np.ndarray, left: np.ndarray, size: int) -> dict[str, jax.Array]:
    statistics = pose_statistics.initial_palm()
    for i in range(0, len(poses), size):
        part = slice(i, i + size)
        given = jnp.asarray(np.where(mask[part, :, None], poses[part], np.nan), jnp.float32)
        statistics = add_palms(statistics, given, jnp.asarray(mask[part]), mirrored=jnp.asarray(left[part]))
    return statistics


def labelled_hands(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, hands.Bends]:
    """Left and right hands turned anyhow, some with a joint that is not labelled, and the last batch with none.

    Every third hand has straight fingers.
    """
    rng = np.random.default_rng(seed)
    neutral = np.array([[-20.0, -60.0], [-10.0, 0.0], [0.0, 85.0], [5.0, -85.0], [12.0, -5.0]])
    bends = hands.bends(seed, 128, lengths=hands.bounds(0), neutral=neutral)
    bends.flexion[::3, :, 1:] = 0
    poses, left = hands.posed(seed, bends) + noise * rng.normal(size=(128, 21, 3)), rng.uniform(size=128) < 0.5
    mask = np.ones((128, 21), bool)
    mask[::5, 7] = False
    mask[96:] = False
    return np.where(left[:, None, None], poses * [-1, 1, 1], poses), mask, left, bends


def test_of_one_palm_its_shape_is_found() -> None:
    """Whatever the hands' side and direction; never its mirror image."""
    poses, mask, left, _ = labelled_hands(2, 0.0)
    found = np.asarray(gather(poses, mask, left, 32)["palm"])
    expected = hands.PALM - hands.PALM[0]
    np.testing.assert_array_equal(found[0], 0)
    turned = Rotation.align_vectors(found[1:], expected[1:])[0].apply(expected)
    np.testing.assert_allclose(found, turned, atol=1e-5)


def test_of_many_palms_the_mean_is_that_of_procrustes_analysis() -> None:
    poses, mask, left, _ = labelled_hands(3, 0.02)
    statistics = gather(poses, mask, left, 32)
    right = np.where(left[:, None, None], poses * [-1, 1, 1], poses)[mask.all(axis=1)][:, PALM_JOINTS]
    right = right - right[:, :1]
    mean = right[0]
    for _ in range(20):
        mean = np.mean([Rotation.align_vectors(mean[1:], palm[1:])[0].apply(palm) for palm in right], axis=0)
    found = np.asarray(statistics["palm"])
    # One turn per palm, to a mean that is not final, is nearly as good as many.
    turned = Rotation.align_vectors(found[1:], mean[1:])[0].apply(mean)
    np.testing.assert_allclose(found, turned, atol=2e-3)
    assert float(statistics["count"]) == len(right)


def test_fingers_rest_at_the_mean_of_their_angles() -> None:
    """A plane is the same after half a turn: angles of 85 and -85 degrees do not cancel."""
    poses, mask, left, bends = labelled_hands(4, 0.0)
    found = np.asarray(pose_statistics.neutral(gather(poses, mask, left, 32)))
    known = mask.all(axis=1)
    np.testing.assert_allclose(found[:, 0], bends.abduction[known].mean(axis=0), atol=0.01)
    directions = np.exp(2j * np.radians(bends.twist[known & (bends.flexion[:, 0, 1] != 0)])).mean(axis=0)
    np.testing.assert_allclose(found[:, 1], np.degrees(np.angle(directions)) / 2, atol=0.01)
    assert np.all(np.abs(found[2:4, 1]) > 75)


def test_without_labels_nothing_is_known() -> None:
    """And a batch without labels changes nothing."""
    poses, mask, left, _ = labelled_hands(5, 0.01)
    before = pose_statistics.initial_palm()
    after = gather(poses[96:], mask[96:], left[96:], 32)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    np.testing.assert_array_equal(pose_statistics.neutral(after), np.zeros((5, 2)))
    lengths = pose_statistics.bounds(pose_statistics.initial_lengths(TREE), 3.0)
    np.testing.assert_array_equal(lengths, np.tile([0, np.inf], (15, 1)))


@pytest.mark.parametrize("deviations", [0.0, 1.0, 1e3])
def test_bounds_are_lengths(deviations: float) -> None:
    poses = jnp.asarray(np.random.default_rng(6).normal(size=(32, 16, 3)), jnp.float32)
    statistics = add_lengths(pose_statistics.initial_lengths(TREE), poses, jnp.ones((32, 16), bool))
    found = np.asarray(pose_statistics.bounds(statistics, deviations))
    assert np.all((found[:, 0] >= 0) & (found[:, 0] <= found[:, 1]))
