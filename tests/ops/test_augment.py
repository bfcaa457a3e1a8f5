import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.ops import augment
from jaxpose.ops.augment import Augmentation

STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "blur": 0.0}


def blob_images(points: np.ndarray, size: int = 48) -> jax.Array:
    yy, xx = np.mgrid[:size, :size]
    images = [200 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 6) for x, y in points]
    return jnp.asarray(np.repeat(np.stack(images)[..., None], 3, -1).astype(np.uint8))


def denormalize(images: jax.Array) -> np.ndarray:
    return np.asarray(images) * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]


def test_normalize_is_imagenets() -> None:
    found = augment.normalize(jnp.full((1, 1, 1, 3), 255.0))
    np.testing.assert_allclose(
        found[0, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-5
    )


def test_keypoints_follow_the_pixels() -> None:
    points = np.random.default_rng(0).uniform(16, 32, (16, 2)).astype(np.float32)
    settings = Augmentation(rotation=60.0, scale=(0.7, 1.3), translation=0.1, mirror=0.5, **STILL)
    images, drawn = augment.augment(jax.random.key(0), blob_images(points), jnp.arange(16), settings)
    moved = augment.keypoints_of(drawn, jnp.asarray(points)[:, None], np.array([0]))
    weights = denormalize(images)[..., 0]
    for i in range(16):
        found = [np.average(grid, weights=weights[i].clip(0.02) - 0.02) for grid in np.mgrid[:48, :48]][::-1]
        np.testing.assert_allclose(found, moved[i, 0], atol=0.35)
    assert 0 < int(drawn.mirrored.sum()) < 16


def test_keypoints_follow_the_pixels_of_cut_and_sheared_images() -> None:
    points = np.random.default_rng(1).uniform(16, 32, (16, 2)).astype(np.float32)
    settings = Augmentation(rotation=60.0, scale=(0.7, 1.0), translation=0.0, shear=30.0, area=0.6, mirror=0.5, **STILL)
    images, drawn = augment.augment(jax.random.key(0), blob_images(points), jnp.arange(16), settings)
    moved = augment.keypoints_of(drawn, jnp.asarray(points)[:, None], np.array([0]))
    weights = denormalize(images)[..., 0]
    seen = np.all((np.asarray(moved)[:, 0] > 6) & (np.asarray(moved)[:, 0] < 41), axis=-1)
    assert seen.sum() > 10
    for i in np.flatnonzero(seen):
        found = [np.average(grid, weights=weights[i].clip(0.02) - 0.02) for grid in np.mgrid[:48, :48]][::-1]
        np.testing.assert_allclose(found, moved[i, 0], atol=0.4)


def test_shears_lean_columns_within_their_limit() -> None:
    none = Augmentation(rotation=0.0, scale=(1.0, 1.0), translation=0.0, shear=30.0, **STILL)
    _, drawn = augment.augment(jax.random.key(0), blob_images(np.full((200, 2), 24.0)), jnp.arange(200), none)
    matrix = np.asarray(drawn.matrix)
    np.testing.assert_allclose(matrix[:, :, 0], np.tile([1, 0], (200, 1)), atol=1e-6)
    np.testing.assert_allclose(matrix[:, 1], np.tile([0, 1, 0], (200, 1)), atol=1e-6)
    lean = np.rad2deg(np.arctan(matrix[:, 0, 1]))
    assert lean.min() < -28
    assert lean.max() > 28
    assert np.abs(lean).max() <= 30
    np.testing.assert_allclose(matrix[:, 0] @ [23.5, 23.5, 1], 23.5, atol=1e-4)


def test_views_of_one_cut_show_the_same_square() -> None:
    size, rows = 48, 200
    cuts = augment.random_cuts(jax.random.key(3), jnp.arange(rows), size, 0.6)
    assert cuts is not None
    assert augment.random_cuts(jax.random.key(3), jnp.arange(rows), size, 1.0) is None
    side = 1 / np.asarray(cuts)[:, 0, 0]
    assert 0.6 <= (side**2).min() < 0.61
    assert 0.99 < (side**2).max() <= 1
    # The edges of the square, which lies in the image, are those of the cut image.
    edges = (np.array([-0.5, size - 0.5])[None, :, None] - np.asarray(cuts)[:, None, :, 2]) * side[:, None, None]
    assert -0.5001 < edges.min() < -0.3
    assert size - 0.7 < edges.max() < size - 0.4999
    np.testing.assert_allclose(edges[:, 1] - edges[:, 0], np.stack([side * size] * 2, axis=1), rtol=1e-4)

    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8))
    still = Augmentation(rotation=0.0, scale=(1.0, 1.0), translation=0.0, area=0.6, **STILL)
    shown = [augment.augment(jax.random.key(k), images, jnp.arange(4), still, cuts[:4])[0] for k in (0, 1)]
    np.testing.assert_array_equal(*shown)
    alone = [augment.augment(jax.random.key(k), images, jnp.arange(4), still) for k in (0, 1)]
    assert float(jnp.abs(alone[0][1].matrix - alone[1][1].matrix).max()) > 0.1


def test_mirroring_exchanges_left_and_right() -> None:
    keypoints = jnp.array([[[10.0, 5.0], [30.0, 6.0], [20.0, 7.0]]])
    settings = Augmentation(rotation=0.0, scale=(1.0, 1.0), translation=0.0, mirror=1.0, **STILL)
    _, drawn = augment.augment(jax.random.key(0), jnp.zeros((1, 48, 48, 3), jnp.uint8), jnp.arange(1), settings)
    moved = augment.keypoints_of(drawn, keypoints, np.array([1, 0, 2]))
    np.testing.assert_allclose(moved[0], [[17.0, 6.0], [37.0, 5.0], [27.0, 7.0]], atol=1e-4)


def test_each_image_draws_by_its_place_in_the_global_batch() -> None:
    images = blob_images(np.full((8, 2), 24.0))
    settings = Augmentation(noise=5.0)
    key = jax.random.key(4)
    whole = augment.augment(key, images, jnp.arange(8), settings)[0]
    half = augment.augment(key, images[4:], jnp.arange(4, 8), settings)[0]
    np.testing.assert_allclose(whole[4:], half, atol=1e-5)
    assert np.abs(np.asarray(whole[0] - whole[1])).max() > 0.1


def test_nothing_to_do_changes_nothing() -> None:
    images = blob_images(np.full((2, 2), 20.3))
    still = Augmentation(rotation=0.0, scale=(1.0, 1.0), translation=0.0, **STILL)
    found = augment.augment(jax.random.key(0), images, jnp.arange(2), still)[0]
    np.testing.assert_allclose(found, augment.normalize(images.astype(jnp.float32)), atol=1e-4)


def test_colour_and_blur_keep_the_mean_level_of_flat_images_within_their_range() -> None:
    images = jnp.full((32, 16, 16, 3), 100, jnp.uint8)
    settings = Augmentation(
        rotation=0.0, scale=(1.0, 1.0), translation=0.0, brightness=0.2, contrast=0.5, saturation=0.5, blur=0.8
    )
    found = 255 * denormalize(augment.augment(jax.random.key(1), images, jnp.arange(32), settings)[0])
    levels = found.mean((1, 2, 3))
    assert levels.min() >= 79.9
    assert levels.max() <= 120.1
    assert levels.std() > 5
    assert (found.std((1, 2)) < 0.1).all()


def test_everything_of_a_row_follows_one_draw() -> None:
    """Two frames with 3D joints: the moved camera projects them onto the moved keypoints, also in mirrored images."""
    rng = np.random.default_rng(0)
    rows, frames, size = 12, 2, 48
    points = rng.uniform((-0.3, -0.3, 2), (0.3, 0.3, 3), (rows, frames, 3, 3)).astype(np.float32)
    camera = np.tile(np.array([[60.0, 0, 23.5], [0, 62, 23.5], [0, 0, 1]], np.float32), (rows, frames, 1, 1))
    projected = np.einsum("btij,btkj->btki", camera, points)
    keypoints = projected[..., :2] / projected[..., 2:]
    images = np.zeros((rows, frames, size, size, 3), np.uint8)
    for row, frame in np.ndindex(rows, frames):
        x, y = keypoints[row, frame, 0]
        images[row, frame] = blob_images(np.array([[x, y]], np.float32))[0]
    settings = augment.Augmentation(rotation=40.0, mirror=0.5, translation=0.1, **STILL)
    swap = np.array([0, 2, 1])

    @jax.jit
    def moved(images: jax.Array) -> tuple[jax.Array, ...]:
        pixels, drawn = augment.augment(jax.random.key(0), images, jnp.arange(rows), settings)
        labels = (
            augment.keypoints_of(drawn, jnp.asarray(keypoints), swap),
            augment.keypoints3d_of(drawn, jnp.asarray(points), swap),
            augment.intrinsics_of(drawn, jnp.asarray(camera)),
        )
        return pixels, drawn.mirrored, *labels

    pixels, mirrored, found, found3d, cameras = (np.asarray(x) for x in moved(jnp.asarray(images)))
    assert 0 < mirrored.sum() < rows
    again = np.einsum("btij,btkj->btki", cameras, found3d)
    np.testing.assert_allclose(again[..., :2] / again[..., 2:], found, atol=1e-3)
    np.testing.assert_allclose(
        found3d[..., 2], np.where(mirrored[:, None, None], points[:, :, swap, 2], points[..., 2])
    )
    handed = np.linalg.det(cameras)
    assert (handed > 0).all()  # of mirrored images too, whose joints are mirrored
    for row, frame in np.ndindex(rows, frames):
        grey = denormalize(pixels[row, frame])[..., 0]
        weight = np.clip(grey - grey.min(), 0, None) ** 2
        place = [(weight * axis).sum() / weight.sum() for axis in np.mgrid[:size, :size][::-1]]
        np.testing.assert_allclose(place, found[row, frame, 0], atol=0.7)
