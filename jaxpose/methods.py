"""The adaptation methods by name, with the settings that suit the small pairs."""

import dataclasses
from typing import Any

from jaxpose import pairs
from jaxpose.recipes import adabn, cc_ssl, dan, dann, mcd, mean_teacher, regda, sw


def methods(pair: str) -> dict[str, Any]:
    """Every method for a pair of `pairs`, in the order of their publication, the control first."""
    full = regda.RegDA() if pairs.of_a_paper(pair) else regda.short_settings()
    return {
        "adabn": adabn.AdaBN(),
        "dan": dan.DAN(),
        "dann": dann.DANN(),
        "mcd": mcd.MCD(),
        "sw": sw.StrongWeak(),
        "cc_ssl": cc_ssl.CCSSL(),
        "dd": dataclasses.replace(full, name="dd", adversary=regda.maximize_true),
        "regda": full,
        "mean_teacher": mean_teacher.MeanTeacher(),
    }
