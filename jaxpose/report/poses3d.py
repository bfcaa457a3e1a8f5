"""Poses in space in the report: which are shown, before and after adaptation, over the true ones."""

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.report import pages, views

_EACH = 2  # poses of each section
_FRAMES = 8  # of a strip, at most
_ARROW = "\N{RIGHTWARDS ARROW}"
SCRIPT = (Path(__file__).parent / "turning.js").read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poses:
    """Poses of a split, or windows of T frames of them, in metres; x points right, y down, z away from the viewer.

    Attributes:
      where: what they are of, for the heading.
      skeleton: names the K joints.
      root: the joint that errors and pictures are relative to.
      names: of the N poses or windows.
      truth: labels (N, K, 3) or (N, T, K, 3), not finite where there are none.
      predictions: the same by stage, in the order of the stages.
      image: the picture of a pose, uint8 RGB; None where there are no pictures.
    """

    where: str
    skeleton: Skeleton
    root: int
    names: Sequence[str]
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]
    image: Callable[[int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A pose or window: its name, its error, its picture, if it has one, and drawings by their titles."""

    name: str
    error: str
    picture: str | None
    drawings: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turning:
    """A view to be turned: its still picture, its data, and what can be chosen with what is chosen at first."""

    drawing: str
    data: str
    poses: tuple[str, ...]
    first: int
    stages: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page shows of `Poses`: cards by the titles of their sections; `turning` of single poses."""

    where: str
    summary: str
    keys: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Card, ...]], ...]
    strips: bool
    turning: Turning | None


def shown(poses: Poses, titles: Mapping[str, str]) -> Shown:
    """The poses with the smallest, middle and largest error at last; without labels, some from all over.

    Args:
      poses: to choose from.
      titles: what to call each stage; of more than two, the first and the last are shown.
    """
    stages = list(dict.fromkeys([*list(poses.predictions)[:1], *list(poses.predictions)[-1:]]))
    names = [titles.get(stage, stage.replace("_", " ")) for stage in stages]
    truth = _from_root(poses.truth, poses.root)
    found = [_from_root(poses.predictions[stage], poses.root) for stage in stages]
    by_joint = np.stack([1000 * np.linalg.norm(pose - truth, axis=-1) for pose in found])  # (stages, N, [T,] K)
    known = views.finite(truth)
    errors = np.stack([_mean(of, known) for of in by_joint])
    chosen = _chosen(errors[-1])
    strips = truth.ndim == 4
    sections = []
    for title, indices in chosen.items():
        cards = []
        for i in indices:
            draw = _strips if strips else _views
            labels = [f"{poses.names[i]}, {name}" for name in names]
            drawn = draw(truth[i], [pose[i] for pose in found], [of[i] for of in by_joint], poses.skeleton, labels)
            cards.append(
                Card(
                    name=poses.names[i],
                    error=f" {_ARROW} ".join(f"{e:.0f}" for e in errors[:, i]) + " mm" if known[i].any() else "",
                    picture=None if poses.image is None or strips else pages.small_uri(poses.image(i)),
                    drawings=tuple(zip(names, drawn, strict=True)),
                )
            )
        sections.append((title, tuple(cards)))
    indices = [i for of in chosen.values() for i in of]
    return Shown(
        where=poses.where,
        summary=_summary(errors, "windows" if strips else "poses"),
        keys=tuple(views.by_side(poses.skeleton)),
        sections=tuple(sections),
        strips=strips,
        turning=None if strips or not indices else _turning(poses, truth, found, chosen, names),
    )


def policy() -> str:
    """The source of the only script that a page with a view to be turned may run."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _chosen(errors: np.ndarray) -> dict[str, list[int]]:
    """Indices by section, none twice."""
    labelled = np.flatnonzero(~np.isnan(errors))
    if not len(labelled):
        spread = np.linspace(0, len(errors) - 1, min(len(errors), 3 * _EACH)).astype(int).tolist()
        return {"Without labels": spread} if spread else {}
    order = labelled[np.argsort(errors[labelled], kind="stable")].tolist()
    worst = order[::-1][: min(_EACH, -(-len(order) // 3))]
    best = [i for i in order[:_EACH] if i not in worst]
    left = [i for i in order if i not in (*worst, *best)]
    start = max((len(left) - _EACH) // 2, 0)
    sections = {"Smallest error": best, "Median error": left[start : start + _EACH], "Largest error": worst}
    return {title: of for title, of in sections.items() if of}


def _views(
    truth: np.ndarray,
    found: Sequence[np.ndarray],
    by_joint: Sequence[np.ndarray],
    skeleton: Skeleton,
    labels: Sequence[str],
) -> list[str]:
    extent = views.Extent.of(truth, found)
    return [
        views.front_and_side(truth, pose, extent, skeleton, label=f"{label}: front and side")
        for pose, label in zip(found, labels, strict=True)
    ]


def _strips(
    truth: np.ndarray,
    found: Sequence[np.ndarray],
    by_joint: Sequence[np.ndarray],
    skeleton: Skeleton,
    labels: Sequence[str],
) -> list[str]:
    step = -(-len(truth) // _FRAMES)
    frames = np.arange(0, len(truth), step)
    extent = views.Extent.of(truth, found)
    drawn = []
    for poses, errors, label in zip(found, by_joint, labels, strict=True):
        means = _mean(errors[frames], views.finite(truth[frames]))
        captions = [f"{t}" if np.isnan(mean) else f"{t}: {mean:.0f} mm" for t, mean in zip(frames, means, strict=True)]
        every = "every frame" if step == 1 else f"every {_ordinal(step)} frame"
        drawn.append(
            views.strip(
                truth[frames],
                poses[frames],
                captions,
                extent,
                skeleton,
                label=f"{label}: {every} from the front",
            )
        )
    return drawn


def _turning(
    poses: Poses,
    truth: np.ndarray,
    found: Sequence[np.ndarray],
    chosen: Mapping[str, Sequence[int]],
    names: Sequence[str],
) -> Turning:
    listed = [(f"{title}: {poses.names[i]}", i) for title, of in chosen.items() for i in of]
    first = len(listed) // 2 if len(chosen) > 1 else 0
    drawing, data = views.turning(
        [(truth[i], [pose[i] for pose in found]) for _, i in listed],
        poses.skeleton,
        first=first,
        label="a pose in space; the arrow keys turn it",
    )
    return Turning(
        drawing=drawing, data=data, poses=tuple(name for name, _ in listed), first=first, stages=tuple(names)
    )


def _summary(errors: np.ndarray, what: str) -> str:
    errors = errors[:, ~np.isnan(errors).any(axis=0)]
    if not errors.shape[1]:
        return ""
    count, ends = errors.shape[1], np.median(errors[[0, -1]], axis=1)
    if len(errors) == 1:
        return f"{count:,} labelled {what}; the median of their mean joint error is {ends[0]:.0f} mm, lower is better."
    with np.errstate(invalid="ignore"):  # of two that are infinite
        gain = errors[0] - errors[-1]
    better, worse = int((gain >= 0.5).sum()), int((gain <= -0.5).sum())
    return (
        f"Of {count:,} labelled {what} {better:,} improved, {worse:,} got worse and {count - better - worse:,} changed "
        f"by less than half a millimetre. The median of their mean joint error went from {ends[0]:.0f} to "
        f"{ends[1]:.0f} mm."
    )


def _from_root(points: np.ndarray, root: int) -> np.ndarray:
    points = np.asarray(points, np.float64)
    return points - points[..., root : root + 1, :]


def _mean(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The mean over all but the first axis of what is known; NaN where nothing is, infinite if one is no number."""
    others = tuple(range(1, errors.ndim))
    total = np.where(known, np.where(np.isfinite(errors), errors, np.inf), 0.0).sum(axis=others)
    count = known.sum(axis=others)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
