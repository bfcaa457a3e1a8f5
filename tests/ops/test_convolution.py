import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from platforms import traced_for

from jaxpose.ops import convolution
from jaxpose.ops.cpu import convolution as cpu


@pytest.fixture(params=["cpu", "gpu"])
def lowering(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways of computing: the one chosen on CPU, and the one chosen elsewhere, computed on CPU."""
    with traced_for(request.param):
        yield request.param


GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "convolution.npz"

IMAGES = (0, 2, 3, 1)


def _golden(name):
    with np.load(GOLDENS) as file:
        return {key.split("/")[1]: file[key] for key in file.files if key.startswith(f"{name}/")}


def _forward_and_gradients(function, arguments, dy):
    y, vjp = jax.vjp(function, *arguments)
    return y, vjp(dy)


@pytest.mark.parametrize(
    ("name", "function", "layout"),
    [
        ("conv3x3", lambda x, w: convolution.conv2d(x, w, stride=2, padding=1), (2, 3, 1, 0)),
        ("conv1x1", lambda x, w: convolution.conv2d(x, w, stride=2), (2, 3, 1, 0)),
        ("deconv", convolution.deconv2d, (2, 3, 0, 1)),
    ],
)
def test_equals_torch(name, function, layout, lowering):
    golden = _golden(name)
    x, dy = (jnp.asarray(golden[key].transpose(IMAGES)) for key in ("x", "dy"))
    w = jnp.asarray(golden["w"].transpose(layout))
    y, (dx, dw) = _forward_and_gradients(jax.jit(function), (x, w), dy)
    np.testing.assert_allclose(y, golden["y"].transpose(IMAGES), atol=1e-5)
    np.testing.assert_allclose(dx, golden["dx"].transpose(IMAGES), atol=1e-5)
    np.testing.assert_allclose(dw, golden["dw"].transpose(layout), atol=1e-5)


@pytest.mark.parametrize("name", ["pool_even", "pool_odd"])
def test_max_pool_equals_torch_with_ties(name):
    golden = _golden(name)
    x, dy = (jnp.asarray(golden[key].transpose(IMAGES)) for key in ("x", "dy"))
    y, (dx,) = _forward_and_gradients(jax.jit(convolution.max_pool_3x3_s2), (x,), dy)
    np.testing.assert_array_equal(y, golden["y"].transpose(IMAGES))
    np.testing.assert_allclose(dx, golden["dx"].transpose(IMAGES), atol=1e-6)


def test_max_pool_lets_nan_through():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 3, 3, 0].set(jnp.nan)
    found = np.isnan(np.asarray(convolution.max_pool_3x3_s2(x))[0, :, :, 0])
    expected = np.zeros((3, 3), bool)
    expected[1:, 1:] = True  # windows cover rows and columns -1..1, 1..3, 3..5
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("stride", "padding", "size"), [(2, 1, 4), (2, 0, 2), (3, 1, 5), (1, 1, 3)])
def test_deconv_adds_a_scaled_kernel_for_every_input_pixel(stride, padding, size, lowering):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 2)).astype(np.float32)
    kernel = rng.standard_normal((size, size, 2, 3)).astype(np.float32)
    full = np.zeros((2, stride * 2 + size, stride * 3 + size, 3), np.float32)
    for row in range(3):
        for column in range(4):
            top, left = stride * row, stride * column
            added = np.einsum("bi,hwio->bhwo", x[:, row, column], kernel)
            full[:, top : top + size, left : left + size] += added
    expected = full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding]
    found = convolution.deconv2d(jnp.asarray(x), jnp.asarray(kernel), stride=stride, padding=padding)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("many", [1, 64])
def test_deconv_gradient_is_that_of_the_input_dilated_convolution(many, lowering, monkeypatch):
    monkeypatch.setattr(cpu, "_MANY_CHANNELS", many)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((2, 3, 4, 2)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((4, 4, 2, 3)), jnp.float32)
    dy = jnp.asarray(rng.standard_normal((2, 6, 8, 3)), jnp.float32)

    def dilated(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1],
            (1, 1),
            ((2, 2), (2, 2)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    found = _forward_and_gradients(convolution.deconv2d, (x, kernel), dy)
    expected = _forward_and_gradients(dilated, (x, kernel), dy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_no_gradient_of_a_deconv_dilates_its_input(lowering):
    """Convolutions of a dilated output gradient over the whole map are what makes XLA's own derivative slow."""
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((4, 4, 4, 4))
    gradient = jax.grad(lambda x, k: convolution.deconv2d(x, k).sum(), argnums=(0, 1))
    convolutions = [e for e in _equations(jax.make_jaxpr(gradient)(x, kernel).jaxpr) if e.primitive.name == PRIMITIVE]
    dilated = [e for e in convolutions if e.params["lhs_dilation"] != (1, 1)]
    if lowering == "cpu":
        assert len(convolutions) == 4 + 2  # a forward one for each phase, and one for each gradient
        assert not dilated
    else:
        assert len(convolutions) == 3  # forward, and one for each gradient
        assert len(dilated) == 1  # the forward one, which XLA recognises by its reversed kernel
        assert dilated[0].invars[1].aval.shape == kernel.shape


@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 7)])
def test_small_maps_are_convolved_as_a_product(stride, side):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((2, side, side, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 4)), jnp.float32)

    def function(x, kernel):
        return convolution.conv2d(x, kernel, stride=stride, padding=1)

    assert not any(e.primitive.name == PRIMITIVE for e in _equations(jax.make_jaxpr(function)(x, kernel).jaxpr))
    dy = jnp.asarray(rng.standard_normal((2, 4, 4, 4)), jnp.float32)
    found = _forward_and_gradients(function, (x, kernel), dy)
    with traced_for("gpu"):
        expected = _forward_and_gradients(function, (x, kernel), dy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_many_channels_go_through_winograds_transform():
    x, kernel = jnp.zeros((1, 32, 32, 64)), jnp.zeros((3, 3, 64, 64))
    same = jax.make_jaxpr(lambda x, k: convolution.conv2d(x, k, padding=1))(x, kernel)
    assert not any(e.primitive.name == PRIMITIVE for e in _equations(same.jaxpr))
    for options in ({"stride": 2, "padding": 1}, {"padding": 0}, {"padding": ((1, 1), (0, 2))}):
        other = jax.make_jaxpr(lambda x, k, o=options: convolution.conv2d(x, k, **o))(x, kernel)
        assert any(e.primitive.name == PRIMITIVE for e in _equations(other.jaxpr))


PRIMITIVE = "conv_general_dilated"


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "jaxpr")):
            if hasattr(value, "jaxpr"):
                yield from _equations(value.jaxpr)


def test_asymmetric_padding_and_an_offset_1x1_kernel():
    x = jnp.arange(12, dtype=jnp.float32).reshape(1, 3, 4, 1)
    y = convolution.conv2d(x, jnp.full((1, 1, 1, 1), 2.0), padding=((1, 0), (0, 2)))
    np.testing.assert_array_equal(y[0, :, :, 0], np.pad(2 * np.asarray(x)[0, :, :, 0], ((1, 0), (0, 2))))


@pytest.mark.parametrize("function", [convolution.conv2d, convolution.deconv2d])
def test_stays_in_bfloat16(function):
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((4, 4, 2, 3), jnp.bfloat16)
    y, (dx, dw) = _forward_and_gradients(function, (x, kernel), jnp.ones_like(function(x, kernel)))
    assert {y.dtype, dx.dtype, dw.dtype} == {jnp.dtype(jnp.bfloat16)}


def test_a_strided_1x1_convolution_is_no_product_on_gpus():
    """XLA's compiler for GPUs aborts where it fuses a product with a strided slice."""
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((1, 1, 4, 4))
    for platform, stride, product in (("gpu", 2, False), ("gpu", 1, True), ("tpu", 2, False), ("cpu", 2, True)):
        with traced_for(platform):
            made = jax.make_jaxpr(lambda x, k, s=stride: convolution.conv2d(x, k, stride=s))(x, kernel)
        assert any(e.primitive.name == "dot_general" for e in _equations(made.jaxpr)) == product


def test_cast_kernels_pass_their_gradient_on(lowering):
    kernel = jnp.ones((3, 3, 2, 4))
    y, pull = jax.vjp(lambda k: convolution.cast_kernel(k, jnp.bfloat16), kernel)
    assert y.dtype == jnp.bfloat16
    (gradient,) = pull(jnp.full(kernel.shape, 2.0, jnp.bfloat16))
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, 2.0)
