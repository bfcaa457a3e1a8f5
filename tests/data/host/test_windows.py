"""Windows by the numbers of frames, whatever the order of the records."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from clips import Nothing, clips_of, windows

from jaxpose.data import wrappers
from jaxpose.data.generators.embedded import EmbeddedSource
from jaxpose.data.host.windows import Window, Windows, consecutive, frame_pairs


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
    found = Windows(source, frame_pairs(5, 15))
    assert len(found) == sum(5000 - distance for distance in range(5, 16))
    assert found[0].tolist() == [0, 5]
    assert found[len(found) - 1].tolist() == [4994, 4999]
    assert sum(x.nbytes for x in vars(found).values() if isinstance(x, np.ndarray)) < 5000 * 50


def test_a_clip_whose_frames_are_ambiguous_has_no_windows() -> None:
    source = clips_of(Nothing(), "aaab" + "bb", [0, 1, 1, 0, 1, 2])
    assert listed(windows(source, (0, 1))) == [[3, 4], [4, 5]]


def test_windows_have_their_length() -> None:
    assert consecutive(3, every=2) == Window(((0, 2, 4),))
    assert (consecutive(30).frames, frame_pairs(5, 6).offsets) == (30, ((0, 5), (0, 6)))
    with pytest.raises(IndexError):
        windows(clips_of(Nothing(), "aa"), (0, 1))[1]


def test_a_source_without_numbers_has_none() -> None:
    with pytest.raises(ValueError, match="found no clips with numbered frames"):
        Windows(Nothing(), consecutive(2))


def timed(names: str, frames: Sequence[int], rates: float | Sequence[float], times: Sequence[float] | None = None):
    rates = np.broadcast_to(np.asarray(rates, np.float64), len(names))
    source = clips_of(Nothing(), names, frames)
    return dataclasses.replace(source, rates=rates, times=None if times is None else np.array(times))


@pytest.mark.parametrize("rate", [25.0, 30.0, 50.0, 29.97, 120.0])
def test_windows_by_time_have_the_nearest_frames_of_any_recording(rate: float) -> None:
    count = 150
    source = timed("a" * count, range(count), rate)
    found = Windows(source, consecutive(30, rate=30.0))
    moments = np.arange(30) / 30
    for index in range(len(found)):
        window = found[index]
        assert window[0] == index
        assert np.abs((window - index) / rate - moments).max() <= 0.5 / rate + 1e-6
        assert (np.diff(window) >= 0).all()
    assert abs(len(found) - (count - 29 / 30 * rate)) <= 1
    if rate == 50.0:
        assert found[0][:4].tolist() == [0, 2, 3, 5]
    if rate == 25.0:
        assert found[0][:5].tolist() == [0, 1, 2, 2, 3]  # the earlier of two that are as near


def test_frames_that_are_missing_are_no_neighbours() -> None:
    frames = [0, 1, 2, 4, 5, 6, 7, 9]
    found = Windows(timed("a" * 8, frames, 30.0), consecutive(3, rate=30.0))
    assert listed(found) == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    assert len(Windows(timed("a" * 5, range(0, 300, 60), 30.0), consecutive(2, rate=30.0))) == 0


def test_clips_have_rates_of_their_own_and_any_order() -> None:
    names, frames = "ab" * 10, [i // 2 for i in range(20)]
    found = listed(Windows(timed(names, frames, [10.0, 20.0] * 10), Window(((0, 2),), 10.0)))
    assert found == sorted(
        [[2 * i, 2 * (i + 2)] for i in range(8)] + [[2 * i + 1, 2 * (i + 4) + 1] for i in range(6)]
    )  # fmt: skip


def test_stated_times_are_more_than_numbers() -> None:
    """Of a variable rate: the third frame comes late."""
    found = Windows(timed("aaaa", range(4), 10.0, [0.0, 0.1, 0.24, 0.3]), Window(((0, 1),), 10.0))
    assert listed(found) == [[0, 1], [1, 2], [2, 3]]
    found = Windows(timed("aaaa", range(4), 10.0, [0.0, 0.1, 0.26, 0.4]), Window(((0, 1),), 10.0))
    assert listed(found) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("rates", [None, [30.0, 30.0, float("nan")]])
def test_times_have_to_be_known(rates: list[float] | None) -> None:
    source = clips_of(Nothing(), "aab") if rates is None else timed("aab", [0, 1, 0], rates)
    with pytest.raises(ValueError, match=r"found clips whose frames per second are not known, expected \?fps=NUMBER"):
        Windows(source, consecutive(2, rate=30.0))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_a_number_above_0(rate: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        consecutive(2, rate=rate)


def test_times_and_rates_go_through_views() -> None:
    source = timed("aabb", [0, 1, 0, 1], [10.0, 10.0, 20.0, 20.0])
    part = wrappers.Subset(source=source, index=np.array([3, 0]))
    np.testing.assert_allclose(wrappers.times_of(part), [0.05, 0.0])
    np.testing.assert_allclose(wrappers.rates_of(part), [20, 10])
    stated = wrappers.Timed(source=wrappers.Subset(source=clips_of(Nothing(), "aab"), index=np.array([1, 2])), fps=4.0)
    np.testing.assert_allclose(wrappers.times_of(stated), [0.25, 0.0])
    assert wrappers.times_of(clips_of(Nothing(), "aab")) is None


def test_clips_that_are_embedded_state_their_rate() -> None:
    source = EmbeddedSource(kind="body", style="studio", split="train", size=24, image_size=32)
    assert len(Windows(source, consecutive(8, rate=10.0))) == 3
    assert len(Windows(source, frame_pairs(5, 15, rate=20.0))) > 0
