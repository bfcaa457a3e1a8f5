"""The pretraining stage's weights from a file."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxpose import pairs
from jaxpose.data.joints import skeletons
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes.stage import Stage, Task
from jaxpose.recipes.supervised import Supervised


def pretraining(weights: str | None) -> Stage:
    config = pairs.bodies().quick().config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=weights))
    task = Task(skeleton=skeletons.LSP14, image_size=64, augmentation=Augmentation(rotation=0.0))
    return Supervised().stages(task, config)[0]


def test_published_weights_replace_the_backbone_and_nothing_else(tmp_path: Path) -> None:
    state = jax.jit(pretraining(None).init)(jax.random.key(0), None)
    rng = np.random.default_rng(0)
    arrays = {}
    names = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for tree in (state.params["backbone"], state.stats["backbone"]):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *layers, last = (key.key for key in path)
            axes = (3, 2, 0, 1) if last == "kernel" else range(leaf.ndim)
            arrays[".".join((*layers, names[last]))] = rng.normal(size=[leaf.shape[i] for i in axes]).astype(np.float32)
    file = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(arrays, file)
    load = pretraining(str(file)).load
    assert load is not None
    loaded = load(state)
    np.testing.assert_array_equal(
        loaded.params["backbone"]["conv1"]["kernel"], arrays["conv1.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(loaded.stats["backbone"]["bn1"]["var"], arrays["bn1.running_var"])
    assert loaded.params["head"] is state.params["head"]
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no such file, expected published weights"):
        load(state)
