"""The flags, and what is wrong with them, known before JAX is imported.

`jaxpose`, `python -m jaxpose` and `python -m jaxpose.main` are the same program.
"""

import ast
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from jaxpose import interruption
from jaxpose.ops.cpu import huge_pages
from jaxpose.predict.asked import FORMATS as _FORMATS
from jaxpose.predict.asked import Shard, formats_of
from jaxpose.spelling import did_you_mean

MODES = {
    "train": "train, or go on with, a recipe (the default)",
    "eval": "measure the newest checkpoint of --workdir, also on another --config.data.target",
    "predict": "find keypoints in the images or videos of --input, by the model of --workdir",
    "browse": "look at the data of a pair, or of --dataset",
    "prepare": "convert the published data set --dataset from its owners' files in --manual_dir",
    "synthesize": "render the data set of --config=synth",
    "compare": "methods of --config=compare over --seeds",
    "benchmark": "how fast the last stage of a recipe is here, or --stage",
    "compile": "what a recipe would take on the devices of --topology, which need not be here",
}
_OF_WORKDIR = ("eval", "predict")  # modes that find their configuration in the work directory

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, with an optional pair and other words: regda:ultrasound, or a file: mine.py:hands,quick."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept; an unfinished one is resumed.")
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
INPUT = flags.DEFINE_string(
    "input", None, "predict: an image, a video, a folder or tar of them, or SCHEME:PATH; ?boxes=FILE for boxes."
)
OUTPUT = flags.DEFINE_string("output", None, "predict: the folder for what is found.")
FORMATS = flags.DEFINE_string("formats", "dlc", f"predict: some of {', '.join(_FORMATS)}.")
OVERLAY = flags.DEFINE_bool("overlay", False, "predict: also draw what is found, and a contact sheet.")
SHARD = flags.DEFINE_string("shard", None, "predict: only this part of the files, or of one file's frames: 3/100.")
DATASET = flags.DEFINE_string("dataset", None, "A published data set by name; browse also takes SCHEME:PATH?OPTIONS.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "prepare: the owners' files.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Prepared data sets; by default that of tensorflow-datasets.")
SEEDS = flags.DEFINE_integer("seeds", 3, "compare: how many.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 100, "benchmark: updates to time, at most 20 seconds long.", lower_bound=1)
BASELINE = flags.DEFINE_string("baseline", None, "benchmark: an earlier benchmark.json to compare with.")
TOPOLOGY = flags.DEFINE_string("topology", None, "compile: h200:8, v5e:2x2, v6e:2x4 or here.")
JOINTS = flags.DEFINE_integer("joints", None, "compile: how many, where the data are not at hand.", lower_bound=1)
STAGE = flags.DEFINE_string(
    "stage", None, "benchmark: this stage, not the last; compile: only this one, or its update STAGE/1, as JSON."
)
WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "prepare, synthesize: processes that write.", lower_bound=0
)

_CHECKED = {"shard": Shard.read, "formats": formats_of}
_HELP = ("h", "help", "helpshort")
_OF_ABSL = ("helpfull", "helpxml", "flagfile", "undefok", "v", "verbosity", "logtostderr", "alsologtostderr")
_OF_ABSL += ("stderrthreshold", "showprefixforinfo", "only_check_args", "pdb", "pdb_post_mortem", "log_dir")
_OF_ABSL += ("run_with_pdb", "run_with_profiling", "profile_file", "use_cprofile_for_profiling", "logger_levels")


def start() -> None:
    """What comes before the slow imports of a program: signals are heard, the memory is set up, flags are checked.

    `sys.argv` is changed: recipes by name become files, and modes that need a run's configuration get one.
    """
    interruption.hold()
    huge_pages.start_with()  # starts the program anew
    interruption.end_at_once()
    sys.argv[1:] = checked(sys.argv[1:])


def checked(arguments: Sequence[str]) -> list[str]:
    """The arguments with recipes by their files; ends the program over those that are wrong, or with help."""
    given: dict[str, str] = {}  # the last value of each flag
    position, resolved = 0, list(arguments)
    while position < len(arguments):
        name, value, used = _flag(arguments, position)
        if name in _HELP:
            print(help_text())
            raise SystemExit(0)
        given[name] = value
        if name == "config":
            resolved[position : position + used] = [f"--config={recipe_file(value)}"] + [""] * (used - 1)
        position += used
    resolved = [argument for argument in resolved if argument]
    mode = given.get("mode", "train")
    if mode not in _OF_WORKDIR:
        return resolved
    for name in ("workdir", *(("input", "output") if mode == "predict" else ())):
        if not given.get(name):
            fail(f"--mode={mode}: found no --{name}, expected one: {flags.FLAGS[name].help}")
    if not Path(given["workdir"]).is_dir():
        fail(f"--workdir={given['workdir']}: no such folder, expected that of a run{_like(Path(given['workdir']))}")
    if not any((Path(given["workdir"]) / name).is_file() for name in ("run.json", "config.json")):
        fail(f"--workdir={given['workdir']}: found no run there, expected the work directory of one")
    if "config" not in given:
        resolved.insert(0, f"--config={Path(__file__).with_name('rebuilt.py')}:{given['workdir']}")
    return resolved


def recipe_file(value: str) -> str:
    """`FILE:WORDS` of what is given to `--config`: a file, or a recipe by name."""
    path, colon, words = value.partition(":")
    if Path(path).is_file():
        return value
    known = recipes()
    if path in known:
        return f"{known[path]}{colon}{words}"
    if "/" in path or path.endswith(".py"):
        hint = _like(Path(path)) or did_you_mean(Path(path).stem, known)
        fail(f"--config={value}: found no file {path}, expected a recipe{hint}")
    fail(f"--config={value}: found recipe {path!r}, expected one of {', '.join(known)}{did_you_mean(path, known)}")


def recipes() -> dict[str, Path]:
    """The files of the recipes by name: those of the package or, in a clone, those beside it."""
    package = Path(__file__).parent
    folder = next((f for f in (package / "configs", package.parent / "configs") if f.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def help_text() -> str:
    """Modes, recipes, words, schemes and flags."""
    from jaxpose import pairs
    from jaxpose.data import schemes

    about = {
        name: (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0] for name, file in recipes().items()
    }
    lines = [
        "jaxpose --config=RECIPE[:WORDS] [--workdir=DIR] [--mode=MODE] [--config.any.field=VALUE]",
        "jaxpose --mode=predict --workdir=RUN --input=PATH --output=DIR",
        *("", "Modes:", *_columns(MODES)),
        *("", "Recipes (a name or a file), see the words of each at the top of its file:", *_columns(about)),
        *("", "Words after the colon, joined with commas:"),
        f"  pairs     {', '.join(pairs.PAIRS)}",
        f"  networks  {', '.join(pairs.NETWORKS)}",
        "  quick     in under a minute, to see that everything works",
        *("", "Schemes of data, SCHEME:PATH?OPTION=VALUE&...:", f"  {', '.join(schemes.names())}"),
        *("", "Flags:", *_columns({f"--{flag.name}": flag.help or "" for flag in _own()})),
    ]
    return "\n".join(lines)


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line."""
    print(f"jaxpose: {message}", file=sys.stderr)
    raise SystemExit(status)


def no_such_field(message: str) -> str:
    """What is wrong with `--config.FIELD`, where ml_collections says that a class has no such field."""
    words = message.split()
    if len(words) < 3 or words[0] != "Field" or "<class '" not in message:
        return message
    module, _, kind = message.split("<class '")[1].split("'")[0].rpartition(".")
    known = [name for name in getattr(getattr(importlib.import_module(module), kind), "__dataclass_fields__", {})]
    return f"found no field {words[1]!r}, expected one of {', '.join(known)}{did_you_mean(words[1], known)}"


def _flag(arguments: Sequence[str], position: int) -> tuple[str, str, int]:
    """Name and value of a flag, and how many arguments it takes."""
    argument = arguments[position]
    if not argument.startswith("-") or argument.strip("-") == "":
        fail(f"found argument {argument!r}, expected flags only")
    name, equals, value = argument.lstrip("-").partition("=")
    if name in _HELP or name in _OF_ABSL or name.startswith("config."):
        follows = name.startswith("config.") and not equals and position + 1 < len(arguments)
        return name, value, 1 + (follows and not arguments[position + 1].startswith("-"))
    known = {flag.name: flag for flag in _own()}
    if name.removeprefix("no") in known and known[name.removeprefix("no")].boolean and not equals:
        return name.removeprefix("no"), str(not name.startswith("no")), 1
    if name not in known:
        fail(f"found flag --{name}, expected one of those that --helpshort lists{_meant(name, known)}")
    used = 1
    if not equals:
        if position + 1 == len(arguments):
            fail(f"--{name}: found no value, expected --{name}=VALUE")
        value, used = arguments[position + 1], 2
    if name == "mode" and value not in MODES:
        fail(f"--mode: found {value!r}, expected one of {', '.join(MODES)}{did_you_mean(value, MODES)}")
    if name != "config":
        parser = known[name].parser
        try:
            parser.parse(value)
        except (ValueError, TypeError):
            fail(f"--{name}: found {value!r}, expected {parser.syntactic_help or 'true or false'}")
    if (check := _CHECKED.get(name)) is not None:
        try:
            check(value)
        except ValueError as error:
            fail(str(error))
    return name, value, used


def _meant(name: str, known: Mapping[str, Any]) -> str:
    hint = did_you_mean(name, known)
    return hint.replace("did you mean ", "did you mean --")


def _own() -> list[Any]:
    """The flags of this module."""
    found = flags.FLAGS.flags_by_module_dict().get(__name__, [])
    return sorted(found, key=lambda flag: flag.name)


def _like(path: Path) -> str:
    parent = path.parent
    return did_you_mean(path.name, os.listdir(parent) if parent.is_dir() else [])


def _columns(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"  {name.ljust(width)}  {text}" for name, text in rows.items()]
