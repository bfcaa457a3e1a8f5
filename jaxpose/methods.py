"""The adaptation methods by name, with the settings that suit a pair; and the ends of the scale."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.pair import Pair, with_adam
from jaxpose.recipes import (
    adabn,
    cafa,
    cc_ssl,
    dan,
    dann,
    few_labels,
    inputs,
    mcd,
    mean_teacher,
    pose_priors,
    post,
    regda,
    relation,
    supervised,
    sw,
    views,
)


def regda_for(pair: Pair) -> regda.RegDA:
    """RegDA with the settings that suit a pair."""
    return regda.RegDA() if pair.of_a_paper else regda.short_settings()


def post_for(pair: Pair) -> post.POST:
    """POST with what a pair has: depths where there are poses to learn them from, reconstruction where clips are."""
    method = post.POST() if pair.posed else post.POST(depth=0.0)
    return method if pair.clips else dataclasses.replace(method, reconstruction=0.0)


def relation_source_for(pair: Pair) -> relation.Source:
    """The priors and the source model of relation distillation, as large as a pair's networks; small ones are short of
    clips, too."""
    if pair.of_a_paper:
        return relation.Source(priors=pose_priors.Settings(learning_rate=1e-4))
    priors = pose_priors.Settings(width=0.25, units=32, motion=32)
    if pair.config.data.target.startswith("bodies:"):
        priors = dataclasses.replace(priors, frames=4, rate=10.0)  # eight frames are a clip
    return relation.Source(priors=priors)


def for_relation(pair: Pair) -> Config:
    """What of a pair is different for relation distillation: 3D metrics, Adam, motions to learn from."""
    config = pair.config if pair.of_a_paper else with_adam(pair.config, 1e-3, drops=(44 / 70, 59 / 70))
    data = config.data
    if data.target.startswith("bodies:"):
        data = dataclasses.replace(data, motions="figures:studio", poses="figures:street")
    steps = {name: config.steps["pretrain"] for name in relation.STAGES} | config.steps
    return dataclasses.replace(
        config, data=data, steps=steps, metrics=("pa_mpjpe", "mpjpe", "n_mpjpe", "pa_3dpck", "released_pa_mpjpe")
    )


def disparity(method: regda.RegDA) -> regda.RegDA:
    """The disparity discrepancy, DD: RegDA in which f' is led away from f to anywhere."""
    return dataclasses.replace(method, name="dd", adversary=regda.maximize_true)


# In the order of their publication, the control first.
METHODS: dict[str, Callable[[Pair], Any]] = {
    "adabn": lambda _: adabn.AdaBN(),
    "dan": lambda _: dan.DAN(),
    "dann": lambda _: dann.DANN(),
    "mcd": lambda _: mcd.MCD(),
    "sw": lambda _: sw.StrongWeak(),
    "cc_ssl": lambda _: cc_ssl.CCSSL(),
    "dd": lambda pair: disparity(regda_for(pair)),
    "regda": regda_for,
    "mean_teacher": lambda _: mean_teacher.MeanTeacher(),
    "post": post_for,
    "cafa_alone": lambda _: cafa.CAFA(topology=0.0),
    "cafa": lambda _: cafa.CAFA(),
}

# Those that read labelled target images, the baselines first.
FEW: dict[str, Callable[[], Any]] = {
    "source_and_labelled": few_labels.FewLabels,
    "fine_tuning": few_labels.fine_tuning,
    "with_cafa": lambda: cafa.CAFA(structure=0.0, entropy=0.0, topology=0.0),
    "with_isa": lambda: cafa.CAFA(alignment=0.0, topology=0.0),
    "with_ihta": lambda: cafa.CAFA(alignment=0.0, structure=0.0, entropy=0.0),
    "cafa_isa_ihta": cafa.CAFA,
}


def supervised_config(
    pair: Pair, method: supervised.Supervised, coding: Sequence[str] = (), *, l2: bool, released: bool
) -> Config:
    """What `configs/source_only.py` and `configs/oracle.py` have in common; they say what the words mean.

    Raises:
      ValueError: if several codings are asked for.
    """
    config = pair.config
    method = with_coding(method, (*coding, "released") if released else coding)
    if l2 or released:
        method = dataclasses.replace(method, loss=heatmap.l2, maps=views.plain_maps)
    if released:
        method = dataclasses.replace(method, mean=heatmap.mean_with_zeros)
        config = with_adam(config, 1e-3, drops=(44 / 70, 59 / 70))
    return dataclasses.replace(config, method=method, steps={"pretrain": config.steps["pretrain"]})


def with_coding(method: Any, words: Sequence[str]) -> Any:
    """A method that draws and reads heatmaps as one of `inputs.CODINGS` or as `released`; without a word, as it does.

    Raises:
      ValueError: if there are several.
    """
    if len(words) > 1:
        raise ValueError(f"found {' and '.join(words)}, expected one way to draw and to read heatmaps")
    codings = inputs.CODINGS | {"released": inputs.RELEASED}
    return dataclasses.replace(method, coding=codings[words[0]]) if words else method
