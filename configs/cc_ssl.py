"""CC-SSL: pretrain on the source; then rounds of labelling the target by several views and training on the surest.

    python -m jaxpose.main --config=configs/cc_ssl.py[:PAIR]

`config.steps.adapt` is divided among the rounds; labelling takes one pass over the target in each. Words: a pair;
`quick`; `released`, the released settings: six rounds, squared error on heatmaps with sigma 1, pseudo-labels with
weight 10, a constant learning rate of 2.5e-4 (with Adam; there: RMSprop).
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import cc_ssl


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "released")
    if "released" not in rest:
        return dataclasses.replace(config, method=cc_ssl.CCSSL())
    optim = dataclasses.replace(
        config.optim,
        pretrain_rule="adam",
        adapt_rule="adam",
        adam_learning_rate=2.5e-4,
        pretrain_trunk_scale=1.0,
        adapt_trunk_scale=1.0,
        warmup=0.0,
        drops=(),
        adapt_decay=0.0,
    )
    model = dataclasses.replace(config.model, head="linear", sigma=1.0, target_statistics=False)
    return dataclasses.replace(config, method=cc_ssl.released_settings(), model=model, optim=optim)
