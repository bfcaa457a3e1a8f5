"""Average precision beside COCO's evaluation of the same people in pixels of their images, and by hand."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from measured import rows_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxpose.data.joints.skeletons import COCO17
from jaxpose.metrics import OKSAP, ap
from jaxpose.metrics.metric import Measurement

GROUPS = {"all": np.arange(17)}
Rows = dict[tuple[str, str], Measurement]


def in_crops(
    people: dict[str, np.ndarray],
    *,
    sigmas: tuple[float, ...] = COCO17.sigmas,
    among: dict[str, np.ndarray] | None = None,
    **more: Any,
) -> Rows:
    """What the metric finds of people in pixels of their images, seen in crops of any places and scales."""
    rng = np.random.default_rng(0)
    size = len(people["points"])
    scale, offset = rng.uniform(0.2, 3, size), rng.uniform(-300, 300, (size, 2))

    def cropped(x: np.ndarray) -> np.ndarray:
        return x * scale[:, None, None] + offset[:, None]

    fields = {
        "keypoints": cropped(people["labels"]),
        "annotated": people["visible"],
        "score": np.ones(size),
        "scale": scale,
        "crop": np.concatenate([scale[:, None, None] * np.eye(2), offset[..., None]], axis=-1),
        "area": people["area"] * scale**2,
        "image_id": np.stack([people["image"], 7 - people["image"]], axis=1),
        **more,
    }
    scores = {"scores": np.repeat(people["score"][:, None], 17, axis=1)} if "score" in people else {}
    metric = OKSAP(sigmas=sigmas, size=64, seen=0.0, nms=1.0)
    metric = metric if among is None else metric.among(among)
    return rows_of(metric, {"points": cropped(people["points"]), **scores}, fields, GROUPS)


def crowd(seed: int, size: int = 60) -> dict[str, np.ndarray]:
    """People of all sizes, several to an image and partly over each other, found more or less well."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(15, 250, size)
    labels = rng.uniform(0, 300, (size, 1, 2)) + rng.uniform(0, 1, (size, 17, 2)) * side[:, None, None]
    error = rng.normal(0, 1, labels.shape) * (rng.uniform(0, 0.15, size) * side)[:, None, None]
    visible = rng.integers(0, 3, (size, 17)).astype(np.uint8)
    visible[:, 0] = 2
    image, score = rng.integers(0, 20, size), rng.random(size)
    area = 0.6 * side**2
    return dict(labels=labels, points=labels + error, visible=visible, area=area, image=image, score=score)


def by_coco(people: dict[str, np.ndarray]) -> np.ndarray:
    """The ten numbers of COCO's summary, from files as its owners read them."""
    flags = people["visible"]
    truth, size = COCO(), len(flags)
    images = [{"id": int(i), "width": 640, "height": 480} for i in np.unique(people["image"])]
    boxes = np.concatenate([people["labels"].min(axis=1), np.ptp(people["labels"], axis=1)], axis=1)
    annotations = [
        {
            "id": 100 + i,
            "image_id": int(people["image"][i]),
            "category_id": 1,
            "keypoints": np.c_[people["labels"][i], flags[i]].ravel().tolist(),
            "num_keypoints": int((flags[i] > 0).sum()),
            "area": people["area"][i],
            "bbox": boxes[i].tolist(),
            "iscrowd": 0,
        }
        for i in range(size)
    ]
    found = [
        {
            "image_id": int(people["image"][i]),
            "category_id": 1,
            "keypoints": np.c_[people["points"][i], np.ones(17)].ravel().tolist(),
            "score": float(people["score"][i]),
        }
        for i in range(size)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", [0, 1])
def test_crops_of_any_scale_have_the_precision_of_their_images(seed: int, capsys: pytest.CaptureFixture) -> None:
    people = crowd(seed)
    rows = in_crops(people)
    assert not capsys.readouterr().out
    names = (("ap", "all"), ("ap@0.5", "all"), ("ap@0.75", "all"), ("ap", "medium"), ("ap", "large"), ("ar", "all"))
    expected = by_coco(people)
    for name, value in zip((*names, None, None, ("ar", "medium"), ("ar", "large")), expected, strict=True):
        if name is not None:
            assert rows[name]["value"] == pytest.approx(value, abs=1e-6)
    assert 0.1 < rows["ap", "all"]["value"] < rows["ap@0.5", "all"]["value"] < 1
    assert len(rows) == 8
    medium = (people["area"] >= 32**2) & (people["area"] <= 96**2)
    counts = {group: rows["ap", group]["count"] for group in ("all", "medium", "large")}
    assert counts == {"all": 60, "medium": medium.sum(), "large": (people["area"] >= 96**2).sum()}


def similarity(people: dict[str, np.ndarray], i: int) -> float:
    squared = ((people["points"][i] - people["labels"][i]) ** 2).sum(axis=-1)
    kept = people["visible"][i] > 0
    variance = (2 * np.array(COCO17.sigmas)) ** 2
    return float(np.exp(-squared / variance / 2 / people["area"][i])[kept].mean())


def test_alone_in_their_images_people_are_found_from_their_similarity_on() -> None:
    """Then recall at a threshold is the share of people whose similarity is not below it."""
    people = crowd(2, size=25) | {"image": np.arange(25)}
    rows = in_crops(people)
    found = np.array([similarity(people, i) for i in range(25)])
    thresholds = np.arange(0.5, 0.96, 0.05)
    assert rows["ar", "all"]["value"] == pytest.approx(np.mean([(found >= t).mean() for t in thresholds]))
    assert 0.2 < rows["ar", "all"]["value"] < 0.9


@pytest.mark.parametrize(("factor", "found"), [(0.99, 1.0), (1.01, 0.0)])
def test_a_sigma_is_what_it_says(factor: float, found: float) -> None:
    """One joint that is `d` away has the similarity 1/2 where d = 2 sigma sqrt(2 ln 2 area)."""
    distance = factor * 2 * 0.05 * np.sqrt(2 * np.log(2) * 2500)
    labels = np.full((1, 17, 2), 50.0)
    visible = np.zeros((1, 17), np.uint8)
    visible[0, 4] = 1
    people = dict(labels=labels, points=labels + np.array([distance, 0]), visible=visible, area=np.full(1, 2500.0))
    rows = in_crops(people | {"image": np.zeros(1, int)}, sigmas=(0.9,) * 4 + (0.05,) + (0.9,) * 12)
    assert rows["ap@0.5", "all"]["value"] == pytest.approx(found)
    assert rows["ar", "all"]["value"] == pytest.approx(found / 10)
    assert ("ap", "large") not in rows


def test_a_person_of_the_same_image_may_be_found_from_anothers_crop() -> None:
    people = crowd(3, size=2)
    people |= {"points": people["labels"][::-1].copy(), "image": np.zeros(2, int)}
    assert in_crops(people)["ap", "all"]["value"] == pytest.approx(1.0)
    assert in_crops(people | {"image": np.arange(2)})["ap", "all"]["value"] == 0.0


def test_confidence_orders_what_is_found() -> None:
    people = crowd(4, size=2) | {"image": np.arange(2)}
    people["points"] = people["labels"].copy()
    people["points"][0] += 1000
    values = {}
    for name, score in (("right", (0.1, 0.9)), ("wrong", (0.9, 0.1))):
        values[name] = in_crops(people | {"score": np.array(score)})["ap", "all"]["value"]
    assert values["right"] == pytest.approx(51 / 101)
    assert values["wrong"] == pytest.approx(51 / 101 / 2)
    del people["score"]
    assert in_crops(people)["ar", "all"]["value"] == 0.5


def test_who_is_not_labelled_or_fills_up_is_left_out() -> None:
    people = crowd(5)
    kept = np.arange(60) < 50
    visible = people["visible"].copy()
    visible[50:55] = 0
    people["area"][55:57] = np.nan
    people["labels"][50:55] = np.nan
    rows = in_crops(people | {"visible": visible}, row=np.arange(60) < 57)
    alone = in_crops({name: x[kept] for name, x in people.items()})
    assert {name: row["count"] for name, row in rows.items()} == {name: row["count"] for name, row in alone.items()}
    assert rows["ap", "all"]["value"] == pytest.approx(alone["ap", "all"]["value"], abs=1e-6)
    assert not in_crops(people, row=np.zeros(60, bool))


def test_what_has_no_area_or_is_no_number_is_not_found() -> None:
    people = crowd(6, size=3) | {"image": np.arange(3)}
    people["points"] = people["labels"] + 1.0
    people["area"] = np.array([0.0, 1e5, 1e5])
    people["points"][1] = np.nan
    assert in_crops(people)["ar", "all"]["value"] == pytest.approx(1 / 3)


def test_the_score_is_the_boxs_times_the_mean_of_joints_that_are_seen() -> None:
    joints = np.array([[0.9, 0.3, 0.2, np.nan], [0.1, 0.2, 0.0, 0.0]])
    np.testing.assert_allclose(ap.rescored(np.array([0.5, 1.0]), joints, 0.2), [0.5 * 0.6, 0.0])


def test_of_alike_detections_of_an_image_the_surest_stays() -> None:
    points = np.zeros((5, 2, 2)) + np.arange(5)[:, None, None] * (3.0, 0.0)
    image, area = np.array([0, 0, 0, 1, 0]), np.full(5, 900.0)
    score = np.array([0.5, 0.9, 0.5, 0.1, 0.2])
    # At a distance of 3 pixels, two are exp(-9 / 8 / sigma^2 / 900) = 0.95 alike; 6 are 0.82, 9 are 0.64.
    sigma = np.sqrt(-9 / 8 / 900 / np.log(0.95))
    found = {
        threshold: ap.suppressed(points, score, area, image, sigmas=(sigma, sigma), threshold=threshold).tolist()
        for threshold in (0.6, 0.8, 0.9, 1.0)
    }
    assert found[0.6] == [False, True, False, True, False]
    assert found[0.8] == [False, True, False, True, True]
    assert found[0.9] == [False, True, False, True, True]
    assert found[1.0] == [True] * 5
    doubled = area * np.array([1, 4, 1, 1, 1])  # the mean of both: 2.5 times the variance
    assert ap.suppressed(points, score, doubled, image, sigmas=(sigma, sigma), threshold=0.8).tolist()[4] is False


def test_sigmas_of_another_number_of_joints_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^ap: found 16 sigmas, expected 17, one for every joint"):
        in_crops(crowd(0), sigmas=(0.1,) * 16)


def test_people_who_are_no_rows_are_missed_or_take_what_is_found() -> None:
    """Someone without a row is missed; a crowd and someone without labels make a false detection one that is not."""
    people = crowd(7, size=2) | {"image": np.zeros(2, int)}
    people["points"] = people["labels"].copy()
    people["points"][1] = np.tile([900.0, 950.0], (17, 1)) + 3 * np.arange(34).reshape(17, 2)
    people["score"] = np.array([0.5, 0.9])
    others = {
        "keypoints": people["labels"][:1].repeat(3, axis=0),
        "visible": np.array([[2] * 17, [0] * 17, [0] * 17], np.uint8),
        "bbox": np.array([[0, 0, 1, 1], [900, 900, 100, 150], [900, 900, 100, 150]], float),
        "area": np.array([people["area"][0], 5000.0, 5000.0]),
        "crowd": np.array([False, False, False]),
        "image_id": np.full((3, 2), [0, 7]),
        "images": np.array([[0, 7]]),
    }

    def precision(kept: list[int], **changes: Any) -> float:
        everyone = {name: x if name == "images" else x[kept] for name, x in (others | changes).items()}
        return in_crops(people, among=everyone)["ap", "all"]["value"]

    assert precision([0]) == pytest.approx(0.5)  # the surer detection is false
    assert precision([0, 1]) == pytest.approx(1.0)
    assert precision([0, 2], crowd=np.array([False, False, True])) == pytest.approx(1.0)
    assert precision([0, 0]) == pytest.approx(51 / 101 / 2)
