"""CC-SSL: pretrain on the source; then rounds of labelling the target by several views and training on the surest.

    python -m jaxpose.main --config=configs/cc_ssl.py[:PAIR]

`config.steps.adapt` is divided among the rounds; labelling takes one pass over the target in each. Words: a pair;
`quick`; `released`, the released settings: six rounds, squared error on heatmaps with sigma 1, pseudo-labels with
weight 10, a constant learning rate of 2.5e-4 (with Adam; there: RMSprop); `temporal`, labels of sure frames are tracked
into the next one, as the released code does, for targets whose records say which clip they belong to. On `bodies`, six
minutes of two CPU cores and a PCK@0.05 of 55 ± 3; see `docs/results.md`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.pair import Pair, with_adam
from jaxpose.recipes import cc_ssl


@pairs.from_words()
def get_config(pair: Pair, *, released: bool = False, temporal: bool = False) -> Config:
    config, method = pair.config, cc_ssl.CCSSL()
    if released:
        method = cc_ssl.released_settings()
        config = pairs.with_new_head(with_adam(config, 2.5e-4, adapt_decay=0.0), sigma=1.0)
    if temporal:
        method = dataclasses.replace(method, temporal_ratio=0.9)
    return dataclasses.replace(config, method=method)
