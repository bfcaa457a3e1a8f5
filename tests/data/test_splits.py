import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from jaxpose.data import splits, wrappers
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Note, Record

SKELETON = Skeleton(name="two", joints=("a", "b"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    """Records of which nobody may read an image to know their names and clips."""

    names: Sequence[str]
    sequences: Sequence[str] | None = None
    skeleton: Skeleton = SKELETON
    labelled: bool = True
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        raise AssertionError("an image was read")

    def name(self, index: int) -> str:
        return self.names[index]


def frames(**clips: int) -> Named:
    """Clips with so many frames each."""
    names = [f"labeled-data/{clip}/img{i:03d}.png" for clip, count in clips.items() for i in range(count)]
    return Named(names=names, sequences=tuple(name.split("/")[1] for name in names))


def photographs(count: int) -> Named:
    return Named(names=[f"images/{i:06d}.jpg" for i in range(count)])


def divided(source: Named, **patterns: str) -> dict[str, list[str]]:
    parts = splits.divide(source, patterns)
    return {split: [wrappers.name_of(part, i) for i in range(len(part))] for split, part in parts.items()}


def notes(source: Named, **patterns: str) -> list[str]:
    return [str(note) for note in wrappers.notes_of(*splits.divide(source, patterns).values())]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b", {"b/cam1_03.png", "b/cam2_04.png"}),  # a clip
        ("?", {"a/cam1_01.png", "a/cam2_02.png", "b/cam1_03.png", "b/cam2_04.png", "x/c/mouse_05.png"}),
        ("*cam2*", {"a/cam2_02.png", "b/cam2_04.png"}),  # paths
        ("a/cam1_01.png,b", {"a/cam1_01.png", "b/cam1_03.png", "b/cam2_04.png"}),
        ("x/c", {"x/c/mouse_05.png"}),  # a folder
        ("mouse_*", {"x/c/mouse_05.png"}),  # the last name of a path
        ("cam1_0[13].png", {"a/cam1_01.png", "b/cam1_03.png"}),
    ],
)
def test_patterns_name_clips_paths_folders_or_files(pattern: str, expected: set[str]) -> None:
    names = ["a/cam1_01.png", "a/cam2_02.png", "b/cam1_03.png", "b/cam2_04.png", "x/c/mouse_05.png"]
    source = Named(names=names, sequences=("a", "a", "b", "b", "c"))
    assert set(divided(source, test=pattern)["test"]) == expected
    assert divided(source, test=pattern)["train"] == [name for name in names if name not in expected]


def test_a_folder_is_named_where_there_are_no_clips() -> None:
    source = Named(names=["images/val/1.jpg", "images/train/val_2.jpg", "images/train/3.jpg"])
    assert divided(source, test="val") == {
        "train": ["images/train/val_2.jpg", "images/train/3.jpg"],
        "test": ["images/val/1.jpg"],
    }


def test_a_clip_goes_before_files_of_its_name() -> None:
    source = Named(names=["a/b1.png", "b1/c.png"], sequences=("a", "b1"))
    assert divided(source, train="a", test="b1*") == {"train": ["a/b1.png"], "test": ["b1/c.png"]}


def test_patterns_that_match_nothing_are_errors() -> None:
    with pytest.raises(ValueError, match=r"no clip, folder or file matches 'four', found one, three, two$"):
        splits.divide(frames(one=1, two=1, three=1), {"test": "two,four"})


@pytest.mark.parametrize(
    ("clips", "tested"),
    [
        ({f"v{i}": 1 + i for i in range(5)}, {"v4"}),
        ({f"v{i}": 20 - i for i in range(11)}, {"v3", "v8"}),  # v0, v1, v10, v2, v3, ... in the order of names
        ({"long": 9, "short": 2, "z": 5}, {"short"}),
        ({"a": 3, "b": 3}, {"b"}),
        ({"a": 1, "b": 2, "c": 1, "d": 4}, {"c"}),
    ],
)
def test_without_patterns_some_clips_are_for_testing(clips: dict[str, int], tested: set[str]) -> None:
    found = splits.divide(frames(**clips), {})
    assert set(wrappers.sequences_of(found["test"]) or ()) == tested
    assert set(wrappers.sequences_of(found["train"]) or ()) == set(clips) - tested
    few = [note for note in notes(frames(**clips)) if note.startswith("test images of one clip")]
    assert len(few) == (len(clips) < 5)


def test_every_fifth_image_of_one_clip_or_none_is_for_testing() -> None:
    for source in (frames(v=11), photographs(11)):
        assert divided(source)["test"] == [source.names[4], source.names[9]]


def test_people_of_one_image_stay_together() -> None:
    names = [f"images/{i // 2:06d}.jpg" for i in range(20)]
    found = divided(Named(names=names))
    assert found["test"] == ["images/000004.jpg"] * 2 + ["images/000009.jpg"] * 2
    assert len(found["train"]) == 16


def test_without_labels_all_is_for_training() -> None:
    source = dataclasses.replace(frames(a=9, b=1), labelled=False)
    assert {split: len(names) for split, names in divided(source).items()} == {"train": 10}
    assert notes(source) == []


def test_frames_of_one_recording_on_both_sides_are_noted() -> None:
    (note,) = notes(frames(v=20))
    assert note.startswith("test images of a recording, individual or folder that train images are of too")
    assert note.endswith("name others with ?test=PATTERN: 4 (labeled-data/v/img004.png, ...)")


def test_frames_of_one_individual_on_both_sides_are_noted() -> None:
    names = [f"all/mouse{m}_{i:02d}.png" for m in range(4) for i in range(10)]
    for sequences in (None, ("all",) * 40):
        source = Named(names=names, sequences=sequences)
        (note,) = notes(source)
        assert note.endswith("?test=PATTERN: 8 (all/mouse0_04.png, ...)")
        assert notes(source, test="mouse3_*") == []
        (note,) = notes(source, test="mouse[01]_0[0-4]*")
        assert note.endswith(": 10 (all/mouse0_00.png, ...)")


def test_individuals_in_folders_of_their_own_are_noted_too() -> None:
    names = [f"{who}/{i:03d}.jpg" for who in ("ada", "bob") for i in range(10)]
    (note,) = notes(Named(names=names))
    assert note.endswith(": 4 (ada/004.jpg, ...)")


def test_photographs_and_whole_clips_need_no_note() -> None:
    assert notes(photographs(50)) == []
    assert notes(Named(names=[f"{np.random.default_rng(i).bytes(6).hex()}.jpg" for i in range(50)])) == []
    apart = [f"{folder}/{np.random.default_rng(i).bytes(6).hex()}.jpg" for i, folder in enumerate("ab" * 25)]
    assert notes(Named(names=apart)) == []
    assert notes(frames(**{f"v{i}": 3 for i in range(7)})) == []
    assert notes(frames(a=3, b=3, c=3), train="a", validation="b", test="c") == []


def test_images_in_two_splits_are_noted() -> None:
    assert notes(frames(a=2, b=3), train="*", test="b") == [
        "images that are for train and test: 3 (labeled-data/b/img000.png, ...)"
    ]


def test_notes_of_readers_come_first_and_once() -> None:
    left_out = Note(what="left out", count=2, example="x\n\udce9.png")
    found = notes(dataclasses.replace(frames(v=20), notes=(left_out,)))
    assert found[0] == "left out: 2 (x\\n\\udce9.png, ...)"
    assert len(found) == 2
