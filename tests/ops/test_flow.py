import cv2
import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.ops import flow

RNG = np.random.default_rng(0)
S, B = 96, 2
TRACK = jax.jit(flow.track, static_argnames="limit")


def texture() -> np.ndarray:
    noise = RNG.uniform(0, 255, (B, S, S)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    return np.clip(128 + 8 * (smooth - smooth.mean()), 0, 255).astype(np.float32)


def shifted(images: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    return np.stack(
        [
            cv2.warpAffine(image, np.array([[1, 0, dx], [0, 1, dy]]), (S, S), borderMode=cv2.BORDER_REFLECT)
            for image, (dx, dy) in zip(images, shifts, strict=True)
        ]
    )


def test_points_follow_shifts_of_several_pixels_and_parts_of_one() -> None:
    first = texture()
    points = jnp.asarray(RNG.uniform(36, 60, (B, 5, 2)), jnp.float32)
    for shifts in ([[7.0, -4.0], [-9.0, 2.0]], [[0.5, -0.25], [3.25, 10.75]]):
        moved, found = TRACK(jnp.asarray(first), jnp.asarray(shifted(first, np.array(shifts))), points)
        np.testing.assert_allclose(moved - points, np.array(shifts)[:, None] + np.zeros((B, 5, 2)), atol=0.15)
        assert np.asarray(found).all()


def test_it_finds_what_opencv_finds() -> None:
    first = texture()
    matrix = cv2.getRotationMatrix2D((48.0, 44.0), 4.0, 1.03)
    second = np.stack([cv2.warpAffine(image, matrix, (S, S), borderMode=cv2.BORDER_REFLECT) for image in first])
    points = RNG.uniform(30, 66, (B, 6, 2)).astype(np.float32)
    moved, _ = TRACK(*map(jnp.asarray, (first, second, points)))
    for i in range(B):
        pair = (np.round(frame).astype(np.uint8) for frame in (first[i], second[i]))
        expected, _, _ = cv2.calcOpticalFlowPyrLK(*pair, points[i][:, None], None, winSize=(15, 15), maxLevel=2)
        np.testing.assert_allclose(moved[i], expected[:, 0], atol=0.3)


def test_flat_far_and_lost_points_are_not_found() -> None:
    first = texture()
    points = jnp.full((B, 1, 2), 48.0)
    second = shifted(first, np.array([[8.0, 0], [8.0, 0]]))
    _, near = TRACK(jnp.asarray(first), jnp.asarray(second), points)
    _, far = TRACK(jnp.asarray(first), jnp.asarray(second), points, limit=5.0)
    assert np.asarray(near).all()
    assert not np.asarray(far).any()
    edge = jnp.full((B, 1, 2), 93.0)
    _, lost = TRACK(jnp.asarray(first), jnp.asarray(second), edge)
    assert not np.asarray(lost).any()
    flat = jnp.full((B, S, S), 90.0)
    moved, found = TRACK(flat, flat, points)
    np.testing.assert_array_equal(moved, points)
    assert not np.asarray(found).any()
    stripes = jnp.broadcast_to(jnp.asarray(first[:1, :1]), (B, S, S))
    moved, found = TRACK(stripes, stripes, points)
    assert np.isfinite(moved).all()
    assert not np.asarray(found).any()
