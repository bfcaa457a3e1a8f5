"""Source only: trains on the labelled source and stops there; what adaptation has to beat.

    python -m jaxpose.main --config=configs/source_only.py[:PAIR]

Words: a pair, `quick`, and `l2` for the mean squared error on heatmaps instead of the spatial KL divergence.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.recipes import supervised


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "l2")
    loss = heatmap.l2 if "l2" in rest else heatmap.spatial_kl
    steps = {"pretrain": config.steps["pretrain"]}
    return dataclasses.replace(config, method=supervised.Supervised(loss=loss), steps=steps)
