"""Every method on one pair from one source model per seed, in one table.

    python -m jaxpose.main --mode=compare --config=configs/compare.py[:PAIR] --seeds=3 --workdir=DIR

Words: a pair; `quick`; names of methods, without which all of them are compared. Methods and seeds can be added to a
work directory later. Fields of all runs are set by `--config.base.FIELD=VALUE`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Comparison
from jaxpose.recipes import adabn, cc_ssl, dan, dann, mcd, mean_teacher, regda, sw


def get_config(words: str | None = None) -> Comparison:
    base, rest = pairs.choose(words)
    sprites = base.pair.startswith("sprites")
    full = regda.RegDA() if sprites else regda.short_settings()
    methods = {
        "adabn": adabn.AdaBN(),
        "dan": dan.DAN(),
        "dann": dann.DANN(),
        "sw": sw.StrongWeak(),
        "mcd": mcd.MCD(),
        "cc_ssl": cc_ssl.CCSSL(),
        "mean_teacher": mean_teacher.MeanTeacher(),
        "dd": dataclasses.replace(full, name="dd", adversary=regda.maximize_true),
        "regda": full,
    }
    pairs.reject(rest, *methods)
    return Comparison(base=base, methods={name: methods[name] for name in methods if not rest or name in rest})
