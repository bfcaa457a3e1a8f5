"""One frame made of another: what is given to the networks, and what becomes of frames that are the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops import augment, bones
from jaxpose.recipes import reconstruction

BONES = np.array([[0, 1], [1, 2]], np.int32)
SETTINGS = reconstruction.Reconstruction(width=2, depth=2, most=4, generator_width=2, blocks=1, vgg_width=2)
SIZE, ROWS = 32, 2


def frames() -> jax.Array:
    """Normalised (B, 2, S, S, 3)."""
    pixels = jax.random.uniform(jax.random.key(0), (ROWS * 2, SIZE, SIZE, 3)) * 255
    return augment.normalize(pixels).reshape(ROWS, 2, SIZE, SIZE, 3)


def points() -> jax.Array:
    return jax.random.uniform(jax.random.key(1), (ROWS, 2, 3, 2)) * 20 + 6


@pytest.fixture(scope="module")
def made() -> dict[str, reconstruction.Made]:
    """Of other and of the same points in both frames."""
    built = reconstruction.build(BONES, SIZE, SETTINGS, jnp.float32)

    @jax.jit
    def both() -> dict[str, reconstruction.Made]:
        keys = jax.random.split(jax.random.key(2), len(built.networks))
        every = {name: n.init(key) for key, (name, n) in zip(keys, built.networks.items(), strict=True)}
        params, stats = ({name: of[i] for name, of in every.items()} for i in (0, 1))
        other = points()
        same = jnp.stack([other[:, 0], other[:, 0]], axis=1)
        return {
            name: built(params, stats, frames(), of, train=True)[0] for name, of in (("other", other), ("same", same))
        }

    return both()


def test_where_nothing_moves_the_frame_stays(made: dict[str, reconstruction.Made]) -> None:
    found = made["same"]
    here = np.broadcast_to(bones.places((SIZE // 4, SIZE // 4)), found.grid.shape)
    np.testing.assert_allclose(found.grid, here, atol=1e-5)
    np.testing.assert_allclose(found.warped, found.base, atol=1e-4)
    assert float(jnp.abs(made["other"].grid - here).max()) > 0.1


def test_frames_are_pixels_of_0_to_1_in_their_order(made: dict[str, reconstruction.Made]) -> None:
    pixels = jax.random.uniform(jax.random.key(0), (ROWS * 2, SIZE, SIZE, 3)).reshape(ROWS, 2, SIZE, SIZE, 3)
    np.testing.assert_allclose(made["other"].base, pixels[:, 0], atol=1e-5)
    np.testing.assert_allclose(made["other"].wanted, pixels[:, 1], atol=1e-5)


def test_a_bone_that_moved_alone_takes_its_pixels_along() -> None:
    """Where one bone has all of a mask, the second frame's place of its parent shows the first's place of it."""
    first, second = points()[:1, 0], points()[:1, 1]
    ends = [
        (bones.unit(of, (SIZE, SIZE))[:, BONES[:, 0]], bones.unit(of, (SIZE, SIZE))[:, BONES[:, 1]])
        for of in (first, second)
    ]
    axes = [bones.frames(*of, decay=0.04) for of in ends]
    masks = jnp.zeros((1, SIZE, SIZE, 3)).at[..., 2].set(1.0)
    grid = bones.pixels(bones.sampling_grid(bones.motion(*axes), masks), (SIZE, SIZE))
    (x, y), place = np.asarray(second[0, 1]), np.asarray(first[0, 1])
    low = np.floor([x, y]).astype(int)
    shown = np.zeros(2)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - abs(x - low[0] - i)) * (1 - abs(y - low[1] - j))
        shown += weight * np.asarray(grid)[0, low[1] + j, low[0] + i]
    np.testing.assert_allclose(shown, place, atol=1e-3)


def test_what_cannot_be_built_is_one_line() -> None:
    with pytest.raises(ValueError, match="reconstruction: found a skeleton without bones"):
        reconstruction.build(np.zeros((0, 2), np.int32), SIZE, SETTINGS, jnp.float32)
    with pytest.raises(ValueError, match=r"config.data.image_size: found 24, expected a multiple of 16, which is"):
        reconstruction.build(BONES, 24, SETTINGS, jnp.float32)


def test_published_sizes() -> None:
    """Of 20 bones: 37,776,040 and 7,842,947 parameters, as counted by hand in the networks' own tests."""
    built = reconstruction.build(
        np.zeros((20, 2), np.int32), 256, reconstruction.published_settings(None), jnp.bfloat16
    )
    counts = {
        name: sum(x.size for x in jax.tree.leaves(jax.eval_shape(built.networks[name].init, jax.random.key(0))[0]))
        for name in reconstruction.TRAINED
    }
    assert counts == {"motion": 37_776_040, "generator": 7_842_947}
    assert dataclasses.asdict(built.settings)["depth"] == 5
