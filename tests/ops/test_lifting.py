"""Poses from 2.5D: the inverse of a projection, whatever was done to the image in between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops import lifting

BONE = (1, 2)


def poses(seed: int, *, joints: int = 6, size: float, distance: float, count: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.uniform(-size, size, (count, joints, 3))
    found[:, BONE[1]] = found[:, BONE[0]] + size * rng.normal(size=(count, 3))
    return found + np.array([0.0, 0.0, distance]) + rng.uniform(-0.2, 0.2, (count, 1, 3)) * distance


def cameras(seed: int, count: int = 64) -> np.ndarray:
    """Pinhole cameras whose images were turned, scaled, moved and partly mirrored."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        focal, turn, scale = rng.uniform(200, 1500), rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 3)
        k = np.array([[focal, 0, rng.uniform(50, 300)], [0, focal * rng.uniform(0.9, 1.1), rng.uniform(50, 300)]])
        linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        linear[:, 0] *= rng.choice([-1, 1])
        crop = np.vstack([np.column_stack([linear, rng.uniform(-50, 50, 2)]), (0, 0, 1)])
        found.append(crop @ np.vstack([k, (0, 0, 1)]))
    return np.array(found)


@pytest.mark.parametrize(("size", "distance"), [(0.08, 0.6), (0.5, 4.0)], ids=["hands", "bodies"])
def test_lifting_inverts_projection(size: float, distance: float) -> None:
    """To 1e-4 m, in double precision: of a bone seen end-on the distance is open, and float32 says so."""
    with jax.enable_x64(True):
        truth, k = jnp.asarray(poses(0, size=size, distance=distance)), jnp.asarray(cameras(1))
        seen = np.asarray(truth)
        image = np.einsum("bxc,bkc->bkx", np.asarray(k), seen)
        image = jnp.asarray(image[..., :2] / image[..., 2:])
        np.testing.assert_allclose(lifting.project(truth, k), image, atol=1e-9)
        length = np.linalg.norm(seen[:, BONE[0]] - seen[:, BONE[1]], axis=-1)
        depths = (seen[..., 2] - seen[:, :1, 2]) / length[:, None]
        np.testing.assert_allclose(lifting.relative_depths(truth, root=0, bone=BONE), depths, atol=1e-9)
        found = lifting.lift(image, jnp.asarray(depths), k, bone=BONE) * length[:, None, None]
        # The larger root is the pose unless the bone points so steeply at the camera that both are in front of it.
        rays = seen / seen[..., 2:]
        across = rays[:, BONE[0]] - rays[:, BONE[1]]
        offset = rays[:, BONE[0]] * depths[:, BONE[0], None] - rays[:, BONE[1]] * depths[:, BONE[1], None]
        root = seen[:, 0, 2] / length
        larger = root >= -np.sum(across * offset, axis=-1) / np.sum(across**2, axis=-1)
        assert larger.mean() > 0.7
        np.testing.assert_allclose(np.asarray(found)[larger], seen[larger], atol=1e-4)


def test_in_float32_a_hand_seen_from_the_side_is_found_to_a_tenth_of_a_millimetre() -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(-0.08, 0.08, (16, 6, 3)) + np.array([0, 0, 0.6])
    truth[:, BONE[0]], truth[:, BONE[1]] = [-0.05, 0, 0.6], [0.05, 0.01, 0.61]
    k = np.tile(np.array([[500.0, 0, 128], [0, 500, 128], [0, 0, 1]]), (16, 1, 1))
    image = np.einsum("bxc,bkc->bkx", k, truth)
    points = jnp.asarray(image[..., :2] / image[..., 2:], jnp.float32)
    depths = lifting.relative_depths(jnp.asarray(truth, jnp.float32), root=0, bone=BONE)
    length = lifting.bone_length(jnp.asarray(truth, jnp.float32), BONE)
    found = lifting.lift(points, depths, jnp.asarray(k, jnp.float32), bone=BONE) * length[:, None, None]
    np.testing.assert_allclose(found, truth, atol=1e-4)


@pytest.mark.parametrize("what", ["a point", "too deep", "all at one place"])
def test_gradients_are_finite_where_there_is_no_solution(what: str) -> None:
    points = jnp.asarray(np.random.default_rng(3).uniform(50, 200, (2, 6, 2)), jnp.float32)
    depths = jnp.zeros((2, 6))
    if what == "a point":
        points = points.at[:, BONE[0]].set(points[:, BONE[1]])
    elif what == "too deep":
        depths = depths.at[:, BONE[0]].set(3.0)
    else:
        points = jnp.zeros_like(points)
    k = jnp.tile(jnp.asarray([[500.0, 0, 128], [0, 500, 128], [0, 0, 1]]), (2, 1, 1))

    def loss(points: jax.Array, depths: jax.Array) -> jax.Array:
        return jnp.sum(lifting.lift(points, depths, k, bone=BONE))

    value, slopes = jax.value_and_grad(loss, argnums=(0, 1))(points, depths)
    assert bool(jnp.isfinite(value))
    assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)


def test_the_scale_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(4)
    pose, lengths = rng.normal(size=(3, 5, 3)), np.array([0.3, 0.5, 0.2])
    ends = np.array([[0, 1], [1, 2], [3, 4]])
    found = lifting.scale_of(
        jnp.asarray(pose, jnp.float32), jnp.asarray(lengths, jnp.float32), jnp.asarray(ends, jnp.int32)
    )
    own = np.linalg.norm(pose[:, ends[:, 0]] - pose[:, ends[:, 1]], axis=-1)
    expected = [np.linalg.lstsq(o[:, None], lengths, rcond=None)[0][0] for o in own]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
