import os
import subprocess
import sys

import pytest

from jaxpose.ops.cpu import huge_pages

PROGRAM = (
    "from jaxpose.ops.cpu import huge_pages\nhuge_pages.start_with()\nimport os, sys\n"
    "print(os.environ.get('GLIBC_TUNABLES'), os.getpid(), sys.argv[1:])"
)


def printed(**environment: str) -> tuple[str, int]:
    base = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--flag=a b", "c"], env=base | environment, stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.strip(), process.pid


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_program_starts_anew_once_as_the_same_process_with_the_same_arguments() -> None:
    output, process = printed()
    assert output == f"glibc.malloc.hugetlb=1 {process} ['--flag=a b', 'c']"


def test_the_users_settings_stay() -> None:
    output, process = printed(GLIBC_TUNABLES="")
    assert output == f"{process} ['--flag=a b', 'c']"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("started anew")

    monkeypatch.setattr(os, "execv", refuse)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    huge_pages.start_with()
    assert "GLIBC_TUNABLES" not in os.environ
