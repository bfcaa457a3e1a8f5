import numpy as np

from jaxpose.metrics import PixelError
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
