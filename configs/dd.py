"""DD: the disparity discrepancy, RegDA's minimax ancestor, in which f' is led away from f to anywhere.

    python -m jaxpose.main --config=configs/dd.py[:PAIR]

The same as `configs/regda.py:dd`. Words: a pair; `quick`; `released`, with every other quirk of RegDA's released code.
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.recipes import regda


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "released")
    method = methods.methods(config.pair)["dd"]
    if "released" in rest:
        method = dataclasses.replace(regda.released_settings(), name="dd", adversary=regda.maximize_true)
        model = dataclasses.replace(config.model, head="linear", target_statistics=False)
        config = dataclasses.replace(config, model=model)
    return dataclasses.replace(config, method=method)
