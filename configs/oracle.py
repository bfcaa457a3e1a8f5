"""Oracle: trains on the target's own labels; the upper bound for adaptation.

    python -m jaxpose.main --config=configs/oracle.py[:PAIR] --workdir=runs/oracle

Give its work directory to an adaptation run with `--config.oracle=runs/oracle` and the report shows it beside. Words:
a pair; `quick`; `l2`, the mean squared error on heatmaps instead of the spatial KL divergence; `released`, RegDA's
oracle: that error and its released label maps, with Adam at 1e-3 for all networks.
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
    method = supervised.Supervised(name="oracle", domain="target", loss=loss, label_maps=label_maps)
    return dataclasses.replace(config, method=method, steps={"pretrain": config.steps["pretrain"]})
