"""Weights of published torch networks, read without torch and without running pickled code."""

import math
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jaxpose import pickles, untrusted
from jaxpose.ops import normalization
from jaxpose.pickles import Named, RefusedError

Tree = dict[str, Any]


def load_torch_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a state dict: name -> array in torch's layout.

    A `.safetensors` file, or a `.pth`, `.pt` or `.bin` file written by torch >= 1.6. The tensors may lie under a key
    `state_dict` or `model`, beside whatever a training keeps: its arguments and schedules are left out unseen. A pickle
    that names anything else is refused, and nothing that it names is called.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is of another kind, damaged, holds something else than tensors, or expands without measure.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected published weights; None trains from random ones")
    if file.suffix == ".safetensors":
        with untrusted.reading(f"{path}: not a readable safetensors file", "tensors"):
            return safetensors.numpy.load_file(file)
    if file.suffix not in (".pth", ".pt", ".bin"):
        raise ValueError(f"{path}: expected a file .safetensors, .pth, .pt or .bin")
    with untrusted.reading(f"{path}: not a readable file of torch tensors", "one that torch.save wrote"):
        zipped = zipfile.is_zipfile(file)
    if not zipped:
        raise ValueError(
            f"{path}: found no zip archive, expected torch's format since 1.6; convert an older file once with "
            f"torch: torch.save(torch.load({file.name!r}, weights_only=True), 'converted.pth')"
        )
    return _tensors(path, _read_archive(file))


def resnet_from_torch(state_dict: dict[str, np.ndarray], params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Puts torchvision-named ResNet weights, but for `fc.*`, into the places of a `functional.backbone`.

    A backbone that has biases in the place of batch normalisations becomes what the file's network is in evaluation:
    convolutions are multiplied by what their normalisations multiply by.

    Args and errors are those of `networks_from_torch`, with the backbone's parameters and statistics.
    """
    new_params, new_stats = networks_from_torch(
        state_dict if stats else _folded(_unprefixed(state_dict)),
        {"backbone": params},
        {"backbone": stats},
        prefixes={"backbone": ""},
        left_out=("fc.",),
        settings="model.depth, model.width",
    )
    return new_params["backbone"], new_stats["backbone"]


def networks_from_torch(
    state_dict: dict[str, np.ndarray],
    params: Tree,
    stats: Tree,
    *,
    prefixes: Mapping[str, str],
    left_out: tuple[str, ...],
    settings: str,
) -> tuple[Tree, Tree]:
    """Puts weights into the places of networks that have torch's names.

    Keys may begin with `module.` or `backbone.`, or both; where some begin with `backbone.`, the others belong to other
    networks and are left out. `num_batches_tracked` is ignored.

    Args:
      state_dict: torch's names and layouts.
      params, stats: by network, what `init` returned; only names and shapes matter, `jax.ShapeDtypeStruct` will do.
      prefixes: of the networks that are filled, what torch's names begin with.
      left_out: beginnings of keys that are ignored.
      settings: what to look at where the file is of another network.

    Returns:
      Parameters and statistics of all networks; those that are filled float32.

    Raises:
      ValueError: a key is missing, unexpected or of another shape.
    """
    weights = {k: v for k, v in _unprefixed(state_dict).items() if not k.startswith(left_out)}
    weights = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    expected = {
        key for name, prefix in prefixes.items() for tree in (params, stats) for key in _names(tree[name], prefix)
    }
    for what, keys in (("missing", expected - weights.keys()), ("unexpected", weights.keys() - expected)):
        if keys:
            some = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
            raise ValueError(
                f"model.weights: {len(keys)} {what} keys ({some}); found {len(weights)} keys, expected "
                f"{len(expected)}; see {settings}"
            )
    new_params, new_stats = (
        {name: _filled(tree[name], weights, prefix, settings) for name, prefix in prefixes.items()}
        for tree in (params, stats)
    )
    return params | new_params, stats | new_stats


# How a leaf of a layer is called in torch; kernels are HWIO here and OIHW there.
_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _names(tree, prefix):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield prefix + _NAMES[name]


def _filled(tree, found, prefix, settings):
    filled = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            filled[name] = _filled(value, found, f"{prefix}{name}.", settings)
            continue
        key = prefix + _NAMES[name]
        array = np.asarray(found[key])
        expected = tuple(value.shape[i] for i in (3, 2, 0, 1)) if name == "kernel" else tuple(value.shape)
        if array.shape != expected:
            raise ValueError(f"model.weights: {key} has shape {array.shape}, expected {expected}; see {settings}")
        array = array.transpose(2, 3, 1, 0) if name == "kernel" else array
        filled[name] = jnp.asarray(array.astype(np.float32))
    return filled


def _folded(state_dict):
    """A ResNet's weights with its normalisations in the convolutions before them, of which the biases are left."""
    folded = dict(state_dict)
    for key in state_dict:
        if not key.endswith(".running_var"):
            continue
        norm = key.removesuffix("running_var")
        conv = re.sub(r"bn(\d+)\.$", r"conv\1.", norm).replace("downsample.1", "downsample.0") + "weight"
        names = [norm + name for name in ("weight", "bias", "running_mean", "running_var")]
        found = [np.asarray(state_dict[name], np.float64) for name in (*names, conv) if name in state_dict]
        if len(found) < 5 or found[4].ndim != 4 or any(value.shape != found[4].shape[:1] for value in found[:4]):
            continue  # the weights that are left are unexpected
        scale, bias, mean, variance, kernel = found
        gain = scale / np.sqrt(variance + normalization.EPSILON)
        folded |= {conv: kernel * gain[:, None, None, None], norm + "bias": bias - mean * gain}
        for name in ("weight", "running_mean", "running_var"):
            del folded[norm + name]
    return folded


def _unprefixed(state_dict):
    for prefix in ("module.", "backbone."):
        inside = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        state_dict = inside or state_dict
    return state_dict


def _tensors(path: Any, content: Any) -> dict[str, np.ndarray]:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {type(content).__name__}, expected a dictionary of tensors")
    for key, value in content.items():
        if not (isinstance(key, str) and isinstance(value, np.ndarray)):
            raise ValueError(f"{path}: {key!r} is of type {type(value).__name__}, expected a tensor")
    return dict(content)


def _read_archive(file: pathlib.Path) -> Any:
    where = f"{file}: not a readable file of torch tensors"
    with untrusted.reading(where, "one that torch.save wrote"), zipfile.ZipFile(file) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise ValueError(f"found {len(pickled)} members data.pkl, expected one")
        return _Unpickler(archive, pickled[0], file).load()


class _Unpickler(pickles.Unpickler):
    """Builds dictionaries, lists, numbers, strings and tensors; knows no other names."""

    def __init__(self, archive: zipfile.ZipFile, member: str, file: pathlib.Path):
        super().__init__(untrusted.read_member(archive, member))
        self.archive, self.root, self.file = archive, member.removesuffix("data.pkl"), file
        self.storages: dict[Any, np.ndarray] = {}
        # Tensors may share a storage, and each is a copy: more than this is no training's.
        self.room = 8 * file.stat().st_size + 2**26
        order = self.root + "byteorder"
        if order in archive.namelist() and untrusted.read_member(archive, order) != b"little":
            raise ValueError("found big-endian tensors, expected little-endian")

    def named(self, module: str, name: str) -> Any:
        """What builds tensors; a storage's type stands for its dtype, as a string."""
        if (module, name) in _LEFT_OUT:
            return _LeftOut
        known = {
            ("collections", "OrderedDict"): pickles.ordered_dict,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return Named(f"{module}.{name}", known[module, name])
        if module == "torch" and name in _DTYPES:
            return name
        raise RefusedError(
            f"it names {module}.{name}, expected nothing but tensors; who trusts its maker keeps the weights alone "
            f"with torch: torch.save(torch.load({self.file.name!r}, weights_only=False)['model'], 'weights.pth'), or "
            "['state_dict']"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The values of a storage, read once."""
        kind, storage, key, _, _ = pid
        if kind != "storage":
            raise RefusedError(f"found {kind!r}, expected a storage")
        if (storage, key) not in self.storages:
            data = untrusted.read_member(self.archive, f"{self.root}data/{key}")
            self.storages[storage, key] = np.frombuffer(data, _DTYPES[storage])
        return self.storages[storage, key]

    def _rebuild_tensor(self, storage, offset, size, stride, *_):
        """A copy of the strided view, which must lie inside the storage and be no larger than it."""
        numbers = (offset, *size, *stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(size) != len(stride):
            raise RefusedError(f"found offset {offset}, size {size}, stride {stride}, expected counts")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)
        if count > storage.size or (count and last >= storage.size):
            raise RefusedError(f"a tensor of size {size} reaches outside its storage of {storage.size}")
        if not count:
            return np.zeros(size, storage.dtype)
        self.room -= count * storage.itemsize
        if self.room < 0:
            raise RefusedError("its tensors are many times as large as the file")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


# What trainings save beside the weights and who takes the weights does not need: their arguments (argparse) and the
# milestones of a learning-rate schedule (a Counter).
_LEFT_OUT = (("argparse", "Namespace"), ("collections", "Counter"))


class _LeftOut:
    """Stands for such an object; whatever it is made of or told is dropped."""

    __slots__ = ()

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_): ...

    def __setstate__(self, state): ...


_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


def _rebuild_parameter(data, *_):
    return data
