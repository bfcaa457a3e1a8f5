"""The metrics that a configuration can name."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from jaxpose.data.joints.skeletons import COCO17, Skeleton
from jaxpose.metrics import (
    EPE,
    MAE,
    MPJPE,
    NME,
    OKSAP,
    PCK,
    PCK3D,
    PCKh,
    PixelError,
    ReleasedPAMPJPE,
    SurePCK,
    TllibPCK,
)
from jaxpose.metrics.metric import Metric
from jaxpose.metrics.mpjpe import Align
from jaxpose.ops import trees
from jaxpose.recipes import inputs
from jaxpose.recipes.stage import Task

_ANY_SIGMA = 0.1  # of object keypoint similarity, of joints for which nobody has measured one


@runtime_checkable
class Settings(Protocol):
    """What a configuration says of metrics, see `config.Config`."""

    model: Any
    metrics: tuple[str, ...]
    pck_thresholds: tuple[float, ...]
    pckh_thresholds: tuple[float, ...]
    nme_joints: tuple[str, ...]
    actions: str


def metrics_of(config: Settings, task: Task, *, pixels_per_unit: float = 1.0) -> tuple[Metric, ...]:
    """The metrics of a configuration, and the error in pixels.

    Args:
      config: which.
      task: of the run.
      pixels_per_unit: crop pixels per unit of the data's own labels.

    Raises:
      ValueError: if a setting names a joint that is not there.
    """
    return *(NAMED[name](config, task, pixels_per_unit) for name in config.metrics), PixelError()


def notes(config: Settings, skeleton: Skeleton) -> list[str]:
    """What to know about the numbers, in sentences."""
    others = set(skeleton.joints) - set(COCO17.joints)
    if "ap" not in config.metrics or skeleton.sigmas or not others:
        return []
    return [
        f"AP needs a sigma for every joint, and {skeleton.name} has none: joints of COCO's have COCO's, the other "
        f"{len(others)} have {_ANY_SIGMA}. It cannot be compared with an AP of other sigmas."
    ]


def root(skeleton: Skeleton) -> int:
    """The joint that 3D errors are relative to: the pelvis of a body, the wrist of a hand, else the first."""
    return next((i for i, joint in enumerate(skeleton.joints) if joint in ("pelvis", "wrist")), 0)


def _tllib(config: Settings, task: Task, pixels_per_unit: float) -> Metric:
    grid = config.model.grid(task.image_size)

    def label_maps(keypoints: jax.Array, visible: jax.Array) -> jax.Array:
        return inputs.released_labels(keypoints, visible, grid)[0]

    return TllibPCK(stride=grid.stride, label_maps=label_maps)


def _nme(config: Settings, task: Task, pixels_per_unit: float) -> Metric:
    joints = task.skeleton.joints
    if not config.nme_joints:
        return NME()
    if unknown := [joint for joint in config.nme_joints if joint not in joints]:
        raise ValueError(f"config.nme_joints: found {unknown[0]!r}, expected two of {', '.join(joints)}")
    first, second = task.skeleton.indices(config.nme_joints).tolist()
    return NME(joints=(first, second))


def _mpjpe(align: Align) -> Callable[[Settings, Task, float], Metric]:
    return lambda config, task, _: MPJPE(align=align, root=root(task.skeleton), actions=config.actions or None)


def _released_pa_mpjpe(config: Settings, task: Task, pixels_per_unit: float) -> Metric:
    skeleton = task.skeleton
    try:
        tree = trees.spanning_tree(skeleton.joints, skeleton.bones, skeleton.joints[root(skeleton)])
    except ValueError as error:
        raise ValueError(f"config.metrics: released_pa_mpjpe: {skeleton.name}: {error}") from None
    return ReleasedPAMPJPE(tree=tuple((int(a), int(b)) for a, b in tree), actions=config.actions or None)


def _pck3d(align: Align) -> Callable[[Settings, Task, float], Metric]:
    left_out = ("pelvis", "spine", "jaw", "head")
    return lambda config, task, _: PCK3D(
        align=align, root=root(task.skeleton), left_out=_there(task.skeleton, left_out)
    )


NAMED: dict[str, Callable[[Settings, Task, float], Metric]] = {
    "pck": lambda config, task, _: PCK(size=task.image_size, thresholds=tuple(config.pck_thresholds)),
    "sure_pck": lambda config, task, _: SurePCK(size=task.image_size, thresholds=tuple(config.pck_thresholds)),
    "tllib_pck": _tllib,
    "mae": lambda config, task, pixels_per_unit: MAE(pixels_per_unit=pixels_per_unit),
    "pckh": lambda config, task, _: PCKh(thresholds=tuple(config.pckh_thresholds), left_out=_torso(task.skeleton)),
    # What SimpleBaselines' and HRNet's evaluations print as the mean at 0.1: it is taken one step further.
    "pckh_compat": lambda config, task, _: PCKh(thresholds=(0.11,), left_out=_torso(task.skeleton), suffix="_compat"),
    "ap": lambda config, task, _: OKSAP(sigmas=_sigmas(task.skeleton), size=task.image_size),
    "epe": lambda config, task, _: EPE(),
    "nme": _nme,
    "mpjpe": _mpjpe("root"),
    "n_mpjpe": _mpjpe("scale"),
    "pa_mpjpe": _mpjpe("similarity"),
    "released_pa_mpjpe": _released_pa_mpjpe,
    "3dpck": _pck3d("root"),
    "pa_3dpck": _pck3d("similarity"),
}


def _torso(skeleton: Skeleton) -> tuple[int, ...]:
    """The joints that MPII's evaluation leaves out."""
    return _there(skeleton, ("pelvis", "thorax"))


def _there(skeleton: Skeleton, joints: Sequence[str]) -> tuple[int, ...]:
    return tuple(i for i, joint in enumerate(skeleton.joints) if joint in joints)


def _sigmas(skeleton: Skeleton) -> tuple[float, ...]:
    """Those of the skeleton; where it has none, COCO's for the joints of the same names."""
    known = dict(zip(COCO17.joints, COCO17.sigmas, strict=True))
    return skeleton.sigmas or tuple(known.get(joint, _ANY_SIGMA) for joint in skeleton.joints)
