"""HRNet beside one that was written from its description in torch, see `goldens/make_hrnet.py`."""

import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from goldens import formula

from jaxpose.models.hrnet import HRNet

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "hrnet.npz"
NARROW = HRNet(width=4, stem=8, modules=(1, 1, 2), blocks=1)
TRUNK = ("backbone", "upsampling")
# Here the last exchange is a network of its own.
PREFIXES = {"backbone": "", "upsampling": "stage4.{}."}
KINDS = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@functools.cache
def golden() -> dict[str, Any]:
    with np.load(GOLDENS) as file:
        kept = {k: file[k] for k in file.files}
    return kept | {k: json.loads(bytes(kept[k])) for k in kept if k.endswith("shapes")}


def shapes_of(model: HRNet) -> tuple[Any, Any]:
    networks = model.trunk(jnp.float32).networks
    made = {name: jax.eval_shape(networks[name].init, jax.random.key(0)) for name in TRUNK}
    return tuple({name: made[name][i] for name in TRUNK} for i in (0, 1))


def torch_named(model: HRNet, trees: Any) -> dict[str, Any]:
    """Leaves by their names in torch; arrays in its order of axes."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        network, *layer, name = (entry.key for entry in path)
        prefix = PREFIXES[network].format(model.modules[-1] - 1)
        value = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)
        if name == "kernel" and isinstance(value, np.ndarray):
            value = value.transpose(3, 2, 0, 1)
        found[prefix + ".".join([*layer, KINDS.get(name, name)])] = value
    return found


def narrow_weights() -> dict[str, np.ndarray]:
    return {k: formula.weights(k, shape).astype(np.float32) for k, shape in golden()["shapes"].items()}


def loaded(weights: dict[str, np.ndarray], folder: pathlib.Path, model: HRNet = NARROW) -> tuple[Any, Any]:
    """Parameters and statistics of a model from a file with these weights."""
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in weights.items()}, folder / "w.safetensors")
    changed = HRNet(**{**vars(model), "weights": str(folder / "w.safetensors")})
    return changed.load(*shapes_of(model))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return loaded(narrow_weights(), tmp_path_factory.mktemp("weights"))


def images() -> jax.Array:
    return jnp.asarray(formula.numbers("images", (2, 3, 64, 96)).transpose(0, 2, 3, 1), jnp.float32)


def forward(params: Any, stats: Any, x: jax.Array, *, train: bool) -> tuple[Any, jax.Array, Any]:
    networks = NARROW.trunk(jnp.float32).networks
    branches, first = networks["backbone"].apply(params["backbone"], stats["backbone"], x, train=train)
    y, second = networks["upsampling"].apply(params["upsampling"], stats["upsampling"], branches, train=train)
    return branches, y, {"backbone": first, "upsampling": second}


@pytest.fixture(scope="module")
def trained(trees: Any) -> tuple[Any, ...]:
    """Output, statistics and gradients in training, for the golden's loss."""
    params, stats = trees
    cotangent = formula.numbers("cotangent", golden()["train"].shape).transpose(0, 2, 3, 1)

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        _, y, after = forward(params, stats, x, train=True)
        return (y * jnp.asarray(cotangent, jnp.float32)).mean(), (y, after)

    gradients, (y, after) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, images())
    return y, after, *gradients


def close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_evaluation_and_what_enters_the_last_exchange_equal_torch(trees: Any) -> None:
    branches, y, after = jax.jit(functools.partial(forward, train=False))(*trees, images())
    close(y, golden()["eval"].transpose(0, 2, 3, 1))
    for number, branch in enumerate(branches):
        close(branch.mean(-1), golden()[f"branch{number}"])
    assert [x.shape[1:] for x in branches] == [(16, 24, 4), (8, 12, 8), (4, 6, 16), (2, 3, 32)]
    jax.tree.map(np.testing.assert_array_equal, after, trees[1])


def test_training_output_equals_torch(trained: Any) -> None:
    close(trained[0], golden()["train"].transpose(0, 2, 3, 1))


def test_gradients_equal_torch(trained: Any) -> None:
    *_, params, slope = trained
    close(slope[:, :16, :16], golden()["image_gradient"].transpose(0, 2, 3, 1))
    gradients = torch_named(NARROW, params)
    names = [k for k in golden()["shapes"] if "running" not in k and not k.endswith("num_batches_tracked")]
    assert gradients.keys() == set(names)
    for name, (norm, product) in zip(names, golden()["gradients"], strict=True):
        gradient = gradients[name].astype(np.float64)
        found = np.sum(gradient * formula.numbers(name, gradient.shape))
        np.testing.assert_allclose(np.linalg.norm(gradient), norm, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(found, product, atol=1e-4 * norm, err_msg=name)


def test_running_means_equal_torch(trained: Any) -> None:
    """Its variances are n / (n - 1) times larger, which `test_resnet.py` has."""
    found = torch_named(NARROW, trained[1])
    names = [k for k in golden()["shapes"] if "running" in k]
    assert found.keys() == set(names)
    for name, (total, product) in zip(names, golden()["running"], strict=True):
        if name.endswith("mean"):
            assert found[name].sum() == pytest.approx(total, abs=1e-3), name
            assert np.sum(found[name] * formula.numbers(name, found[name].shape)) == pytest.approx(product, abs=1e-3)


@pytest.mark.parametrize(("width", "parameters"), [(32, 28_535_552), (48, 63_594_912)])
def test_published_networks_have_the_names_and_shapes_of_the_released_weights(width: int, parameters: int) -> None:
    model = HRNet(width=width)
    params, stats = shapes_of(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    assert golden()[f"w{width}/parameters"] == parameters + 17 * (width + 1)
    found = {name: leaf.shape for tree in (params, stats) for name, leaf in torch_named(model, tree).items()}
    expected = {k: v for k, v in golden()[f"w{width}/shapes"].items() if not k.startswith("final_layer.")}
    assert found.keys() == expected.keys()
    for name, shape in expected.items():
        own = found[name]
        assert tuple(shape) == (tuple(own[i] for i in (3, 2, 0, 1)) if len(own) == 4 else own), name
    assert model.trunk(jnp.float32).channels == (width, 2 * width, 4 * width, 8 * width)
    assert (model.grid(256).size, model.grid(256).stride) == (64, 4.0)


def test_files_of_all_kinds_fill_the_same_places(trees: Any, tmp_path: pathlib.Path) -> None:
    """mmpose's, and ImageNet networks, whose last module also serves the coarser branches."""
    weights = narrow_weights()
    head = {"weight": np.zeros((3, 4, 1, 1), np.float32), "bias": np.zeros(3, np.float32)}
    released = {f"final_layer.{k}": v for k, v in head.items()}
    mmpose = {f"head.final_layer.{k}": v for k, v in head.items()}
    classifier = {
        "incre_modules.0.0.conv1.weight": np.zeros((32, 4, 1, 1), np.float32),
        "downsamp_modules.0.0.bias": np.zeros(8, np.float32),
        "final_layer.0.weight": np.zeros((16, 8, 1, 1), np.float32),
        "classifier.weight": np.zeros((10, 16), np.float32),
        "stage4.1.fuse_layers.3.0.0.0.weight": np.zeros((4, 4, 3, 3), np.float32),
    }
    for file in (
        weights | released,
        weights | classifier,
        {f"backbone.{k}": v for k, v in weights.items()} | mmpose,
    ):
        jax.tree.map(np.testing.assert_array_equal, loaded(file, tmp_path), trees)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage4.1.fuse_layers.0.3.0.weight": None}, r"1 missing keys \(stage4\.1\.fuse_layers\.0\.3\.0\.weight\)"),
        ({"stage4.0.fuse_layers.3.0.9.0.weight": np.zeros(1)}, r"1 unexpected keys \(stage4\.0\.fuse_layers\.3\.0\.9"),
        ({"transition3.3.0.0.weight": np.zeros((32, 8, 3, 3))}, r"has shape \(32, 8, 3, 3\), expected \(32, 16, 3, 3"),
        ({"layer1.0.conv1.weight": None, "fc.bias": np.zeros(1)}, r"1 missing keys .*; see model\.width, model\.modul"),
    ],
)
def test_weights_of_another_network_are_named(change: Any, message: str, tmp_path: pathlib.Path) -> None:
    weights = {k: v for k, v in (narrow_weights() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message) as error:
        loaded(weights, tmp_path)
    assert "\n" not in str(error.value)


def test_sums_are_enlarged_by_broadcasts_in_the_dtype_of_the_convolutions() -> None:
    """No pixel is gathered, and no gradient scattered."""
    networks = NARROW.trunk(jnp.bfloat16).networks
    params, shapes = shapes_of(NARROW)
    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes["upsampling"])
    branches = tuple(jax.ShapeDtypeStruct((2, 16 >> i, 24 >> i, 4 << i), jnp.bfloat16) for i in range(4))

    def total(params: Any, branches: Any) -> jax.Array:
        y, _ = networks["upsampling"].apply(params, stats, branches, train=True)
        assert y.dtype == jnp.bfloat16
        return y.astype(jnp.float32).sum()

    text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(params["upsampling"], branches).as_text()
    assert "gather" not in text
    assert "scatter" not in text
