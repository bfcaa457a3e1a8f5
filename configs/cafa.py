"""CAFA and IHTA, and ISA where there are few target labels: attention, graphs and maps that make domains alike.

    python -m jaxpose.main --config=configs/cafa.py[:PAIR]
    python -m jaxpose.main --config=configs/cafa.py[:PAIR] --config.data.labelled=SPEC

Words: a pair; `quick`; `literal`, the paper but for its sign errors, with its squared error. It runs, but what it
reaches was not measured yet.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import cafa


@pairs.from_words()
def get_config(pair: Pair, *, literal: bool = False) -> Config:
    return dataclasses.replace(pair.config, method=cafa.literal_settings() if literal else cafa.CAFA())
