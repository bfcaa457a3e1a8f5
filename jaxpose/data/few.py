"""A few rows with labels, drawn from a target whose other rows stay without."""

import collections
import dataclasses
import re

import numpy as np

from jaxpose.data.host.elements import Crops
from jaxpose.data.records import BrokenImageError
from jaxpose.data.wrappers import Subset, sequences_of

_AMOUNT = re.compile(r"(\d+)(%?)")


def is_amount(text: str) -> bool:
    """Whether a specification is a number of rows, `20`, or a share of them, `40%`, rather than a data set."""
    return _AMOUNT.fullmatch(text) is not None


def draw(target: Crops, amount: str, *, seed: int) -> tuple[Crops, Crops]:
    """Labelled rows of a training split, and all its other rows.

    The seed decides on the order of clips and that of the rows of each; of every clip in turn one row is taken, so that
    all have as many or one more. Rows of which no joint is labelled, or that cannot be read, are passed over.

    Args:
      target: the training split.
      amount: how many, see `is_amount`; of a share, the nearest number, at least one.
      seed: of the run.

    Raises:
      ValueError: in words that go on after the domain's, if there are not as many labelled rows, or no others.
    """
    count = _count(amount, len(target))
    if not target.labelled:
        raise ValueError("found no labels in the training split of the target, expected some to draw from")
    if not 0 < count < len(target):
        raise ValueError(
            f"found {count} rows, expected 1 to {len(target) - 1} of the {len(target)} training rows of the target: "
            "what is left is its unlabelled part"
        )
    chosen: list[int] = []
    for index in _by_clips_in_turn(target, seed):
        if len(chosen) == count:
            break
        if _has_labels(target, index):
            chosen.append(index)
    if len(chosen) < count:
        raise ValueError(f"found {len(chosen)} training rows of the target with labels, expected at least {count}")
    labelled = np.array(sorted(chosen))
    rest = np.setdiff1d(np.arange(len(target)), labelled)
    drawn: dict[str, object] = {"drawn": [amount, seed]}
    return _only(target, labelled, "labelled_train", drawn), _only(target, rest, "target_train", drawn)


def _count(amount: str, rows: int) -> int:
    found = _AMOUNT.fullmatch(amount)
    assert found is not None
    number = int(found[1])
    return max(round(number * rows / 100), min(number, 1)) if found[2] else number


def _by_clips_in_turn(target: Crops, seed: int) -> list[int]:
    """All rows: one of each clip, then another one of each, and so on."""
    clips = sequences_of(target.source) or [""] * len(target)
    turns: collections.Counter[str] = collections.Counter()
    order = []
    for index in np.random.default_rng(seed).permutation(len(target)).tolist():
        order.append((turns[clips[index]], index))
        turns[clips[index]] += 1
    return [index for _, index in sorted(order, key=lambda of: of[0])]  # stable: clips in a random order, too


def _has_labels(target: Crops, index: int) -> bool:
    try:
        return bool(target.labels(index)[1].any())
    except BrokenImageError:
        return False


def _only(target: Crops, index: np.ndarray, name: str, drawn: dict[str, object]) -> Crops:
    cache = target.cache
    if cache is not None:
        cache = dataclasses.replace(cache, name=name, asked={**cache.asked, **drawn})
    return dataclasses.replace(target, source=Subset(source=target.source, index=index), cache=cache)
