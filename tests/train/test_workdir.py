"""A work directory has one user at a time, and knows its data."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxpose.data import domains
from jaxpose.train import workdir as workdirs
from jaxpose.train.workdir import InUseError, data_changes, locked

HOLDER = """
import sys, time
from pathlib import Path
from jaxpose.train.workdir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_who_holds_it_until_that_is_killed(tmp_path: Path) -> None:
    workdir = tmp_path / "new" / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(workdir)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUseError) as raised, locked(workdir):
            raise AssertionError("held twice")
        message = str(raised.value)
        since = json.loads((workdir / "lock").read_text())["since"]
        assert message.startswith(f"{workdir}: found it in use by process {holder.pid} on {socket.gethostname()}")
        assert f" since {since}; wait for that" in message
        assert "\n" not in message
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(workdir):
        assert json.loads((workdir / "lock").read_text())["pid"] == os.getpid()
    with locked(workdir):
        pass


@pytest.mark.parametrize("written", [b"", b"[1]", b'{"pid": "x"}', b"\xff"])
def test_whoever_has_not_said_who_it_is_still_holds_it(tmp_path: Path, written: bytes) -> None:
    with locked(tmp_path):
        (tmp_path / "lock").write_bytes(written)
        with pytest.raises(InUseError, match="in use by another process; wait"), locked(tmp_path):
            pass


def test_file_systems_without_locks_are_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(workdirs.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdirs.fcntl, "flock", refuse)
    with locked(tmp_path):
        pass


def write_project(root: Path, points: list[tuple[int, int]]) -> None:
    folder = root / "labeled-data" / "video"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["scorer,me,me", "bodyparts,left_knee,left_knee", "coords,x,y"]
    for i, (x, y) in enumerate(points):
        cv2.imwrite(str(folder / f"img{i}.png"), np.full((20, 20, 3), 50 * i, np.uint8))
        lines.append(f"labeled-data/video/img{i}.png,{x},{y}")
    (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")


def open_project(root: Path) -> domains.OpenedPair:
    return domains.open_pair(
        source="deeplabcut:project?train=*",
        target="bodies:street?train=8",
        root=str(root),
        image_size=32,
        margin=1.0,
        memory=0,
        seed=0,
    )


def changes(root: Path) -> list[str]:
    workdir = root / "project" / "run"  # what the run itself writes is no change
    workdir.mkdir(exist_ok=True)
    return data_changes(workdir, open_project(root), root=str(root), cache=None)


def test_what_changed_in_the_data_is_said(tmp_path: Path) -> None:
    write_project(tmp_path / "project", [(5, 6), (7, 8), (9, 10)])
    assert changes(tmp_path) == []
    for path in (tmp_path / "project").rglob("*.png"):  # a copy has other times
        os.utime(path, (1, 1))
    assert changes(tmp_path) == []

    write_project(tmp_path / "project", [(5, 6), (7, 9), (9, 10)])
    (labels,) = changes(tmp_path)
    assert labels.startswith("The data of source changed since an earlier part of this run: ")
    assert labels.endswith("other labels of the train records")

    write_project(tmp_path / "project", [(5, 6), (7, 9), (9, 10), (1, 2)])
    first, second = changes(tmp_path)
    assert first == labels
    assert "4 train records, 3 before" in second
    assert "5 files of " in second
    assert changes(tmp_path) == [first, second]


@pytest.mark.parametrize("written", ["", "[]", "{}", '{"changes": [], "domains": {"source": 3}}'])
def test_a_damaged_data_file_does_not_stop_a_run(tmp_path: Path, written: str) -> None:
    write_project(tmp_path / "project", [(5, 6), (7, 8)])
    changes(tmp_path)
    path = tmp_path / "project" / "run" / "data.json"
    path.write_text(written)
    assert changes(tmp_path) == [f"{path}: found it damaged, so whether the data changed is not known"]
    assert len(changes(tmp_path)) == 1


def test_names_of_files_need_not_be_text(tmp_path: Path) -> None:
    write_project(tmp_path / "project", [(5, 6), (7, 8)])
    name = os.fsdecode(b"notes-\xff\n.txt")
    (tmp_path / "project" / name).touch()
    assert changes(tmp_path) == []
    (tmp_path / "project" / name).unlink()
    assert len(changes(tmp_path)) == 1
