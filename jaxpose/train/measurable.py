"""Whether what metrics measure is found, and the labels that they read are there, said before training begins."""

import dataclasses

import jax

from jaxpose.train import mesh as meshes
from jaxpose.train.run import Run

_FOUND_BY_ALL = ("points", "peaks")  # parts of `Predictions`


def check(run: Run) -> None:
    """Some stage finds what the metrics measure, and the target has what they read, wherever it is measured.

    Another domain is measured by what it has, see `evaluate.fields_of`.

    Raises:
      ValueError: naming the metric.
    """
    if other := [metric for metric in run.metrics if metric.needs not in _FOUND_BY_ALL]:
        found = _found(run)
        for metric in other:
            if metric.needs not in found:
                raise ValueError(
                    f"config.metrics: found {type(metric).__name__}, expected metrics of what {run.config.method.name} "
                    f"finds: {', '.join(found)}"
                )
    for evaluation in (evaluation for stage in run.stages for evaluation in stage.evaluations):
        for name, split in run.measured(evaluation):
            if name != "target":
                continue
            domain = run.pair.domains[name]
            for metric in run.metrics if evaluation.metrics is None else evaluation.metrics:
                try:
                    domain.elements(split, metric.fields, evaluation.window, word=name)[0]
                except ValueError as error:
                    what = f"{type(metric).__name__} cannot be measured on data.target={domain.spec}"
                    raise ValueError(f"{what}: {split}: {error}") from None


def _found(run: Run) -> list[str]:
    """Which parts of `Predictions` the stages find; networks are traced for it, but not compiled."""
    parts: dict[str, None] = {}
    for stage, state in zip(run.stages, run.abstract_states(), strict=True):
        for evaluation in stage.evaluations:
            name = next(name for name in evaluation.domains if name in run.pair.domains)
            domain = run.pair.domains[name]
            element = domain.elements("train", evaluation.fields, evaluation.window, word=name)[0]
            batch = {f: jax.ShapeDtypeStruct((run.mesh.size, *x.shape), x.dtype) for f, x in element.items()}
            found = dataclasses.asdict(jax.eval_shape(meshes.with_mesh(run.mesh, evaluation.predict), state, batch))
            parts |= dict.fromkeys(part for part, value in found.items() if value not in (None, {}))
    return list(parts)
