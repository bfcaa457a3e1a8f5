"""Batch statistics alone: pretrain, and go on so that they become the target's; the control of every other method.

    python -m jaxpose.main --config=configs/adabn.py[:PAIR]

Words: a pair and `quick`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import adabn


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest)
    return dataclasses.replace(config, method=adabn.AdaBN())
