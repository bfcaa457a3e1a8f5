"""DD: the disparity discrepancy, RegDA's minimax ancestor, in which f' is led away from f to anywhere.

    python -m jaxpose.main --config=configs/dd.py[:PAIR]

The same as `configs/regda.py:dd`. Words: a pair; `quick`; `released`, with every other quirk of RegDA's released code.
On `bodies`, five minutes of two CPU cores and a PCK@0.05 of 50 ± 3; see `docs/results.md`.
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import regda


@pairs.from_words()
def get_config(pair: Pair, *, released: bool = False) -> Config:
    config = pairs.with_new_head(pair.config) if released else pair.config
    method = regda.released_settings() if released else methods.regda_for(pair)
    return dataclasses.replace(config, method=methods.disparity(method))
