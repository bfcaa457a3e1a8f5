"""Relations: what is done to images and what is done to poses is the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.data.joints.skeletons import MPII16
from jaxpose.ops import augment, local_frames
from jaxpose.recipes import relations
from jaxpose.recipes.relations import MIRRORED, Relation, turned

TREE = local_frames.body_tree(MPII16.joints)
SIZE, FOCAL = 65, 90.0
MIDDLE = (SIZE - 1) / 2


def poses(count: int) -> np.ndarray:
    """Bodies before the camera, joints within a third of a metre of the pelvis."""
    return np.random.default_rng(0).uniform(-0.3, 0.3, (count, len(TREE.joints), 3)).astype(np.float32)


def seen(points: np.ndarray) -> np.ndarray:
    """Pixels, by a camera two metres away that looks at the pelvis."""
    moved = points + np.array((0, 0, 2))
    return FOCAL * moved[..., :2] / moved[..., 2:] + MIDDLE


def spot(place: np.ndarray) -> np.ndarray:
    """A normalised image of one bright spot."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    grey = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 1.5**2))
    return np.asarray(augment.normalize(jnp.asarray(np.repeat(grey[None, ..., None], 3, axis=-1), jnp.float32)))[0]


def middle_of(image: np.ndarray) -> np.ndarray:
    grey = np.asarray(augment.to_unit(jnp.asarray(image[None])))[0, ..., 0]
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    return np.array([(grey * x).sum(), (grey * y).sum()]) / grey.sum()


@pytest.mark.parametrize("spatial", [MIRRORED, turned(20.0)], ids=["mirror", "turn"])
def test_images_move_as_poses_do(spatial: relations.Spatial) -> None:
    """A spot where a joint is seen goes to where the joint is seen that has its name, or the other side's, in the new
    pose: the released code's mirror image of poses was that of a body that is seen from behind."""
    pose = poses(1)
    moved = np.asarray(spatial.poses(jnp.asarray(pose), TREE))
    places = seen(moved)[0]
    for joint in (1, 5, 9):
        image = spot(seen(pose)[0, joint])
        found = middle_of(np.asarray(spatial.images(jnp.asarray(image[None])))[0])
        other = TREE.flip_permutation[joint] if spatial is MIRRORED else joint
        np.testing.assert_allclose(found, places[other], atol=0.3)


def test_what_is_done_twice_is_undone() -> None:
    frames = jnp.asarray(np.random.default_rng(0).random((4, 6, 6, 3)), jnp.float32)
    np.testing.assert_array_equal(MIRRORED.images(MIRRORED.images(frames)), frames)
    pose = jnp.asarray(poses(4))
    np.testing.assert_array_equal(MIRRORED.poses(MIRRORED.poses(pose, TREE), TREE), pose)
    _, backward = relations.BACKWARD.cut(6)
    assert list(range(6))[backward][backward] == list(range(6))


def numbered(relation: Relation, frames: int = 4) -> tuple[list[int], list[int]]:
    """The numbers of the frames of both sequences, which images and poses have to agree on."""
    count = relation.span * frames
    images = jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32).reshape(1, -1, 1, 1, 1), (1, count, 6, 6, 3))
    points = jnp.broadcast_to(
        jnp.arange(count, dtype=jnp.float32).reshape(1, -1, 1, 1), (1, count, len(TREE.joints), 3)
    )
    of_images, of_poses = relation.of_images(images, frames), relation.of_poses(points, frames, TREE)
    found = [[int(x) for x in side[0, :, 2, 2, 0]] for side in of_images]
    assert found == [[int(x) for x in side[0, :, 0, 1]] for side in of_poses]
    return found[0], found[1]


def test_sequences_are_those_of_the_paper() -> None:
    assert numbered(relations.FLIP) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert numbered(relations.FLIP_BACKWARD) == ([0, 1, 2, 3], [3, 2, 1, 0])
    # Every second frame of a window twice as long, and its middle half backwards, at the speed at which it was shown.
    assert numbered(relations.SLOW_BACKWARD) == ([0, 2, 4, 6], [5, 4, 3, 2])
    assert numbered(relations.FAST_FORWARD) == ([2, 3, 4, 5], [0, 2, 4, 6])
    assert list(range(60))[relations.SLOW_BACKWARD.cut(30)[1]] == list(range(44, 14, -1))
