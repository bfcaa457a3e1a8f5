"""Poses in space on the page: which are chosen, what is drawn where, and what the page needs to be turned."""

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxpose.data.joints.skeletons import HAND21, MPII16, Skeleton
from jaxpose.report import poses3d, views
from jaxpose.report.html import write_report
from jaxpose.report.poses3d import Poses

ARM = Skeleton(
    name="arm",
    joints=("neck", "left_hand", "right_hand"),
    bones=(("neck", "left_hand"), ("neck", "right_hand")),
    flips=(("left_hand", "right_hand"),),
)
TRUTH = np.array([[0.0, 0.0, 0.0], [0.4, 0.2, 0.0], [-0.4, 0.2, 0.5]])


class Elements(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, source: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.found if name == tag]


def make_poses(errors: list[tuple[float, float]], **changes: Any) -> Poses:
    """A pose for each (before, after) mean error in millimetres, which both hands have and the neck has not."""
    truth = np.broadcast_to(TRUTH + np.array((1.0, 2.0, 3.0)), (len(errors), 3, 3))
    off = np.zeros((2, len(errors), 3, 3))
    off[:, :, 1:, 2] = 1.5e-3 * np.array(errors).T[..., None]
    fields: dict[str, Any] = {
        "where": "target test",
        "skeleton": ARM,
        "root": 0,
        "names": [f"pose_{i}" for i in range(len(errors))],
        "truth": truth,
        "predictions": {"pretrain": truth + off[0], "adapt": truth + off[1]},
    }
    return Poses(**fields | changes)


def chosen(poses: Poses) -> dict[str, list[tuple[str, str]]]:
    return {title: [(c.name, c.error) for c in cards] for title, cards in poses3d.shown(poses, {}).sections}


def test_the_smallest_the_middle_and_the_largest_error_are_shown_each_once() -> None:
    errors = [(90.0, 10.0 * i) for i in (5, 1, 2, 4, 3, 7, 6)]
    assert chosen(make_poses(errors)) == {
        "Smallest error": [("pose_1", "90 → 10 mm"), ("pose_2", "90 → 20 mm")],
        "Median error": [("pose_4", "90 → 30 mm"), ("pose_3", "90 → 40 mm")],
        "Largest error": [("pose_5", "90 → 70 mm"), ("pose_6", "90 → 60 mm")],
    }
    for count in range(1, 7):
        sections = chosen(make_poses(errors[:count]))
        shown = [card for cards in sections.values() for card in cards]
        assert len(set(shown)) == len(shown) == count
        largest = max(after for _, after in errors[:count])
        assert sections["Largest error"][0][1] == f"90 → {largest:.0f} mm"


def test_errors_are_relative_to_the_root_and_to_labels_that_are_known() -> None:
    poses = make_poses([(60.0, 30.0)])
    moved = {stage: of + 5.0 for stage, of in poses.predictions.items()}
    assert chosen(make_poses([(60.0, 30.0)], predictions=moved))["Largest error"] == [("pose_0", "60 → 30 mm")]
    truth = poses.truth.copy()
    truth[0, 2] = np.nan  # of neck 0 and left hand 90 and 45
    assert chosen(make_poses([(60.0, 30.0)], truth=truth))["Largest error"] == [("pose_0", "45 → 22 mm")]


def test_what_diverged_is_worst_and_drawn_without_what_is_no_number() -> None:
    poses = make_poses([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)])
    poses.predictions["adapt"][2, 1] = np.nan
    poses.predictions["adapt"][1] = 1e30
    shown = poses3d.shown(poses, {})
    assert [c.name for c in dict(shown.sections)["Largest error"]] == ["pose_2", "pose_1"]
    assert shown.turning is not None
    assert "nan" not in shown.turning.data.lower()
    assert all("nan" not in drawing for _, cards in shown.sections for c in cards for _, drawing in c.drawings)


def test_the_summary_counts_and_says_the_unit() -> None:
    summary = poses3d.shown(make_poses([(50.0, 40.0), (50.0, 50.2), (50.0, 61.0)]), {}).summary
    assert summary == (
        "Of 3 labelled poses 1 improved, 1 got worse and 1 changed by less than half a millimetre. The median of their "
        "mean joint error went from 50 to 50 mm."
    )
    poses = make_poses([(50.0, 40.0)])
    alone = make_poses([(50.0, 40.0)], predictions={"adapt": poses.predictions["adapt"]})
    assert "40 mm, lower is better" in poses3d.shown(alone, {}).summary


def test_without_labels_poses_from_all_over_are_drawn_without_a_truth() -> None:
    poses = make_poses([(1.0, 1.0)] * 50, truth=np.full((50, 3, 3), np.nan))
    shown = poses3d.shown(poses, {})
    assert shown.summary == ""
    ((title, cards),) = shown.sections
    assert title == "Without labels"
    assert [card.name for card in cards] == [f"pose_{i}" for i in (0, 9, 19, 29, 39, 49)]
    drawing = cards[0].drawings[0][1]
    assert 'class="truth" d=""' in drawing
    assert re.search(r'class="left" d="M', drawing)
    assert poses3d.shown(make_poses([], predictions={"adapt": np.zeros((0, 3, 3))}), {}).sections == ()


def paths(svg: str, name: str) -> list[np.ndarray]:
    """The first point of each line of the paths of a class."""
    found = re.findall(rf'<path class="{name}" d="([^"]*)"', svg)
    return [np.array(re.findall(r"M(-?[\d.]+),(-?[\d.]+)", d), float) for d in found]


def test_front_and_side_have_one_scale_in_metres() -> None:
    extent = views.Extent.of(TRUTH, [TRUTH])
    svg = views.front_and_side(TRUTH, TRUTH, extent, ARM, label="a & b")
    assert 'aria-label="a &amp; b"' in svg
    (front, side), hands = paths(svg, "right"), [paths(svg, name) for name in ("left", "right")]
    scale = 140 / extent.side
    # bones start at the neck, then come the joints themselves: the right hand is 0.4 m to the left, 0.2 m down, ...
    np.testing.assert_allclose(front[1] - front[0], scale * np.array([-0.4, 0.2]), atol=0.11)
    np.testing.assert_allclose(side[1] - side[0], scale * np.array([0.5, 0.2]), atol=0.11)  # ... and 0.5 m away
    assert {len(of) for of in hands} == {2}
    labels = re.findall(r'<text x="([\d.]+)" y="154">([^<]*)<', svg)
    places = {text.replace("\N{MINUS SIGN}", "-"): float(x) for x, text in labels[: len(labels) // 2]}
    steps = [(places[b] - places[a]) / (float(b) - float(a)) for a, b in itertools.pairwise(places)]
    np.testing.assert_allclose(steps, scale, rtol=0.01)
    assert "front (m)" in svg
    assert "side, depth (m)" in svg


def test_heights_are_positive_upwards() -> None:
    svg = views.front_and_side(TRUTH, TRUTH, views.Extent.of(TRUTH, [TRUTH]), ARM, label="")
    heights = re.findall(r'<text class="end" x="[\d.]+" y="([\d.]+)">([^<]*)<', svg)
    above = {float(y): float(text.replace("\N{MINUS SIGN}", "-")) for y, text in heights}
    assert len(above) > 2
    assert [above[y] for y in sorted(above)] == sorted(above.values(), reverse=True)


def test_a_far_prediction_does_not_make_the_truth_small() -> None:
    near, far = views.Extent.of(TRUTH, [TRUTH]), views.Extent.of(TRUTH, [TRUTH + 100.0])
    assert far.side == pytest.approx(near.side)
    np.testing.assert_allclose(views.Extent.of(np.full((2, 3), np.nan), [TRUTH]).centre, near.centre)
    assert views.Extent.of(np.zeros((0, 3)), [np.full((2, 3), np.inf)]).side > 0


def test_bones_and_joints_have_the_colour_of_their_side() -> None:
    sides = views.by_side(MPII16)
    names = {side: {MPII16.joints[k] for line in of for k in line} for side, of in sides.items()}
    assert set(sides) == {"left", "right", "centre"}
    assert all(not joint.startswith("right_") for joint in names["left"])
    assert {"left_wrist", "pelvis"} <= names["left"]  # the bone from the pelvis to the left hip is the left's
    assert sum(map(len, sides.values())) == len(MPII16.bones) + len(MPII16)
    assert set(views.by_side(HAND21)) == {"sideless"}
    lone = Skeleton(name="points", joints=("a", "b"))
    assert views.lines(lone, joints=False) == [(0, 0), (1, 1)]  # else nothing of the truth would be seen


def turned(points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """By matrices: about the vertical axis, then about the horizontal one; what is near lies at negative z."""
    a, b = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return (points @ (about_x @ about_y).T)[:, :2]


def test_the_turning_view_is_seen_from_an_angle_and_slightly_from_above() -> None:
    svg, data = views.turning([(TRUTH, [TRUTH, TRUTH * 1.1])], ARM, first=0, label="x")
    found = json.loads(data)
    pose = found["poses"][0]
    known = np.array(pose["points"][1], float)
    np.testing.assert_allclose((known - known[0]) / 1000, TRUTH, atol=2e-3)
    expected = found["half"] + pose["scale"] * turned(known, found["yaw"], found["pitch"])
    (drawn,) = paths(svg, "truth")
    np.testing.assert_allclose(drawn[0], expected[0], atol=0.06)
    every = np.array(re.findall(r"(-?[\d.]+),(-?[\d.]+)", "".join(re.findall(r' d="([^"]*)"', svg))), float)
    assert (every >= 0).all()
    assert (every <= 2 * found["half"]).all()
    floor = np.array(pose["points"][0])
    assert floor[:, 1].min() == floor[:, 1].max() >= max(point[1] for point in pose["found"][1])
    assert pose["note"] == f"square: {(floor[1, 0] - floor[0, 0]) / 1000:g} m"
    assert [len(lines) for _, lines in found["layers"]] == [4, 2, 2, 2, 1]


def motion(frames: int) -> Poses:
    truth = np.broadcast_to(TRUTH, (4, frames, 3, 3)).copy()
    found = truth.copy()
    found[:, :, 1, 0] += 3e-3 * np.arange(frames) * np.arange(4)[:, None]
    return make_poses([], names=[f"window_{i}" for i in range(4)], truth=truth, predictions={"prior": found})


@pytest.mark.parametrize(("frames", "shown"), [(2, [0, 1]), (7, [*range(7)]), (30, [*range(0, 30, 4)])])
def test_windows_are_strips_of_every_nth_frame(frames: int, shown: list[int]) -> None:
    found = poses3d.shown(motion(frames), {"prior": "motion prior"})
    assert found.turning is None
    ((worst, *_),) = [cards for title, cards in found.sections if title == "Largest error"]
    assert worst.name == "window_3"
    assert worst.error == f"{3 * np.mean(np.arange(frames)):.0f} mm"
    ((title, svg),) = worst.drawings
    assert title == "motion prior"
    captions = re.findall(r">(\d+): (\d+) mm<", svg)
    assert [(int(t), int(mm)) for t, mm in captions] == [(t, 3 * t) for t in shown]
    left = [of[0, 0] for of in paths(svg, "truth")]
    assert np.all(np.diff(left) > 50)
    assert len(left) == len(shown)


def test_the_page_runs_its_own_script_only_and_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, (300, 21, 3))
    poses = Poses(
        where="target test",
        skeleton=HAND21,
        root=0,
        names=[f'<b>"{i}"</b>' for i in range(300)],
        truth=truth,
        predictions={stage: truth + rng.normal(0, 0.05, truth.shape) for stage in ("pretrain", "align", "adapt")},
        image=lambda i: np.full((480, 300, 3), i % 256, np.uint8),
    )
    windows = motion(30)
    bare = write_report(tmp_path, {}, [], [], HAND21).read_text(encoding="utf-8")
    assert "<script" not in bare
    assert "script-src" not in bare
    page = write_report(tmp_path, {}, [], [], HAND21, poses=[poses, windows]).read_text(encoding="utf-8")
    assert len(page) - len(bare) < 150_000
    assert len(poses3d.SCRIPT) < 4096
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    policy = Elements(page).of("meta")[2]["content"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:", page)
    assert not re.search(r"fetch|import|eval|innerHTML", script)
    assert "<b>" not in page
    (view,) = [attrs for tag, attrs in Elements(page).found if "data-turning" in attrs]
    assert len(json.loads(view["data-turning"])["poses"]) == 6
    controls = [attrs for attrs in Elements(page).of("div") if attrs.get("class") == "controls"]
    assert [list(attrs) for attrs in controls] == [["class", "hidden"]]  # they do nothing without the script
    assert all(attrs.get("aria-label") for attrs in Elements(page).of("svg"))
    assert page.count('class="picture"') == 6
