"""Which joint of one skeleton is which of another, when their names are spelled differently."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxpose.data.joints.skeletons import Skeleton


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointPair:
    """A joint under both its names; `how`: alias, same name, spelling or synonym."""

    source: str
    target: str
    how: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """The joints that two skeletons share.

    Attributes:
      source, target: the skeletons.
      pairs: the P shared joints, in the source's order.
    """

    source: Skeleton
    target: Skeleton
    pairs: tuple[JointPair, ...]

    @property
    def skeleton(self) -> Skeleton:
        """The shared joints with the source's names and structure."""
        return self.source.restrict([pair.source for pair in self.pairs])

    @property
    def source_indices(self) -> np.ndarray:
        """Positions of the shared joints in the source, int32 (P,)."""
        return self.source.indices([pair.source for pair in self.pairs])

    @property
    def target_indices(self) -> np.ndarray:
        """Positions of the same joints in the target, int32 (P,)."""
        return self.target.indices([pair.target for pair in self.pairs])

    @property
    def unmatched_source(self) -> tuple[str, ...]:
        """The joints that only the source has."""
        return _without(self.source.joints, {pair.source for pair in self.pairs})

    @property
    def unmatched_target(self) -> tuple[str, ...]:
        """The joints that only the target has."""
        return _without(self.target.joints, {pair.target for pair in self.pairs})

    def table(self) -> list[str]:
        """Lines to print: every pair with how it was matched, then what has no counterpart."""
        rows = [(pair.source, pair.target, pair.how) for pair in self.pairs]
        rows += [(joint, "-", "only in the source") for joint in self.unmatched_source]
        rows += [("-", joint, "only in the target") for joint in self.unmatched_target]
        rows.insert(0, (f"source {self.source.name}", f"target {self.target.name}", "matched by"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {how}" for a, b, how in rows]


def match(source: Skeleton, target: Skeleton, aliases: Mapping[str, str] | None = None) -> Match:
    """Matches the joints of two skeletons: by alias, then by equal name, then by spelling, then by synonym.

    Spellings differ in case, separators, camel case and in where and how left and right stand: `L_ear`, `earL`,
    `left-ear`, `LEar`, `lEar`, `ear_left` and `leftear` are one joint. Digits are kept. Synonyms are few and never
    approximate: `top_of_head` is `head_top`, but a `root` is no `pelvis` and a `snout` no `nose`; such pairs are for
    `aliases`. A joint that was matched takes no part in what follows.

    Args:
      source, target: the skeletons.
      aliases: name in the source to name in the target; the other way round if the names exist only so.

    Raises:
      ValueError: if no joint is shared, several joints could be the counterpart of one, or an alias names none.
    """
    pairs = _by_alias(source, target, aliases or {})
    for how, key in (("same name", str), ("spelling", _spelling), ("synonym", _synonym)):
        left = _without(source.joints, {pair.source for pair in pairs})
        right = _without(target.joints, {pair.target for pair in pairs})
        pairs += _by_key(left, right, how, key)
    if not pairs:
        raise ValueError(
            f"skeletons share no joint: source {source.name} has {', '.join(source.joints)}; "
            f"target {target.name} has {', '.join(target.joints)}"
        )
    pairs.sort(key=lambda pair: source.joints.index(pair.source))
    return Match(source=source, target=target, pairs=tuple(pairs))


def _by_alias(source: Skeleton, target: Skeleton, aliases: Mapping[str, str]) -> list[JointPair]:
    pairs = []
    for name, other in aliases.items():
        if name in source.joints and other in target.joints:
            pairs.append(JointPair(source=name, target=other, how="alias"))
        elif other in source.joints and name in target.joints:
            pairs.append(JointPair(source=other, target=name, how="alias"))
        else:
            raise ValueError(
                f"alias {name} = {other} names no joint of both skeletons: source {source.name} has "
                f"{', '.join(source.joints)}; target {target.name} has {', '.join(target.joints)}"
            )
    for side in ("source", "target"):
        names = [getattr(pair, side) for pair in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"aliases name the {side}'s joint {twice[0]} more than once, expected one counterpart")
    return pairs


def _by_key(source: Iterable[str], target: Iterable[str], how: str, key: Callable[[str], object]) -> list[JointPair]:
    """Pairs of joints whose keys are equal."""
    by_key: dict[object, tuple[list[str], list[str]]] = {}
    for side, joints in enumerate((source, target)):
        for joint in joints:
            by_key.setdefault(key(joint), ([], []))[side].append(joint)
    pairs = []
    for left, right in by_key.values():
        if left and right and len(left) + len(right) > 2:
            raise ValueError(
                f"joints match in several ways by {how}: source {', '.join(left)}; target {', '.join(right)}; "
                "expected one of each: state the pair as an alias"
            )
        if left and right:
            pairs.append(JointPair(source=left[0], target=right[0], how=how))
    return pairs


def _without(joints: tuple[str, ...], taken: set[str]) -> tuple[str, ...]:
    return tuple(joint for joint in joints if joint not in taken)


_WORDS = {"left": "left", "right": "right"}
_LETTERS = {"l": "left", "r": "right"}
_GLUED = re.compile(r"(left|right)(\w{3,})|(\w{3,}?)(left|right)")


def _spelling(name: str) -> tuple[str, str]:
    """The side ("left", "right" or "") and the rest of a name, in small letters without separators."""
    tokens = _tokens(name)
    for sides in (_WORDS, _LETTERS):
        places = [place for place, token in enumerate(tokens) if token in sides]
        rest = [token for token in tokens if token not in sides]
        # A second side, or nothing but digits beside it (the lumbar vertebra L5), makes it part of the name.
        if len(places) == 1 and not all(token.isdigit() for token in rest):
            return sides[tokens[places[0]]], _joined(rest)
        if places:
            return "", _joined(tokens)
    for place, token in enumerate(tokens):
        if glued := _GLUED.fullmatch(token):
            rest = [*tokens[:place], glued[2] or glued[3], *tokens[place + 1 :]]
            return glued[1] or glued[4], _joined(rest)
    return "", _joined(tokens) or name


def _tokens(name: str) -> list[str]:
    """Words and numbers in small letters; a capital after a small letter or before a word starts a new one."""
    tokens = []
    for run in re.findall(r"\d+|[^\W\d_]+", unicodedata.normalize("NFKC", name)):
        start = 0
        for i in range(1, len(run)):
            if run[i].isupper() and (run[i - 1].islower() or run[i + 1 : i + 2].islower()):
                tokens.append(run[start:i].casefold())
                start = i
        tokens.append(run[start:].casefold())
    return tokens


def _joined(tokens: list[str]) -> str:
    """The tokens without separators, except between numbers: 1_2 is not 12."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(tokens))


_FINGER = r"(thumb|index|middle|ring|little)"
_SYNONYMS = (
    (r"(topof(the)?|top)head|headtop", "headtop"),
    (r"(base|root)of(the)?tail|tail(base|root)", "tailbase"),
    (r"(tip|end)of(the)?tail|tail(tip|end)", "tailtip"),
    (r"pink(y|ie)", "little"),
    (_FINGER + "finger", r"\1"),
    (r"^(mcp|pip|dip|ip|cmc|tip)(of(the)?)?" + _FINGER + "$", r"\4\1"),
    (_FINGER + "fingertip", r"\1tip"),
    (r"centre", "center"),
    # Of a leg, hind and back, fore and front mean the same.
    (r"^(?:f|fore|front)(leg|limb|paw|hoof|knee|elbow)", r"front\1"),
    (r"^(?:b|h|hind|back|rear)(leg|limb|paw|hoof|knee|elbow)", r"back\1"),
)


def _synonym(name: str) -> tuple[str, str]:
    """The spelling with the words that have several names replaced by one of them."""
    side, rest = _spelling(name)
    for pattern, word in _SYNONYMS:
        rest = re.sub(pattern, word, rest)
    return side, rest
