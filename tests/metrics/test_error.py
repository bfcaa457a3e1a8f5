import numpy as np
import pytest
from measured import rows_of

from jaxpose.metrics import EPE, NME, PixelError
from jaxpose.metrics.metric import by_clip


def test_errors_are_in_pixels_of_each_image_and_only_of_labels() -> None:
    distance = np.array([[2.0, 4.0], [6.0, 9.0], [1.0, 1.0]], np.float32)
    scale = np.array([0.5, 2.0, 1.0], np.float32)  # the second image was enlarged
    mask = np.array([[True, True], [True, False], [False, False]])
    per_row = {"distance": distance, "scale": scale, "mask": mask}
    found = {row["group"]: row for row in PixelError().rows(None, per_row, {}, ())}
    assert {group: row["value"] for group, row in found.items()} == {"mean": (4 + 8 + 3) / 3, "median": 4.0}
    assert {row["count"] for row in found.values()} == {3}
    assert not list(PixelError().rows(None, per_row | {"mask": np.zeros_like(mask)}, {}, ()))


def test_clips_are_counted_like_the_definition() -> None:
    rng = np.random.default_rng(0)
    correct, mask = rng.random((50, 4)) < 0.6, rng.random((50, 4)) < 0.5
    clips = [f"clip{i}" for i in rng.integers(0, 5, 50)]
    mask[[clip == "clip3" for clip in clips]] = False
    found = list(by_clip("pck@0.1", correct, mask, clips))
    for name in sorted(set(clips) - {"clip3"}):
        inside = np.array([clip == name for clip in clips])[:, None] & mask
        (row,) = [row for row in found if row["group"] == f"clip:{name}"]
        assert row == {
            "metric": "pck@0.1",
            "group": f"clip:{name}",
            "value": correct[inside].mean(),
            "count": inside.sum(),
        }
    assert len(found) == 4  # one has no labels


def test_one_clip_and_a_clip_per_image_say_nothing() -> None:
    correct = np.ones((300, 1), bool)
    assert not list(by_clip("pck@0.1", correct, correct, ["a"] * 300))
    assert not list(by_clip("pck@0.1", correct, correct, [str(i) for i in range(300)]))
    assert len(list(by_clip("pck@0.1", correct[:256], correct[:256], [str(i) for i in range(256)]))) == 256


GROUPS = {"all": np.arange(4), "pair": np.array([1, 3])}


def faces(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Points, distances from their labels, and the fields; a third of the labels is missing and not a number."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(0, 64, (9, 4, 2))
    points = labels + rng.normal(0, 3, labels.shape)
    distance = np.linalg.norm(points - labels, axis=-1)
    known = rng.random((9, 4)) < 0.67
    labels[~known] = np.nan
    row = np.arange(9) < 8
    sizes = {"scale": rng.uniform(0.3, 2, 9), "box_size": rng.uniform(20, 60, 9)}
    return points, distance, {"keypoints": labels, "visible": known.astype(np.uint8), "row": row, **sizes}


def test_the_end_point_error_is_that_in_pixels_of_the_images_by_group_and_clip() -> None:
    points, distance, fields = faces(0)
    known, in_image = (fields["visible"] > 0) & fields["row"][:, None], distance / fields["scale"][:, None]
    clips = ["a"] * 4 + ["b"] * 5
    rows = rows_of(EPE(), {"points": points}, fields, GROUPS, clips)
    expected = {
        "all": in_image[known],
        "pair": in_image[:, [1, 3]][known[:, [1, 3]]],
        "clip:a": in_image[:4][known[:4]],
        "clip:b": in_image[4:][known[4:]],
    }
    assert {group for _, group in rows} == set(expected)
    for group, errors in expected.items():
        assert rows["epe", group]["value"] == pytest.approx(errors.mean(), rel=1e-5)
        assert rows["epe", group]["count"] == len(errors)
    pooled = rows_of(PixelError(), {"points": points}, fields, GROUPS)
    assert pooled["error_px", "mean"]["value"] == rows["epe", "all"]["value"]


def test_normalised_errors_are_relative_to_the_box() -> None:
    points, distance, fields = faces(1)
    size = fields["box_size"]
    size[:3] = 0, np.nan, np.inf
    known = (fields["visible"] > 0) & ((np.arange(9) > 2) & (np.arange(9) < 8))[:, None]
    rows = rows_of(NME(), {"points": points}, fields, GROUPS)
    errors = distance[known] / np.broadcast_to(size[:, None], known.shape)[known]
    row = rows["nme", "all"]
    assert (row["value"], row["count"]) == (pytest.approx(errors.mean(), rel=1e-5), known.sum())


def test_normalised_errors_are_relative_to_the_distance_of_two_labels() -> None:
    points, distance, fields = faces(2)
    fields["keypoints"][0, :2] = 7.0  # two eyes at one place
    fields["visible"][0, :2] = 1
    both = (fields["visible"][:, 0] > 0) & (fields["visible"][:, 1] > 0) & (np.arange(9) % 8 > 0)
    known = (fields["visible"] > 0) & both[:, None]
    size = np.linalg.norm(fields["keypoints"][:, 0] - fields["keypoints"][:, 1], axis=-1)
    rows = rows_of(NME(joints=(0, 1)), {"points": points}, fields, GROUPS)
    row = rows["nme", "all"]
    expected = (distance / np.where(both, size, np.nan)[:, None])[known]
    assert (row["value"], row["count"]) == (pytest.approx(expected.mean(), rel=1e-5), known.sum())
    assert known.sum() > 5


@pytest.mark.parametrize("metric", [EPE(), NME()])
def test_nothing_labelled_has_no_rows(metric: EPE | NME) -> None:
    points, _, fields = faces(3)
    assert not rows_of(metric, {"points": points}, fields | {"visible": np.zeros((9, 4), np.uint8)}, GROUPS)
