import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.losses import structure

A, B, H, W, K, C = 3, 4, 6, 5, 2, 3


def maps_of(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (rows, H, W, K)).astype(np.float32)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def test_whole_maps_are_compared_place_by_place() -> None:
    x, y = maps_of(A, 0), maps_of(B, 1)
    found = structure.cosines(structure.whole(jnp.asarray(x)), structure.whole(jnp.asarray(y)))
    for a in range(A):
        for b in range(B):
            for k in range(K):
                expected = cosine(x[a, :, :, k].ravel(), y[b, :, :, k].ravel())
                assert float(found[a, b, k]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("reach", [0, 1, 4])
def test_parts_around_peaks_are_what_lies_there(reach: int) -> None:
    maps = maps_of(A, 0)
    maps[0, 0, 0, 0] = maps[1, H - 1, W - 1, 1] = 2.0  # two peaks in corners
    found = np.asarray(structure.around_peaks(jnp.asarray(maps), reach=reach))
    side = 2 * reach + 1
    assert found.shape == (A, K, side**2)
    for a in range(A):
        for k in range(K):
            padded = np.pad(maps[a, :, :, k], reach)
            y, x = np.unravel_index(np.argmax(maps[a, :, :, k]), (H, W))
            np.testing.assert_allclose(found[a, k], padded[y : y + side, x : x + side].ravel(), atol=1e-6)


def test_moved_blobs_are_alike_around_their_peaks_and_not_as_a_whole() -> None:
    y, x = np.mgrid[:32, :32]
    blobs = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8) for cx, cy in ((8, 9), (16, 9), (20, 21))]
    maps = jnp.asarray(np.stack(blobs)[..., None], jnp.float32)
    parts, wholes = structure.around_peaks(maps, reach=5), structure.whole(maps)
    np.testing.assert_allclose(structure.cosines(parts, parts)[..., 0], 1, atol=1e-5)
    # Blobs of deviation s, d apart, have the cosine exp(-d^2 / (4 s^2)).
    assert float(structure.cosines(wholes, wholes)[0, 1, 0]) == pytest.approx(np.exp(-64 / 16), abs=2e-3)


def test_the_nearest_pose_is_chosen_for_each_of_the_second_batch() -> None:
    x = np.array([[[0, 0], [1, 0]], [[5, 5], [6, 5]], [[9, 0], [9, 1]]], np.float32)
    y = np.array([[[5, 6], [6, 6]], [[0, 1], [2, 0]]], np.float32)
    found = structure.nearest_rows(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_array_equal(found, [[False, True], [True, False], [False, False]])


def test_keypoint_features_are_weighted_means() -> None:
    rng = np.random.default_rng(0)
    features, maps = rng.normal(size=(B, H, W, C)).astype(np.float32), maps_of(B, 1)
    maps[2, :, :, 1] = 0
    found = structure.keypoint_features(jnp.asarray(features), jnp.asarray(maps))
    pooled = structure.keypoint_features(jnp.asarray(features), jnp.asarray(maps), pooled=True)
    for b in range(B):
        for k in range(K):
            total = sum(features[b, i, j] * maps[b, i, j, k] for i in range(H) for j in range(W))
            mass = maps[b, :, :, k].sum()
            np.testing.assert_allclose(found[b, k], total / (mass + 1e-6), atol=1e-5)
            np.testing.assert_allclose(pooled[b, k], total / (H * W), atol=1e-5)


@pytest.mark.parametrize("over_all", [False, True])
def test_pairs_are_as_similar_as_their_sure_joints(over_all: bool) -> None:
    rng = np.random.default_rng(0)
    alike = rng.uniform(-1, 1, (A, B, K)).astype(np.float32)
    x, y = rng.uniform(0, 1, (A, K)).astype(np.float32), rng.uniform(0, 1, (B, K)).astype(np.float32)
    found = structure.pair_similarity(*map(jnp.asarray, (alike, x, y)), over_all=over_all)
    for a in range(A):
        for b in range(B):
            weights = np.sqrt(x[a] * y[b])
            expected = (weights * alike[a, b]).sum() / (K if over_all else weights.sum())
            assert float(found[a, b]) == pytest.approx(expected, abs=1e-5)


def test_means_are_over_chosen_pairs_and_of_none_zero() -> None:
    values = jnp.asarray(np.arange(A * B * K, dtype=np.float32).reshape(A, B, K))
    chosen = np.zeros((A, B), bool)
    assert float(structure.mean_of_pairs(values, jnp.asarray(chosen))) == 0
    chosen[0, 1] = chosen[2, 3] = True
    assert float(structure.mean_of_pairs(values, jnp.asarray(chosen))) == np.mean([2, 3, 22, 23])


def test_entropy_is_one_where_flat_zero_where_sure_or_empty() -> None:
    maps = np.zeros((1, H, W, 3), np.float32)
    maps[0, :, :, 0], maps[0, 2, 3, 1] = 7.0, 0.3
    np.testing.assert_allclose(structure.entropy(jnp.asarray(maps))[0], [1, 0, 0], atol=1e-6)
    some = maps_of(1, 3)[..., :1]
    p = some.ravel().astype(np.float64) / some.sum()
    assert float(structure.entropy(jnp.asarray(some))[0, 0]) == pytest.approx(
        -(p * np.log(p)).sum() / np.log(H * W), 1e-5
    )


def test_gradients_are_finite_where_there_is_nothing() -> None:
    """No mass, no confidence, one row, no chosen pair."""

    def everything(maps: jax.Array) -> jax.Array:
        features = structure.keypoint_features(jnp.ones((1, H, W, C)) * jnp.sum(maps), maps)
        alike = structure.cosines(features, features)
        sure = jnp.max(maps, axis=(1, 2))
        similar = structure.pair_similarity(alike, sure, sure)
        parts = structure.around_peaks(maps, reach=2)
        return (
            structure.mean_of_pairs(1 - alike, similar > 2)
            + jnp.sum(similar)
            + jnp.sum(structure.cosines(parts, parts))
            + jnp.sum(structure.entropy(maps))
        )

    for maps in (jnp.zeros((1, H, W, K)), jnp.zeros((1, H, W, K)).at[0, 1, 1, 0].set(1.0)):
        value, slope = jax.jit(jax.value_and_grad(everything))(maps)
        assert bool(jnp.isfinite(value))
        assert bool(jnp.isfinite(slope).all())
