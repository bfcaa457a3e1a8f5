"""3D errors beside SciPy."""

import numpy as np
import pytest
from measured import rows_of
from scipy import spatial
from scipy.spatial.transform import Rotation

from jaxpose.metrics import MPJPE, PCK3D, ReleasedPAMPJPE
from jaxpose.metrics.metric import Measurement

K = 6
GROUPS = {"all": np.arange(K), "legs": np.array([1, 4])}


def measured(
    metric: MPJPE, points: np.ndarray, labels: np.ndarray, row: np.ndarray | None = None
) -> dict[str, Measurement]:
    fields = {"keypoints3d": labels, "row": np.ones(len(points), bool) if row is None else row}
    rows = rows_of(metric, {"points3d": points}, fields, GROUPS, ["a", "b", "b"])
    return {group: row for (_, group), row in rows.items()}


def poses(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.normal((0, 0, 3), 0.4, (3, K, 3))
    return labels + rng.normal(0, 0.05, labels.shape), labels


def test_roots_are_moved_onto_each_other() -> None:
    points, labels = poses(0)
    errors = np.linalg.norm((points - points[:, 2:3]) - (labels - labels[:, 2:3]), axis=-1) * 1000
    found = measured(MPJPE(root=2), points + 5, labels)
    assert found["all"]["value"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["legs"]["value"] == pytest.approx(errors[:, [1, 4]].mean(), rel=1e-4)
    assert found["clip:b"]["value"] == pytest.approx(errors[1:].mean(), rel=1e-4)
    assert {row["metric"] for row in found.values()} == {"mpjpe"}


def test_similarities_are_taken_out_as_scipy_does_and_reflections_are_not() -> None:
    points, labels = poses(1)
    turned = 0.3 * points @ Rotation.from_euler("xyz", (0.3, 1.0, -2.0)).as_matrix().T + (1, 2, 3)
    expected = []
    for p, q in zip(points, labels, strict=True):
        a, b, _ = spatial.procrustes(q, p)  # both at norm 1
        expected.append(np.linalg.norm(a - b, axis=-1) * np.linalg.norm(q - q.mean(axis=0)) * 1000)
    found = measured(MPJPE(align="similarity"), turned, labels)
    assert found["all"]["value"] == pytest.approx(np.mean(expected), rel=1e-3)
    assert measured(MPJPE(align="similarity"), labels, labels)["all"]["value"] < 0.01
    mirrored = measured(MPJPE(align="similarity"), labels * (-1, 1, 1), labels)
    assert mirrored["all"]["value"] > 50


def test_scale_alone_does_not_turn() -> None:
    _, labels = poses(2)
    assert measured(MPJPE(align="scale"), 7 * labels + 1, labels)["all"]["value"] < 0.01
    turned = labels @ Rotation.from_euler("z", 0.5).as_matrix().T
    assert measured(MPJPE(align="scale"), turned, labels)["all"]["value"] > 50


@pytest.mark.parametrize("align", ["root", "scale", "similarity"])
def test_unknown_joints_and_rows_that_fill_up_do_not_count(align: str) -> None:
    points, labels = poses(3)
    missing = labels.copy()
    missing[0, 3] = np.nan
    known = measured(MPJPE(align=align), points, missing, np.array([True, True, False]))
    assert known["all"]["count"] == 2 * K - 1
    points[0, 3] = 100
    again = measured(MPJPE(align=align), points, missing, np.array([True, True, False]))
    assert again["all"]["value"] == pytest.approx(known["all"]["value"], rel=1e-4)
    assert np.isfinite(known["all"]["value"])


def test_actions_are_averaged_besides_frames() -> None:
    rng = np.random.default_rng(4)
    labels = rng.normal((0, 0, 3), 0.4, (9, K, 3))
    points = labels + rng.normal(0, 0.05, labels.shape)
    labels[7, 1] = np.nan
    numbers = [2, 2, 2, 2, 2, 3, 3, 4, 0]
    clips = [f"s_09_act_{n:02d}_subact_0{1 + i % 2}_ca_01" if n else "contact_12" for i, n in enumerate(numbers)]
    metric = MPJPE(actions=r"(?<![a-z])act_\d+")
    rows = rows_of(metric, {"points3d": points}, {"keypoints3d": labels}, GROUPS, clips)
    errors = np.linalg.norm((points - points[:, :1]) - (labels - labels[:, :1]), axis=-1) * 1000
    means = []
    for number in (2, 3, 4):
        chosen = errors[np.array(numbers) == number]
        chosen = chosen[np.isfinite(chosen)]
        row = rows["mpjpe", f"action:act_0{number}"]
        assert (row["value"], row["count"]) == (pytest.approx(chosen.mean(), rel=1e-4), len(chosen))
        means.append(chosen.mean())
    row = rows["mpjpe", "actions"]
    assert (row["value"], row["count"]) == (pytest.approx(np.mean(means), rel=1e-4), 8 * K - 1)
    assert rows["mpjpe", "all"]["value"] == pytest.approx(np.nanmean(errors), rel=1e-4)
    assert row["value"] != pytest.approx(rows["mpjpe", "all"]["value"], rel=1e-3)
    assert len([group for _, group in rows if group.startswith("action:")]) == 3
    for names in ((), ["contact_12"] * 9):
        rows = rows_of(metric, {"points3d": points}, {"keypoints3d": labels}, GROUPS, names)
        assert {group for _, group in rows} == {"all", "legs"}


def test_3dpck_and_its_area_are_means_over_the_counted_labels() -> None:
    rng = np.random.default_rng(5)
    labels = rng.normal((0, 0, 3), 0.4, (20, K, 3))
    points = labels + rng.normal(0, 0.05, labels.shape)
    labels[3, 5] = np.nan
    labels[4, 2] = np.nan  # a pose whose root is unknown
    row = np.arange(20) < 18
    metric = PCK3D(root=2, thresholds=(100.0, 150.0), left_out=(2, 4))
    rows = rows_of(metric, {"points3d": points}, {"keypoints3d": labels, "row": row}, GROUPS, ["a"] * 9 + ["b"] * 11)
    errors = np.linalg.norm((points - points[:, 2:3]) - (labels - labels[:, 2:3]), axis=-1) * 1000
    errors[18:] = errors[:, [2, 4]] = np.nan
    for group, chosen in (("all", errors), ("legs", errors[:, [1]]), ("clip:b", errors[9:])):
        known = chosen[np.isfinite(chosen)]
        for threshold in (100, 150):
            found = rows[f"3dpck@{threshold}", group]
            assert (found["value"], found["count"]) == (pytest.approx((known < threshold).mean()), len(known))
        curve = [(known < threshold).mean() for threshold in np.linspace(0, 150, 31)]
        assert rows["3dauc", group]["value"] == pytest.approx(np.mean(curve))
    assert 0.1 < rows["3dauc", "all"]["value"] < rows["3dpck@150", "all"]["value"] < 1


def test_an_error_at_the_threshold_is_too_large() -> None:
    labels = np.zeros((1, 3, 3))
    points = labels.copy()
    points[0, 1:, 0] = 0.125, 0.1249
    metric = PCK3D(thresholds=(125.0,), left_out=(0,))
    rows = rows_of(metric, {"points3d": points}, {"keypoints3d": labels}, {"all": np.arange(3)})
    assert rows["3dpck@125", "all"]["value"] == 0.5
    # Above 125 of the 31 thresholds lie 5, at 125 the second joint is near, too.
    assert rows["3dauc", "all"]["value"] == pytest.approx((5 + 6) / 62)


def test_aligned_3dpck_bears_the_name_of_its_alignment() -> None:
    points, labels = poses(6)
    turned = 0.3 * points @ Rotation.from_euler("xyz", (0.3, 1.0, -2.0)).as_matrix().T + (1, 2, 3)
    rows = rows_of(PCK3D(align="similarity"), {"points3d": turned}, {"keypoints3d": labels}, GROUPS)
    assert {metric for metric, _ in rows} == {"pa_3dpck@150", "pa_3dauc"}
    assert rows["pa_3dpck@150", "all"]["value"] == 1.0
    assert rows_of(PCK3D(), {"points3d": turned}, {"keypoints3d": labels}, GROUPS)["3dpck@150", "all"]["value"] < 1
    unknown = np.full_like(labels, np.nan)
    assert not rows_of(PCK3D(), {"points3d": turned}, {"keypoints3d": unknown}, GROUPS)


def best_similarity(points: np.ndarray, labels: np.ndarray) -> float:
    """The mean distance after the best scale, shift and proper rotation, which SciPy finds; no reflection."""
    x, y = points - points.mean(axis=0), labels - labels.mean(axis=0)
    x = Rotation.align_vectors(y, x)[0].apply(x)
    return 1000 * float(np.linalg.norm((x * y).sum() / (x * x).sum() * x - y, axis=-1).mean())


@pytest.mark.parametrize("seed", range(3))
def test_mirrored_poses_are_turned_but_not_mirrored(seed: int) -> None:
    points, labels = poses(seed)
    mirrored = points * (-1, 1, 1)
    expected = np.mean([best_similarity(p, q) for p, q in zip(mirrored, labels, strict=True)])
    found = measured(MPJPE(align="similarity"), mirrored, labels)["all"]["value"]
    assert found == pytest.approx(expected, rel=1e-3)
    assert found > 2 * measured(MPJPE(align="similarity"), points, labels)["all"]["value"]


# 2 is the root: 2-0-1 and 2-3-5, 3-4
TREE = ((2, 0), (0, 1), (2, 3), (3, 4), (3, 5))


def with_lengths_of(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Joint by joint from the root: each at the label's distance from its parent, in the prediction's direction."""
    found = points.copy()
    for parent, child in TREE:
        bone, wanted = points[child] - points[parent], labels[child] - labels[parent]
        found[child] = found[parent] + bone / np.linalg.norm(bone) * np.linalg.norm(wanted)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_released_error_is_of_poses_with_the_labels_bone_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, labels = poses(seed)
    points *= rng.uniform(0.3, 3.0, (3, K, 1))
    expected = [best_similarity(with_lengths_of(p, q), q) for p, q in zip(points, labels, strict=True)]
    found = measured(ReleasedPAMPJPE(tree=TREE), points, labels)
    assert found["all"]["value"] == pytest.approx(np.mean(expected), rel=1e-3)
    assert found["clip:b"]["value"] == pytest.approx(np.mean(expected[1:]), rel=1e-3)
    assert {row["metric"] for row in found.values()} == {"released_pa_mpjpe"}
    # the label's directions are enough, whatever the lengths
    stretched = labels.copy()
    for parent, child in TREE:
        stretched[:, child] = stretched[:, parent] + (labels[:, child] - labels[:, parent]) * rng.uniform(0.2, 5.0)
    assert measured(ReleasedPAMPJPE(tree=TREE), stretched, labels)["all"]["value"] < 0.05
    assert measured(MPJPE(align="similarity"), stretched, labels)["all"]["value"] > 20


def test_a_bone_without_a_label_keeps_its_length_and_its_joint_does_not_count() -> None:
    points, labels = poses(6)
    missing = labels.copy()
    missing[0, 5] = np.nan
    found = measured(ReleasedPAMPJPE(tree=TREE), points, missing)
    assert found["all"]["count"] == 3 * K - 1
    points[0, 5] += 3.0
    assert measured(ReleasedPAMPJPE(tree=TREE), points, missing)["all"]["value"] == pytest.approx(
        found["all"]["value"], rel=1e-4
    )
    points[1] = points[1, :1]  # all joints at one place: no direction
    assert np.isfinite(measured(ReleasedPAMPJPE(tree=TREE), points, missing)["all"]["value"])
