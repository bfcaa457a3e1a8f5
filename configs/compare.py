"""Every method on one pair from one source model per seed, in one table.

    python -m jaxpose.main --mode=compare --config=configs/compare.py[:PAIR] --seeds=3 --workdir=DIR

Words: a pair; `quick`; names of methods (see `jaxpose/methods.py`), without which all of them are compared. Methods and
seeds can be added to a work directory later. Fields of all runs are set by `--config.base.FIELD=VALUE`.
"""

from jaxpose import pairs
from jaxpose.config import Comparison
from jaxpose.methods import methods


def get_config(words: str | None = None) -> Comparison:
    base, rest = pairs.choose(words)
    known = methods(base.pair)
    pairs.reject(rest, *known)
    return Comparison(base=base, methods={name: known[name] for name in known if not rest or name in rest})
