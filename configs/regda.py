"""RegDA: pretrain on the labelled source, adapt to the unlabelled target.

    python -m jaxpose.main --config=configs/regda.py             embedded bodies, no downloads
    python -m jaxpose.main --config=configs/regda.py:quick       the same in under a minute
    python -m jaxpose.main --config=configs/regda.py:ultrasound --config.data.root=DIR

    python -m jaxpose.main --config=configs/regda.py:rhd_h3d,released    the paper's Table 2, for a GPU

Words: a pair (bodies, hands, ultrasound, lspet, sprites_c2n, rhd_h3d, ...); `quick`; `released`, every quirk of the
released code; `dd` and `min_max_false`, the ablations of the paper's Table 3. The published numbers of a pair are in
its docstring in `jaxpose/pairs.py`.
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.recipes import regda


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "released", "dd", "min_max_false")
    if "released" in rest:
        method = regda.released_settings()
        model = dataclasses.replace(config.model, head="linear", target_statistics=False)
        config = dataclasses.replace(config, model=model)
    else:
        method = methods.methods(config.pair)["regda"]
    if "dd" in rest:
        method = dataclasses.replace(method, name="dd", adversary=regda.maximize_true)
    if "min_max_false" in rest:
        method = dataclasses.replace(method, name="min_max_false", trunk=regda.maximize_false)
    return dataclasses.replace(config, method=method)
