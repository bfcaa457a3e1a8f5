import base64
import html.parser
import json
import re

import cv2
import numpy as np
import pytest

from jaxpose.data.joints.skeletons import HAND21, Skeleton
from jaxpose.report import draw, figures, text
from jaxpose.report.html import Case, Sheet, write_report

ARM = Skeleton(
    name="arm",
    joints=("neck", "left_hand", "right_hand"),
    bones=(("neck", "left_hand"), ("neck", "right_hand")),
    flips=(("left_hand", "right_hand"),),
)
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
POINT = Skeleton(name="point", joints=("centre",))


class Page(html.parser.HTMLParser):
    """What a reader sees (text), what a browser fetches (links), and whether tags are balanced."""

    def __init__(self, source):
        super().__init__()
        self.words, self.images, self.headings, self.open, self.rows = [], [], [], [], []
        self.addresses = []
        self.feed(source)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [v for k, v in attrs.items() if k in ("src", "href", "data", "action", "srcset")]
        if tag == "img":
            self.images.append(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag not in ("meta", "img", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1].append(data.strip())


def evaluation(stage, group, value, *, domain="target", split="test", metric="pck@0.05", count=100):
    return {
        "stage": stage, "step": 10, "domain": domain, "split": split, "metric": metric,
        "group": group, "value": value, "count": count,
    }  # fmt: skip


def pck_results(**changes):
    rows = [
        evaluation("pretrain", "all", 0.412, count=1234),
        evaluation("pretrain", "hand", 0.3),
        evaluation("adapt", "all", 0.558, count=1234),
        evaluation("adapt", "hand", 0.28),
        evaluation("pretrain", "all", 0.9, domain="source", split="validation"),
        evaluation("adapt", "all", 0.871, domain="source", split="validation"),
        evaluation("pretrain", "all", 0.5, split="train"),
    ]
    return {
        "evaluations": rows,
        "recipe": "regda",
        "pair": "bodies",
        "source": "SURREAL",
        "target": "LSP",
        "fingerprint": "0123456789abcdef",
        "timing": {"wall_s": 4000.0, "compile_s": 12.5, "step_s": 0.1, "images_per_s": 640.4, "data_wait_s": 2.0},
        "devices": ["cpu:0", "H200", "H200"],
        "versions": {"jax": "0.10.2"},
        "seed": 7,
        "skipped_records": ["broken_1.jpg", "<b>broken_2</b>.jpg"],
        "config": {"recipe": "regda", "optim": {"learning_rate": 0.01}},
        **changes,
    }


def history(stages=("pretrain", "adapt"), steps=20):
    lines = []
    for stage in stages:
        for step in range(1, steps + 1):
            lines.append({"stage": stage, "step": step, "loss": 3.0 / step, "loss/target": 1.0, "learning_rate": 0.1})
            if step % 10 == 0:
                lines.append({"stage": stage, "step": step, "target/test/pck@0.05/all": step / 40})
    return lines


def cases(errors, size=64, labelled=True):
    """One picture per (before, after) error in pixels."""
    keypoints = np.array([[32.0, 10.0], [10.0, 50.0], [54.0, 50.0]])
    return [
        Case(
            image=np.full((size, size, 3), 120, np.uint8),
            name=f"picture_{i}",
            keypoints=keypoints,
            visible=np.array([2, 1, 0 if i % 2 else 2]) * labelled,
            predictions={"pretrain": keypoints + np.array([before, 0]), "adapt": keypoints + np.array([0, after])},
        )
        for i, (before, after) in enumerate(errors)
    ]


def report(tmp_path, results, lines=(), pictures=(), skeleton=ARM, **options):
    path = write_report(tmp_path, results, lines, pictures, skeleton, **options)
    assert path == tmp_path / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def section(page, title):
    """The names of the pictures below a heading, in order."""
    after = page.text.split(title)[1]
    for heading in page.headings:
        after = after.split(heading)[0]
    return re.findall(r"picture_\d+", after)


def test_header_and_tables_state_the_numbers(tmp_path):
    references = {"oracle": [evaluation("any", "all", 0.929)], "mean pose": [evaluation("any", "all", 0.1)]}
    page = report(tmp_path, pck_results(references=references))
    for fact in (
        "PCK@0.05 on the target test split: 41.2 % source-only → 55.8 % after adaptation (+14.6 points)",
        *(
            "regda",
            "bodies",
            "SURREAL → LSP",
            "1 h 7 min",
            "640",
            "12.5 s",
            "2 \N{MULTIPLICATION SIGN} H200",
            "jax 0.10.2",
        ),
    ):
        assert fact in page.text.replace("\xa0", " ")
    assert "0123456789ab" in page.text
    assert "0123456789abc" not in page.text
    rows = [[c for c in r if c] for r in page.rows]
    assert ["group", "source-only", "adapted", "change", "oracle", "mean pose", "labels"] in rows
    assert ["all", "41.2\xa0%", "55.8\xa0%", "+14.6", "92.9\xa0%", "10.0\xa0%", "1,234"] in rows
    assert ["hand", "30.0\xa0%", "28.0\xa0%", f"{MINUS}2.0", DASH, DASH, "100"] in rows
    assert ["all", "90.0\xa0%", "87.1\xa0%", f"{MINUS}2.9", "100"] in rows
    assert page.headings.index("On the target") < page.headings.index("On the source")


def test_change_is_coloured_by_meaning_not_by_sign(tmp_path):
    rows = [evaluation(s, g, v, metric="mae") for s, g, v in MAE_VALUES]
    write_report(tmp_path, {"evaluations": rows}, [], [], POINT)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r'class="good">\N{MINUS SIGN}0\.300', source)
    assert re.search(r'class="bad">\+0\.010', source)
    assert not re.search(r'class="\w+">0\.000', source)


MAE_VALUES = [
    *(("pretrain", "x", 0.2), ("pretrain", "y", 0.4), ("pretrain", "sum", 0.6), ("pretrain", "mean", 0.3)),
    *(("adapt", "x", 0.21), ("adapt", "y", 0.09), ("adapt", "sum", 0.3), ("adapt", "mean", 0.30000001)),
]


def test_lower_is_better_metrics():
    rows = [evaluation(s, g, v, metric="mae") for s, g, v in MAE_VALUES]
    (table,) = text.tables({"evaluations": rows})
    assert table.lower_is_better
    assert {r.group: r.improved for r in table.rows} == {"x": False, "y": True, "sum": True, "mean": None}
    assert text.headline({"evaluations": rows}) == (
        f"MAE (sum) on the target test split: 0.600 source-only → 0.300 after adaptation ({MINUS}0.300)"
    )


def test_a_loss_is_stated_as_a_loss():
    rows = [evaluation("pretrain", "all", 0.6), evaluation("adapt", "all", 0.55)]
    assert f"({MINUS}5.0 points)" in text.headline({"evaluations": rows})


def test_notes_and_references_are_in_the_terminal_as_on_the_page(tmp_path):
    results = pck_results(
        references={"oracle": [evaluation("any", "all", 0.5)]}, notes=["mind \N{RIGHTWARDS ARROW} this"]
    )
    lines = text.summary_table(results).splitlines()
    assert lines[-1] == "- mind -> this"
    assert lines[2].split()[-2:] == ["oracle", "labels"]
    assert lines[3].split()[-3:] == ["50.0", "%", "1,234"]
    assert "mind \N{RIGHTWARDS ARROW} this" in report(tmp_path, results).text


def test_clips_are_a_table_of_their_own_and_who_lost_most_comes_first(tmp_path):
    values = {"anna": (0.24, 0.08), "bert": (0.3, 0.8), "carl": (0.5, 0.45)}
    rows = [
        evaluation(stage, f"clip:{name}", value)
        for name, pair in values.items()
        for stage, value in zip(("pretrain", "adapt"), pair, strict=True)
    ]
    results = pck_results()
    results["evaluations"] += rows
    table = text.clip_table(results)
    assert [(r.group, r.change, r.main) for r in table.rows] == [
        ("anna", f"{MINUS}16.0", False),
        ("carl", f"{MINUS}5.0", False),
        ("bert", "+50.0", False),
    ]
    page = report(tmp_path, results)
    assert ["anna", "24.0\xa0%", "8.0\xa0%", f"{MINUS}16.0", "100"] in [[c for c in r if c] for r in page.rows]
    assert "anna" not in text.summary_table(results)
    assert text.clip_table(pck_results()) is None


def test_errors_in_pixels_have_one_decimal():
    rows = [evaluation("a", group, 12.345, metric="error_px") for group in ("mean", "median")]
    (table,) = text.tables({"evaluations": rows})
    assert [(r.group, r.main, r.values) for r in table.rows] == [
        ("mean", True, ("12.3",)),
        ("median", False, ("12.3",)),
    ]
    assert table.lower_is_better


def test_fractions_are_in_percent_whether_errors_or_not():
    rows = [evaluation("a", "all", 0.04321, metric="nme"), evaluation("b", "all", 0.0512, metric="nme")]
    (table,) = text.tables({"evaluations": rows})
    (row,) = table.rows
    assert (row.values, row.change, row.improved) == (("4.32\xa0%", "5.12\xa0%"), "+0.80", False)
    assert table.lower_is_better
    assert text.format_value("3dpck@150", 0.51234) == "51.2\xa0%"


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        *(("pckh@0.5", "PCKh@0.5"), ("tllib_pck@0.05", "tllib PCK@0.05"), ("ap@0.75", "AP@0.75"), ("ar", "AR")),
        *(("pa_3dpck@150", "PA 3DPCK@150"), ("3dauc", "3DAUC"), ("n_mpjpe", "N MPJPE"), ("nme", "NME")),
    ],
)
def test_metrics_are_called_as_papers_call_them(metric, title):
    assert text.metric_title(metric) == title


def test_one_stage_has_one_column(tmp_path):
    results = {"evaluations": [evaluation("train", "all", 0.53)], "recipe": "source_only"}
    page = report(tmp_path, results, history(("train",)))
    assert [[c for c in r if c] for r in page.rows] == [
        ["group", "source only", "labels"],
        ["all", "53.0\xa0%", "100"],
    ]
    assert "53.0 % (source only)" in page.text.replace("\xa0", " ")
    assert "source only" in text.summary_table(results)


@pytest.mark.parametrize("results", [{}, {"evaluations": []}, {"recipe": "regda", "timing": {"wall_s": 3.0}}])
def test_missing_parts_leave_a_readable_page(tmp_path, results):
    page = report(tmp_path, results)
    assert "This run recorded no evaluation." in page.text
    assert "No skipped records" in page.text
    assert page.images == []


def test_nan_and_unevaluated_groups_are_dashes():
    rows = [
        evaluation("pretrain", "all", float("nan")),
        evaluation("adapt", "all", 0.5),
        evaluation("adapt", "hand", 0.1),
    ]
    (table,) = text.tables({"evaluations": rows})
    assert [(r.values[0], r.change, r.improved, r.track) for r in table.rows] == [(DASH, DASH, None, None)] * 2


def test_summary_table_is_aligned_ascii():
    summary = text.summary_table(pck_results())
    assert summary.isascii()
    assert summary.splitlines()[0] == (
        "PCK@0.05 on the target test split: 41.2 % source-only -> 55.8 % after adaptation (+14.6 points)"
    )
    block = summary.split("\n\n")[1].splitlines()
    assert len({len(line) for line in block}) == 1
    assert block[1].split() == ["all", "41.2", "%", "55.8", "%", "+14.6", "1,234"]
    assert block[2].split() == ["hand", "30.0", "%", "28.0", "%", "-2.0", "100"]


def test_the_page_is_self_contained_and_small(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [
        Case(
            image=cv2.resize(rng.integers(0, 255, (64, 64, 3), np.uint8), (480, 300)),
            name=f"picture_{i}",
            keypoints=np.zeros((3, 2)),
            visible=np.ones(3),
            predictions={"pretrain": rng.normal(0, 99, (3, 2)), "adapt": rng.normal(0, 99, (3, 2))},
        )
        for i in range(40)
    ]
    page = report(tmp_path, pck_results(), history(steps=3000), pictures)
    assert page.addresses
    assert all(a.startswith("data:") for a in page.addresses)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in source
    assert "url(" not in source
    assert "http:" not in re.sub(r"base64,[\w+/=]+", "", source)
    assert "https:" not in re.sub(r"base64,[\w+/=]+", "", source)
    assert len(source) < 3e6
    assert all(len(i["src"]) > 500 and i["alt"] for i in page.images)


def test_names_are_text_not_markup(tmp_path):
    page = report(tmp_path, pck_results())
    assert "2 skipped records" in page.text
    assert "<b>broken_2</b>.jpg" in page.text
    assert json.dumps({"learning_rate": 0.01})[1:-1] in page.text


def test_gallery_shows_the_worst_as_well_as_the_best(tmp_path):
    # errors grow over the first ten, shrink over the next ten; the last are bad before and after
    worse = [(1.0, 1.0 + i) for i in range(1, 11)]
    better = [(30.0 + i, 4.0) for i in range(10)]
    bad = [(40.0, 40.0 + i) for i in range(0, 10, 3)]
    page = report(tmp_path, pck_results(), [], cases(worse + better + bad))
    assert section(page, "Largest improvement") == [f"picture_{i}" for i in range(19, 11, -1)]
    assert section(page, "Got worse") == [f"picture_{i}" for i in (9, 8, 23, 7, 6, 5, 22, 4)]
    assert section(page, "Largest remaining error")[:5] == [f"picture_{i}" for i in (23, 22, 21, 20, 9)]
    assert "Of 24 labelled pictures 10 improved, 13 got worse and 1 changed" in page.text
    assert "30.0 → 4.0 px" not in page.text  # picture_10 is not among the best eight
    assert "39.0 → 4.0 px" in page.text
    assert len([i for i in page.images if "ground truth" in i["alt"]]) == 24


def test_sections_hold_only_what_they_say(tmp_path):
    improved = report(tmp_path, pck_results(), [], cases([(5.0, 1.0), (6.0, 2.0)]))
    assert "Got worse" not in improved.headings
    worsened = report(tmp_path, pck_results(), [], cases([(1.0, 5.0), (2.0, 2.0)]))
    assert "Largest improvement" not in worsened.headings
    assert section(worsened, "Got worse") == ["picture_0"]


def test_a_diverged_stage_is_the_worst_of_all(tmp_path):
    page = report(tmp_path, pck_results(), [], cases([(3.0, 9.0), (3.0, np.nan), (np.nan, np.nan), (5.0, 1.0)]))
    assert section(page, "Got worse")[:2] == ["picture_1", "picture_0"]
    assert set(section(page, "Largest remaining error")[:2]) == {"picture_1", "picture_2"}
    assert section(page, "Largest improvement") == ["picture_3"]


def test_of_many_pictures_few_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    page = report(tmp_path, pck_results(), [], cases(rng.exponential(5, (2000, 2)), size=32))
    assert "Of 2,000 labelled pictures" in page.text
    assert len(page.images) == 24 * 3


def test_unlabelled_pictures_are_ranked_by_movement(tmp_path):
    page = report(tmp_path, pck_results(), [], cases([(1, 0), (9, 0), (4, 0)], labelled=False))
    assert re.findall(r"picture_\d", page.text) == ["picture_1", "picture_2", "picture_0"]
    assert "ground truth" not in page.text
    assert " px" not in page.text


def test_a_hidden_joint_does_not_enter_the_error(tmp_path):
    (case,) = cases([(3.0, 2.0)])
    wrong = {stage: p + np.array([[0, 0], [0, 0], [500, 0]]) for stage, p in case.predictions.items()}
    case = Case(image=case.image, name="c", keypoints=case.keypoints, visible=np.array([2, 2, 0]), predictions=wrong)
    assert "3.0 → 2.0 px" in report(tmp_path, pck_results(), [], [case]).text


def test_stages_show_what_they_drew(tmp_path):
    columns = {"content <a>": np.zeros((128, 32, 3), np.uint8), "transferred": np.full((128, 32, 3), 200, np.uint8)}
    page = report(tmp_path, pck_results(), sheets=[Sheet(stage="style_two", columns=columns)])
    assert "Pictures of the stage style two" in page.headings
    assert "Pictures of the stage style two content <a> transferred" in page.text
    assert [image["alt"] for image in page.images] == ["content <a>", "transferred"]


def test_figures_are_written_and_repeatable(tmp_path):
    lines = history()
    for line in lines:
        if line["stage"] == "adapt" and "loss" in line:
            line |= {"source/disparity_px": 1.0, "target/disparity_px": 5.0}
    page = report(tmp_path, pck_results(), lines)
    written = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert written == ["disparity.svg", "losses_adapt.svg", "losses_pretrain.svg", "pck_0.05.svg"]
    assert len(page.images) == 4
    again = [*figures.learning_curves(lines, tmp_path / "b"), figures.disparity_curve(lines, tmp_path / "b")]
    for path in again:
        assert path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes()
    embedded = base64.b64decode(page.images[0]["src"].split("base64,")[1]).decode()
    assert "prefers-color-scheme:dark" in embedded
    assert figures.INK not in embedded.split("</style>", 1)[1]


def test_curves_join_the_stages(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "_plot", lambda axes, curve, **style: drawn.setdefault(style["label"], curve))
    figures.learning_curves(history(), tmp_path)
    steps, values = drawn["target test"]
    np.testing.assert_array_equal(steps, [10, 20, 30, 40])
    np.testing.assert_allclose(values, [0.25, 0.5, 0.25, 0.5])
    drawn.clear()
    figures.learning_curves(history(("adapt",), steps=5000), tmp_path)
    steps, values = drawn["loss"]
    assert len(steps) <= 300
    np.testing.assert_allclose(values[0], np.mean([3 / s for s in range(1, 21)]))


def test_no_disparity_no_figure(tmp_path):
    assert figures.disparity_curve(history(), tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (256, 256)), ((100, 200), (256, 512)), ((300, 400), (300, 400))]
)
def test_small_pictures_are_enlarged(size, expected):
    image = np.zeros((*size, 3), np.uint8)
    drawn = draw.draw_skeleton(image, np.zeros((3, 2)), np.zeros(3), ARM)
    assert drawn.shape == (*expected, 3)
    assert not drawn.any()


def test_skeleton_is_drawn_where_the_joints_are():
    image = np.full((64, 64, 3), 100, np.uint8)
    before = image.copy()
    keypoints = np.array([[31.5, 8.0], [8.0, 40.0], [55.0, 40.0]])
    drawn = draw.draw_skeleton(image, keypoints, np.array([2, 2, 2]), ARM)
    np.testing.assert_array_equal(image, before)
    for (x, y), colour in zip(keypoints, (draw.CENTRE, draw.LEFT, draw.RIGHT), strict=True):
        column, row = round((x + 0.5) * 4 - 0.5), round((y + 0.5) * 4 - 0.5)
        np.testing.assert_array_equal(drawn[row, column], colour)
    middle = keypoints[[0, 1]].mean(axis=0)
    near = drawn[round(middle[1] * 4) + 2, round(middle[0] * 4) + 2].astype(int)
    assert np.abs(near - draw.LEFT).max() < 60  # a bone has the side of its end
    np.testing.assert_array_equal(drawn[-20:, :], 100)


def test_missing_joints_and_their_bones_are_not_drawn():
    image = np.full((256, 256, 3), 100, np.uint8)
    keypoints = np.array([[128.0, 30.0], [40.0, 200.0], [210.0, 200.0]])
    drawn = draw.draw_skeleton(image, keypoints, np.array([True, True, False]), ARM)
    np.testing.assert_array_equal(drawn[:, 140:], 100)
    assert (drawn[:, :120] != 100).any()
    keypoints[1] = np.nan
    nowhere = draw.draw_skeleton(image, keypoints, np.array([0, 2, 0]), ARM)
    np.testing.assert_array_equal(nowhere, image)


@pytest.mark.parametrize("skeleton", [POINT, HAND21])
def test_skeletons_without_sides(skeleton):
    image = np.full((256, 256, 3), 100, np.uint8)
    keypoints = np.full((len(skeleton), 2), 128.0)
    drawn = draw.draw_skeleton(image, keypoints, np.ones(len(skeleton)), skeleton)
    assert np.abs(drawn[128, 128].astype(int) - 100).max() > 100
    far = draw.draw_skeleton(image, keypoints + 1e9, np.ones(len(skeleton)), skeleton)
    np.testing.assert_array_equal(far, image)
