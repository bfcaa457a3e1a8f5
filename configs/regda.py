"""RegDA: pretrain on the labelled source, adapt to the unlabelled target.

    python -m jaxpose.main --config=configs/regda.py             embedded bodies, no downloads
    python -m jaxpose.main --config=configs/regda.py:quick       the same in under a minute
    python -m jaxpose.main --config=configs/regda.py:ultrasound --config.data.root=DIR

    python -m jaxpose.main --config=configs/regda.py:rhd_h3d,released    the paper's Table 2, for a GPU

Words: a pair (bodies, hands, ultrasound, lspet, sprites_c2n, rhd_h3d, ...); `quick`; `released`, every quirk of the
released code; `dd` and `min_max_false`, the ablations of the paper's Table 3. On `bodies`, five minutes of two CPU
cores and a PCK@0.05 of 52 ± 3, see `docs/results.md`; the published numbers of a pair are in its docstring in
`jaxpose/pairs.py`.
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import regda


@pairs.from_words()
def get_config(pair: Pair, *, released: bool = False, dd: bool = False, min_max_false: bool = False) -> Config:
    config = pairs.with_new_head(pair.config) if released else pair.config
    method = regda.released_settings() if released else methods.regda_for(pair)
    if dd:
        method = methods.disparity(method)
    if min_max_false:
        method = dataclasses.replace(method, name="min_max_false", trunk=regda.maximize_false)
    return dataclasses.replace(config, method=method)
