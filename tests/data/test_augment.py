import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.data import augment
from jaxpose.data.augment import Augmentation

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
    images, matrix, mirrored = augment.augment(jax.random.key(0), blob_images(points), jnp.arange(16), settings)
    moved = augment.move_keypoints(jnp.asarray(points)[:, None], matrix, mirrored, np.array([0]))
    weights = denormalize(images)[..., 0]
    for i in range(16):
        found = [np.average(grid, weights=weights[i].clip(0.02) - 0.02) for grid in np.mgrid[:48, :48]][::-1]
        np.testing.assert_allclose(found, moved[i, 0], atol=0.35)
    assert 0 < int(mirrored.sum()) < 16


def test_mirroring_exchanges_left_and_right() -> None:
    keypoints = jnp.array([[[10.0, 5.0], [30.0, 6.0], [20.0, 7.0]]])
    settings = Augmentation(rotation=0.0, scale=(1.0, 1.0), translation=0.0, mirror=1.0, **STILL)
    _, matrix, mirrored = augment.augment(
        jax.random.key(0), jnp.zeros((1, 48, 48, 3), jnp.uint8), jnp.arange(1), settings
    )
    moved = augment.move_keypoints(keypoints, matrix, mirrored, np.array([1, 0, 2]))
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
