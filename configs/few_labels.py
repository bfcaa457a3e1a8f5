"""Few labelled target images, no adaptation: the source's labels and theirs (S+T), or theirs alone.

    python -m jaxpose.main --config=configs/few_labels.py[:PAIR] --config.data.labelled=20
    python -m jaxpose.main --config=configs/few_labels.py:[PAIR,]fine_tuning --config.data.labelled=40%

Words: a pair; `quick`; `fine_tuning`: the source's images are not read any more.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import few_labels


@pairs.from_words()
def get_config(pair: Pair, *, fine_tuning: bool = False) -> Config:
    method = few_labels.fine_tuning() if fine_tuning else few_labels.FewLabels()
    return dataclasses.replace(pair.config, method=method)
