"""Windows by the numbers of frames, whatever the order of the records."""

import numpy as np
import pytest
from clips import Nothing, clips_of, windows

from jaxpose.data.host.windows import Window, Windows, consecutive, pairs


def listed(found: Windows) -> list[list[int]]:
    return [found[i].tolist() for i in range(len(found))]


def test_windows_stay_within_their_clip_and_skip_what_is_missing() -> None:
    source = clips_of(Nothing(), "bbbaab", [7, 8, 9, 0, 1, 11])
    assert listed(windows(source, (0, 1), (0, 2))) == [[0, 1], [0, 2], [1, 2], [2, 5], [3, 4]]
    assert listed(windows(source, (0, 5))) == []


def test_frames_are_found_in_any_order_of_the_records() -> None:
    rng = np.random.default_rng(0)
    names = np.array(list("abc"))[rng.integers(0, 3, 60)]
    frames = np.concatenate([np.flatnonzero(rng.random(40) < 0.7) for _ in range(3)])[:60]
    frames = np.array([rng.integers(0, 10**6) if i % 20 == 0 else f for i, f in enumerate(frames)])
    _, first = np.unique(np.char.add(np.char.add(names, "/"), frames.astype(str)), return_index=True)
    names, frames = names[first], frames[first]  # no frame twice
    order = rng.permutation(len(names))
    source = clips_of(Nothing(), names[order].tolist(), frames[order].tolist())
    record = {place: i for i, place in enumerate(zip(source.sequences, source.frames.tolist(), strict=True))}
    expected = [
        [record[name, frame + step] for step in (0, *row)]
        for name, frame in zip(source.sequences, source.frames.tolist(), strict=True)
        for row in ((1, 2), (2, -1))
        if {(name, frame + step) for step in row} <= record.keys()
    ]
    assert len(expected) > 10
    assert listed(windows(source, (0, 1, 2), (0, 2, -1))) == expected


def test_pairs_at_random_distance_are_not_listed() -> None:
    source = clips_of(Nothing(), "a" * 5000)
    found = Windows(source, pairs(5, 15))
    assert len(found) == sum(5000 - distance for distance in range(5, 16))
    assert found[0].tolist() == [0, 5]
    assert found[len(found) - 1].tolist() == [4994, 4999]
    assert sum(x.nbytes for x in vars(found).values() if isinstance(x, np.ndarray)) < 5000 * 50


def test_a_clip_whose_frames_are_ambiguous_has_no_windows() -> None:
    source = clips_of(Nothing(), "aaab" + "bb", [0, 1, 1, 0, 1, 2])
    assert listed(windows(source, (0, 1))) == [[3, 4], [4, 5]]


def test_windows_have_their_length() -> None:
    assert consecutive(3, every=2) == Window(((0, 2, 4),))
    assert (consecutive(30).frames, pairs(5, 6).offsets) == (30, ((0, 5), (0, 6)))
    with pytest.raises(IndexError):
        windows(clips_of(Nothing(), "aa"), (0, 1))[1]


def test_a_source_without_numbers_has_none() -> None:
    with pytest.raises(ValueError, match="found no clips with numbered frames"):
        Windows(Nothing(), consecutive(2))
