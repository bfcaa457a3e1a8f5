"""Poses as directions of bones: nothing is lost, nothing is broken where directions are not defined."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.data import schemes
from jaxpose.ops import local_frames
from jaxpose.ops.local_frames import BodyTree

LIMBS = [f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]
PLAIN = local_frames.body_tree(["pelvis", "thorax", *LIMBS])
WHOLE = local_frames.body_tree(["head_top", "neck", "thorax", "pelvis", "left_foot", "right_foot", "nose", *LIMBS])


def random_poses(tree: BodyTree, count: int = 64) -> np.ndarray:
    """Bodies of the tree's lengths with bones in any direction, one joint after the other."""
    rng = np.random.default_rng(0)
    bones = rng.normal(size=(count, len(tree.joints), 3))
    bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
    places = np.zeros_like(bones)
    for joint, parent in enumerate(tree.parents):
        if joint:
            places[:, joint] = places[:, parent] + tree.lengths[joint] * bones[:, joint]
    return places.astype(np.float32)


def test_the_body_is_the_released_one() -> None:
    assert PLAIN.joints[0] == "pelvis"
    assert set(WHOLE.joints) == {"pelvis", "thorax", "neck", "head_top", "left_foot", "right_foot", *LIMBS}
    length = dict(zip(WHOLE.joints, WHOLE.lengths, strict=True))
    assert length["left_knee"] / length["right_elbow"] == pytest.approx(4.2 / 2.8)
    assert length["neck"] + length["head_top"] == pytest.approx(0.105 * 2.0)
    without_neck = local_frames.body_tree(["head_top", "thorax", "pelvis", *LIMBS])
    place = without_neck.joints.index("head_top")
    assert without_neck.joints[without_neck.parents[place]] == "thorax"
    assert without_neck.lengths[place] == pytest.approx(0.105 * 2.0)
    with pytest.raises(ValueError, match="found no joint right_elbow, expected those of a body"):
        local_frames.body_tree([joint for joint in WHOLE.joints if joint != "right_elbow"])


@pytest.mark.parametrize("tree", [PLAIN, WHOLE], ids=["plain", "whole"])
def test_poses_come_back(tree: BodyTree) -> None:
    poses = random_poses(tree)
    local = local_frames.to_local(jnp.asarray(poses), tree)
    np.testing.assert_allclose(np.linalg.norm(local, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(local_frames.to_global(local, tree), poses, atol=1e-5)
    # As directions, whatever their length, and for any number of leading axes.
    longer = 3 * local.reshape(4, 16, *local.shape[1:])
    np.testing.assert_allclose(local_frames.to_global(longer, tree).reshape(poses.shape), poses, atol=1e-5)


def test_limbs_do_not_change_when_the_body_turns() -> None:
    """Only the torso knows of the camera: a formula of its own for the elbow, and no change of all else."""
    poses = random_poses(WHOLE)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    before = np.asarray(local_frames.to_local(jnp.asarray(poses), WHOLE))
    after = np.asarray(local_frames.to_local(jnp.asarray((poses @ turn.T).astype(np.float32)), WHOLE))
    torso = WHOLE.torso
    np.testing.assert_allclose(after[:, torso], before[:, torso] @ turn.T, atol=1e-5)
    others = np.setdiff1d(np.arange(before.shape[1]), torso)
    np.testing.assert_allclose(after[:, others], before[:, others], atol=2e-4)

    def bone(name: str, origin: str) -> np.ndarray:
        along = (poses[:, WHOLE.joints.index(name)] - poses[:, WHOLE.joints.index(origin)]).astype(np.float64)
        return along / np.linalg.norm(along, axis=-1, keepdims=True)

    across = bone("right_shoulder", "thorax") - bone("left_shoulder", "thorax")
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    spine = bone("thorax", "pelvis")
    up = spine - (spine * across).sum(-1, keepdims=True) * across
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    axes = np.stack([across, up, np.cross(across, up)], axis=1)
    expected = (axes @ bone("left_elbow", "left_shoulder")[..., None])[..., 0]
    np.testing.assert_allclose(before[:, WHOLE.joints.index("left_elbow") - 1], expected, atol=1e-4)


def test_a_mirror_image_is_that_of_the_mirrored_pose() -> None:
    poses = random_poses(WHOLE)
    twice = local_frames.mirrored(local_frames.mirrored(jnp.asarray(poses), WHOLE), WHOLE)
    np.testing.assert_array_equal(twice, poses)

    def seen(points: np.ndarray) -> np.ndarray:
        """By a camera whose principal point is in the middle of an image of 101 pixels."""
        moved = points + np.array((0, 0, 4))
        return 120 * moved[..., :2] / moved[..., 2:] + 50

    image = seen(poses)
    image[..., 0] = 100 - image[..., 0]  # of what is now on the other side
    mirror = seen(np.asarray(local_frames.mirrored(jnp.asarray(poses), WHOLE)))
    for joint, name in enumerate(WHOLE.joints):
        side, _, rest = name.partition("_")
        other = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
        np.testing.assert_allclose(mirror[:, WHOLE.joints.index(other)], image[:, joint], atol=1e-4)


def test_gradients_are_finite_where_directions_are_not() -> None:
    """All joints in one place; straight limbs along every axis; bones along the direction that frames are turned to."""
    straight = [np.cumsum(np.ones((len(WHOLE.joints), 1)) * axis, axis=0) for axis in np.eye(3)]
    aside = np.zeros((len(WHOLE.joints), 3))
    for joint, parent in enumerate(WHOLE.parents[1:], start=1):
        aside[joint] = aside[parent] + (0, 0.6, 0.8)
    poses = jnp.asarray(np.stack([np.zeros((len(WHOLE.joints), 3)), aside, *straight]), jnp.float32)

    def value(points: jax.Array) -> jax.Array:
        local = local_frames.to_local(points, WHOLE)
        return jnp.sum(jnp.sin(local)) + jnp.sum(jnp.sin(local_frames.to_global(0.3 * local, WHOLE)))

    assert jnp.isfinite(value(poses))
    assert jnp.isfinite(jax.grad(value)(poses)).all()
    zero = jax.grad(lambda local: jnp.sum(jnp.sin(local_frames.to_global(local, WHOLE))))(jnp.zeros((1, 17, 3)))
    assert jnp.isfinite(zero).all()


def test_recorded_poses_come_back(pack: Callable[[str], Path]) -> None:
    """Of recorded bodies, the directions of bones."""
    path = pack("cmu_walk_bvh.tar.xz")
    recorded = schemes.open_data(f"bvh:{path.name}?train=CMU_walkcycles/07_0*", root=str(path.parent)).motions["train"]
    tree = local_frames.body_tree(recorded.skeleton.joints)
    positions = recorded.recorded[0].positions[::10, recorded.skeleton.indices(tree.joints)]
    again = np.asarray(local_frames.fitted(jnp.asarray(positions), tree))

    def directions(points: np.ndarray) -> np.ndarray:
        bones = points[:, 1:] - points[:, list(tree.parents[1:])]
        return bones / np.linalg.norm(bones, axis=-1, keepdims=True)

    np.testing.assert_allclose(directions(again), directions(positions), atol=1e-5)
