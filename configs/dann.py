"""DANN: pretrain on the source, then learn features by which a discriminator cannot tell the domains apart.

    python -m jaxpose.main --config=configs/dann.py[:PAIR]

Words: a pair and `quick`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import dann


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest)
    return dataclasses.replace(config, method=dann.DANN())
