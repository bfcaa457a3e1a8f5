import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jaxpose import config as configs
from jaxpose import pairs
from jaxpose.recipes import regda, supervised


def example(**changes: Any) -> configs.Config:
    return dataclasses.replace(pairs.bodies(), method=regda.RegDA(), **changes)


@pytest.mark.parametrize("name", list(pairs._PAIRS))
@pytest.mark.parametrize("quick", ["", ",quick"])
def test_every_pair_is_valid_and_becomes_json(name: str, quick: str) -> None:
    config, rest = pairs.choose(name + quick)
    assert not rest
    config = dataclasses.replace(config, method=regda.RegDA())
    if name == "custom":
        with pytest.raises(ValueError, match=r"config.data.source: found '', expected SCHEME:PATH"):
            configs.validate(config)
    else:
        configs.validate(config)
    plain = configs.to_json(config)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["method"]["adversary"] == "minimize_false"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_file_says_how_to_run_it(path: Path) -> None:
    module: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), module)
    assert f"--config=configs/{path.name}" in module["__doc__"]
    for words in (None, "quick") if path.stem != "synth" else (None, "hand"):
        config = module["get_config"](words)
        if isinstance(config, configs.Comparison):
            config = config.base
        if isinstance(config, configs.Config):
            configs.validate(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": configs.Data(batch_size=0)}, r"config.data.batch_size: found 0, expected at least 1"),
        (
            {"data": configs.Data(image_size=100)},
            r"config.data.image_size: found 100, expected a positive multiple of 32",
        ),
        ({"model": configs.Model(depth=20)}, r"config.model.depth: found 20, expected 18, 34, 50, 101 or 152"),
        ({"seed": 1.5}, r"config.seed: found 1.5, expected int"),
        ({"seed": True}, r"config.seed: found True, expected int"),
        ({"dtype": "half"}, r"config.dtype: found 'half', expected one of auto, float32, bfloat16"),
        ({"metrics": ("iou",)}, r"config.metrics: found \('iou',\), expected of pck"),
        ({"steps": {"pretrain": -1}}, r"config.steps.pretrain: found -1, expected at least 0"),
    ],
)
def test_wrong_values_are_named(change: dict[str, Any], message: str) -> None:
    config = example()
    for field, value in change.items():
        setattr(config, field, value)  # as flags do, after construction
    with pytest.raises(ValueError, match=message):
        configs.validate(config)


def test_what_a_resumed_run_may_change() -> None:
    base = configs.fixed_part(configs.to_json(example()))
    free = example(data=dataclasses.replace(example().data, workers=3), log_every=7, mesh=configs.Mesh(data=1))
    assert configs.fixed_part(configs.to_json(free)) == base
    other = configs.fixed_part(configs.to_json(example(seed=1)))
    assert {k for k in base if base[k] != other[k]} == {"seed"}


def test_words_are_checked() -> None:
    with pytest.raises(ValueError, match="found pairs bodies and hands, expected one"):
        pairs.choose("bodies,hands")
    with pytest.raises(ValueError, match="found 'fast', expected one of bodies"):
        pairs.reject({"fast"}, "dd")


def test_presets_differ_where_they_should() -> None:
    paper, released = regda.RegDA(), regda.released_settings()
    assert (paper.margin, released.margin) == (1.0, 4.0)
    assert (paper.clip_false, released.clip_false) == (False, True)
    assert released.update is regda.released
    assert supervised.Supervised().name == "source_only"
