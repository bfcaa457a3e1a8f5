"""Source only: trains on the labelled source and stops there; what adaptation has to beat.

    python -m jaxpose.main --config=configs/source_only.py[:PAIR]

Words: a pair; `quick`; `l2`, the mean squared error on heatmaps instead of the spatial KL divergence; `released`,
RegDA's source-only: that error and its released label maps, with Adam at 1e-3 for all networks.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.recipes import inputs, supervised


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "l2", "released")
    loss = heatmap.l2 if rest else heatmap.spatial_kl
    label_maps = inputs.clean_labels
    if "released" in rest:
        label_maps = inputs.released_labels
        config = pairs.with_adam(config, 1e-3, drops=(44 / 70, 59 / 70))
    steps = {"pretrain": config.steps["pretrain"]}
    method = supervised.Supervised(loss=loss, label_maps=label_maps)
    return dataclasses.replace(config, method=method, steps=steps)
