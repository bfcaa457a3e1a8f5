"""Metrics by the names that a configuration gives them."""

import dataclasses

import pytest

from jaxpose import config as configs
from jaxpose import metrics
from jaxpose.config import Config
from jaxpose.data.joints.skeletons import COCO17, HAND21, LSP14, MPII16, Skeleton
from jaxpose.metrics import MPJPE, NME, OKSAP, PCK3D, PCKh, PixelError, ReleasedPAMPJPE
from jaxpose.metrics.metric import Metric
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import measures
from jaxpose.recipes.stage import Task


def task_of(skeleton: Skeleton) -> Task:
    return Task(skeleton=skeleton, image_size=64, augmentation=Augmentation())


def metrics_of(skeleton: Skeleton, *names: str, **settings: object) -> tuple[Metric, ...]:
    config = Config(method=None, metrics=names, **settings)
    configs.validate(config)
    return measures.metrics_of(config, task_of(skeleton))


def test_every_name_makes_a_metric_whose_values_can_be_read() -> None:
    found = metrics_of(MPII16, *measures.NAMED)
    assert len(found) == len(measures.NAMED) + 1
    assert isinstance(found[-1], PixelError)
    for name, metric in zip(measures.NAMED, found, strict=False):
        assert isinstance(metric, Metric)
        assert metrics.scale_of(name) == metric.scale
        assert metric.scale.unit


def test_joints_are_taken_by_name() -> None:
    (head, *three, _) = metrics_of(MPII16, "pckh", "mpjpe", "pa_mpjpe", "3dpck")
    assert head == PCKh(left_out=(6, 7))
    action = r"(?<![a-z])act_\d+"
    assert three[0] == MPJPE(root=6, actions=action)
    assert three[1] == MPJPE(align="similarity", root=6, actions=action)
    assert three[2] == PCK3D(root=6, left_out=(6,))
    assert metrics_of(HAND21, "3dpck")[0] == PCK3D(root=0)
    assert metrics_of(COCO17, "mpjpe", actions="")[0] == MPJPE(root=0)


def test_the_released_error_follows_the_bones_from_the_root() -> None:
    (metric, _) = metrics_of(MPII16, "released_pa_mpjpe")
    assert isinstance(metric, ReleasedPAMPJPE)
    bones = [(MPII16.joints[a], MPII16.joints[b]) for a, b in metric.tree]
    assert {frozenset(bone) for bone in bones} == {frozenset(bone) for bone in MPII16.bones}
    assert ("pelvis", "thorax") in bones
    assert ("thorax", "left_shoulder") in bones
    assert {child for _, child in bones} == set(MPII16.joints) - {"pelvis"}
    for skeleton, wrong in ((LSP14, "two ways along bones to"), (COCO17, "no bones from nose to left_shoulder")):
        with pytest.raises(ValueError, match=f"^config.metrics: released_pa_mpjpe: {skeleton.name}: found {wrong}"):
            metrics_of(skeleton, "released_pa_mpjpe")


def test_settings_of_the_configuration_are_read() -> None:
    assert metrics_of(COCO17, "pckh", pckh_thresholds=(0.1, 0.5))[0] == PCKh(thresholds=(0.1, 0.5))
    assert metrics_of(COCO17, "nme")[0] == NME()
    assert metrics_of(COCO17, "nme", nme_joints=("right_eye", "left_eye"))[0] == NME(joints=(2, 1))
    with pytest.raises(ValueError, match=r"^config.nme_joints: found 'chin', expected two of nose, left_eye"):
        metrics_of(COCO17, "nme", nme_joints=("nose", "chin"))


def test_sigmas_are_the_skeletons_or_cocos_and_others_are_said() -> None:
    assert metrics_of(COCO17, "ap")[0] == OKSAP(sigmas=COCO17.sigmas, size=64)
    config = Config(method=None, metrics=("ap",))
    assert measures.notes(config, COCO17) == []
    bare = dataclasses.replace(COCO17.restrict(["nose", "left_hip"]), sigmas=())
    assert metrics_of(bare, "ap")[0] == OKSAP(sigmas=(0.026, 0.107), size=64)
    assert measures.notes(config, bare) == []
    sigmas = dict(zip(MPII16.joints, metrics_of(MPII16, "ap")[0].sigmas, strict=True))
    assert (sigmas["left_knee"], sigmas["pelvis"]) == (0.087, 0.1)
    (note,) = measures.notes(config, MPII16)
    assert "the other 4 have 0.1" in note
    assert measures.notes(Config(method=None), MPII16) == []
