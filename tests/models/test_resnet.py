import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import formula

from jaxpose.models import functional, layers, torch_import

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "resnet.npz"


@functools.cache
def _golden(depth):
    with np.load(GOLDENS) as file:
        kept = {k.split("/")[1]: file[k] for k in file.files if k.startswith(f"resnet{depth}/")}
    return kept | {k: json.loads(str(kept[k])) for k in ("shapes", "gradient_names")}


@functools.cache
def _network(depth):
    """The golden's backbone, parameters, statistics and images."""
    network = functional.backbone(depth, 8, jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    weights = {k: formula.weights(k, shape) for k, shape in _golden(depth)["shapes"].items()}
    params, stats = torch_import.resnet_from_torch(weights, *shapes)
    images = jnp.asarray(formula.numbers("images", (4, 3, 64, 64)).transpose(0, 2, 3, 1), jnp.float32)
    return network, params, stats, images


@functools.cache
def _trained(depth):
    """Output, new statistics and gradients in training mode, for the golden's loss."""
    network, params, stats, images = _network(depth)
    shape = _golden(depth)["train"].shape
    cotangent = jnp.asarray(formula.numbers("cotangent", shape).transpose(0, 2, 3, 1), jnp.float32)

    def loss(params, images):
        y, new_stats = network.apply(params, stats, images, train=True)
        return (y * cotangent).mean(), (y, new_stats)

    # Gradients of a few pixels through batch statistics are so steep that another rounding is one percent.
    options = {"xla_backend_optimization_level": 3}
    gradients, (y, new_stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), compiler_options=options)(
        params, images
    )
    return y, new_stats, *gradients


def _torch_named(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _torch_named(value, f"{prefix}{name}.")
        else:
            array = np.asarray(value)
            torch_name = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
            yield prefix + torch_name.get(name, name), array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


@pytest.mark.parametrize("depth", [18, 50])
def test_evaluation_equals_torchvision(depth):
    network, params, stats, images = _network(depth)
    y, after = jax.jit(functools.partial(network.apply, train=False))(params, stats, images)
    expected = _golden(depth)["eval"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    jax.tree.map(np.testing.assert_array_equal, after, stats)


@pytest.mark.parametrize("depth", [18, 50])
def test_training_output_equals_torchvision(depth):
    expected = _golden(depth)["train"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(_trained(depth)[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("depth", [18, 50])
def test_running_statistics_equal_torchvision_up_to_the_biased_variance(depth):
    golden = _golden(depth)
    found = dict(_torch_named(_trained(depth)[1]))
    before = dict(_torch_named(_network(depth)[2]))
    position = 0
    for name, shape in golden["shapes"].items():
        if "running" not in name:
            continue
        expected = golden["running"][position : position + shape[0]]
        position += shape[0]
        if name.endswith("var"):
            # torch adds n / (n - 1) times the batch's variance, n values of a channel.
            unbiased = (found[name] - 0.9 * before[name]) * _bessel(name, depth)
            np.testing.assert_allclose(0.9 * before[name] + unbiased, expected, rtol=1e-4, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], expected, atol=1e-4, err_msg=name)
    assert position == len(golden["running"])


def _bessel(name, depth):
    """n / (n - 1) at this layer, for 4 images of 64 x 64 pixels."""
    if name.startswith("bn1"):
        side = 32
    else:
        stage, block, norm = int(name[5]), int(name[7]), name[9:12]
        side = 16 // 2 ** (stage - 1)
        if depth == 50 and stage > 1 and block == 0 and norm == "bn1":
            side *= 2  # before the strided 3x3 convolution
    n = 4 * side**2
    return n / (n - 1)


@pytest.mark.parametrize("depth", [18, 50])
def test_gradients_equal_torchvision(depth):
    golden = _golden(depth)
    _, _, params, images = _trained(depth)
    expected = golden["image_gradient"].transpose(0, 2, 3, 1)
    found = images[:, :16, :16]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    gradients = dict(_torch_named(params))
    assert gradients.keys() == set(golden["gradient_names"])
    for name, (norm, product) in zip(golden["gradient_names"], golden["parameter_gradients"], strict=True):
        gradient = gradients[name].astype(np.float64)
        found = np.sum(gradient * formula.numbers(name, gradient.shape))
        np.testing.assert_allclose(np.linalg.norm(gradient), norm, rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(found, product, atol=2e-3 * norm, err_msg=name)


@pytest.mark.parametrize(
    ("depth", "parameters", "channels"),
    [(18, 11_176_512, 512), (34, 21_284_672, 512), (50, 23_508_032, 2048), (101, 42_500_160, 2048)],
)
def test_published_networks_have_torchvisions_size(depth, parameters, channels):
    network = functional.backbone(depth, 64, jnp.float32)
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    y, _ = jax.eval_shape(functools.partial(network.apply, train=False), params, stats, images)
    assert y.shape == (2, 2, 3, channels)
    assert functional.backbone_channels(depth, 64) == channels


def test_initial_weights_follow_he_and_the_key():
    network = functional.backbone(18, 16, jnp.float32)
    params, stats = network.init(jax.random.key(1))
    kernel = np.asarray(params["layer4"]["1"]["conv2"]["kernel"])
    assert abs(kernel.mean()) < 3e-4
    assert np.isclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    norm = params["layer4"]["1"]["bn2"]
    assert np.all(np.asarray(norm["scale"]) == 1)
    assert np.all(np.asarray(norm["bias"]) == 0)
    assert np.all(np.asarray(stats["bn1"]["mean"]) == 0)
    assert np.all(np.asarray(stats["bn1"]["var"]) == 1)
    again, other = network.init(jax.random.key(1))[0], network.init(jax.random.key(2))[0]
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert not np.array_equal(params["conv1"]["kernel"], other["conv1"]["kernel"])
    first, second = (params["layer1"][block]["conv1"]["kernel"] for block in ("0", "1"))
    assert not np.array_equal(first, second)


def test_unknown_depth_is_named():
    with pytest.raises(ValueError, match=r"model\.depth: found 20, expected one of \[18, 34, 50, 101, 152\]"):
        functional.backbone(20, 64, jnp.float32)


def test_without_normalisation_it_adds_biases_and_has_no_statistics():
    """A published file's normalisations, as they are in evaluation, go into the convolutions."""
    golden = _golden(50)
    weights = {k: formula.weights(k, shape) for k, shape in golden["shapes"].items()}
    network = functional.backbone(50, 8, jnp.float32, norm=layers.Bias)
    shapes, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert stats == {}
    normalised, _ = jax.eval_shape(_network(50)[0].init, jax.random.key(0))
    without = {name for name, _ in _torch_named(normalised)} - {name for name, _ in _torch_named(shapes)}
    assert without == {name for name in golden["gradient_names"] if name.endswith(("bn1.weight", "bn2.weight"))} | {
        name for name in golden["gradient_names"] if name.endswith(("bn3.weight", "downsample.1.weight"))
    }
    params, stats = torch_import.resnet_from_torch({f"module.{k}": v for k, v in weights.items()}, shapes, stats)
    y, _ = jax.jit(functools.partial(network.apply, train=True))(params, stats, _network(50)[3])
    expected = golden["eval"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_file_of_another_network_is_named_where_nothing_is_normalised():
    network = functional.backbone(18, 8, jnp.float32, norm=layers.Bias)
    shapes, stats = jax.eval_shape(network.init, jax.random.key(0))
    weights = {k: formula.weights(k, shape) for k, shape in _golden(18)["shapes"].items()}
    for key, value in (("layer1.0.bn1.running_mean", np.zeros(3)), ("layer2.0.conv1.weight", np.zeros(3))):
        with pytest.raises(ValueError, match=rf"3 unexpected keys \({key[:8]}.*; see model.depth, model.width"):
            torch_import.resnet_from_torch(weights | {key: value}, shapes, stats)
    del weights["bn1.weight"]
    with pytest.raises(ValueError, match=r"2 unexpected keys \(bn1.running_mean, bn1.running_var\)"):
        torch_import.resnet_from_torch(weights, shapes, stats)
