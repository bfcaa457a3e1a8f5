"""Oracle: trains on the target's own labels; the upper bound for adaptation.

    python -m jaxpose.main --config=configs/oracle.py[:PAIR] --workdir=runs/oracle

Give its work directory to an adaptation run with `--config.oracle=runs/oracle` and the report shows it beside. Words:
a pair, `quick`, and `l2` for the mean squared error on heatmaps.
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
    method = supervised.Supervised(name="oracle", domain="target", loss=loss)
    return dataclasses.replace(config, method=method, steps={"pretrain": config.steps["pretrain"]})
