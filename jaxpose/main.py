"""The command line: `python -m jaxpose.main --config=configs/regda.py[:PAIR] [--workdir=DIR] [--mode=MODE]`.

Modes: `train` (the default), `eval` (a work directory's newest checkpoint), `browse` (look at the data of a pair, or of
`--dataset`), `prepare` (convert the published data set `--dataset` from its owners' files in `--manual_dir`),
`synthesize` (render the data set of `configs/synth.py`), `compare` (methods of `configs/compare.py` over `--seeds`),
`benchmark` (how fast the last stage of a recipe is here, or `--stage`; `--baseline=FILE` compares with an earlier
`benchmark.json`),
`compile` (what a recipe would take on the devices of `--topology`, which need not be here).
"""

from jaxpose import interruption
from jaxpose.ops.cpu import huge_pages

if __name__ == "__main__":
    interruption.hold()
    huge_pages.start_with()  # before the slow imports, as it starts the program anew
    interruption.end_at_once()

import datetime
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from jaxpose import config as configs
from jaxpose import limits
from jaxpose.data import schemes
from jaxpose.datasets import catalogue, prepare
from jaxpose.interruption import RUN_AGAIN
from jaxpose.report import browse
from jaxpose.synth.write import Synthesis, synthesize
from jaxpose.train import compare, mesh, modes, trainer
from jaxpose.train.log import NonFiniteError
from jaxpose.train.stop import Interrupted
from jaxpose.train.workdir import InUseError

_Kind = TypeVar("_Kind")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, with an optional pair: configs/regda.py:ultrasound.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept; an unfinished one is resumed.")
_MODES = ["train", "eval", "browse", "prepare", "synthesize", "compare", "benchmark", "compile"]
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
_DATASET = flags.DEFINE_string("dataset", None, "A published data set by name; browse also takes SCHEME:PATH?OPTIONS.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "prepare: the owners' files.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Prepared data sets; by default that of tensorflow-datasets.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "compare: how many.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "benchmark: updates to time, at most 20 seconds long.", lower_bound=1)
_BASELINE = flags.DEFINE_string("baseline", None, "benchmark: an earlier benchmark.json to compare with.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "compile: h200:8, v5e:2x2, v6e:2x4 or here.")
_JOINTS = flags.DEFINE_integer("joints", None, "compile: how many, where the data are not at hand.", lower_bound=1)
_STAGE = flags.DEFINE_string(
    "stage", None, "benchmark: this stage, not the last; compile: only this one, or its update STAGE/1, as JSON."
)
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "prepare, synthesize: processes that write.", lower_bound=0
)


def main(arguments: Sequence[str]) -> None:
    """Runs what the flags ask for; errors of the user's making are one line."""
    interruption.end_in_order()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    sys.unraisablehook = _show_of_main_thread
    if len(arguments) > 1:
        _fail(f"found argument {arguments[1]!r}, expected flags only")
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("orbax").setLevel(logging.CRITICAL)
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax logs with tracebacks what it raises as well
    try:
        match _MODE.value:
            case "prepare":
                _prepare()
            case "compare":
                _compare()
            case "synthesize":
                _synthesize()
            case "browse":
                _browse()
            case "compile":
                _compile()
            case mode:
                _run(mode)
    except Interrupted as stopped:
        print(stopped)
        raise SystemExit(RUN_AGAIN) from None
    except InUseError as error:
        _fail(str(error), RUN_AGAIN)
    except (ValueError, OSError, ImportError, NonFiniteError) as error:
        _fail(" ".join(str(error).split()))


def _run(mode: str) -> None:
    config = _config()
    _keep_compiled_programs()
    mesh.initialize_processes()
    if _WORKDIR.value is None and jax.process_count() > 1:
        raise ValueError("found no --workdir, expected one that all processes share")
    match mode:
        case "train":
            trainer.train(config, _workdir())
        case "eval":
            modes.evaluate(config, _workdir())
        case "benchmark":
            baseline = Path(_BASELINE.value) if _BASELINE.value else None
            modes.measure(config, _workdir(), steps=_STEPS.value, baseline=baseline, stage=_STAGE.value)


def _prepare() -> None:
    if _DATASET.value is None or _MANUAL_DIR.value is None:
        raise ValueError("--mode=prepare: found no --dataset or no --manual_dir, expected both")
    builder = catalogue.find(_DATASET.value)
    folder = prepare.prepare(builder, Path(_MANUAL_DIR.value), _data_dir(), workers=_WORKERS.value)
    print(prepare.summary(builder, folder))


def _compare() -> None:
    config = _config_of(configs.Comparison, "--mode=compare: expected --config=configs/compare.py")
    configs.validate(config.base)
    for field in ("methods", "few"):
        for name, method in getattr(config, field).items():
            limits.check(method, f"config.{field}[{name!r}]")
    _keep_compiled_programs()
    print(f"\nLook at {compare.compare(config, _workdir(), seeds=_SEEDS.value)}")


def _synthesize() -> None:
    config = _config_of(Synthesis, "--mode=synthesize: expected --config=configs/synth.py, :body or :hand")
    folder = synthesize(config, _data_dir(), workers=_WORKERS.value)
    print(f"Use it as tfds:{config.name}, or look at it with --mode=browse --dataset=tfds:{folder}")


def _compile() -> None:
    config = _config()
    if _TOPOLOGY.value is None:
        raise ValueError("--mode=compile: found no --topology, expected h200:8, v5e:2x2, v6e:2x4 or here")
    if _TOPOLOGY.value != "here":
        jax.config.update("jax_platforms", "cpu")  # what is here shall be left alone
    modes.compile_for(config, _TOPOLOGY.value, joints=_JOINTS.value, stage=_STAGE.value, arguments=sys.argv[1:])


def _browse() -> None:
    if _DATASET.value is None:
        path = modes.browse(_config(), _workdir())
    else:
        spec = _DATASET.value if ":" in _DATASET.value else f"tfds:{_DATASET.value}"
        opened = schemes.open_data(spec, root=str(_DATA_DIR.value or "."))
        print("\n".join([spec, *(f"  {note}" for note in opened.notes)]))
        splits = {split: browse.shown(part) for split, part in (opened.splits | opened.motions).items()}
        shown = browse.Browsed(spec=spec, splits=splits, notes=opened.notes)
        path = browse.write_page(_workdir(), spec, {"data set": shown})
    print(f"Look at {path}")


def _config() -> configs.Config:
    given = "no --config" if _CONFIG.value is None else f"a {type(_CONFIG.value).__name__} in --config"
    message = f"--mode={_MODE.value}: found {given}, expected a recipe, for instance --config=configs/regda.py"
    config = _config_of(configs.Config, message)
    configs.validate(config)
    return config


def _config_of(kind: type[_Kind], message: str) -> _Kind:
    config = _CONFIG.value
    if not isinstance(config, kind):
        getattr(config, "base", None)  # where a file could not be read, this raises why
        raise ValueError(message)
    return config


def _show_of_main_thread(ignored: Any) -> None:
    """Shows an error that nobody can catch; not what a write that failed leaves behind in the threads of Orbax."""
    if threading.current_thread() is threading.main_thread():
        sys.__unraisablehook__(ignored)


def _workdir() -> Path:
    return Path(_WORKDIR.value or Path("runs") / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _data_dir() -> Path:
    return Path(_DATA_DIR.value).expanduser() if _DATA_DIR.value else schemes.default_data_dir()


def _keep_compiled_programs() -> None:
    """Compiled programs are kept between runs, where `JAX_COMPILATION_CACHE_DIR` says or in the user's cache folder."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "jaxpose" / "xla"))


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses flags; a wrong one is one line."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        # A config file that raises comes with its traceback, whose last line says why.
        lines = [line for line in str(error).splitlines() if line.strip()]
        _fail(lines[-1] if "config file" in lines[0] else lines[0])
    except (KeyError, AttributeError) as error:
        _fail(f"--config: {str(error.args[0]) if error.args else error}")
    except (TypeError, ValueError, OSError, ImportError) as error:
        _fail(f"--config: {error}")


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"jaxpose: {message}", file=sys.stderr)
    raise SystemExit(status)


def run() -> None:
    """Entry point."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
