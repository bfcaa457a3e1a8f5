"""Labelled rows drawn from the target."""

import collections
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaxpose.data import domains, few
from jaxpose.data.host.elements import Crops
from jaxpose.data.joints.skeletons import Skeleton
from jaxpose.data.records import Record

JOINTS = Skeleton(name="two", joints=("a", "b"))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Records that know their clips, none of which has an image."""

    visible: np.ndarray
    sequences: tuple[str, ...] | None
    skeleton: Skeleton = JOINTS

    @property
    def labelled(self) -> bool:
        return bool(self.visible.any())

    def __len__(self) -> int:
        return len(self.visible)

    def __getitem__(self, index: int) -> Record:
        keypoints, box = np.full((2, 2), 10, np.float32), np.array([0, 0, 20, 20], np.float32)
        name, visible = self.name(index), self.visible[index].astype(np.uint8)
        return Record(image=b"", keypoints=keypoints, visible=visible, bbox=box, name=name)

    def name(self, index: int) -> str:
        return f"{index}.png"


def rows(clips: list[str] | None, visible: np.ndarray) -> Crops:
    source = Rows(visible, None if clips is None else tuple(clips))
    return Crops(source=source, joints=np.arange(2), size=32)


def names(part: Crops) -> list[int]:
    return [int(part.name(i).removesuffix(".png")) for i in range(len(part))]


@pytest.mark.parametrize("seed", range(5))
def test_every_clip_gives_as_many_or_one_more(seed: int) -> None:
    clips = ["long"] * 90 + ["short"] * 5 + ["middle"] * 20
    labelled, rest = few.draw(rows(clips, np.full((115, 2), 2)), "11", seed=seed)
    assert sorted(names(labelled) + names(rest)) == list(range(115))
    counts = collections.Counter(clips[i] for i in names(labelled))
    assert sorted(counts.values()) == [3, 4, 4]


def test_a_short_clip_is_used_up_and_the_others_give_more() -> None:
    clips = ["long"] * 20 + ["short"] * 2
    labelled, _ = few.draw(rows(clips, np.full((22, 2), 2)), "50%", seed=0)
    assert collections.Counter(clips[i] for i in names(labelled)) == {"long": 9, "short": 2}


def test_the_seed_decides() -> None:
    target = rows(None, np.full((100, 2), 2))
    first, again, other = (names(few.draw(target, "10", seed=seed)[0]) for seed in (0, 0, 1))
    assert first == again != other


def test_rows_without_labels_are_passed_over() -> None:
    visible = np.zeros((30, 2))
    visible[::3, 1] = 1
    labelled, rest = few.draw(rows(None, visible), "10", seed=0)
    assert names(labelled) == list(range(0, 30, 3))
    assert len(rest) == 20
    with pytest.raises(ValueError, match="found 10 training rows of the target with labels, expected at least 11"):
        few.draw(rows(None, visible), "11", seed=0)


@pytest.mark.parametrize("amount", ["0", "0%", "100%", "30", "31"])
def test_something_is_labelled_and_something_is_not(amount: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 29 of the 30 training rows of the target"):
        few.draw(rows(None, np.full((30, 2), 2)), amount, seed=0)


def test_a_small_share_is_one_row() -> None:
    assert len(few.draw(rows(None, np.full((30, 2), 2)), "1%", seed=0)[0]) == 1


@pytest.mark.parametrize("text", ["20", "40%"])
def test_amounts_are_no_data_sets(text: str) -> None:
    assert few.is_amount(text)
    assert not few.is_amount(f"images:{text}")


def pair(**options: Any) -> domains.OpenedPair:
    given: dict[str, Any] = {"source": "bodies:studio?train=4", "target": "bodies:street?train=24&test=3", "root": "."}
    return domains.open_pair(**given | {"image_size": 32, "margin": 1.25, "memory": 1, "seed": 0} | options)


def test_the_target_gives_its_labelled_rows_away() -> None:
    opened = pair(labelled="5")
    sizes = {name: {s: len(part) for s, part in of.splits.items()} for name, of in opened.domains.items()}
    assert sizes["labelled"] == {"train": 5}
    assert sizes["target"] == {"train": 19, "validation": 512, "test": 3}
    given, kept = (opened.crops(name, "train") for name in ("labelled", "target"))
    assert not {given.name(i) for i in range(5)} & {kept.name(i) for i in range(19)}
    whole = pair().crops("target", "train")
    found = {whole.name(i): i for i in range(24)}
    for i in range(5):
        np.testing.assert_array_equal(given[i]["image"], whole[found[given.name(i)]]["image"])


def test_a_target_without_labels_says_so(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"^data.labelled=2: found no labels in the training split .*images:"):
        pair(target=f"images:{tmp_path}", labelled="2")


def test_caches_of_both_parts_are_files_of_their_own(tmp_path: Path) -> None:
    target = pair(cache=str(tmp_path)).crops("target", "train")
    parts = [part for seed in (0, 1) for part in few.draw(target, "5", seed=seed)]
    described = [(part.described_cache().name, str(part.described_cache().asked)) for part in parts]
    assert len(set(described)) == 4
    assert [name for name, _ in described] == ["labelled_train", "target_train"] * 2
