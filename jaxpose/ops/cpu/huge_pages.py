"""Huge pages for the memory of a process.

XLA on CPU asks malloc for an update's memory anew in every update, and the kernel then maps it page by page; with huge
pages these are hundreds of times fewer, which makes updates a tenth to a quarter shorter (`docs/performance.md`).
"""

import os
import sys

_VARIABLE, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"  # glibc 2.35; older ones and other systems ignore it


def start_with() -> None:
    """Starts this program anew with huge pages, which malloc decides on at a process's start.

    Does nothing where the environment already has settings for malloc (an empty `GLIBC_TUNABLES` keeps small pages), or
    on other systems than Linux. Belongs before everything else that a program does.
    """
    if sys.platform != "linux" or _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = _VALUE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
