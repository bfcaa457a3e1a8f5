"""Poses in space that stages found, with their labels, for the report."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxpose.data.host.elements import Crops, Elements
from jaxpose.data.host.windows import Window
from jaxpose.data.motion.source import MotionSource
from jaxpose.recipes import measures
from jaxpose.recipes.stage import Evaluation
from jaxpose.report.poses3d import Poses
from jaxpose.train import written
from jaxpose.train.run import Run

_SOME = 2000  # poses of a split that the report may choose from
_LABELS = "keypoints3d"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """Where stages found poses."""

    domain: str
    split: str
    window: Window | None


def poses(run: Run, results: Mapping[str, Any]) -> list[Poses]:
    """Of the target and of motions, single ones and windows, what each stage found; empty if none found any.

    Args:
      run: whose predictions lie in its work directory.
      results: of `results.json`; its skipped records are left out.
    """
    found: dict[_Place, dict[str, np.ndarray]] = {}
    elements: dict[_Place, Elements] = {}
    for stage in run.stages:
        for evaluation in stage.evaluations:
            for place, those in _places(run, evaluation):
                what = "points3d" if place.window is None else "points3d_of_windows"
                path = run.workdir / "predictions" / f"{stage.name}_{place.domain}_{place.split}_{what}.npy"
                frames = () if place.window is None else (place.window.frames,)
                shape = (len(those), *frames, len(run.task.skeletons[place.domain]), 3)
                try:
                    found.setdefault(place, {})[stage.name] = written.read_predictions(path, shape)
                except FileNotFoundError:
                    continue
                except ValueError as error:  # pictures are not worth the report
                    print(f"{error}; left out of the report")
                    continue
                elements[place] = those
    return [
        _poses(run, place, elements[place], predictions, set(results.get("skipped_records", ())))
        for place, predictions in found.items()
        if predictions
    ]


def _places(run: Run, evaluation: Evaluation) -> Iterator[tuple[_Place, Elements]]:
    """Of every domain but the source, which says nothing of adaptation, the split that is shown."""
    for domain in evaluation.domains:
        measured = [split for name, split in run.measured(evaluation) if name == domain]
        if domain == "target" and evaluation.window is None:
            split, elements = run.pictured
        elif domain != "source" and measured:
            split = "test" if "test" in measured else measured[0]
            elements = run.evaluated(evaluation, domain, split)
        else:
            continue
        yield _Place(domain=domain, split=split, window=evaluation.window), elements


def _poses(
    run: Run, place: _Place, elements: Elements, predictions: Mapping[str, np.ndarray], skipped: set[str]
) -> Poses:
    assert isinstance(elements, Crops | MotionSource)
    named = {i: elements.name(i) for i in np.unique(np.linspace(0, len(elements) - 1, _SOME).astype(int)).tolist()}
    index = [i for i, name in named.items() if f"{place.domain}: {name}" not in skipped]
    truth = np.full((len(index), *next(iter(predictions.values())).shape[1:]), np.nan, np.float32)
    if elements.labelled and _LABELS in elements.known:
        labels = dataclasses.replace(elements, fields=(_LABELS,))
        truth = np.stack([labels[i][_LABELS] for i in index])
    chosen = {stage: of[index] for stage, of in predictions.items()}
    image = None
    if isinstance(elements, Crops):
        pictures = dataclasses.replace(elements, fields=("image",))
        image = functools.partial(_picture, pictures, index)
    else:
        truth, chosen = _seen(truth), {stage: _seen(of) for stage, of in chosen.items()}
    skeleton = run.task.skeletons[place.domain]
    windows = "" if place.window is None else f", windows of {place.window.frames} frames"
    return Poses(
        where=f"{place.domain} {place.split}{windows}",
        skeleton=skeleton,
        root=measures.root(skeleton),
        names=[named[i] for i in index],
        truth=truth,
        predictions=chosen,
        image=image,
    )


def _picture(pictures: Crops, index: Sequence[int], number: int) -> np.ndarray:
    return pictures[index[number]]["image"]


def _seen(motions: np.ndarray) -> np.ndarray:
    """Motions, whose z is up, as a camera in front of the world would have them."""
    return np.stack((motions[..., 0], -motions[..., 2], motions[..., 1]), axis=-1)
