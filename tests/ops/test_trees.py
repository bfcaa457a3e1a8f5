"""Trees of skeletons, and bodies whose bones get possible lengths, joint by joint in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.data.joints.skeletons import COCO17, HAND21, LSP14, MPII16
from jaxpose.ops import trees

# Source: the order of the reference's joints, pelvis 6, neck 8.
MPII = [
    *((1, 0), (2, 1), (6, 2), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8)),
    *((8, 9), (11, 10), (12, 11), (8, 12), (8, 13), (13, 14), (14, 15)),
]
TREE = trees.tree(MPII16.joints, MPII16.bones)

correct = jax.jit(lambda poses, lengths: trees.corrected_lengths(poses, tree=TREE, lengths=lengths))


def bounds(seed: int) -> np.ndarray:
    low = np.random.default_rng(seed).uniform(0.3, 0.8, 15)
    return np.stack([low, 1.2 * low], axis=-1)


def test_trees_lead_from_the_root_to_every_joint_that_bones_reach() -> None:
    assert [tuple(bone) for bone in TREE.tolist()] == MPII
    chains = [(0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21)]
    assert [tuple(bone) for bone in trees.tree(HAND21.joints, HAND21.bones).tolist()] == chains
    # No pelvis, and a circle of shoulders and hips: each joint once, from the first one on.
    found = trees.tree(LSP14.joints, LSP14.bones)
    assert found[:, 1].tolist() == list(range(1, 14))
    assert all(found[joint - 1, 0] == parent for joint, parent in ((1, 0), (2, 1), (3, 2), (8, 2), (9, 3), (12, 8)))
    # Nothing links a head to its body.
    assert trees.tree(COCO17.joints, COCO17.bones).tolist() == [[0, 1], [0, 2], [1, 3], [2, 4]]
    assert trees.tree(("snout", "tail"), ()).shape == (0, 2)


def test_lengths_are_clamped_from_the_root_on() -> None:
    lengths = bounds(0)
    poses = (
        np.random.default_rng(1).normal(size=(512, 16, 3)) * np.array([0.2, 0.4, 1.0, 2.0]).repeat(128)[:, None, None]
    )
    expected = poses.copy()
    for pose, before in zip(expected, poses, strict=True):
        for bone in (6, 7, 8, 2, 1, 0, 3, 4, 5, 11, 10, 9, 12, 13, 14):  # parents first
            parent, child = MPII[bone]
            along = before[child] - before[parent]
            length = np.linalg.norm(along)
            pose[child] = pose[parent] + along / length * np.clip(length, *lengths[bone])
    found = correct(jnp.asarray(poses, jnp.float32), jnp.asarray(lengths, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    again = correct(found, jnp.asarray(lengths, jnp.float32))
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_possible_bodies_stay_and_so_do_joints_without_bones() -> None:
    poses = jax.random.normal(jax.random.key(0), (8, 16, 3))
    any_length = jnp.tile(jnp.asarray([0.0, jnp.inf]), (15, 1))
    np.testing.assert_array_equal(correct(poses, any_length), poses)
    two = trees.corrected_lengths(poses, tree=TREE[:2], lengths=jnp.full((2, 2), 0.5))
    np.testing.assert_array_equal(two[:, 2:], poses[:, 2:])
    np.testing.assert_allclose(jnp.linalg.norm(two[:, 1] - two[:, 0], axis=-1), 0.5, atol=1e-6)


def test_bones_without_length_get_one_and_gradients_are_finite() -> None:
    lengths = jnp.asarray(bounds(2), jnp.float32)
    poses = jax.random.normal(jax.random.key(1), (2, 16, 3)).at[0].set(0.0)
    poses = poses.at[1, 10].set(poses[1, 11])
    weight = jax.random.normal(jax.random.key(2), poses.shape)
    found, back = jax.vjp(lambda x: correct(x, lengths), poses)
    bones = found[:, TREE[:, 1]] - found[:, TREE[:, 0]]
    assert bool((jnp.linalg.norm(bones, axis=-1) > lengths[None, :, 0] - 1e-5).all())
    assert bool(jnp.isfinite(back(weight)[0]).all())


@pytest.mark.parametrize(("bones", "what"), [([[0, 1], [2, 1]], "two bones"), ([[0, 1], [1, 0]], "circle")])
def test_what_is_no_tree_is_refused(bones: list, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        trees.corrected_lengths(jnp.zeros((1, 3, 3)), tree=np.array(bones, np.int32), lengths=jnp.zeros((2, 2)))
