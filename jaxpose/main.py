"""The command line: `jaxpose --config=RECIPE[:WORDS] [--workdir=DIR] [--mode=MODE]`; see `--helpshort` for the modes.

`python -m jaxpose.main --config=configs/regda.py[:WORDS]` is the same from a clone.
"""

from jaxpose import command_line

if __name__ == "__main__":
    command_line.start()  # before the slow imports

import datetime
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from absl import app, flags
from absl import logging as absl_logging

from jaxpose import config as configs
from jaxpose import interruption, limits, model
from jaxpose.command_line import fail
from jaxpose.data import schemes
from jaxpose.datasets import catalogue, prepare
from jaxpose.interruption import RUN_AGAIN
from jaxpose.predict import collection, recordings
from jaxpose.predict.asked import Shard, formats_of
from jaxpose.predict.formats import WRITERS
from jaxpose.report import browse
from jaxpose.synth.write import Synthesis, synthesize
from jaxpose.train import compare, mesh, modes, trainer
from jaxpose.train.log import NonFiniteError
from jaxpose.train.stop import Interrupted
from jaxpose.train.workdir import InUseError

_Kind = TypeVar("_Kind")


def main(arguments: Sequence[str]) -> None:
    """Runs what the flags ask for; errors of the user's making are one line."""
    interruption.end_in_order()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    sys.unraisablehook = _show_of_main_thread
    if len(arguments) > 1:
        fail(f"found argument {arguments[1]!r}, expected flags only")
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("orbax").setLevel(logging.CRITICAL)
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax logs with tracebacks what it raises as well
    try:
        match command_line.MODE.value:
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
            case "predict":
                _predict()
            case mode:
                _run(mode)
    except Interrupted as stopped:
        print(stopped)
        raise SystemExit(RUN_AGAIN) from None
    except InUseError as error:
        fail(str(error), RUN_AGAIN)
    except (ValueError, OSError, ImportError, NonFiniteError) as error:
        fail(" ".join(str(error).split()))


def _run(mode: str) -> None:
    config = _config()
    _keep_compiled_programs()
    mesh.initialize_processes()
    if command_line.WORKDIR.value is None and jax.process_count() > 1:
        raise ValueError("found no --workdir, expected one that all processes share")
    match mode:
        case "train":
            trainer.train(config, _workdir())
        case "eval":
            modes.evaluate(config, _workdir())
        case "benchmark":
            baseline = Path(command_line.BASELINE.value) if command_line.BASELINE.value else None
            modes.measure(
                config, _workdir(), steps=command_line.STEPS.value, baseline=baseline, stage=command_line.STAGE.value
            )


def _prepare() -> None:
    if command_line.DATASET.value is None or command_line.MANUAL_DIR.value is None:
        raise ValueError("--mode=prepare: found no --dataset or no --manual_dir, expected both")
    builder = catalogue.find(command_line.DATASET.value)
    folder = prepare.prepare(
        builder, Path(command_line.MANUAL_DIR.value), _data_dir(), workers=command_line.WORKERS.value
    )
    print(prepare.summary(builder, folder))


def _compare() -> None:
    config = _config_of(configs.Comparison, "--mode=compare: expected --config=configs/compare.py")
    configs.validate(config.base)
    for field in ("methods", "few"):
        for name, method in getattr(config, field).items():
            limits.check(method, f"config.{field}[{name!r}]")
    _keep_compiled_programs()
    print(f"\nLook at {compare.compare(config, _workdir(), seeds=command_line.SEEDS.value)}")


def _synthesize() -> None:
    config = _config_of(Synthesis, "--mode=synthesize: expected --config=configs/synth.py, :body or :hand")
    folder = synthesize(config, _data_dir(), workers=command_line.WORKERS.value)
    print(f"Use it as tfds:{config.name}, or look at it with --mode=browse --dataset=tfds:{folder}")


def _compile() -> None:
    config = _config()
    if command_line.TOPOLOGY.value is None:
        raise ValueError("--mode=compile: found no --topology, expected h200:8, v5e:2x2, v6e:2x4 or here")
    if command_line.TOPOLOGY.value != "here":
        jax.config.update("jax_platforms", "cpu")  # what is here shall be left alone
    modes.compile_for(
        config,
        command_line.TOPOLOGY.value,
        joints=command_line.JOINTS.value,
        stage=command_line.STAGE.value,
        arguments=sys.argv[1:],
    )


def _predict() -> None:
    config = _config()
    shard = Shard.read(command_line.SHARD.value)
    writers = {name: WRITERS[name] for name in formats_of(command_line.FORMATS.value)}
    _keep_compiled_programs()
    loaded = model.load(_workdir(), config)
    inputs = recordings.find(str(command_line.INPUT.value), root=".", skeleton=loaded.skeleton)
    print(f"{loaded.title}: {len(loaded.skeleton)} joints, {loaded.image_size} px, margin {loaded.margin:g}")
    output = Path(str(command_line.OUTPUT.value))
    collection.predict(loaded, inputs, output, formats=writers, pictures=command_line.OVERLAY.value, shard=shard)


def _browse() -> None:
    if command_line.DATASET.value is None:
        path = modes.browse(_config(), _workdir())
    else:
        spec = command_line.DATASET.value if ":" in command_line.DATASET.value else f"tfds:{command_line.DATASET.value}"
        opened = schemes.open_data(spec, root=str(command_line.DATA_DIR.value or "."))
        print("\n".join([spec, *(f"  {note}" for note in opened.notes)]))
        splits = {split: browse.shown(part) for split, part in (opened.splits | opened.motions).items()}
        shown = browse.Browsed(spec=spec, splits=splits, notes=opened.notes)
        path = browse.write_page(_workdir(), spec, {"data set": shown})
    print(f"Look at {path}")


def _config() -> configs.Config:
    given = (
        "no --config"
        if command_line.CONFIG.value is None
        else f"a {type(command_line.CONFIG.value).__name__} in --config"
    )
    message = (
        f"--mode={command_line.MODE.value}: found {given}, expected a recipe, for instance --config=configs/regda.py"
    )
    config = _config_of(configs.Config, message)
    configs.validate(config)
    return config


def _config_of(kind: type[_Kind], message: str) -> _Kind:
    config = command_line.CONFIG.value
    if not isinstance(config, kind):
        try:
            getattr(config, "base", None)  # where a file could not be read, this raises why
        except Exception as error:
            raise ValueError(f"--config: {error.__cause__ or error}") from error
        raise ValueError(message)
    return config


def _show_of_main_thread(ignored: Any) -> None:
    """Shows an error that nobody can catch; not what a write that failed leaves behind in the threads of Orbax."""
    if threading.current_thread() is threading.main_thread():
        sys.__unraisablehook__(ignored)


def _workdir() -> Path:
    return Path(command_line.WORKDIR.value or Path("runs") / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _data_dir() -> Path:
    return Path(command_line.DATA_DIR.value).expanduser() if command_line.DATA_DIR.value else schemes.default_data_dir()


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
        fail(f"--config: {_said(lines[-1])}" if "config file" in lines[0] else lines[0])
    except (KeyError, AttributeError) as error:
        fail(f"--config: {command_line.no_such_field(str(error.args[0]) if error.args else str(error))}")
    except (TypeError, ValueError, OSError, ImportError) as error:
        fail(f"--config: {error}")


def _said(line: str) -> str:
    """The last line of a traceback, without the kind of the error where that is a plain one."""
    kind, _, message = line.partition(": ")
    return message if kind in ("ValueError", "FileNotFoundError") else line


def run() -> None:
    """Entry point."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
