"""Contact sheets."""

import dataclasses
from pathlib import Path

import numpy as np
import small

from jaxpose.data import schemes
from jaxpose.data.generators.embedded import EmbeddedSource
from jaxpose.data.records import Note, Record, Source
from jaxpose.report import browse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photographs:
    """Pictures without labels, and how many were read."""

    read: list[int]
    skeleton = EmbeddedSource(kind="body", style="studio", split="train", size=1, image_size=32, seed=0).skeleton
    labelled = False

    def __len__(self) -> int:
        return 500

    def __getitem__(self, index: int) -> Record:
        self.read.append(index)
        return Record(
            image=np.zeros((20, 20, 3), np.uint8),
            keypoints=np.zeros((16, 2), np.float32),
            visible=np.zeros(16, np.uint8),
            name=f"{index}.png",
        )


def test_only_what_is_shown_is_read_where_there_are_no_labels(tmp_path: Path) -> None:
    source = Photographs(read=[])
    note = Note(what="left out <some>", count=2, example="a.png")
    shown = browse.Browsed(spec="images:x", splits={"train": source}, notes=(note,))
    page = browse.write_page(tmp_path, "photographs", {"target": shown}).read_text()
    assert len(source.read) == 24
    assert "left out &lt;some&gt;: 2 (a.png, ...)" in page


def test_motions_are_shown_as_stick_figures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.bvh").write_text(small.bvh([(0, 17, 0)] * 3))
    (tmp_path / "broken.bvh").write_text("HIERARCHY")
    opened = schemes.open_data("bvh:.", root=str(tmp_path))
    figures = browse.shown(opened.motions["train"])
    assert isinstance(figures, Source)
    joint = dict(zip(figures.skeleton.joints, figures[0]["keypoints"], strict=True))
    assert joint["head_top"][1] < joint["pelvis"][1] < joint["left_ankle"][1]  # upright
    assert joint["left_wrist"][0] > joint["right_wrist"][0]
    assert all(0 < x < 255 for point in joint.values() for x in point)
    found = browse.Browsed(spec="bvh:.", splits={"train": figures}, notes=opened.notes)
    page = browse.write_page(tmp_path, "motions", {"motions": found}).read_text()
    assert "bvh:.: 1 train" in page
    assert "left out motions that cannot be read: 1 (broken: " in page
    assert "left_collar" in page
