"""Pictures that stages give to the report, of the same examples in every run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from jaxpose import untrusted
from jaxpose.data.formats import files
from jaxpose.data.host.pipeline import stack
from jaxpose.recipes.stage import Batch, Stage, State
from jaxpose.report.html import Sheet
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import naming
from jaxpose.train.run import Run

_ROWS = 4  # examples, where a stage does not say how many


def draw(run: Run, stage: Stage, state: State) -> list[str]:
    """Writes the pictures of a stage, a row for each example, to `pictures/STAGE.png`, and returns their captions.

    All processes compute them, and the first one writes.

    Raises:
      ValueError: if they are not images of one shape.
    """
    pictures, everywhere = stage.pictures, meshes.replicated(run.mesh)
    assert pictures is not None
    batch = {}
    for word, (_, _, elements) in run.shown(stage).items():
        read = pictures.reads[word]
        count = _ROWS if read.rows is None else read.rows
        spread = np.linspace(0, len(elements) - 1, count).astype(int).tolist()  # neighbours may be frames of one clip
        rows = stack([elements[i] for i in spread], elements.fields)
        rows["position"] = np.arange(count, dtype=np.int32)
        batch[word] = {name: rows[name] for name in (*read.fields, "position")}
    batch = jax.tree.map(lambda field: jax.make_array_from_process_local_data(everywhere, field), batch)
    captions: list[str] = []

    def drawn(state: State, batch: Batch) -> list[jax.Array]:
        found = pictures.draw(state, batch)
        captions.extend(found)  # a compiled function would sort them
        return list(found.values())

    images = jax.jit(meshes.with_mesh(run.mesh, drawn), out_shardings=everywhere)(state, batch)
    columns = dict(zip(captions, (_pixels(np.asarray(of)) for of in images), strict=True))
    shapes = {images.shape for images in columns.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[3] != 3:
        found = ", ".join(f"{caption} {images.shape}" for caption, images in columns.items()) or "none"
        raise ValueError(f"the pictures of stage {stage.name}: found {found}, expected one shape (B, H, W, 3)")
    if jax.process_index() == 0:
        sheet = np.concatenate([np.concatenate(images) for images in columns.values()], axis=1)
        path = _file(run.workdir, stage)
        path.parent.mkdir(exist_ok=True)
        with naming(path):
            path.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    return list(columns)


def sheets(run: Run, results: Mapping[str, Any]) -> list[Sheet]:
    """The pictures of all stages, from their files, for the report."""
    found = []
    for stage in run.stages:
        captions, path = results.get("pictures", {}).get(stage.name, ()), _file(run.workdir, stage)
        if not captions:
            continue
        try:
            expected = f"a picture of {len(captions)} columns"
            image = files.decode_image(untrusted.read_file(path, expected), str(path))
            with untrusted.reading(path, expected):
                columns = np.split(image, len(captions), axis=1)
        except (FileNotFoundError, ValueError) as error:  # pictures are not worth the report
            print(f"{error}; left out of the report")
            continue
        found.append(Sheet(stage=stage.name, columns=dict(zip(captions, columns, strict=True))))
    return found


def _file(workdir: Path, stage: Stage) -> Path:
    return workdir / "pictures" / f"{stage.name}.png"


def _pixels(images: np.ndarray) -> np.ndarray:
    """As uint8."""
    return images if images.dtype == np.uint8 else np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
