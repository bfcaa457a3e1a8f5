import dataclasses
import functools
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT
from tiny import make_config, make_task

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.recipes import adabn, regda
from jaxpose.train import rebuild


def write(folder: Path, config: Config, task: Any) -> None:
    (folder / "run.json").write_text(json.dumps(rebuild.described(config, task), allow_nan=False))


def load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("one", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words() -> list[tuple[str, str | None]]:
    """Every recipe, also with the words that put other functions in its fields."""
    alone = [(path.stem, None) for path in sorted((ROOT / "configs").glob("*.py"))]
    alone = [
        (name, said) for name, said in alone if name not in ("compare", "relation_terms", "synth")
    ]  # which are no recipes
    return [
        *alone,
        ("regda", "released"),
        ("regda", "min_max_false,hrnet_w32"),
        ("mean_teacher", "released"),
        ("mean_teacher", "fourier"),
        ("cc_ssl", "temporal"),
        ("temporal", "cc_ssl"),
        ("post", "published"),
        ("post", "itself,hands"),
        ("source_only", "l2,dark"),
    ]


@pytest.mark.parametrize(("recipe", "said"), words())
def test_every_recipe_is_made_again_from_its_names(recipe: str, said: str | None, tmp_path: Path) -> None:
    config = load(ROOT / "configs" / f"{recipe}.py").get_config(said)
    write(tmp_path, config, make_task())
    assert rebuild.config_of(tmp_path) == config


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_is_made_again(name: str, tmp_path: Path) -> None:
    config = make_config(methods.METHODS[name](pairs.bodies()))
    write(tmp_path, config, make_task())
    assert rebuild.config_of(tmp_path) == config


def test_the_problem_is_made_again(tmp_path: Path) -> None:
    skeleton = Skeleton(
        name="mine", joints=("a", "b"), bones=(("a", "b"),), flips=(("a", "b"),), groups={"all of it": ("a", "b")}
    )
    task = make_task(skeleton=skeleton, sizes={"source": 3}, skeletons={"source": skeleton}, area=(0.5, math.inf))
    write(tmp_path, make_config(adabn.AdaBN()), task)
    assert rebuild.task_of(tmp_path) == task


@dataclasses.dataclass(frozen=True)
class Mine:
    name: str = "mine"


def test_recipes_of_users_are_asked_for_by_name(tmp_path: Path) -> None:
    write(tmp_path, make_config(Mine()), make_task())
    with pytest.raises(
        ValueError, match=r"run.json: found .*:Mine in config.method, .* expected its file|--config=FILE"
    ):
        rebuild.config_of(tmp_path)
    assert rebuild.task_of(tmp_path) == make_task()
    closed = dataclasses.replace(regda.RegDA(), adversary=lambda *_: None)
    write(tmp_path, make_config(closed), make_task())
    with pytest.raises(ValueError, match=r"in config.method.adversary"):
        rebuild.config_of(tmp_path)


def test_partials_keep_their_arguments() -> None:
    named = rebuild._named(functools.partial(methods.with_coding, words=("dark",)), "x")
    made = rebuild._made(json.loads(json.dumps(named)))
    assert (made.func, made.keywords) == (methods.with_coding, {"words": ("dark",)})


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "jaxpose.untrusted:os.system",  # reached through a module of ours
        "jaxpose.train.rebuild:Path",
        "jaxpose.absent:function",
        "jaxpose.methods:absent",
        "jaxpose.methods:METHODS",
        "jaxpose../etc:x",
    ],
)
@pytest.mark.parametrize("kind", ["name", "made by", "partial"])
def test_nothing_but_this_package_is_reached(name: str, kind: str, tmp_path: Path) -> None:
    found = {kind: name, "fields": {}, "args": {"tuple": []}, "keywords": {"dict": {}}}
    (tmp_path / "run.json").write_text(json.dumps({"config": found, "task": found}))
    with pytest.raises(ValueError, match=r"run.json: found the name"):
        rebuild.config_of(tmp_path)


def test_what_is_damaged_or_old_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no run there"):
        rebuild.config_of(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="earlier version, expected its recipe in --config"):
        rebuild.config_of(tmp_path)
    described = rebuild.described(make_config(adabn.AdaBN()), make_task())
    for damage in (
        lambda found: found["config"]["fields"].update(another=1),
        lambda found: found["config"]["fields"].update(seed=-1),
        lambda found: found.update(config=found["task"]),
        lambda found: found.pop("config"),
        lambda found: found["config"].pop("fields"),
    ):
        changed = json.loads(json.dumps(described))
        damage(changed)
        (tmp_path / "run.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"run.json: .*expected") as raised:
            rebuild.config_of(tmp_path)
        assert "\n" not in str(raised.value)
