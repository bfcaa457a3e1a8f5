"""RegDA: pretrain on the labelled source, adapt to the unlabelled target.

    python -m jaxpose.main --config=configs/regda.py             embedded bodies, no downloads
    python -m jaxpose.main --config=configs/regda.py:quick       the same in under a minute
    python -m jaxpose.main --config=configs/regda.py:ultrasound --config.data.root=DIR

Words: a pair (bodies, hands, ultrasound, lspet, sprites_c2n, ...); `quick`; `released`, every quirk of the
released code; `dd` and `min_max_false`, the ablations of the paper's Table 3.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import regda


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "released", "dd", "min_max_false")
    if "released" in rest:
        method = regda.released_settings()
        model = dataclasses.replace(config.model, head="linear", target_statistics=False)
        config = dataclasses.replace(config, model=model)
    elif config.pair.startswith("sprites"):
        method = regda.RegDA()
    else:
        method = regda.short_settings()
    if "dd" in rest:
        method = dataclasses.replace(method, name="dd", adversary=regda.maximize_true)
    if "min_max_false" in rest:
        method = dataclasses.replace(method, name="min_max_false", trunk=regda.maximize_false)
    return dataclasses.replace(config, method=method)
