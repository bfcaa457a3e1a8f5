"""What a signal leaves on the terminal."""

import subprocess
import sys

from jaxpose.interruption import RUN_AGAIN

_HALF_MADE = """
import os, signal
from jaxpose import interruption

class Half:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        self.whole = True

    def __del__(self):
        assert self.whole

interruption.end_in_order()
Half()
"""


def test_an_object_that_was_being_made_does_not_complain() -> None:
    done = subprocess.run([sys.executable, "-c", _HALF_MADE], capture_output=True, text=True, timeout=60)
    assert done.returncode == RUN_AGAIN
    assert done.stderr.strip() == "stopped by SIGTERM; the same command goes on from what is saved"


_DROPPED = """
import os, signal
from jaxpose import interruption

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(9):
            pass

interruption.end_in_order()
Last()
print("went on")
interruption.end_if_told()
print("not told")
"""


def test_a_signal_that_comes_in_a_finalizer_is_not_lost() -> None:
    """Python drops what is raised there."""
    done = subprocess.run([sys.executable, "-c", _DROPPED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n") == ["went on", ""]
    assert done.returncode == RUN_AGAIN
    assert done.stderr.strip() == "stopped by SIGINT; the same command goes on from what is saved"
