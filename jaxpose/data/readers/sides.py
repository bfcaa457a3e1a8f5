"""Left and right in joint names."""

import re
from collections.abc import Iterator, Sequence


def left_right_pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(left, right) pairs of names that differ only by left/right or by a separate letter L/R, in any case.

    A letter is separate where no other letter touches it, or where camel case sets it off: `L_ear`, `earL`,
    `LEar`, but not `Lip`. Names whose mirror image is absent are in no pair.
    """
    known, paired, pairs = set(names), set(), []
    for left in names:
        for right in _mirrored(left):
            if right != left and right in known and not paired & {left, right}:
                pairs.append((left, right))
                paired |= {left, right}
    return tuple(pairs)


_WORD = re.compile("left", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z])[Ll](?![A-Za-z])|(?<![A-Za-z])L(?=[A-Z])|(?<=[a-z])L(?![a-z])")


def _mirrored(name: str) -> Iterator[str]:
    """What the right-hand counterpart of a left-hand name may be called."""
    yield _WORD.sub(lambda match: _like(match.group(), "right"), name)
    for match in _LETTER.finditer(name):
        yield name[: match.start()] + _like(match.group(), "r") + name[match.end() :]


def _like(pattern: str, word: str) -> str:
    """`word` in the capitals of `pattern`."""
    if pattern.isupper():
        return word.upper()
    return word.capitalize() if pattern[0].isupper() else word
