"""Every method on one pair from one source model per seed, in one table.

    python -m jaxpose.main --mode=compare --config=configs/compare.py[:PAIR] --seeds=3 --workdir=DIR

Words: a pair; `quick`; names of methods (see `jaxpose/methods.py`), without which all of them are compared. Methods and
seeds can be added to a work directory later. Fields of all runs are set by `--config.base.FIELD=VALUE`.
"""

from jaxpose import pairs
from jaxpose.config import Comparison
from jaxpose.methods import METHODS
from jaxpose.pairs import Pair


@pairs.from_words(*METHODS)
def get_config(pair: Pair, *names: str) -> Comparison:
    methods = {name: make(pair) for name, make in METHODS.items() if not names or name in names}
    return Comparison(base=pair.config, methods=methods)
