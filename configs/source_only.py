"""Source only: trains on the labelled source and stops there; what adaptation has to beat.

    python -m jaxpose.main --config=configs/source_only.py[:PAIR]

Words: a pair; `quick`; `l2`, the mean squared error on heatmaps instead of the spatial KL divergence; `released`,
RegDA's source-only: that error and its released label maps, with Adam at 1e-3 for all networks.
"""

from jaxpose import methods
from jaxpose.config import Config
from jaxpose.recipes import supervised


def get_config(words: str | None = None) -> Config:
    return methods.supervised_config(words, supervised.Supervised())
