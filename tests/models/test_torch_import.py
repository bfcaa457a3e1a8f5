import argparse
import collections
import os
import pathlib
import pickle
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxpose.models import functional, torch_import

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="module")
def backbone():
    """Shapes of a small backbone, and weights under torchvision's names that fit."""
    params, stats = jax.eval_shape(functional.backbone(18, 2, jnp.float32).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    weights = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": params, "stats": stats}):
        *layer, name = (entry.key for entry in path[1:])
        shape = tuple(leaf.shape[i] for i in (3, 2, 0, 1)) if name == "kernel" else leaf.shape
        kinds = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
        key = ".".join([*layer, kinds.get(name, name)])
        weights[key] = rng.standard_normal(shape).astype(np.float32)
    return params, stats, weights


def test_reads_what_torch_wrote():
    found = torch_import.load_torch_weights(GOLDENS / "tiny.pth")
    base = np.arange(24, dtype=np.float32)
    expected = {
        "matrix": base.reshape(4, 6),
        "transposed": base.reshape(4, 6).T,
        "tail": base[20:],
        "parameter": base[:3] / 8,
        "half": np.array([0.5, -2], np.float16),
        "bfloat16": np.array([0.5, -2], jnp.bfloat16),
        "double": np.array([1 / 3]),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "norm.weight": np.ones(2, np.float32),
        "norm.bias": np.zeros(2, np.float32),
        "norm.running_mean": np.zeros(2, np.float32),
        "norm.running_var": np.ones(2, np.float32),
        "norm.num_batches_tracked": np.array(0),
    }
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_safetensors_round_trip(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2], np.int64)}
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    found = torch_import.load_torch_weights(str(tmp_path / "w.safetensors"))
    assert found.keys() == tensors.keys()
    jax.tree.map(np.testing.assert_array_equal, found, tensors)


def test_imports_every_tensor_and_ignores_the_classifier(backbone):
    params, stats, weights = backbone
    extra = {"fc.weight": np.zeros((3, 16)), "fc.bias": np.zeros(3), "bn1.num_batches_tracked": np.array(5)}
    new_params, new_stats = torch_import.resnet_from_torch(weights | extra, params, stats)
    assert jax.tree.map(lambda a: a.shape, (new_params, new_stats)) == jax.tree.map(lambda a: a.shape, (params, stats))
    kernel = new_params["layer2"]["0"]["downsample"]["0"]["kernel"]
    np.testing.assert_array_equal(kernel, weights["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0))
    stem = weights["conv1.weight"]
    assert float(new_params["conv1"]["kernel"][5, 2, 1, 0]) == stem[0, 1, 5, 2]
    np.testing.assert_array_equal(new_stats["layer4"]["1"]["bn2"]["var"], weights["layer4.1.bn2.running_var"])
    np.testing.assert_array_equal(new_params["bn1"]["scale"], weights["bn1.weight"])


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_prefixes_are_removed_and_other_networks_left_out(backbone, prefix):
    params, stats, weights = backbone
    prefixed = {prefix + key: value for key, value in weights.items()}
    if "backbone." in prefix:
        prefixed[prefix.replace("backbone.", "head.weight")] = np.zeros(3)
    expected = torch_import.resnet_from_torch(weights, params, stats)
    found = torch_import.resnet_from_torch(prefixed, params, stats)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_float64_weights_become_float32(backbone):
    params, stats, weights = backbone
    wide = {key: value.astype(np.float64) for key, value in weights.items()}
    found = torch_import.resnet_from_torch(wide, params, stats)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_missing_unexpected_and_misshapen_keys_are_named(backbone):
    params, stats, weights = backbone
    without = {k: v for k, v in weights.items() if k != "layer3.1.bn2.running_mean"}
    with pytest.raises(ValueError, match=r"1 missing keys \(layer3\.1\.bn2\.running_mean\).*model\.depth"):
        torch_import.resnet_from_torch(without, params, stats)
    with pytest.raises(ValueError, match=r"1 unexpected keys \(layer1\.2\.conv1\.weight\)"):
        torch_import.resnet_from_torch(weights | {"layer1.2.conv1.weight": np.zeros(1)}, params, stats)
    with pytest.raises(ValueError, match=r"bn1\.bias has shape \(3,\), expected \(2,\); .*model\.width"):
        torch_import.resnet_from_torch(weights | {"bn1.bias": np.zeros(3)}, params, stats)
    swapped = weights["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    with pytest.raises(ValueError, match=r"has shape \(3, 3, 2, 2\), expected \(2, 2, 3, 3\)") as error:
        torch_import.resnet_from_torch(weights | {"layer1.0.conv1.weight": swapped}, params, stats)
    assert "\n" not in str(error.value)


def test_missing_file_names_the_way_without(tmp_path):
    path = tmp_path / "absent.pth"
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file, expected published weights"):
        torch_import.load_torch_weights(path)


def test_legacy_and_foreign_files_are_refused(tmp_path):
    shutil.copy(GOLDENS / "tiny_legacy.pth", tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"old\.pth: .*convert.*torch\.save\(torch\.load\('old\.pth'"):
        torch_import.load_torch_weights(tmp_path / "old.pth")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights\.h5: expected a file \.safetensors"):
        torch_import.load_torch_weights(tmp_path / "weights.h5")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(ValueError, match=r"cut\.safetensors: not a readable safetensors file"):
        torch_import.load_torch_weights(tmp_path / "cut.safetensors")


class _Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _archive(path, pickled, **storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, values in storages.items():
            archive.writestr(f"archive/data/{key}", values.tobytes())
    return path


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, protocol):
    hostile = {"conv1.weight": _Calls(os.system, f"touch {tmp_path / 'ran'}")}
    path = _archive(tmp_path / "hostile.pth", pickle.dumps(hostile, protocol))
    with pytest.raises(ValueError, match=rf"names {os.system.__module__}\.system, expected nothing but tensors"):
        torch_import.load_torch_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(tmp_path, name):
    path = _archive(tmp_path / "hostile.pth", b"cbuiltins\n" + name.encode() + b"\n.")
    with pytest.raises(ValueError, match=f"names builtins.{name}"):
        torch_import.load_torch_weights(path)


def _tensor(offset, size, stride):
    """A hand-written pickle of {"w": tensor} over the storage `0`."""
    numbers = [b"(" + b"".join(b"I%d\n" % n for n in values) + b"t" for values in (size, stride)]
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n" % offset + b"".join(numbers) + b"I00\nNtR"
    return b"(dVw\n" + tensor + b"s."


def test_tensors_must_lie_inside_their_storage(tmp_path):
    storage = np.arange(4, dtype=np.float32)
    path = tmp_path / "w.pth"
    good = torch_import.load_torch_weights(_archive(path, _tensor(1, (3,), (1,)), **{"0": storage}))
    np.testing.assert_array_equal(good["w"], [1, 2, 3])
    for offset, size, stride in [(2, (3,), (1,)), (0, (2,), (4,)), (0, (1000000, 1000000), (0, 0))]:
        _archive(path, _tensor(offset, size, stride), **{"0": storage})
        with pytest.raises(ValueError, match="reaches outside its storage of 4"):
            torch_import.load_torch_weights(path)
    for offset, size, stride in [(3, (2,), (-1,)), (-1, (2,), (1,)), (0, (2, 2), (1,))]:
        _archive(path, _tensor(offset, size, stride), **{"0": storage})
        with pytest.raises(ValueError, match="expected counts"):
            torch_import.load_torch_weights(path)


def _training(beside):
    """A hand-written pickle of {"model": {"w": tensor}, "args": what is beside}."""
    return b"(dVmodel\n" + _tensor(0, (4,), (1,))[:-1] + b"sVargs\n" + pickle.dumps(beside, 2)[2:-1] + b"s."


def test_what_a_training_keeps_beside_the_weights_is_left_out(tmp_path):
    """tllib saves the arguments of its command line, and the milestones of its schedule, which are a Counter."""
    storage = np.arange(4, dtype=np.float32)
    args = argparse.Namespace(lr=0.1, arch="resnet101", lr_step=[45, 60], milestones=collections.Counter([45, 60]))
    found = torch_import.load_torch_weights(_archive(tmp_path / "w.pth", _training(args), **{"0": storage}))
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], storage)


def test_arguments_of_a_training_do_not_run_anything(tmp_path):
    args = argparse.Namespace(resume=_Calls(os.system, f"touch {tmp_path / 'ran'}"))
    path = _archive(tmp_path / "w.pth", _training(args), **{"0": np.zeros(4, np.float32)})
    with pytest.raises(ValueError, match=r"names .*system, .*torch\.load\('w\.pth', weights_only=False\)\['model'\]"):
        torch_import.load_torch_weights(path)
    assert not (tmp_path / "ran").exists()


def test_names_cannot_be_changed(tmp_path):
    changed = b"ctorch._utils\n_rebuild_tensor_v2\n(N(dVx\nI1\nstb."
    with pytest.raises(ValueError, match=r"refused to change torch\._utils\._rebuild_tensor_v2"):
        torch_import.load_torch_weights(_archive(tmp_path / "w.pth", changed))


def test_archives_that_expand_a_thousandfold_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", _tensor(0, (4,), (1,)))
        archive.writestr("archive/data/0", bytes(2**27))
    with pytest.raises(ValueError, match=r"w\.pth: .*expand to 134217728, more than 200 times"):
        torch_import.load_torch_weights(path)


def test_tensors_that_share_a_storage_are_bounded_together(tmp_path):
    storage = np.zeros(2**22, np.float32)
    tensor = _tensor(0, (2**22,), (1,))[len(b"(dVw\n") : -len(b"s.")]
    for count, good in ((5, True), (20, False)):
        path = _archive(tmp_path / "w.pth", b"(d" + b"".join(b"Vw%d\n%bs" % (i, tensor) for i in range(count)) + b".")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/data/0", storage.tobytes())
        if good:
            assert len(torch_import.load_torch_weights(path)) == count
        else:
            with pytest.raises(ValueError, match="many times as large as the file"):
                torch_import.load_torch_weights(path)


def test_content_other_than_tensors_is_named(tmp_path):
    path = tmp_path / "w.pth"
    for content, message in [([1], "found list"), ({"epoch": 3}, "'epoch' is of type int")]:
        _archive(path, pickle.dumps(content))
        with pytest.raises(ValueError, match=rf"w\.pth: {message}.*expected a"):
            torch_import.load_torch_weights(path)
    _archive(path, pickle.dumps({})[:-1])
    with pytest.raises(ValueError, match=r"w\.pth: not a readable file of torch tensors"):
        torch_import.load_torch_weights(path)
