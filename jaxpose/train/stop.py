"""Being told to stop: a run ends between two updates, when it is saved."""

import os
import signal
from typing import Any

import jax

from jaxpose.interruption import end_if_told
from jaxpose.train.checkpoint import Checkpoints


class Interrupted(Exception):
    """A signal, or the end of a reading process: the run was saved and can be resumed."""


class StopFlag:
    """While it is entered, notes SIGINT and SIGTERM instead of dying of them; a second SIGINT is not waited with.

    Several processes have to agree on the step at which they stop; there jax listens for SIGTERM, and Orbax is asked.
    """

    def __init__(self, checkpoints: Checkpoints, *, done: int):
        self._checkpoints, self._done = checkpoints, done
        self._alone = jax.process_count() == 1
        self.requested, self.why = False, ""  # of several processes, only what all have agreed on

    def __enter__(self) -> "StopFlag":
        self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._note)}
        if self._alone:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
        end_if_told()
        if self._alone:
            return self
        # jax agrees on the number after the largest that any process has asked about, and says yes to that number
        # alone. For a notice that came before the first question that is 1: a resumed run must ask from there on.
        for step in range(1, self._done + 1):
            self.raised(step)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raised(self, total_step: int) -> bool:
        """Whether to save and stop after this step, or one before it at which the run could not stop."""
        if self._checkpoints.preempted(total_step):  # not `|=`, which a signal could come in the middle of
            self.requested = True
        return self.requested

    def give(self, why: str) -> None:
        """Stops the run for another reason than a signal."""
        self.requested, self.why = True, f"{why}; "

    def _note(self, number: int, *_: Any) -> None:
        self.requested |= self._alone
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)  # so that jax hears of it
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
