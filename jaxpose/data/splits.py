"""Divides a data set of files into splits: by patterns, or by a rule that keeps clips together."""

import collections
import fnmatch
import posixpath
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxpose.data import views
from jaxpose.data.records import Note, Source

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
    names = [views.name_of(whole, i) for i in range(len(whole))]
    clips = views.sequences_of(whole)
    if patterns:
        parts = {split: _matching(names, clips, text) for split, text in patterns.items()}
        named = np.concatenate(list(parts.values()))
        parts = {"train": np.setdiff1d(np.arange(len(whole)), named)} | parts
    elif whole.labelled:
        parts = _default(names, clips)
    else:
        parts = {"train": np.arange(len(whole))}
    notes = _notes(names, clips, parts, labelled=whole.labelled, chosen=bool(patterns))
    return {split: views.Subset(source=whole, index=index, notes=notes) for split, index in parts.items()}


def _matching(names: Sequence[str], clips: Sequence[str] | None, patterns: str) -> np.ndarray:
    """The records that one of the patterns names."""
    folders = [posixpath.dirname(name) for name in names]
    levels = (clips or (), names, folders, [posixpath.basename(folder) for folder in folders])
    levels = (*levels, [posixpath.basename(name) for name in names])
    chosen = np.zeros(len(names), bool)
    for pattern in filter(None, patterns.split(",")):
        for texts in levels:
            found = np.array([fnmatch.fnmatchcase(text, pattern) for text in texts], bool)
            if found.any():
                chosen |= found
                break
        else:
            some = sorted(set(names if clips is None else clips))
            listed = ", ".join(some[:20]) + (", ..." if len(some) > 20 else "")
            raise ValueError(f"no clip, folder or file matches {pattern!r}, found {listed}")
    return np.flatnonzero(chosen)


def _default(names: Sequence[str], clips: Sequence[str] | None) -> dict[str, np.ndarray]:
    counts = collections.Counter(clips or ())
    there = sorted(counts)
    if len(there) < 2:
        clips = names
        testing = list(dict.fromkeys(names))[_EVERY - 1 :: _EVERY]
    elif len(there) < _EVERY:
        testing = [min(reversed(there), key=lambda clip: counts[clip])]
    else:
        testing = there[_EVERY - 1 :: _EVERY]
    chosen = set(testing)
    mask = np.array([clip in chosen for clip in clips], bool)
    return {"train": np.flatnonzero(~mask), "test": np.flatnonzero(mask)}


def _notes(
    names: Sequence[str],
    clips: Sequence[str] | None,
    parts: Mapping[str, np.ndarray],
    *,
    labelled: bool,
    chosen: bool,
) -> tuple[Note, ...]:
    """What makes errors look smaller than they are, or leaves nothing to measure them on."""
    notes = []
    if labelled and not len(parts.get("test", ())):
        what = "labelled images, none of which is for testing; name some with ?test=PATTERN"
        notes.append(Note(what=what, count=len(parts["train"])))
    series = _series(names, clips) if labelled else [None] * len(names)
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if first not in parts or second not in parts:
            continue
        both = np.intersect1d(parts[first], parts[second])
        if len(both):
            notes.append(
                Note(what=f"images that are for {first} and {second}", count=len(both), example=names[both[0]])
            )
        beside = {series[i] for i in parts[first]} - {None}
        near = [i for i in np.setdiff1d(parts[second], both) if series[i] in beside]
        if near:
            what = f"{second} images of the same series as {first} images, whose errors are too small to be"
            what += f" those of a new recording; name others with ?{second}=PATTERN"
            notes.append(Note(what=what, count=len(near), example=names[near[0]]))
    few = len(set(clips or ()))
    if labelled and not chosen and 1 < few < _EVERY:
        what = f"test images of one clip, the shortest of {few}; name others with ?test=PATTERN"
        notes.append(Note(what=what, count=len(parts["test"]), example=names[parts["test"][0]]))
    return tuple(notes)


def _series(names: Sequence[str], clips: Sequence[str] | None) -> Sequence[str | None]:
    """What each image is a frame of, None if it may be of nothing: individuals and recordings have images whose names
    differ in the last number. Photographs have too, so one such series in all says nothing without a clip."""
    places = [posixpath.dirname(name) for name in names] if clips is None else clips
    found = [f"{place}/{_without_number(name)}" for place, name in zip(places, names, strict=True)]
    if 2 * len(set(found)) > len(set(names)):  # names of chance
        found = places
    return [None] * len(names) if clips is None and len(set(found)) == 1 else found


def _without_number(name: str) -> str:
    return re.sub(r"\d+\D*$", "", posixpath.splitext(posixpath.basename(name))[0])
