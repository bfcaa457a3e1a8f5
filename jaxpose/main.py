"""The command line: `python -m jaxpose.main --config=configs/regda.py[:PAIR] [--workdir=DIR] [--mode=train|eval]`."""

import datetime
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from jaxpose import config as configs
from jaxpose.train import loop, mesh, session

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, with an optional pair: configs/regda.py:ultrasound.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept; an unfinished one is resumed.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")


def main(arguments: Sequence[str]) -> None:
    """Runs what the flags ask for; errors of the user's making are one line."""
    if len(arguments) > 1:
        _fail(f"found argument {arguments[1]!r}, expected flags only")
    config = _CONFIG.value
    if config is None:
        _fail("found no --config, expected for instance --config=configs/regda.py")
    for noisy in ("absl", "jax", "orbax"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        configs.validate(config)
        _keep_compiled_programs()
        mesh.initialize_processes()
        if _WORKDIR.value is None and jax.process_count() > 1:
            raise ValueError("found no --workdir, expected one that all processes share")
        workdir = Path(_WORKDIR.value) if _WORKDIR.value else _new_workdir()
        if _MODE.value == "train":
            session.train(config, workdir)
        else:
            session.evaluate(config, workdir)
    except loop.Interrupted as stopped:
        print(stopped)
    except (ValueError, OSError, loop.NonFiniteError) as error:
        _fail(" ".join(str(error).split()))


def _keep_compiled_programs() -> None:
    """Compiled programs are kept between runs, where `JAX_COMPILATION_CACHE_DIR` says or in the user's cache folder."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "jaxpose" / "xla"))


def _new_workdir() -> Path:
    return Path("runs") / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


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


def _fail(message: str) -> NoReturn:
    print(f"jaxpose: {message}", file=sys.stderr)
    raise SystemExit(2)


def run() -> None:
    """Entry point."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
