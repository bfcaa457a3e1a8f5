"""SW: strong alignment of local and weak alignment of global features, after pretraining on the source.

    python -m jaxpose.main --config=configs/sw.py[:PAIR]

Words: a pair and `quick`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import sw


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest)
    return dataclasses.replace(config, method=sw.StrongWeak())
