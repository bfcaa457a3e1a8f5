"""The Colab notebook: its structure, and its cells run as a script.

Jupyter's kernel is a heavy dependency for one notebook; `!` and `%cd` lines are translated here, and what a cell would
display is written to a file.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATH = ROOT / "launch" / "colab_tpu.ipynb"


@pytest.fixture
def notebook() -> dict[str, Any]:
    return json.loads(PATH.read_text())


def sources(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def as_python(source: str) -> str:
    """A cell without IPython's own syntax."""
    lines = []
    for line in source.splitlines():
        indent, command = line[: len(line) - len(line.lstrip())], line.lstrip()
        if command.startswith("!"):
            line = f"{indent}subprocess.run(f{command[1:]!r}, shell=True, check=True)"
        elif command.startswith("%cd "):
            line = f"{indent}os.chdir({command[4:]!r})"
        lines.append(line)
    return "\n".join(lines)


def test_the_notebook_is_valid_and_holds_no_output(notebook: dict[str, Any]) -> None:
    assert notebook["nbformat"] == 4
    assert {"cells", "metadata", "nbformat", "nbformat_minor"} == notebook.keys()
    assert notebook["metadata"]["accelerator"] == "TPU"
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse(as_python("".join(cell["source"])))


def test_the_notebook_is_valid_to_nbformat() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(PATH, as_version=4))


def test_the_notebook_itself_leaves_the_tpu_alone(notebook: dict[str, Any]) -> None:
    """Only commands that it starts may take the devices."""
    for source in sources(notebook):
        for line in source.splitlines():
            assert "import jax\n" not in line + "\n"
            assert not line.startswith("from jax ")


# IPython's display module, of this script alone: what is displayed is added to a file.
DISPLAY = """
import os, subprocess, sys, types
def display(text):
    with open("displayed.html", "a") as file:
        file.write(text)
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython.display"] = types.SimpleNamespace(HTML=str, display=display)
"""


@pytest.mark.slow
def test_the_cells_run_on_cpu(notebook: dict[str, Any], tmp_path: Path) -> None:
    """From a copy of what is needed; installing is left out, and the real run is the quick one, finished by then."""
    for name in ("configs", "jaxpose"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = "\n".join([DISPLAY, *map(as_python, sources(notebook))])
    for before, after in (
        ('CONFIG = "configs/regda.py"', 'CONFIG = "configs/regda.py:quick"'),
        ('WORKDIR = "runs/regda"', 'WORKDIR = "runs/quick"'),
        ("pip install", "echo pip install"),
    ):
        assert before in script
        script = script.replace(before, after)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PATH": path, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("PCK@0.05") >= 2
    assert "runs/quick is finished" in done.stdout
    displayed = (tmp_path / "displayed.html").read_text()
    assert displayed.count("<iframe") == 2
    assert "data:image" in displayed
