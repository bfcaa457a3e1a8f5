"""Places and depths that are expected, and poses that are lifted from augmented images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import GRID, NONE, SIZE, make_task

from jaxpose.data.joints.skeletons import HAND21, MPII16, Skeleton
from jaxpose.ops import augment, heatmaps
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import anatomy, depths, views

BONES = Skeleton(name="chain", joints=("a", "b", "c"), bones=(("a", "b"), ("b", "c")))
WIDE = dataclasses.replace(NONE, rotation=180.0, scale=(0.5, 1.5), translation=0.2, mirror=0.5)


def test_expectations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    maps, by_pixel = rng.normal(size=(2, 4, GRID.size, GRID.size, 3)).astype(np.float32)
    found = jax.jit(lambda m, d: depths.read(m, d, GRID, views.softmax_maps))(maps, by_pixel)
    for b, k in np.ndindex(4, 3):
        p = np.exp(maps[b, ..., k].astype(np.float64))
        p /= p.sum()
        y, x = np.mgrid[: GRID.size, : GRID.size]
        place = (np.array([(p * x).sum(), (p * y).sum()]) + 0.5) * GRID.stride - 0.5
        np.testing.assert_allclose(found.points[b, k], place, atol=1e-4)
        assert float(found.depths[b, k]) == pytest.approx((p * by_pixel[b, ..., k]).sum(), abs=1e-5)


def test_peaks_of_one_need_a_temperature() -> None:
    grid = heatmaps.Grid(size=64, stride=1.0, sigma=2.0)
    maps = grid.gaussians(jnp.asarray([[[50.0, 10.0]]]))
    flat, sharp = (depths.places(p(maps), grid)[0, 0] for p in (views.softmax_maps, depths.sharpened_maps))
    np.testing.assert_allclose(flat, (31.65, 31.33), atol=0.01)
    np.testing.assert_allclose(sharp, (50, 10), atol=0.01)


@pytest.mark.parametrize(
    ("skeleton", "root", "bone"),
    [
        (HAND21, "middle_mcp", ("wrist", "middle_mcp")),
        (MPII16, "pelvis", ("pelvis", "thorax")),
        (BONES, "a", ("a", "b")),
    ],
)
def test_references_are_found_by_name(skeleton: Skeleton, root: str, bone: tuple[str, str]) -> None:
    found = anatomy.reference_of(skeleton)
    assert skeleton.joints[found.root] == root
    assert tuple(skeleton.joints[i] for i in found.bone) == bone


def test_a_skeleton_without_bones_has_no_reference() -> None:
    with pytest.raises(ValueError, match="skeleton dots: found no bones, expected one that depths are measured in"):
        anatomy.reference_of(Skeleton(name="dots", joints=("a", "b")))


def batch(rows: int) -> dict[str, jax.Array]:
    """Poses before a camera, and where they are in images."""
    rng = np.random.default_rng(3)
    pose = rng.normal(size=(rows, 3, 3)) * 0.1 + (0, 0, 1)
    camera = np.array([[40.0, 0, 15], [0, 40, 16], [0, 0, 1]])
    seen = pose @ camera.T
    return {
        "image": jnp.zeros((rows, SIZE, SIZE, 3), jnp.uint8),
        "position": jnp.arange(rows),
        "keypoints": jnp.asarray(seen[..., :2] / seen[..., 2:], jnp.float32),
        "visible": jnp.full((rows, 3), 2, jnp.uint8),
        "keypoints3d": jnp.asarray(pose, jnp.float32),
        "intrinsics": jnp.broadcast_to(jnp.asarray(camera, jnp.float32)[None], (rows, 3, 3)),
    }


@pytest.mark.parametrize("augmentation", [NONE, WIDE], ids=["as it is", "turned, mirrored"])
def test_labels_of_augmented_images_lift_to_their_poses(augmentation: Augmentation) -> None:
    """What is lifted is the pose in lengths of the first bone, however the image was turned, magnified, mirrored."""
    task = make_task(skeleton=dataclasses.replace(BONES, flips=(("b", "c"),)), augmentation=augmentation)
    reference, rows, key = anatomy.Reference(root=0, bone=(0, 1)), 64, jax.random.key(0)

    @jax.jit
    def made() -> tuple[jax.Array, jax.Array, jax.Array, depths.Posed]:
        fields = batch(rows)
        posed = depths.posed(key, fields, task, lambda points, visible: (points, visible > 0), reference)
        drawn = augment.draw(key, fields["position"], SIZE, augmentation)
        camera = augment.intrinsics_of(drawn, fields["intrinsics"])
        # `draw` above returns the points themselves for maps.
        lifted = depths.lifted(depths.Found(points=posed.labels.maps, depths=posed.depths), camera, reference)
        return lifted, drawn.mirrored, fields["keypoints3d"], posed

    lifted, mirrored, pose, posed = made()
    assert bool(jnp.all(posed.mask))
    pose = np.asarray(pose, np.float64)
    mirror = np.array(mirrored)
    assert mirror.any() == bool(augmentation.mirror)
    pose[mirror] = (pose * (-1, 1, 1))[mirror][:, [0, 2, 1]]
    length = np.linalg.norm(pose[:, 0] - pose[:, 1], axis=-1)
    expected = pose / length[:, None, None]
    np.testing.assert_allclose(posed.depths, expected[..., 2] - expected[:, :1, 2], atol=1e-4)
    # A bone that is seen nearly from its end says little of its distance.
    clear = np.linalg.norm(pose[:, 0, :2] - pose[:, 1, :2], axis=-1) > 0.03
    assert clear.sum() > rows / 2
    np.testing.assert_allclose(np.asarray(lifted)[clear], expected[clear], rtol=2e-3, atol=2e-3)


def test_joints_without_a_place_in_space_do_not_count() -> None:
    task, reference = make_task(skeleton=BONES), anatomy.Reference(root=0, bone=(0, 1))
    fields = batch(3)
    broken = np.array(fields["keypoints3d"])
    broken[0, 2], broken[1, 1] = np.nan, np.inf
    fields["keypoints3d"] = jnp.asarray(broken)
    posed = depths.posed(jax.random.key(0), fields, task, lambda p, v: (p, v > 0), reference)
    np.testing.assert_array_equal(posed.mask, [[True, True, False], [False] * 3, [True] * 3])
    assert bool(jnp.all(jnp.isfinite(posed.depths)))
    assert float(jnp.abs(posed.depths[1]).max()) == 0
