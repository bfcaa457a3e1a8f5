import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import rows_of

from jaxpose.metrics import PCKh, SurePCK
from jaxpose.metrics.pck import Accuracies, Counts, pck, tllib_pck
from jaxpose.ops.heatmaps import argmax_points_released

seeds = st.integers(0, 2**32 - 1)
jitted_pck = jax.jit(pck, static_argnames="threshold")


@functools.partial(jax.jit, static_argnames=("threshold", "ignore_absent"))
def jitted_tllib(predicted, labels, rows, **options):
    """On the released reading of heatmaps."""
    return tllib_pck(argmax_points_released(predicted), labels, rows, **options)


def points(seed, batch=6, joints=4):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 64, (batch, joints, 2)).astype(np.float32)
    found = (true + rng.normal(0, 8, true.shape)).astype(np.float32)
    return found, true, rng.random((batch, joints)) < 0.7


def test_pck_counts_like_the_definition():
    found, true, mask = points(0)
    correct, count = np.zeros(4, int), np.zeros(4, int)
    for b in range(6):
        for k in range(4):
            if mask[b, k]:
                count[k] += 1
                correct[k] += np.hypot(*(found[b, k] - true[b, k])) < 9.0
    state = jitted_pck(*map(jnp.asarray, (found, true, mask)), threshold=9.0)
    np.testing.assert_array_equal(state.correct, correct)
    np.testing.assert_array_equal(state.count, count)
    assert 0 < correct.sum() < count.sum() < mask.size
    np.testing.assert_allclose(state.rates(), correct / count, rtol=1e-6)
    value, pooled = state.group(np.array([1, 3]))
    assert int(pooled) == count[1] + count[3]
    np.testing.assert_allclose(value, (correct[1] + correct[3]) / pooled, rtol=1e-6)


def test_pck_is_strict_at_the_threshold():
    true = jnp.zeros((2, 1, 2))
    found = jnp.array([[[3.0, 4.0]], [[3.0, 3.9]]])
    assert jitted_pck(found, true, jnp.ones((2, 1), bool), threshold=5.0).correct.tolist() == [1]


def test_rates_without_labels_are_nan():
    state = Counts.zeros(3)
    assert np.isnan(state.rates()).all()
    value, count = state.group(np.array([0, 2]))
    assert np.isnan(value)
    assert count == 0


@settings(max_examples=25, deadline=None)
@given(seed=seeds, cut=st.integers(1, 5))
def test_pck_merge_is_concatenation(seed, cut):
    found, true, mask = points(seed)
    whole = jitted_pck(*map(jnp.asarray, (found, true, mask)), threshold=9.0)
    # both parts are padded to 6 rows, so that there is one compilation
    keep = np.arange(6)[:, None] < cut
    parts = [jitted_pck(found, true, jnp.asarray(mask & k), threshold=9.0) for k in (keep, ~keep)]
    merged = parts[0].merge(parts[1]).merge(Counts.zeros(4))
    np.testing.assert_array_equal(merged.correct, whole.correct)
    np.testing.assert_array_equal(merged.count, whole.count)
    cut_off = pck(*map(jnp.asarray, (found[:cut], true[:cut], mask[:cut])), threshold=9.0)
    np.testing.assert_array_equal(cut_off.correct, parts[0].correct)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, junk=st.sampled_from([np.nan, np.inf, 0.0, 1e30]))
def test_pck_never_counts_masked_points(seed, junk):
    found, true, mask = points(seed)
    state = jitted_pck(*map(jnp.asarray, (found, true, mask)), threshold=9.0)
    found[~mask] = true[~mask] = junk
    other = jitted_pck(*map(jnp.asarray, (found, true, mask)), threshold=9.0)
    np.testing.assert_array_equal(state.correct, other.correct)
    np.testing.assert_array_equal(state.count, other.count)


def test_a_nan_prediction_is_wrong():
    state = jitted_pck(jnp.full((1, 1, 2), jnp.nan), jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), threshold=5.0)
    assert (state.correct.tolist(), state.count.tolist()) == ([0], [1])


def test_pck_on_two_devices_equals_one():
    arrays = [jnp.asarray(a) for a in points(3)]
    np.testing.assert_array_equal(
        jitted_pck(*shard(arrays), threshold=9.0).correct, jitted_pck(*arrays, threshold=9.0).correct
    )


@pytest.mark.parametrize("zeros", [Counts.zeros, Accuracies.zeros])
def test_states_hold_anything(zeros):
    marked = jax.tree.map(lambda _: "sharding", zeros(2))
    assert set(jax.tree.leaves(marked)) == {"sharding"}
    assert jax.eval_shape(lambda s: s.merge(s), zeros(2)).count.shape == (2,)


def heatmaps(peaks, height=64, width=64, value=1.0):
    """(B, K, 2) integer points -> (B, H, W, K) maps with one positive pixel."""
    peaks = np.asarray(peaks)
    maps = np.zeros((len(peaks), height, width, peaks.shape[1]), np.float32)
    for b, k in np.ndindex(peaks.shape[:2]):
        x, y = peaks[b, k]
        maps[b, y, x, k] = value
    return maps


def evaluate(predicted, labels, rows=None, **options):
    rows = np.ones(len(labels), bool) if rows is None else rows
    return jitted_tllib(jnp.asarray(predicted), jnp.asarray(labels), jnp.asarray(rows), **options)


def tllib_reference(batches, ignore_absent=False):
    """Per-joint means over a list of (predicted, labels) heatmaps, one loop per rule."""
    joints = batches[0][0].shape[-1]
    total, weight = np.zeros(joints), np.zeros(joints)
    for predicted, labels in batches:
        size, height, width, _ = labels.shape
        for k in range(joints):
            hits = []
            for b in range(size):
                y, x = np.unravel_index(labels[b, ..., k].argmax(), (height, width))
                if x <= 1 or y <= 1:
                    continue
                v, u = np.unravel_index(predicted[b, ..., k].argmax(), (height, width))
                if predicted[b, ..., k].max() <= 0:
                    u = v = 0
                hits.append(np.hypot((u - x) / (width / 10), (v - y) / (height / 10)) < 0.5)
            if hits or not ignore_absent:
                total[k] += size * (np.mean(hits) if hits else -1)
                weight[k] += size
    return total / np.where(weight, weight, np.nan)


def random_batch(rng, size, joints=3, height=16, width=24):
    labels = heatmaps(rng.integers(0, (width, height), (size, joints, 2)), height, width)
    labels *= rng.random((size, 1, 1, joints)) < 0.5
    shift = rng.integers(-1, 2, 2)
    predicted = np.roll(labels, shift, axis=(1, 2)) + 0.5 * rng.random(labels.shape, np.float32)
    predicted -= 2.0 * (rng.random((size, 1, 1, joints)) < 0.2)
    return predicted.astype(np.float32), labels


@settings(max_examples=15, deadline=None)
@given(seed=seeds, ignore_absent=st.booleans())
def test_tllib_equals_the_reference(seed, ignore_absent):
    rng = np.random.default_rng(seed)
    batches = [random_batch(rng, size) for size in (4, 4, 2)]
    state = Accuracies.zeros(3)
    for predicted, labels in batches:
        padding = 4 - len(labels)
        rows = np.arange(4) < len(labels)
        junk = np.ones((padding, *labels.shape[1:]), np.float32)
        predicted, labels = np.concatenate([predicted, junk]), np.concatenate([labels, junk])
        state = state.merge(evaluate(predicted, labels, rows, ignore_absent=ignore_absent))
    expected = tllib_reference(batches, ignore_absent)
    np.testing.assert_allclose(state.rates(), expected, rtol=1e-5, atol=1e-6)
    group = expected[[0, 2]]
    if np.isfinite(group).any():
        np.testing.assert_allclose(state.group(np.array([0, 2]))[0], np.nanmean(group), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "correct"), [(33, 30, True), (30, 33, True), (33, 31, True), (34, 30, False), (32, 33, False)]
)
def test_tllib_threshold_is_3_2_pixels_of_64(x, y, correct):
    state = evaluate(heatmaps([[[x, y]]]), heatmaps([[[30, 30]]]))
    assert float(state.rates()[0]) == correct


def test_tllib_normalises_each_axis_by_its_own_size():
    labels = heatmaps([[[30, 10]], [[30, 10]]], height=20, width=80)
    predicted = heatmaps([[[33, 10]], [[30, 11]]], height=20, width=80)
    state = evaluate(predicted, labels)  # 3/8 < 0.5, but 1/2 is not
    assert float(state.total[0]) == 1.0


@pytest.mark.parametrize(("label", "count"), [((1, 30), 0), ((30, 1), 0), ((0, 0), 0), ((2, 2), 1)])
def test_tllib_leaves_border_labels_out(label, count):
    maps = heatmaps([[label]])
    state = evaluate(maps, maps)
    assert state.count.tolist() == [count]
    assert state.rates().tolist() == [1.0 if count else -1.0]


def test_tllib_moves_predictions_without_positive_value_to_the_corner():
    labels = heatmaps([[[2, 2]], [[40, 40]]])
    predicted = np.full_like(labels, -1.0)
    predicted[0, 40, 40], predicted[1, 40, 40] = -0.5, 0.0  # the peaks, if they counted
    assert evaluate(predicted, labels).rates().tolist() == [0.5]  # (0, 0) is near (2, 2)


def test_tllib_absent_joint_scores_minus_one_per_batch():
    maps = heatmaps([[[30, 30], [30, 30]]] * 3)
    without = maps.copy()
    without[..., 1] = 0
    batches = [(maps, np.ones(3, bool)), (without, np.array([True, False, False]))]
    both = [evaluate(m, m, r) for m, r in batches]
    state = both[0].merge(both[1])
    np.testing.assert_allclose(state.rates(), [1.0, (3 * 1 - 1) / 4])
    np.testing.assert_allclose(state.group(np.array([0, 1]))[0], 0.75)
    fixed = [evaluate(m, m, r, ignore_absent=True) for m, r in batches]
    np.testing.assert_allclose(fixed[0].merge(fixed[1]).rates(), [1.0, 1.0])


def test_tllib_joint_absent_everywhere():
    maps = heatmaps([[[30, 30], [0, 0]]])
    state = evaluate(maps, maps, ignore_absent=True)
    np.testing.assert_array_equal(state.rates(), [1.0, np.nan])
    assert float(state.group(np.array([0, 1]))[0]) == 1.0
    assert float(evaluate(maps, maps).group(np.array([0, 1]))[0]) == 0.0


def test_tllib_depends_on_batch_boundaries_but_pooled_does_not():
    labels = heatmaps([[[30, 30]], [[30, 30]], [[30, 30]], [[0, 0]]])
    predicted = heatmaps([[[30, 30]], [[50, 50]], [[50, 50]], [[0, 0]]])
    one = evaluate(predicted, labels).rates()
    two = [evaluate(predicted[i], labels[i]) for i in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(one, [1 / 3], rtol=1e-6)
    np.testing.assert_allclose(two[0].merge(two[1]).rates(), [1 / 4])


def test_tllib_batch_of_padding_changes_nothing():
    maps = heatmaps([[[30, 30]]])
    for ignore_absent in (False, True):
        state = evaluate(maps, maps, np.array([False]), ignore_absent=ignore_absent)
        assert all(not leaf.any() for leaf in jax.tree.leaves(state))


def test_tllib_on_two_devices_equals_one():
    predicted, labels = random_batch(np.random.default_rng(1), 4)
    arrays = [jnp.asarray(a) for a in (predicted, labels, np.array([True, True, True, False]))]
    jax.tree.map(np.testing.assert_array_equal, jitted_tllib(*shard(arrays)), jitted_tllib(*arrays))


@functools.cache
def mesh():
    return jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])


def shard(arrays):
    sharding = jax.sharding.NamedSharding(mesh(), jax.sharding.PartitionSpec("data"))
    sharded = [jax.device_put(a, sharding) for a in arrays]
    assert all(len(a.sharding.device_set) == 2 for a in sharded)
    return sharded


def test_pckh_is_the_mean_over_labels_of_mpiis_joints():
    found, true, known = points(7, batch=8, joints=5)
    head = np.random.default_rng(0).uniform(8, 20, 8)
    fields = {"keypoints": true, "annotated": 2 * known.astype(np.uint8), "head_size": head}
    metric = PCKh(thresholds=(0.5, 0.11), left_out=(1, 3))
    groups = {"all": np.arange(5), "two": np.array([0, 1]), "joint:3": np.array([3])}
    rows = rows_of(metric, {"points": found}, fields, groups, ["a"] * 3 + ["b"] * 5)
    assert {metric for metric, _ in rows} == {"pckh@0.5", "pckh@0.11"}
    for threshold in metric.thresholds:
        near = np.linalg.norm(found - true, axis=-1) <= threshold * head[:, None]
        for group, joints, images in (
            ("all", [0, 2, 4], slice(None)),
            ("two", [0], slice(None)),
            ("clip:b", [0, 2, 4], slice(3, None)),
        ):
            chosen = near[images, joints][known[images, joints]]
            row = rows[f"pckh@{threshold}", group]
            assert (row["value"], row["count"]) == (pytest.approx(chosen.mean()), len(chosen))
    assert 0 < rows["pckh@0.5", "all"]["value"] < 1
    assert not any(group == "joint:3" for _, group in rows)
    # As the owners' table is averaged: rates of joints, weighted by how many labels they have.
    rates, counts = zip(*((near[:, k][known[:, k]].mean(), known[:, k].sum()) for k in (0, 2, 4)), strict=True)
    assert rows["pckh@0.11", "all"]["value"] == pytest.approx(np.average(rates, weights=counts))


def test_pckh_counts_what_lies_at_the_threshold():
    fields = {"keypoints": np.zeros((2, 1, 2)), "annotated": np.ones((2, 1), np.uint8), "head_size": np.full(2, 10.0)}
    rows = rows_of(PCKh(), {"points": [[[3.0, 4.0]], [[3.0, 4.1]]]}, fields, {"all": np.arange(1)})
    assert rows["pckh@0.5", "all"]["value"] == 0.5


def test_pckh_leaves_out_images_without_a_head_and_rows_that_fill_up():
    true = np.zeros((5, 2, 2))
    true[4] = np.nan
    fields = {
        "keypoints": true,
        "annotated": np.array([[1, 0], [1, 1], [1, 1], [1, 1], [0, 0]], np.uint8),
        "head_size": np.array([10.0, 0.0, np.nan, 10.0, 10.0]),
        "row": np.array([True, True, True, False, True]),
    }
    rows = rows_of(PCKh(), {"points": np.zeros((5, 2, 2))}, fields, {"all": np.arange(2), "second": np.array([1])})
    assert {group: (row["value"], row["count"]) for (_, group), row in rows.items()} == {"all": (1.0, 1)}
    nothing = fields | {"annotated": np.zeros((5, 2), np.uint8)}
    assert not rows_of(PCKh(), {"points": np.zeros((5, 2, 2))}, nothing, {"all": np.arange(2)})


def test_sure_pck_counts_the_surer_half_of_the_labels() -> None:
    """Row by row: what is not labelled is not among them, however sure, and halves are of all joints together."""
    rng = np.random.default_rng(0)
    found, true, mask = points(1, batch=20)
    scores = rng.permutation(80).reshape(20, 4) / 80
    groups = {"all": np.arange(4), "first": np.array([0])}
    fields = {"keypoints": true, "visible": mask.astype(np.uint8)}
    rows = rows_of(SurePCK(size=64, thresholds=(0.1,)), {"points": found, "scores": scores}, fields, groups)
    labelled = sorted(((scores[b, k], b, k) for b, k in zip(*np.nonzero(mask), strict=True)), reverse=True)
    chosen = labelled[: -(-len(labelled) // 2)]
    for group, joints in groups.items():
        near = [np.hypot(*(found[b, k] - true[b, k])) < 6.4 for _, b, k in chosen if k in joints]
        row = rows["sure_pck@0.1", group]
        assert (row["value"], row["count"]) == (pytest.approx(np.mean(near)), len(near))
    none = {"keypoints": true, "visible": np.zeros_like(mask, np.uint8)}
    assert not rows_of(SurePCK(size=64), {"points": found, "scores": scores}, none, groups)
