"""Which runs a comparison consists of."""

from pathlib import Path

import pytest

from configs import compare as words
from jaxpose.recipes.few_labels import FewLabels
from jaxpose.train import compare


def test_few_labels_are_given_to_the_methods_that_read_them() -> None:
    config = words.get_config("quick,few,dan")
    runs = compare.runs_of(config, 3, Path("runs"), labelled=True)
    amounts = {name: run.data.labelled for name, run in runs.items()}
    assert {name for name, amount in amounts.items() if amount is None} == {"source-only", "dan", "oracle"}
    for amount in ("10", "50", "40%"):
        assert amounts[f"cafa_isa_ihta, {amount}"] == amount
        assert isinstance(runs[f"fine_tuning, {amount}"].method, FewLabels)
    assert all(run.seed == 3 for run in runs.values())
    starts = {name: run.start for name, run in runs.items()}
    assert starts.pop("source-only") is starts.pop("oracle") is None
    assert set(starts.values()) == {str(Path("runs") / "source-only")}


def test_methods_of_more_stages_share_out_the_steps_of_the_pair() -> None:
    config = words.get_config("hands,quick,post,dan")
    config.base.steps = {"pretrain": 50, "adapt": 30}
    runs = compare.runs_of(config, 0, Path("runs"), labelled=False)
    assert runs["dan"].steps == {"pretrain": 50, "adapt": 30}
    assert runs["post"].steps == {"pretrain": 50, "align": 30, "warm": 10, "adapt": 20}


def test_without_labels_there_is_no_oracle() -> None:
    assert "oracle" not in compare.runs_of(words.get_config("quick,dan"), 0, Path("runs"), labelled=False)


def test_amounts_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    config = words.get_config("quick,few")
    config.labelled = ("300",)
    with pytest.raises(
        ValueError, match=r"data.labelled=300: found 300 rows, expected 1 to 255 of the 256 training rows"
    ):
        compare.compare(config, tmp_path, seeds=1)
    config.base.data.labelled = "10"
    with pytest.raises(ValueError, match=r"config.base.data.labelled: found 10, expected None: config.labelled says"):
        compare.compare(config, tmp_path, seeds=1)
    assert not any(tmp_path.iterdir())
