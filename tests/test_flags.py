"""Wrong flags are one line that says what was meant, before JAX is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from jaxpose import command_line
from jaxpose.spelling import did_you_mean

RUN = "--workdir={run}"
WRONG = {
    "mode": (["--mode=predit"], "--mode: found 'predit', expected one of train, .*; did you mean predict"),
    "flag": (["--wrkdir=x"], "found flag --wrkdir, .*; did you mean --workdir"),
    "recipe": (["--config=regad"], "found recipe 'regad', expected one of adabn, .*; did you mean regda"),
    "recipe and words": (["--config=cc_sl:hands"], "--config=cc_sl:hands: found recipe 'cc_sl'.*; did you mean cc_ssl"),
    "file": (["--config=configs/regad.py"], "found no file configs/regad.py, expected a recipe; did you mean regda"),
    "argument": (["regda"], "found argument 'regda', expected flags only"),
    "no value": (["--workdir"], "--workdir: found no value, expected --workdir=VALUE"),
    "number": (["--seeds=three"], "--seeds: found 'three', expected a positive integer"),
    "too small a number": (["--steps=0"], "--steps: found '0', expected a positive integer"),
    "switch": (["--overlay=maybe"], "--overlay: found 'maybe', expected true or false"),
    "formats": (["--formats=dlc,coca"], "--formats: found 'coca', .*; did you mean coco"),
    "shard": (["--shard=0/4"], "--shard: found '0/4', expected NUMBER/OF"),
    "no run": (["--mode=eval"], "--mode=eval: found no --workdir, expected one: Where the run is kept"),
    "no folder": (["--mode=eval", "--workdir={run}s"], "no such folder, expected that of a run; did you mean run?"),
    "empty folder": (["--mode=eval", "--workdir={run}/.."], "found no run there, expected the work directory of one"),
    "no input": (["--mode=predict", RUN], "--mode=predict: found no --input"),
    "no output": (["--mode=predict", RUN, "--input=x"], "--mode=predict: found no --output"),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    return tmp_path / "run"


@pytest.mark.parametrize(("arguments", "expected"), WRONG.values(), ids=WRONG.keys())
def test_wrong_flags_are_one_line(
    arguments: list[str], expected: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        command_line.checked([argument.format(run=run) for argument in arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxpose: ")
    for part in expected.split(".*"):
        assert part in line


def test_they_are_told_before_anything_slow_is_imported() -> None:
    slow = "('jax', 'numpy', 'tensorflow_datasets', 'orbax', 'cv2')"
    code = (
        "import sys\n"
        "from jaxpose import __main__, command_line\n"
        "try:\n  command_line.checked(['--mod=train'])\n"
        f"finally:\n  print([name for name in {slow} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert (
        done.stderr == "jaxpose: found flag --mod, expected one of those that --helpshort lists; did you mean --mode?\n"
    )
    assert done.stdout == "[]\n"


def test_recipes_by_name_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # as outside of the clone
    assert set(command_line.recipes()) == {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert command_line.recipe_file("regda:ultrasound,quick") == f"{ROOT / 'configs' / 'regda.py'}:ultrasound,quick"
    assert command_line.checked(["--config", "dan", "--config.seed=3"]) == [
        f"--config={ROOT / 'configs' / 'dan.py'}",
        "--config.seed=3",
    ]
    (tmp_path / "mine.py").write_text("")
    assert command_line.recipe_file("mine.py:a:b") == "mine.py:a:b"
    (tmp_path / "regda").write_text("")  # what lies here comes first
    assert command_line.recipe_file("regda") == "regda"


def test_files_of_a_clone_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = ["--config=configs/regda.py:quick", "--config.optim.learning_rate=0.1", "--mode", "compare", "--nooverlay"]
    assert command_line.checked(given) == given


def test_a_mode_of_a_run_gets_its_configuration(run: Path) -> None:
    added = f"--config={ROOT / 'jaxpose' / 'rebuilt.py'}:{run}"
    given = ["--mode=eval", f"--workdir={run}", "--config.data.target=images:x"]
    assert command_line.checked(given) == [added, *given]
    assert len(command_line.checked([*given, "--config=regda"])) == 4


def test_help_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "--helpshort", "-h"):
        with pytest.raises(SystemExit) as ended:
            command_line.checked([flag])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        for word in (*command_line.MODES, *command_line.recipes(), "ultrasound", "hrnet_w32", "deeplabcut", "--shard"):
            assert word in printed
        assert "__" not in printed


def test_the_field_that_was_meant() -> None:
    message = "Field lerning_rate not found on dataclass <class 'jaxpose.recipes.optimizers.Optim'>"
    found = command_line.no_such_field(message)
    assert found.startswith("found no field 'lerning_rate', expected one of learning_rate, ")
    assert found.endswith("; did you mean learning_rate?")
    assert command_line.no_such_field("anything else") == "anything else"


def test_nothing_is_meant_by_something_else() -> None:
    assert did_you_mean("ultrasond", ["hands", "Ultrasound"]) == "; did you mean Ultrasound?"
    assert did_you_mean("zzz", ["hands"]) == ""
    assert did_you_mean("x", []) == ""
