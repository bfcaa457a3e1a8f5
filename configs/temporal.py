"""Any method with temporal consistency added: heatmaps of neighbouring frames of target clips shall be alike.

    python -m jaxpose.main --config=configs/temporal.py[:PAIR,METHOD]

The target's records have to say which clip they belong to. Words: a pair; `quick`; the name of a method (see
`jaxpose/methods.py`), by default `regda`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.methods import METHODS
from jaxpose.models import functional
from jaxpose.pairs import Pair
from jaxpose.recipes import mcd, regda
from jaxpose.recipes.temporal import Temporal


@pairs.from_words(*METHODS)
def get_config(pair: Pair, *names: str) -> Config:
    if len(names) > 1:
        raise ValueError(f"found methods {' and '.join(names)}, expected one")
    name = names[0] if names else "regda"
    method = METHODS[name](pair)
    head = functional.regressor if isinstance(method, regda.RegDA | mcd.MCD) else None
    return dataclasses.replace(pair.config, method=Temporal(method=method, name=f"{name}_temporal", head=head))
