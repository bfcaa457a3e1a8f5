"""Oracle: trains on the target's own labels; the upper bound for adaptation.

    python -m jaxpose.main --config=configs/oracle.py[:PAIR] --workdir=runs/oracle

Give its work directory to an adaptation run with `--config.oracle=runs/oracle` and the report shows it beside. Words:
a pair; `quick`; `l2`, the mean squared error on heatmaps instead of the spatial KL divergence; `released`, RegDA's
oracle: that error and its released label maps, with Adam at 1e-3 for all networks.
"""

from jaxpose import methods
from jaxpose.config import Config
from jaxpose.recipes import supervised


def get_config(words: str | None = None) -> Config:
    return methods.supervised_config(words, supervised.Supervised(name="oracle", domain="target"))
