"""Every method on one pair from one source model per seed, in one table.

    python -m jaxpose.main --mode=compare --config=configs/compare.py[:PAIR] --seeds=3 --workdir=DIR
    python -m jaxpose.main --mode=compare --config=configs/compare.py:[PAIR,]few --config.labelled="('20',)" ...

Words: a pair; `quick`; names of methods (see `jaxpose/methods.py`), without which all of them are compared; `few`:
methods that read few labelled target images, and CAFA without. Methods and seeds can be added to a work directory
later. Fields of all runs are set by `--config.base.FIELD=VALUE`, the amounts of labelled images by `--config.labelled`.
"""

from jaxpose import pairs
from jaxpose.config import Comparison
from jaxpose.methods import FEW, METHODS
from jaxpose.pairs import Pair
from jaxpose.recipes.supervised import Supervised

_BESIDE = ("adabn", "cafa_alone", "cafa")  # what the few labels are worth is seen against these


@pairs.from_words(*METHODS)
def get_config(pair: Pair, *names: str, few: bool = False) -> Comparison:
    chosen = names or (_BESIDE if few else METHODS)
    return Comparison(
        base=pair.config,
        source=Supervised(),
        methods={name: make(pair) for name, make in METHODS.items() if name in chosen},
        few={name: make() for name, make in FEW.items()} if few else {},
        labelled=("10", "50", "40%") if few else (),
    )
