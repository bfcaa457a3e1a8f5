"""DAN: pretrain on the source, then make the mean features of both domains alike.

    python -m jaxpose.main --config=configs/dan.py[:PAIR]

Words: a pair and `quick`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import dan


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest)
    return dataclasses.replace(config, method=dan.DAN())
