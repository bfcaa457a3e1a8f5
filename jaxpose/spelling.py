"""What was meant by a name that does not exist. Imports little: wrong flags are answered before JAX is imported."""

import difflib
from collections.abc import Iterable


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, of the known names the one that is spelled most alike, or nothing if none is."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(found.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]}?" if close else ""
