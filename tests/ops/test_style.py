import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.ops import style

RNG = np.random.default_rng(0)


def images(low=0.2, high=0.8, shape=(2, 12, 10, 3)):
    return RNG.uniform(low, high, shape).astype(np.float32)


def smooth(shape=(2, 12, 10, 3)):
    """Images whose transfers stay inside the range."""
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    base = 0.5 + 0.1 * np.sin(rows / 3 + columns / 5)
    return (base[None, :, :, None] + RNG.uniform(-0.1, 0.1, shape)).astype(np.float32)


def test_adain_is_its_formula():
    content = RNG.normal(2.0, 3.0, (2, 5, 7, 4)).astype(np.float32)
    other = RNG.normal(-1.0, 0.5, (2, 3, 4, 4)).astype(np.float32)
    found = style.adain(jnp.asarray(content), jnp.asarray(other))
    for b in range(2):
        for c in range(4):
            x, y = content[b, ..., c].astype(np.float64), other[b, ..., c].astype(np.float64)
            x_deviation, y_deviation = np.sqrt(x.var() + 1e-5), np.sqrt(y.var() + 1e-5)
            expected = y_deviation * (x - x.mean()) / x_deviation + y.mean()
            np.testing.assert_allclose(found[b, ..., c], expected, atol=1e-5)


def test_adain_gives_the_moments_of_the_style():
    content = RNG.normal(2.0, 3.0, (2, 8, 8, 4)).astype(np.float32)
    other = RNG.normal(-1.0, 0.5, (2, 6, 6, 4)).astype(np.float32)
    found = np.asarray(style.adain(jnp.asarray(content), jnp.asarray(other)))
    np.testing.assert_allclose(found.mean((1, 2)), other.mean((1, 2)), atol=1e-4)
    np.testing.assert_allclose(found.std((1, 2)), other.std((1, 2)), rtol=1e-4)


def test_adain_of_narrow_features_is_wide():
    content = jnp.asarray(RNG.normal(100.0, 1.0, (1, 8, 8, 2)), jnp.bfloat16)
    found = style.adain(content, content)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, content.astype(jnp.float32), atol=1e-4)


def test_moments_add_eps_under_the_root():
    mean, deviation = style.channel_moments(jnp.full((1, 4, 4, 2), 3.0), eps=0.04)
    np.testing.assert_allclose(mean, np.full((1, 1, 1, 2), 3.0), rtol=1e-6)
    np.testing.assert_allclose(deviation, np.full((1, 1, 1, 2), 0.2), rtol=1e-6)


def test_colours_take_the_moments_of_opponent_channels():
    content, other = smooth(), smooth() * 0.5 + 0.2
    found = np.asarray(style.statistics_transfer(jnp.asarray(content), jnp.asarray(other), 0.0))
    assert found.min() > 0
    assert found.max() < 1

    def opponent(rgb):
        r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
        return np.stack([r + g + b, r - b, r - 2 * g + b], -1)

    np.testing.assert_allclose(opponent(found).mean((1, 2)), opponent(other).mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(opponent(found).std((1, 2)), opponent(other).std((1, 2)), atol=1e-5)
    # Every pixel keeps its place among the others, channel by channel.
    before, after = opponent(content), opponent(found)
    for b in range(2):
        for c in range(3):
            assert np.corrcoef(before[b, ..., c].ravel(), after[b, ..., c].ravel())[0, 1] > 0.9999


def test_colours_of_a_grey_image_stay_free_of_amplified_noise():
    grey = np.repeat(smooth((1, 12, 10, 1)), 3, axis=-1)
    grey[0, 3, 3, 0] += 0.2 / 255
    vivid = images(0.0, 1.0, (1, 12, 10, 3))
    found = np.asarray(style.statistics_transfer(jnp.asarray(grey), jnp.asarray(vivid)))
    chroma = found[0, ..., 0] - found[0, ..., 2]
    assert np.abs(chroma - np.median(chroma)).max() < 0.05


@pytest.mark.parametrize(("height", "width"), [(12, 10), (9, 15)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_fourier_is_the_released_recipe_on_the_whole_spectrum(height, width, share):
    """Amplitudes in a square of 2b + 1 around the centre of the shifted spectrum, as FDA's code does."""
    content, other = smooth((2, height, width, 3)), smooth((2, height, width, 3)) * 0.7
    found = style.fourier_transfer(jnp.asarray(content), jnp.asarray(other), share)
    b = int(np.floor(min(height, width) * share))
    own, its = (np.fft.fftshift(np.fft.fft2(x.astype(np.float64), axes=(1, 2)), (1, 2)) for x in (content, other))
    amplitude, phase = np.abs(own), np.angle(own)
    rows = slice(max(0, height // 2 - b), height // 2 + b + 1)
    columns = slice(max(0, width // 2 - b), width // 2 + b + 1)
    amplitude[:, rows, columns] = np.abs(its)[:, rows, columns]
    mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), (1, 2)), axes=(1, 2)).real
    np.testing.assert_allclose(found, np.clip(mixed, 0, 1), atol=1e-5)
    assert np.abs(mixed - content).max() > 0.05


def test_fourier_moves_only_the_mean_at_share_zero():
    content, other = smooth(), smooth() * 0.7
    found = np.asarray(style.fourier_transfer(jnp.asarray(content), jnp.asarray(other), 0.0))
    expected = content + (other.mean((1, 2)) - content.mean((1, 2)))[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fourier_of_black_has_the_mean_of_the_style():
    other = smooth((1, 8, 8, 3))
    found = np.asarray(style.fourier_transfer(jnp.zeros((1, 8, 8, 3)), jnp.asarray(other), 0.0))
    np.testing.assert_allclose(found, np.broadcast_to(other.mean((1, 2), keepdims=True), found.shape), atol=1e-5)


TRANSFERS = {"colour": style.statistics_transfer, "fourier": lambda c, s: style.fourier_transfer(c, s, 0.2)}


@pytest.mark.parametrize("name", TRANSFERS)
def test_own_style_changes_nothing(name):
    content = jnp.asarray(images())
    np.testing.assert_allclose(TRANSFERS[name](content, content), content, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFERS)
def test_rows_are_paired_and_values_stay_in_range(name):
    content, other = jnp.asarray(images(0, 1)), jnp.asarray(images(0, 1))
    other = other.at[1].multiply(0.1)
    found = TRANSFERS[name](content, other)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float(found[1].mean()) < 0.3 < float(found[0].mean())
    np.testing.assert_allclose(TRANSFERS[name](content[1:], other[1:])[0], found[1], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["adain", *TRANSFERS])
def test_constant_images_have_finite_values_and_gradients(name, value):
    transfer = {"adain": style.adain, **TRANSFERS}[name]
    flat = jnp.full((1, 8, 8, 3), value)
    for pair in ((flat, flat), (flat, jnp.asarray(images(shape=(1, 8, 8, 3))))):
        out, gradients = jax.value_and_grad(lambda c, s: jnp.sum(transfer(c, s) ** 2), argnums=(0, 1))(*pair)
        assert all(bool(jnp.isfinite(x).all()) for x in (out, *gradients))
