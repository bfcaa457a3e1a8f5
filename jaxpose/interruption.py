"""SIGINT and SIGTERM at any moment: one line, and the status that says that the same command goes on.

Where a run has something to save, it takes the signals over (`jaxpose.train.stop`); this is for all other times.
It is the first that a program imports, so it imports little itself.
"""

import os
import signal
import sys

RUN_AGAIN = 75  # exit status of what a signal stopped (sysexits.h: EX_TEMPFAIL)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_told: list[int] = []


def hold() -> None:
    """Keeps signals waiting until `end_at_once`, also over a new start of the program."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_at_once() -> None:
    """From now on a signal ends the process where it stands: for imports, which do not expect an exception."""
    for number in SIGNALS:
        signal.signal(number, _end_at_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_in_order() -> None:
    """From now on a signal raises `SystemExit`, so that files are closed; a second one ends the process at once."""
    for number in SIGNALS:
        signal.signal(number, _end_in_order)


def leave_to_parent(*_: int) -> None:
    """In a reading process: Ctrl-C, which reaches all processes, is the parent's to answer, and its end is ours."""
    import multiprocessing
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def said(number: int) -> str:
    """What is printed of a signal."""
    return f"stopped by {signal.Signals(number).name}; the same command goes on from what is saved"


def _end_at_once(number: int, frame: object) -> None:
    _say(number)
    os._exit(RUN_AGAIN)


def end_if_told() -> None:
    """Ends if a signal has come whose `SystemExit` was dropped: in a finalizer or a callback of the collector."""
    if _told:
        raise SystemExit(RUN_AGAIN)


def _end_in_order(number: int, frame: object) -> None:
    _say(number)
    _told.append(number)
    end_at_once()
    sys.unraisablehook = lambda _: None  # an object that was being made need not know how to end
    raise SystemExit(RUN_AGAIN)


def _say(number: int) -> None:
    # Not through sys.stderr, which may be in the middle of something.
    os.write(2, f"\n{said(number)}\n".encode())
