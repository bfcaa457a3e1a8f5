"""Source only: trains on the labelled source and stops there; what adaptation has to beat.

    python -m jaxpose.main --config=configs/source_only.py[:PAIR]

Words: a pair; `quick`; `l2`, the mean squared error on heatmaps instead of the spatial KL divergence; `released`,
RegDA's source-only: that error and its released label maps, with Adam at 1e-3 for all networks; `msra`, `dark` or
`udp`: heatmaps are drawn and read as SimpleBaselines, DARK or UDP do. On `bodies`, three minutes of two CPU cores and a
PCK@0.05 of 25 ± 10; see `docs/results.md`.
"""

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import inputs, supervised


@pairs.from_words(*inputs.CODINGS)
def get_config(pair: Pair, *coding: str, l2: bool = False, released: bool = False) -> Config:
    return methods.supervised_config(pair, supervised.Supervised(), coding, l2=l2, released=released)
