"""Divides a data set of files into splits: by patterns, or by a rule that keeps clips together."""

import collections
import fnmatch
import itertools
import posixpath
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxpose.data import wrappers
from jaxpose.data.records import Motion, Note, Source

_EVERY = 5  # clip or image is for testing


def divide(whole: Source, patterns: Mapping[str, str]) -> dict[str, Source]:
    """The splits of a data set, with notes on what a reader of its results should know.

    A pattern is one of a shell. It names clips; where no clip has such a name, files by their paths, else folders, else
    files by their last names. Without a pattern for `train`, that is all that no other pattern names. Without any,
    every fifth clip, in the order of names, is for testing, and of two to four clips the one with the fewest images
    (the last such one). Of a single clip, or of images that belong to none, every fifth image is for testing, with all
    records of it. Data without labels are all for training.

    Args:
      whole: the data set.
      patterns: split -> patterns, separated by commas.

    Raises:
      ValueError: if a pattern matches nothing.
    """
    names = [wrappers.name_of(whole, i) for i in range(len(whole))]
    clips = wrappers.sequences_of(whole)
    if patterns:
        parts = _chosen(names, clips, patterns)
    elif whole.labelled:
        parts = _default(names, clips)
    else:
        parts = {"train": np.arange(len(whole))}
    notes = _notes(names, clips, parts, labelled=whole.labelled, chosen=bool(patterns))
    return {split: wrappers.Subset(source=whole, index=index, notes=notes) for split, index in parts.items()}


def divide_motions(
    motions: Sequence[Motion], patterns: Mapping[str, str]
) -> tuple[dict[str, list[Motion]], tuple[Note, ...]]:
    """The splits of recorded motions, by the patterns and the rule of `divide`, and notes.

    A pattern names subjects, else motions; without any, every fifth motion in the order of names is for testing.

    Raises:
      ValueError: if a pattern matches nothing.
    """
    names, subjects = [motion.name for motion in motions], [motion.subject for motion in motions]
    if patterns:
        parts = _chosen(names, subjects if any(subjects) else None, patterns)
    else:
        parts = _default(names, names)
    notes = []
    trained = {subjects[i] for i in parts["train"]} - {""}
    for split in (split for split in parts if split != "train"):
        near = [i for i in parts[split] if subjects[i] in trained]
        if near:
            what = f"{split} motions of a subject that train motions are of too; name others with ?{split}=PATTERN"
            notes.append(Note(what=what, count=len(near), example=names[int(near[0])]))
    return {split: [motions[i] for i in index] for split, index in parts.items()}, tuple(notes)


def _chosen(names: Sequence[str], clips: Sequence[str] | None, patterns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """What patterns name; without one for training, all else is."""
    parts = {split: _matching(names, clips, text) for split, text in patterns.items()}
    named = np.concatenate(list(parts.values()))
    return {"train": np.setdiff1d(np.arange(len(names)), named)} | parts


def _matching(names: Sequence[str], clips: Sequence[str] | None, patterns: str) -> np.ndarray:
    """The records that one of the patterns names."""
    folders = [posixpath.dirname(name) for name in names]
    levels = (clips or (), names, folders, [posixpath.basename(folder) for folder in folders])
    levels = (*levels, [posixpath.basename(name) for name in names])
    chosen = np.zeros(len(names), bool)
    for pattern in filter(None, patterns.split(",")):
        for texts in levels:
            matches = np.array([fnmatch.fnmatchcase(text, pattern) for text in texts], bool)
            if matches.any():
                chosen |= matches
                break
        else:
            some = sorted(set(names if clips is None else clips))
            listed = ", ".join(some[:20]) + (", ..." if len(some) > 20 else "")
            raise ValueError(f"no clip, folder or file matches {pattern!r}, found {listed}")
    return np.flatnonzero(chosen)


def _default(names: Sequence[str], clips: Sequence[str] | None) -> dict[str, np.ndarray]:
    groups = clips or ()
    counts = collections.Counter(groups)
    there = sorted(counts)
    if len(there) < 2:
        groups = names
        testing = list(dict.fromkeys(names))[_EVERY - 1 :: _EVERY]
    elif len(there) < _EVERY:
        testing = [min(reversed(there), key=lambda clip: counts[clip])]
    else:
        testing = there[_EVERY - 1 :: _EVERY]
    chosen = set(testing)
    mask = np.array([group in chosen for group in groups], bool)
    return {"train": np.flatnonzero(~mask), "test": np.flatnonzero(mask)}


def _notes(
    names: Sequence[str],
    clips: Sequence[str] | None,
    parts: Mapping[str, np.ndarray],
    *,
    labelled: bool,
    chosen: bool,
) -> tuple[Note, ...]:
    """What makes errors look smaller than they are."""
    notes = []
    for first, second in itertools.combinations(parts, 2):
        both = np.intersect1d(parts[first], parts[second])
        if len(both):
            what = f"images that are for {first} and {second}"
            notes.append(Note(what=what, count=len(both), example=names[int(both[0])]))
    series = _series(names, clips) if labelled else [None] * len(names)
    trained = {series[i] for i in parts["train"]} - {None}
    for split in (split for split in parts if split != "train"):
        near = [i for i in np.setdiff1d(parts[split], parts["train"]) if series[i] in trained]
        if near:
            what = (
                f"{split} images of a recording, individual or folder that train images are of too: on new ones errors"
            )
            what += f" are larger; name others with ?{split}=PATTERN"
            notes.append(Note(what=what, count=len(near), example=names[int(near[0])]))
    few = len(set(clips or ()))
    if labelled and not chosen and 1 < few < _EVERY:
        what = f"test images of one clip, the shortest of {few}; name others with ?test=PATTERN"
        notes.append(Note(what=what, count=len(parts["test"]), example=names[int(parts["test"][0])]))
    return tuple(notes)


def _series(names: Sequence[str], clips: Sequence[str] | None) -> Sequence[str | None]:
    """What each image is a frame of, None if it may be of nothing.

    Images of individuals and recordings have names that differ in the last number. Those of photographs may too, so
    without clips one such series of all says nothing.
    """
    places = [posixpath.dirname(name) for name in names] if clips is None else clips
    series = [f"{place}/{_without_number(name)}" for place, name in zip(places, names, strict=True)]
    several = len(set(series))
    if 2 * several > len(set(names)) or (clips is None and several == 1):  # names of chance, or all alike
        return [None] * len(names) if clips is None else clips
    return series


def _without_number(name: str) -> str:
    return re.sub(r"\d+\D*$", "", posixpath.splitext(posixpath.basename(name))[0])
