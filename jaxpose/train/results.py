"""What comes out of a run: its results, and pictures with predictions for the report."""

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import numpy as np

from jaxpose import config as configs
from jaxpose.recipes import measures
from jaxpose.recipes.stage import State
from jaxpose.report import html, notes, text
from jaxpose.train import machine, written
from jaxpose.train import mesh as meshes
from jaxpose.train.progress import Progress
from jaxpose.train.run import Run

_PACKAGES = ("jaxpose", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_GALLERY = 2000  # test images whose predictions the report may choose from


def results_of(run: Run, state: State, progress: Progress, oracle: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `results.json`, of the final state and what was recorded on the way."""
    last = run.stages[-1].name
    results = {
        "recipe": run.config.method.name,
        "pair": run.config.pair,
        "seed": run.config.seed,
        "joints": list(run.task.skeleton.joints),
        "evaluations": progress.evaluations,
        "references": {**oracle, text.FLOOR: progress.floor},
        "pictures": progress.pictures,
        "start": progress.start,
        "fingerprint": fingerprint(state),
        "timing": {
            "wall_s": progress.wall_s,
            "compile_s": progress.compile_s,
            "step_s": progress.step_s.get(last, 0.0),
            "step_s_by_stage": progress.step_s,
            "images_per_s": run.images_per_step(run.stages[-1]) / progress.step_s[last]
            if last in progress.step_s
            else 0.0,
            "loop_s": progress.loop_s,
            "data_wait_s": progress.data_wait_s,
            "device_wait_s": progress.device_wait_s,
            "device_wait_fraction": progress.device_wait_s / progress.loop_s if progress.loop_s else 0.0,
        },
        "skipped_records": meshes.gather_names(progress.broken),
        "data_notes": [
            {"domain": name} | dataclasses.asdict(note)
            for name, domain in run.pair.domains.items()
            for note in domain.notes
        ],
    } | circumstances(run)
    method = run.config.method
    of_method = method.notes() if isinstance(method, configs.WithNotes) else []
    return results | {"notes": [*notes.of_run(results), *measures.notes(run.config, run.task.skeleton), *of_method]}


def circumstances(run: Run) -> dict[str, Any]:
    """What numbers depend on besides the method."""
    return {
        "machine": machine.describe(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in run.mesh.devices.flat],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        "config": configs.to_json(run.config),
    }


def cases(run: Run) -> list[html.Case]:
    """Target images with the predictions of every stage."""
    split, crops = run.pictured
    predictions = {}
    for stage in run.stages:
        path = run.workdir / "predictions" / f"{stage.name}_target_{split}.npy"
        try:
            predictions[stage.name] = written.read_predictions(path, (len(crops), len(run.task.skeleton), 2))
        except FileNotFoundError:
            continue
        except ValueError as error:  # pictures are not worth the report
            print(f"{error}; left out of the report")
    if not predictions:
        return []
    cases = []
    for i in range(min(len(crops), _GALLERY)):
        element = crops[i]
        cases.append(
            html.Case(
                image=element["image"],
                name=crops.name(i),
                keypoints=element["keypoints"],
                visible=element["visible"],
                predictions={stage: points[i] for stage, points in predictions.items()},
            )
        )
    return cases


def fingerprint(state: State) -> str:
    """SHA-256 of the parameters: names, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in sorted(
        ((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)),
        key=lambda item: item[0],
    ):
        array = np.asarray(leaf)
        digest.update(f"{path}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
