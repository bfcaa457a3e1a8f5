"""Several methods under the same conditions: one source model per seed, one table."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpose.config import Comparison, Config, OfMoreStages
from jaxpose.report import comparison as report
from jaxpose.report import text
from jaxpose.train import build, trainer
from jaxpose.train.checkpoint import write_json
from jaxpose.train.log import read_metrics


def compare(config: Comparison, workdir: Path, *, seeds: int) -> Path:
    """Trains every method from one source model per seed, and writes `compare.json` and `compare.html`.

    Runs that are finished are taken as they are, so that methods and seeds can be added. Without labels of the target
    there is no oracle.

    Returns:
      The page.

    Raises:
      ValueError: if a work directory holds another configuration, or there are not as many labelled images.
    """
    if config.base.data.labelled is not None:
        raise ValueError(
            f"config.base.data.labelled: found {config.base.data.labelled}, expected None: config.labelled says how "
            "many labelled images the methods of config.few have"
        )
    pair = build.open_data(config.base)
    print(build.describe(pair))
    for amount in config.labelled:
        build.open_data(_with_labels(config.base, amount))
    labelled = pair.domains["target"].splits["train"].labelled
    runs: dict[str, list[report.RunResults]] = {}
    for seed in range(seeds):
        folder = workdir / f"seed{seed}"
        configs = runs_of(config, seed, folder, labelled=labelled)
        for name, chosen in configs.items():
            runs.setdefault(name, []).append(_run(name, chosen, folder / _folder(name)))
    table = report.summarize(runs)
    write_json(workdir / "compare.json", table)
    page = report.write_page(workdir, config.base.pair, table)
    print(report.text_table(table))
    return page


def runs_of(config: Comparison, seed: int, folder: Path, *, labelled: bool) -> dict[str, Config]:
    """The runs of a seed, by their names in the table; without labels of the target there is no oracle."""
    base = dataclasses.replace(config.base, seed=seed)
    steps = {stage: count for stage, count in base.steps.items() if stage != "adapt"}
    source_only = dataclasses.replace(base, steps=steps, method=config.source)
    adapted = dataclasses.replace(base, start=str(folder / text.SOURCE_ONLY))
    runs = {text.SOURCE_ONLY: source_only}
    runs |= {name: _adapted_by(method, adapted) for name, method in config.methods.items()}
    for amount in config.labelled:
        some = _with_labels(adapted, amount)
        runs |= {f"{name}, {amount}": _adapted_by(method, some) for name, method in config.few.items()}
    if labelled:
        oracle = dataclasses.replace(config.source, name="oracle", domain="target")
        runs[text.ORACLE] = dataclasses.replace(source_only, method=oracle)
    return runs


def _adapted_by(method: Any, config: Config) -> Config:
    steps = method.share_out(config.steps) if isinstance(method, OfMoreStages) else config.steps
    return dataclasses.replace(config, method=method, steps=steps)


def _with_labels(config: Config, amount: str) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, labelled=amount))


def _folder(name: str) -> str:
    """`cafa, 40%` -> `cafa_40pc`."""
    return re.sub(r"[^\w.-]+", "_", name.replace("%", "pc"))


def _run(name: str, config: Config, workdir: Path) -> report.RunResults:
    print(f"\n{name}, seed {config.seed}: {workdir}")
    results = trainer.train(config, workdir, show=False)
    evaluated = [row["stage"] for row in results["evaluations"]]
    last = evaluated[-1] if evaluated else ""
    return report.RunResults(
        rows=[row for row in results["evaluations"] if row["stage"] == last],
        floor=results.get("references", {}).get(text.FLOOR, ()),
        curve=_curve(read_metrics(workdir), last),
        timing=results["timing"],
        seed=config.seed,
        fingerprint=results["fingerprint"],
        machine=results.get("machine", ""),
    )


def _curve(history: Sequence[Mapping[str, Any]], stage: str) -> list[dict[str, float]]:
    """The evaluations of a stage in the course of its training: `domain/split/metric/group` -> value."""
    return [
        {name: value for name, value in line.items() if name.count("/") == 3}
        for line in history
        if line["stage"] == stage and any(name.count("/") == 3 for name in line)
    ]
