import functools
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.signal
from goldens import formula

from jaxpose.models import functional, vgg

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "vgg.npz"
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@functools.cache
def golden():
    with np.load(GOLDENS) as file:
        kept = {k: file[k] for k in file.files}
    return kept | {k: json.loads(str(kept[k])) for k in ("shapes", "decoder_shapes")}


def nhwc(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1), jnp.float32)


def encoder(blocks=5, width=4):
    network = functional.network(functools.partial(vgg.VGG, width=width, blocks=blocks))
    return network, jax.eval_shape(network.init, jax.random.key(0))[0]


def torch_weights():
    return {k: formula.weights(k, shape) for k, shape in golden()["shapes"].items()}


@functools.cache
def activations_and_gradient():
    network, shapes = encoder()
    params = vgg.vgg_from_torch(torch_weights(), shapes)

    def loss(images):
        outputs, stats = network.apply(params, {}, images, train=True)
        assert stats == {}
        terms = [
            jnp.mean(y * nhwc(formula.numbers(name, golden()[name].shape)))
            for y, name in zip(outputs, LAYERS, strict=True)
        ]
        return jnp.sum(jnp.stack(terms)), outputs

    gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(nhwc(formula.numbers("images", (2, 3, 16, 32))))
    return outputs, gradient


@pytest.mark.parametrize("layer", LAYERS)
def test_activations_equal_torchvision(layer):
    found, expected = activations_and_gradient()[0][LAYERS.index(layer)], nhwc(golden()[layer])
    assert float(expected.max()) > 1
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.max()))


def test_reflected_borders_equal_torch():
    network = functional.network(functools.partial(vgg.VGG, width=4, blocks=4, borders="reflected"))
    params = vgg.vgg_from_torch(torch_weights(), encoder(blocks=4)[1])
    images = nhwc(formula.numbers("images", (2, 3, 16, 32)))
    found = jax.jit(functools.partial(network.apply, train=False))(params, {}, images)[0][-1]
    expected = nhwc(golden()["reflected"])
    assert float(jnp.abs(expected - nhwc(golden()["relu4_1"])).max()) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.max()))


def test_image_gradient_equals_torchvision():
    found, expected = activations_and_gradient()[1], nhwc(golden()["image_gradient"])
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(jnp.abs(expected).max()))


def test_fewer_blocks_are_the_first_ones():
    network, shapes = encoder(blocks=2)
    params = vgg.vgg_from_torch(torch_weights(), shapes)
    assert sorted(params["features"], key=int) == ["0", "2", "5"]
    found, _ = network.apply(params, {}, nhwc(formula.numbers("images", (2, 3, 16, 32))), train=False)
    for y, expected in zip(found, activations_and_gradient()[0][:2], strict=True):
        np.testing.assert_allclose(y, expected, atol=1e-5 * float(expected.max()))


def decoded(features, kernels, biases):
    """The decoder in NumPy: NCHW, one correlation per pair of channels."""
    ups = {0, 4, 6}
    x = features
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
        x = np.stack(
            [
                [
                    bias[o] + sum(scipy.signal.correlate2d(image[c], kernel[o, c], "valid") for c in range(len(image)))
                    for o in range(len(kernel))
                ]
                for image in padded
            ]
        )
        x = x if i == 8 else np.maximum(x, 0)
        x = np.kron(x, np.ones((1, 1, 2, 2))) if i in ups else x
    assert x.shape == (1, 3, 16, 24)
    return x


def as_decoder(weights):
    return {
        "convs": {
            str(i): {
                "kernel": jnp.asarray(weights[f"{i}.weight"].transpose(2, 3, 1, 0), jnp.float32),
                "bias": jnp.asarray(weights[f"{i}.bias"], jnp.float32),
            }
            for i in range(9)
        }
    }


def test_decoder_equals_torch():
    weights = {k: formula.weights(k, shape) for k, shape in golden()["decoder_shapes"].items()}
    network = functional.network(functools.partial(vgg.Decoder, width=4))
    params = as_decoder(weights)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(network.init, jax.random.key(0))[0]
    )
    features = nhwc(formula.numbers("features", (2, 32, 2, 3)))
    found, stats = jax.jit(functools.partial(network.apply, train=False))(params, {}, features)
    expected = nhwc(golden()["decoded"])
    assert stats == {}
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_decoder_equals_its_description():
    rng = np.random.default_rng(0)
    channels = [8, 4, 4, 4, 4, 2, 2, 1, 1, 3]
    weights = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        weights[f"{i}.weight"] = rng.normal(size=(outputs, inputs, 3, 3)) * 0.4
        weights[f"{i}.bias"] = rng.normal(size=outputs) * 0.1
    features = rng.normal(size=(1, 8, 2, 3))
    network = functional.network(functools.partial(vgg.Decoder, width=1))
    found, _ = jax.jit(functools.partial(network.apply, train=False))(as_decoder(weights), {}, nhwc(features))
    expected = decoded(features, [weights[f"{i}.weight"] for i in range(9)], [weights[f"{i}.bias"] for i in range(9)])
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, nhwc(expected), atol=1e-5 * np.abs(expected).max())


def test_random_encoders_keep_the_size_of_their_input():
    network = encoder(blocks=3, width=8)[0]

    @jax.jit
    def encode(key):
        return network.apply(*network.init(key), jax.random.normal(key, (2, 16, 16, 3)), train=False)[0]

    outputs = encode(jax.random.key(0))
    sizes = [float(jnp.sqrt(jnp.mean(jnp.square(y)))) for y in outputs]
    assert all(0.3 < size < 3 for size in sizes), sizes


def test_narrow_dtype_is_what_layers_compute_in():
    def dtypes(module, x):
        network = functional.network(functools.partial(module, width=2), dtype=jnp.bfloat16)
        params, stats = jax.eval_shape(network.init, jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
        outputs, _ = jax.eval_shape(functools.partial(network.apply, train=False), params, stats, x)
        return {y.dtype for y in jax.tree.leaves(outputs)}

    assert dtypes(vgg.VGG, jnp.ones((1, 16, 16, 3))) == {jnp.dtype(jnp.bfloat16)}
    assert dtypes(vgg.Decoder, jnp.ones((1, 2, 2, 16))) == {jnp.dtype(jnp.float32)}


def test_import_takes_every_tensor_and_leaves_the_rest():
    _, shapes = encoder(blocks=4)
    weights = torch_weights()
    extra = {"classifier.0.weight": np.zeros((2, 2)), "features.34.bias": weights["features.34.bias"]}
    params = vgg.vgg_from_torch({f"module.{k}": v for k, v in (weights | extra).items()}, shapes)
    assert sorted(params["features"], key=int) == ["0", "2", "5", "7", "10", "12", "14", "16", "19"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    kernel = params["features"]["19"]["kernel"]
    assert float(kernel[2, 0, 3, 5]) == np.float32(weights["features.19.weight"][5, 3, 2, 0])
    np.testing.assert_array_equal(params["features"]["2"]["bias"], weights["features.2.bias"].astype(np.float32))


def test_foreign_weights_are_named():
    _, shapes = encoder(blocks=4)
    weights = torch_weights()
    without = {k: v for k, v in weights.items() if k != "features.16.bias"}
    with pytest.raises(ValueError, match=r"vgg: found no features\.16\.bias, expected torchvision's VGG-19"):
        vgg.vgg_from_torch(without, shapes)
    normalised = weights | {"features.1.weight": np.zeros(4)}
    with pytest.raises(ValueError, match=r"vgg: found features\.1\.weight.*without batch normalisation"):
        vgg.vgg_from_torch(normalised, shapes)
    with pytest.raises(ValueError, match=r"features\.0\.weight has shape \(4, 3, 3, 3\), expected \(2, 3, 3, 3\)"):
        vgg.vgg_from_torch(weights, encoder(width=2)[1])
    with pytest.raises(ValueError, match=r"features\.0\.bias has shape \(\), expected \(4,\)"):
        vgg.vgg_from_torch(weights | {"features.0.bias": np.float64(1)}, shapes)


def test_files(tmp_path):
    _, shapes = encoder(blocks=2)
    path = tmp_path / "vgg19.safetensors"
    with pytest.raises(FileNotFoundError, match=r"vgg: no file .*vgg19\.safetensors; vgg=None encodes by random"):
        vgg.load_vgg(path, shapes)
    safetensors.numpy.save_file({k: v.astype(np.float32) for k, v in torch_weights().items()}, path)
    found = vgg.load_vgg(path, shapes)
    jax.tree.map(np.testing.assert_array_equal, found, vgg.vgg_from_torch(torch_weights(), shapes))
