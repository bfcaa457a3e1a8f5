"""MCD: two regressors that are led to disagree on the target, and a trunk that makes them agree.

    python -m jaxpose.main --config=configs/mcd.py[:PAIR]

Words: a pair and `quick`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import mcd


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest)
    return dataclasses.replace(config, method=mcd.MCD())
