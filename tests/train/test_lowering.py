"""Every recipe, traced and lowered for GPUs and TPUs that are not there."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend import core
from platforms import abstract_mesh
from tiny import make_config, make_task

from jaxpose.config import Data, OfMoreStages
from jaxpose.data.joints.skeletons import MPII16, Skeleton
from jaxpose.models import functional
from jaxpose.models.hrnet import HRNet
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import (
    adabn,
    cafa,
    cc_ssl,
    dan,
    dann,
    mcd,
    mean_teacher,
    pose_priors,
    post,
    regda,
    relation,
    style,
    supervised,
    sw,
    temporal,
)
from jaxpose.recipes.reconstruction import Reconstruction
from jaxpose.train import mesh as meshes
from jaxpose.train.run import Program

SIZE = 64
METHODS = {
    "source_only": supervised.Supervised(),
    "adabn": adabn.AdaBN(),
    "dan": dan.DAN(),
    "dann": dann.DANN(),
    "sw": sw.StrongWeak(),
    "mcd": mcd.MCD(trunk_updates=2),
    "regda": regda.RegDA(),
    "regda_released": regda.released_settings(),
    "mean_teacher": mean_teacher.MeanTeacher(),
    "mean_teacher_adain": mean_teacher.MeanTeacher(transfer=style.adain, style_network=style.Style(width=4)),
    "cc_ssl": cc_ssl.CCSSL(),
    "temporal": temporal.Temporal(method=regda.RegDA(), head=functional.regressor),
    "cc_ssl_temporal": cc_ssl.CCSSL(temporal_ratio=0.9),
    "hrnet": regda.RegDA(name="regda_hrnet"),
    "cafa": cafa.CAFA(hidden=4, blocks=1),
    "relation": relation.Relations(
        source=relation.Source(
            priors=pose_priors.Settings(width=1 / 32, units=4, motion=4, frames=4, poses=8, motions=4)
        ),
        clips=4,
    ),
}
MODELS = {"regda_hrnet": HRNet(width=4, stem=4, modules=(1, 1, 1), blocks=1)}
# Sheared views, maps by nearest pixels and frames made of others are gathered everywhere: not for TPUs.
GATHERED = {
    "mean_teacher_released": mean_teacher.released_settings(),
    "post": post.POST(networks=Reconstruction(depth=1, generator_width=4, blocks=1, vgg_width=4)),
}
LOWERED = {"gpu": "cuda", "tpu": "tpu"}


def program(method: Any, platform: str) -> Program:
    steps = {"pretrain": 2, "adapt": 3} | ({"style": 2} if getattr(method, "style_network", None) else {})
    steps |= dict.fromkeys(relation.STAGES, 1)
    steps = method.share_out(steps) if isinstance(method, OfMoreStages) else steps
    config = dataclasses.replace(
        make_config(method),
        steps=steps,
        dtype="auto",
        data=Data(image_size=SIZE, batch_size=4),
        model=MODELS.get(method.name, SimpleBaseline(depth=18, width=4, head_width=8, sigma=1.0)),
    )
    sizes = {"source": 8, "target": 8, "target_clips": 8}
    three = Skeleton(name="three", joints=("a", "b", "c"), bones=(("a", "b"), ("b", "c")))
    skeleton = MPII16 if method.name == "relation" else three
    task = make_task(
        skeleton=skeleton,
        image_size=SIZE,
        augmentation=Augmentation(),
        sizes=sizes,
        skeletons={"motions": skeleton},
    )
    mesh = abstract_mesh(platform, 2)
    return Program(config=config, stages=meshes.with_mesh(mesh, method.stages)(task, config), task=task, mesh=mesh)


def equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, core.ClosedJaxpr):
                    yield from equations(inner.jaxpr)
                elif isinstance(inner, core.Jaxpr):
                    yield from equations(inner)


CASES = [(name, "tpu") for name in METHODS]
CASES += [(name, "gpu") for name in ("regda", "mcd", "dann", "cc_ssl", "mean_teacher_adain", *GATHERED)]


@pytest.mark.parametrize(("name", "platform"), CASES)
def test_convolutions_are_narrow_coordinates_wide_and_images_not_gathered(name: str, platform: str) -> None:
    made = program((METHODS | GATHERED)[name], platform)
    stages = {stage.name: number for number, stage in enumerate(made.stages)}
    if len(stages) > 1:
        del stages["pretrain"]  # the same with every method
    stages.pop("warm", None)  # the same as what comes after it, but for what is trained
    seen = 0
    for number, turn in [(n, turn) for n in stages.values() for turn in range(len(made.stages[n].updates))]:
        # Promotion as in a program that is not a test; a random key that is used twice is an error.
        with jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(True):
            traced = made.traced(number, turn)
        traced.lower(lowering_platforms=(LOWERED[platform],))
        for equation in equations(traced.jaxpr.jaxpr):
            kind = equation.primitive.name
            if kind in ("conv_general_dilated", "dot_general"):
                wide = equation.invars[0].aval.dtype == jnp.float32
                precision = equation.params["precision"] or (None,)
                assert not wide or set(precision) == {lax.Precision.HIGHEST}, equation
                assert kind == "dot_general" or not wide, equation
                seen += kind == "conv_general_dilated"
            if kind == "gather" and platform == "tpu":
                assert math.prod(equation.outvars[0].aval.shape) < SIZE**2, equation
    assert seen > 20
