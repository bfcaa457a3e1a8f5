"""The adaptation methods by name, with the settings that suit the small pairs; and the ends of the scale."""

import dataclasses
from typing import Any

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.recipes import adabn, cc_ssl, dan, dann, inputs, mcd, mean_teacher, regda, supervised, sw, views


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


def supervised_config(words: str | None, method: supervised.Supervised) -> Config:
    """What `configs/source_only.py` and `configs/oracle.py` have in common; they say what the words mean."""
    config, rest = pairs.choose(words)
    pairs.reject(rest, "l2", "released")
    if rest:
        method = dataclasses.replace(method, loss=heatmap.l2, maps=views.plain_maps)
    if "released" in rest:
        method = dataclasses.replace(method, coding=inputs.RELEASED, mean=heatmap.mean_with_zeros)
        config = pairs.with_adam(config, 1e-3, drops=(44 / 70, 59 / 70))
    return dataclasses.replace(config, method=method, steps={"pretrain": config.steps["pretrain"]})
