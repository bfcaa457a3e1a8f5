from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small

from jaxpose.data import domains
from jaxpose.data.host.windows import Window, consecutive


def open_pair(source: str, target: str, root: Path = Path(), **options: Any) -> domains.OpenedPair:
    defaults = {"image_size": 32, "margin": 1.25, "memory": 1, "seed": 0}
    return domains.open_pair(source=source, target=target, root=str(root), **(defaults | options))


def write_project(
    root: Path, videos: dict[str, int], joints: tuple[str, ...] = ("nose", "tail"), *, labels: bool = True
):
    for video, frames in videos.items():
        folder = root / "labeled-data" / video
        folder.mkdir(parents=True)
        lines = [
            ",".join(["scorer", *["me"] * 2 * len(joints)]),
            ",".join(["bodyparts", *[j for j in joints for _ in "xy"]]),
            ",".join(["coords", *["x", "y"] * len(joints)]),
        ]
        for i in range(frames):
            cv2.imwrite(str(folder / f"img{i:03d}.png"), np.full((20, 30, 3), i, np.uint8))
            values = [f"{3.0 + j}" if labels else "" for j in range(2 * len(joints))]
            lines.append(",".join([f"labeled-data/{video}/img{i:03d}.png", *values]))
        (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")


def test_embedded_pair_shares_all_joints_and_has_all_splits() -> None:
    pair = open_pair("bodies:studio?train=6&validation=3&test=2", "bodies:street?train=5")
    assert len(pair.skeleton) == 16
    assert {name: len(part) for name, part in pair.domains["source"].splits.items()} == {
        "train": 6,
        "validation": 3,
        "test": 2,
    }
    assert len(pair.domains["target"].splits["train"]) == 5
    assert pair.domains["target"].splits["train"][0]["image"].shape == (32, 32, 3)


def test_joints_are_matched_by_name_whatever_their_order(tmp_path: Path) -> None:
    write_project(tmp_path / "a", {"v": 2}, ("nose", "ear", "tail"))
    write_project(tmp_path / "b", {"v": 10}, ("tail", "nose"))
    pair = open_pair("deeplabcut:a", "deeplabcut:b", tmp_path)
    assert pair.skeleton.joints == ("nose", "tail")
    scale, offset = 32 / 30, (32 - 1) / 2 - 32 / 30 * np.array([14.5, 9.5])
    source = pair.domains["source"].splits["train"][0]["keypoints"]
    target = pair.domains["target"].splits["train"][0]["keypoints"]
    np.testing.assert_allclose(source, np.array([[3, 4], [7, 8]]) * scale + offset, atol=1e-4)
    np.testing.assert_allclose(target, np.array([[5, 6], [3, 4]]) * scale + offset, atol=1e-4)


def test_splits_by_video_patterns(tmp_path: Path) -> None:
    write_project(tmp_path / "a", {"one": 2, "two": 3, "three": 4})
    pair = open_pair("deeplabcut:a?train=t*&test=one", "deeplabcut:a?train=one,two&test=three", tmp_path)
    sizes = {d: {s: len(c) for s, c in opened.splits.items()} for d, opened in pair.domains.items()}
    assert sizes == {"source": {"train": 7, "test": 2}, "target": {"train": 5, "test": 4}}


@pytest.mark.parametrize(("options", "noted"), [("", False), ("?train=*", True), ("?train=one&test=two", False)])
def test_labels_of_which_none_are_for_testing_are_noted(tmp_path: Path, options: str, noted: bool) -> None:
    write_project(tmp_path / "a", {"one": 3, "two": 4})
    write_project(tmp_path / "b", {"v": 4}, labels=False)
    pair = open_pair(f"deeplabcut:a{options}", "deeplabcut:b", tmp_path)
    none = "labelled images, none of which is for testing; name some with ?test=: 7"
    assert (none in map(str, pair.domains["source"].notes)) == noted
    assert pair.domains["target"].notes == ()
    (note,) = open_pair("bodies:studio?train=2", "bodies:street?train=5&test=0").domains["target"].notes
    assert str(note).endswith("none of which is for testing; name some with ?test=: 5")


def test_default_split_keeps_videos_together_and_single_videos_apart(tmp_path: Path) -> None:
    write_project(tmp_path / "many", {f"v{i}": 2 for i in range(6)})
    write_project(tmp_path / "one", {"v": 11})
    pair = open_pair("deeplabcut:many", "deeplabcut:one", tmp_path)
    many, one = (pair.domains[d].splits for d in ("source", "target"))
    assert (len(many["train"]), len(many["test"])) == (10, 2)
    assert {many["test"].source[i]["sequence"] for i in range(2)} == {"v4"}
    assert (len(one["train"]), len(one["test"])) == (9, 2)


def test_sprites_say_where_keypoints_can_lie() -> None:
    sizes = "train=4&validation=2&test=2"
    pair = open_pair(f"sprites:color?{sizes}", f"sprites:noisy?{sizes}", image_size=128, margin=1.0)
    assert pair.area == (2 * 16.5 - 0.5, 2 * 47.5 - 0.5)
    assert pair.pixels_per_unit == 62.0
    for i in range(4):
        x, y = pair.domains["source"].splits["train"][i]["keypoints"][0]
        assert pair.area[0] <= x <= pair.area[1]
        assert pair.area[0] <= y <= pair.area[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos:x", "data.source=photos:x: found scheme 'photos'"),
        ("bodies:attic", "found style 'attic', expected studio or street"),
        ("bodies:studio?size=3", "found option 'size', expected one of: train, validation, test"),
        ("bodies:studio?train=many", "found train=many, expected a number of images or motions"),
        ("sprites:red", "found variant 'red', expected color, noisy or scream"),
        ("deeplabcut:missing", "missing"),
        ("lsp:missing", "missing"),
    ],
)
def test_wrong_domains_are_named(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.source=") as caught:
        open_pair(source, "bodies:street?train=2", tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_without_labels_is_refused(tmp_path: Path) -> None:
    write_project(tmp_path / "a", {"v": 2}, labels=False)
    with pytest.raises(ValueError, match="found no labels in the training split, expected a labelled source"):
        open_pair("deeplabcut:a", "deeplabcut:a", tmp_path)


def test_labelled_images_of_the_target_are_joined_by_its_names(tmp_path: Path) -> None:
    pair = open_pair("bodies:studio?train=2", "bodies:street?train=4", labelled="bodies:street?train=3&test=2")
    assert list(pair.domains) == ["source", "target", "labelled"]
    shown = [pair.domains[name].splits["train"] for name in ("target", "labelled")]
    names = [[part.source.skeleton.joints[i] for i in part.joints] for part in shown]
    assert names[0] == names[1]
    write_project(tmp_path / "a", {"v": 2}, labels=False)
    with pytest.raises(ValueError, match=r"data.labelled=deeplabcut:a: found no labels in the training split"):
        open_pair("bodies:studio?train=2", "bodies:street?train=4", tmp_path, labelled="deeplabcut:a")
    with pytest.raises(ValueError, match=r"data.labelled=hands:street.*: found no joint .*, expected those of the tar"):
        open_pair("bodies:studio?train=2", "bodies:street?train=4", labelled="hands:street?train=2")


def test_windows_are_of_one_clip_and_say_what_is_missing(tmp_path: Path) -> None:
    pair = open_pair("bodies:studio?train=2", "bodies:street?train=10")
    clips = pair.domains["target"].elements("train", ("image",), consecutive(2), word="clips")
    names = [[clips.source[int(i)]["sequence"] for i in window] for window in clips.windows]
    assert all(first == second for first, second in names)
    assert clips[0]["image"].shape == (2, 32, 32, 3)
    assert "keypoints" not in clips[0]
    assert pair.domains["target"].splits["train"][0]["image"].shape == (32, 32, 3)
    with pytest.raises(ValueError, match=r"train: found no frames of one clip at distances 0, 99, expected some"):
        pair.domains["target"].elements("train", ("image",), Window(((0, 99),)), word="clips")


def write_motions(root: Path, *names: str) -> None:
    for name in names:
        (root / f"{name}.bvh").write_text(small.bvh([(t, 17, 0) for t in range(12)], seconds=0.1))


BODIES = {"source": "bodies:studio?train=2", "target": "bodies:street?train=4"}


def test_motions_have_joints_of_their_own(tmp_path: Path) -> None:
    write_motions(tmp_path, *"abcdef")
    pair = open_pair(**BODIES, root=tmp_path, motions="bvh:.")
    motions = pair.domains["motions"]
    assert {split: len(part.source) for split, part in motions.splits.items()} == {"train": 5, "test": 1}
    assert (len(pair.skeleton), len(motions.skeleton)) == (16, 20)
    found = motions.elements("train", ("positions", "pelvis"), consecutive(5, rate=10.0), word="walks")
    assert (len(found), found[0]["positions"].shape) == (5 * 8, (5, 20, 3))
    for fields, message in (
        (("image",), r"train: found no image, expected some of positions, pelvis, keypoints3d"),
        (("positions", "visible"), r"found no visible, expected some of positions"),
    ):
        with pytest.raises(ValueError, match=message):
            motions.elements("train", fields, word="walks")
    with pytest.raises(ValueError, match=r"test: none of 1 motions has frames at distances 0, 1, 2, 3, \.\.\."):
        motions.elements("test", ("positions",), consecutive(13), word="walks")


def test_poses_are_labels_of_images_or_frames_of_motions(tmp_path: Path) -> None:
    write_motions(tmp_path, "a", "b")
    write_project(tmp_path / "labels", {"v": 5}, ("tail", "ear", "nose"))
    write_project(tmp_path / "target", {"v": 5}, ("nose", "tail"), labels=False)
    for path in (tmp_path / "labels").rglob("*.png"):
        path.write_bytes(b"no image at all")
    write_project(tmp_path / "source", {"v": 5}, ("nose", "tail"))
    pair = open_pair("deeplabcut:source", "deeplabcut:target", tmp_path, poses="deeplabcut:labels?boxes=labels")
    poses = pair.domains["poses"]
    assert poses.skeleton == pair.skeleton
    found = poses.elements("train", ("keypoints", "visible"), word="poses")[0]
    order = np.argsort(found["keypoints"][:, 0])
    assert [pair.skeleton.joints[i] for i in order] == ["tail", "nose"]  # by name: written from the left
    with pytest.raises(ValueError, match="train: found no image, expected some of keypoints, visible, annotated"):
        poses.elements("train", ("image",), word="poses")
    pair = open_pair(**BODIES, root=tmp_path, poses="bvh:.")
    assert pair.domains["poses"].elements("train", ("positions",), word="poses")[0]["positions"].shape == (20, 3)


@pytest.mark.parametrize(
    ("domain", "spec", "message"),
    [
        ("source", "bvh:.", "data.source=bvh:.: found motions without images, expected images"),
        ("labelled", "bvh:.", "data.labelled=bvh:.: found motions without images, expected images"),
        ("motions", "bodies:street?train=2", "data.motions=bodies:street?train=2: found images, expected motions"),
        ("motions", "bvh:nowhere", "data.motions=bvh:nowhere: "),
        ("poses", "hands:street?train=2", "found no joint right_ankle, expected those of source or target"),
        ("poses", "images:.", "data.poses=images:.: found data without labels, expected them as the target"),
    ],
)
def test_domains_of_another_kind_are_refused(domain: str, spec: str, message: str, tmp_path: Path) -> None:
    write_motions(tmp_path, "a", "b")
    (tmp_path / "x.png").write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    with pytest.raises(ValueError, match=rf"^data\.{domain}=") as caught:
        open_pair(**(BODIES | {domain: spec}), root=tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_that_records_do_not_have_are_named(tmp_path: Path) -> None:
    write_project(tmp_path / "a", {"v": 6})
    write_project(tmp_path / "b", {"v": 4}, labels=False)
    pair = open_pair("deeplabcut:a", "deeplabcut:b", tmp_path)
    with pytest.raises(ValueError, match="train: found no keypoints3d, expected some of image, keypoints, visible"):
        pair.domains["source"].elements("train", ("image", "keypoints3d"), word="source")
    with pytest.raises(ValueError, match="train: found no keypoints, expected some of image, scale, crop"):
        pair.domains["target"].elements("train", ("keypoints",), word="target")


def test_windows_by_time_need_frames_per_second(tmp_path: Path) -> None:
    write_project(tmp_path / "a", {"v": 12})
    for fps, known in (("", False), ("&fps=30", True)):
        pair = open_pair(f"deeplabcut:a?train=*{fps}", "deeplabcut:a?train=*", tmp_path)
        if known:
            found = pair.domains["source"].elements("train", ("image",), consecutive(5, rate=15.0), word="clips")
            assert [int(i) for i in found.windows[0]] == [0, 2, 4, 6, 8]
        else:
            with pytest.raises(ValueError, match=r"frames per second are not known, expected \?fps=NUMBER for them"):
                pair.domains["source"].elements("train", ("image",), consecutive(5, rate=15.0), word="clips")
    with pytest.raises(ValueError, match=r"found fps=nan, expected 0\.01 to 10000 frames per second"):
        open_pair("deeplabcut:a?fps=nan", "deeplabcut:a", tmp_path)
