"""Any method with temporal consistency added: heatmaps of neighbouring frames of target clips shall be alike.

    python -m jaxpose.main --config=configs/temporal.py[:PAIR,METHOD]

The target's records have to say which clip they belong to. Words: a pair; `quick`; the name of a method (see
`jaxpose/methods.py`), by default `regda`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.methods import methods
from jaxpose.recipes.temporal import Temporal


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    known = methods(config.pair)
    pairs.reject(rest, *known)
    if len(rest) > 1:
        raise ValueError(f"found methods {' and '.join(sorted(rest))}, expected one")
    name = rest.pop() if rest else "regda"
    head = "regressor" if name in ("regda", "dd", "mcd") else None
    return dataclasses.replace(config, method=Temporal(method=known[name], name=f"{name}_temporal", head=head))
