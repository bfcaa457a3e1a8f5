"""3D errors beside SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial
from scipy.spatial.transform import Rotation

from jaxpose.metrics import MPJPE
from jaxpose.metrics.metric import Predictions, Row

K = 6
GROUPS = {"all": np.arange(K), "legs": np.array([1, 4])}


def measured(metric: MPJPE, points: np.ndarray, labels: np.ndarray, row: np.ndarray | None = None) -> dict[str, Row]:
    row = np.ones(len(points), bool) if row is None else row
    fields = {"keypoints3d": jnp.asarray(labels, jnp.float32), "row": jnp.asarray(row)}
    sums, per_row = metric.update(Predictions(points3d=jnp.asarray(points, jnp.float32)), fields)
    found = metric.rows(sums, {name: np.asarray(x) for name, x in per_row.items()}, GROUPS, ["a", "b", "b"])
    return {row["group"]: row for row in found}


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
