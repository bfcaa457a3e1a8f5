"""CAFA and IHTA, and ISA where there are few target labels: attention, graphs and maps that make domains alike.

    python -m jaxpose.main --config=configs/cafa.py[:PAIR]
    python -m jaxpose.main --config=configs/cafa.py[:PAIR] --config.data.labelled=20

Words: a pair; `quick`; `literal`, the paper but for its sign errors, with its squared error; `msra`, `dark` or `udp`:
heatmaps are drawn and read as SimpleBaselines, DARK or UDP do. What it reaches is in `docs/results.md`.

The paper's experiments, for a GPU, with `mpii`, `coco` and torchvision's ResNet-50 (see `jaxpose/people_pairs.py`, also
for the published numbers):

    python -m jaxpose.main --config=configs/cafa.py:mpii_coco,msra --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/cafa.py:coco_mpii,msra --config.data.root=DATA --workdir=DIR
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import cafa, inputs


@pairs.from_words(*inputs.CODINGS)
def get_config(pair: Pair, *coding: str, literal: bool = False) -> Config:
    method = methods.with_coding(cafa.literal_settings() if literal else cafa.CAFA(), coding)
    return dataclasses.replace(pair.config, method=method)
