"""Bones in frames of their parents, against a body that SciPy's rotations walk joint by joint."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxpose.data import schemes
from jaxpose.data.host.windows import consecutive
from jaxpose.data.joints.skeletons import MPII16
from jaxpose.data.motion.source import MotionSource
from jaxpose.ops import lifting, local_frames
from jaxpose.ops.local_frames import BodyTree

FEET = ("left_foot", "right_foot")
FULL = local_frames.body_tree((*MPII16.joints, *FEET))
MPII = local_frames.body_tree(MPII16.joints)
NO_NECK = local_frames.body_tree([joint for joint in MPII16.joints if joint != "neck"])
SMALL = local_frames.body_tree([joint for joint in MPII16.joints if joint not in ("neck", "head_top")])
TREES = pytest.mark.parametrize("tree", [FULL, MPII, NO_NECK, SMALL], ids=["full", "mpii", "no neck", "no head"])

to_local = jax.jit(local_frames.to_local, static_argnums=1)
to_global = jax.jit(local_frames.to_global, static_argnums=1)


@functools.cache
def poses(tree: BodyTree, count: int = 2048) -> np.ndarray:
    """Bodies whose bones have the tree's lengths and point anywhere."""
    rng = np.random.default_rng(0)
    found = np.zeros((count, len(tree.joints), 3))
    for joint, (parent, length) in enumerate(zip(tree.parents, tree.lengths, strict=True)):
        along = rng.normal(size=(count, 3))
        found[:, joint] = found[:, parent] + length * along / np.linalg.norm(along, axis=-1, keepdims=True)
    return found - found[:, :1]


def walked(pose: np.ndarray, tree: BodyTree) -> np.ndarray:
    """One pose's directions, joint by joint: axes left, up, front, turned by the smallest angles."""
    at = {joint: i for i, joint in enumerate(tree.joints)}

    def bone(joint: str) -> np.ndarray:
        along = pose[at[joint]] - pose[tree.parents[at[joint]]]
        return along / np.linalg.norm(along)

    def torso(part: str) -> np.ndarray:
        up, line = bone("thorax"), bone(f"left_{part}") - bone(f"right_{part}")
        front = np.cross(line, up) / np.linalg.norm(np.cross(line, up))
        return np.stack([np.cross(up, front), up, front], axis=-1)

    def rest(joint: str) -> np.ndarray:
        side = 1 if "left" in joint else -1
        if "elbow" in joint or "wrist" in joint:
            return np.array([side, 0, 0])
        return np.array([0, -1 if "knee" in joint or "ankle" in joint else 1, 0])

    @functools.cache
    def axes(joint: str) -> np.ndarray:
        """In which the bones that hang on a joint are given."""
        if joint == "thorax" or "shoulder" in joint:
            return torso("shoulder")
        if "hip" in joint:
            return torso("hip")
        before = axes(tree.joints[tree.parents[at[joint]]])
        start, end = before @ rest(joint), bone(joint)
        about = np.cross(start, end)
        angle = np.arctan2(np.linalg.norm(about), start @ end)
        return Rotation.from_rotvec(about / np.linalg.norm(about) * angle).as_matrix() @ before

    def direction(joint: str) -> np.ndarray:
        if joint == "thorax" or "shoulder" in joint or "hip" in joint:
            return bone(joint)
        return axes(tree.joints[tree.parents[at[joint]]]).T @ bone(joint)

    return np.stack([direction(joint) for joint in tree.joints[1:]])


def spread(tree: BodyTree) -> dict[str, list[float]]:
    """Arms out, facing the camera, toes to it: in metres, from the lengths that are released."""
    thorax, hip = 0.105 * 4.75, 0.105 * 1.05
    hand, ground = 0.105 * (1.37 + 2.8 + 2.4), 0.105 * (4.2 + 3.6)
    found = {
        "pelvis": [0, 0, 0],
        "thorax": [0, -thorax, 0],
        "neck": [0, -thorax - 0.105, 0],
        "head_top": [0, -thorax - 0.21, 0],
        "left_shoulder": [0.105 * 1.37, -thorax, 0],
        "left_elbow": [0.105 * 4.17, -thorax, 0],
        "left_wrist": [hand, -thorax, 0],
        "left_hip": [hip, 0, 0],
        "left_knee": [hip, 0.105 * 4.2, 0],
        "left_ankle": [hip, ground, 0],
        "left_foot": [hip, ground, -0.21],
    }
    found |= {k.replace("left", "right"): [-x, y, z] for k, (x, y, z) in found.items() if "left" in k}
    return {joint: found[joint] for joint in tree.joints}


def test_trees_take_the_joints_that_they_know_in_their_own_order() -> None:
    assert FULL.joints[0] == "pelvis"
    assert all(parent < joint for joint, parent in enumerate(FULL.parents))
    parents = {j: FULL.joints[p] for j, p in zip(FULL.joints[1:], FULL.parents[1:], strict=True)}
    assert parents == {
        "thorax": "pelvis",
        "neck": "thorax",
        "head_top": "neck",
        **{f"{side}_shoulder": "thorax" for side in ("left", "right")},
        **{f"{side}_hip": "pelvis" for side in ("left", "right")},
        **{
            f"{side}_{end}": f"{side}_{start}"
            for side in ("left", "right")
            for start, end in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
        },
        **{f"{side}_foot": f"{side}_ankle" for side in ("left", "right")},
    }
    assert local_frames.body_tree(["left_collar", *reversed(FULL.joints), "spine"]) == FULL
    assert hash(MPII) == hash(local_frames.body_tree((*MPII16.joints, "left_foot")))
    assert set(MPII.joints) == set(MPII16.joints)


def test_a_head_without_a_neck_is_as_far_from_the_thorax() -> None:
    head = NO_NECK.joints.index("head_top")
    assert NO_NECK.joints[NO_NECK.parents[head]] == "thorax"
    assert NO_NECK.lengths[head] == pytest.approx(0.21)
    assert sum(FULL.lengths[FULL.joints.index(joint)] for joint in ("neck", "head_top")) == pytest.approx(0.21)


def test_missing_joints_are_named() -> None:
    with pytest.raises(ValueError, match=r"found joints pelvis, .*, expected also right_elbow, left_hip$"):
        local_frames.body_tree([joint for joint in FULL.joints if joint not in ("right_elbow", "left_hip", "head_top")])
    with pytest.raises(ValueError, match=r"expected also pelvis$"):
        local_frames.body_tree(FULL.joints[1:])


@TREES
def test_directions_are_those_that_a_walk_along_the_body_finds(tree: BodyTree) -> None:
    found = to_local(jnp.asarray(poses(tree), jnp.float32), tree)
    expected = np.stack([walked(pose, tree) for pose in poses(tree)[:64]])
    np.testing.assert_allclose(found[:64], expected, atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 1, atol=1e-5)


@TREES
def test_a_body_at_rest_has_its_axes(tree: BodyTree) -> None:
    pose = jnp.asarray(list(spread(tree).values()), jnp.float32)
    local = dict(zip(tree.joints[1:], np.asarray(to_local(pose, tree)), strict=True))
    kinds = {"elbow": (1, 0, 0), "wrist": (1, 0, 0), "knee": (0, -1, 0), "ankle": (0, -1, 0), "foot": (0, 0, 1)}
    kinds |= {"shoulder": (1, 0, 0), "hip": (1, 0, 0)}
    expected = {"thorax": (0, -1, 0), "neck": (0, 1, 0), "head_top": (0, 1, 0)}  # in the image, up is negative
    for joint in tree.joints[1:]:
        side, _, kind = joint.partition("_")
        sign = np.array([-1 if side == "right" else 1, 1, 1])
        np.testing.assert_allclose(local[joint], expected.get(joint) or sign * kinds[kind], atol=1e-6, err_msg=joint)
    np.testing.assert_allclose(to_global(jnp.zeros((len(tree.joints) - 1, 3)), tree), pose, atol=1e-6)


@TREES
def test_global_is_the_inverse_of_local(tree: BodyTree) -> None:
    pose = jnp.asarray(poses(tree), jnp.float32)
    local = to_local(pose, tree)
    plain = determined(np.asarray(local), tree)
    assert plain.mean() > 0.9
    np.testing.assert_allclose(to_global(local, tree)[plain], pose[plain], atol=1e-5)
    stretched = local * jax.random.uniform(jax.random.key(0), (*local.shape[:-1], 1), minval=0.1, maxval=9.0)
    np.testing.assert_allclose(to_global(stretched, tree)[plain], pose[plain], atol=1e-5)
    # Size and place are not kept.
    np.testing.assert_allclose(to_global(to_local(3 * pose + 1, tree), tree)[plain], pose[plain], atol=1e-5)


def determined(local: np.ndarray, tree: BodyTree) -> np.ndarray:
    """Poses whose frames do not hang on the last digits: no line along the spine, no limb opposite to its rest."""
    bone = {joint: local[:, i] for i, joint in enumerate(tree.joints[1:])}
    across = [np.cross(bone[f"left_{part}"] - bone[f"right_{part}"], bone["thorax"]) for part in ("shoulder", "hip")]
    rests = {"left_elbow": (1, 0, 0), "right_elbow": (-1, 0, 0)}
    rests |= {f"{side}_{joint}": (0, -1, 0) for side in ("left", "right") for joint in ("knee", "ankle")}
    ends = [bone[joint] + rest for joint, rest in rests.items()]
    return np.min([np.linalg.norm(vectors, axis=-1) for vectors in (*across, *ends)], axis=0) > 0.05


@pytest.fixture
def walk(pack: Callable[[str], Path]) -> np.ndarray:
    """A few frames of real motion, (N, T, K, 3) in a camera's frame."""
    opened = schemes.open_data(f"bvh:{pack('cmu_walk_bvh.tar.xz')}?train=07&test=08", root=".")
    source = opened.motions["train"]
    found = MotionSource(source=source, window=consecutive(4, rate=30.0))
    x, y, z = np.moveaxis(np.stack([found[i]["positions"] for i in range(0, len(found), 25)]), -1, 0)
    order = [source.skeleton.joints.index(joint) for joint in MPII.joints]
    return np.stack([x, -z, y], axis=-1)[:, :, order]


def test_real_motion_keeps_its_directions_and_gets_the_lengths(walk: np.ndarray) -> None:
    assert len(walk) > 10
    fitted = np.asarray(local_frames.fitted(jnp.asarray(walk), MPII))
    bones, before = (p[:, :, 1:] - p[:, :, MPII.parents[1:]] for p in (fitted, walk))
    lengths = np.linalg.norm(bones, axis=-1, keepdims=True)
    np.testing.assert_allclose(lengths[..., 0] / np.array(MPII.lengths[1:]), 1, atol=1e-4)
    np.testing.assert_allclose(bones / lengths, before / np.linalg.norm(before, axis=-1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(local_frames.fitted(jnp.asarray(fitted), MPII), fitted, atol=1e-5)
    # Grown-ups of CMU are about as large.
    assert np.median(np.linalg.norm(fitted - walk, axis=-1)) < 0.1


def test_what_data_sets_lack_lies_where_the_body_points_to() -> None:
    """Necks, heads and ends of limbs; of all else nothing is invented, and nothing that is there is moved."""
    body = poses(FULL, 64).astype(np.float32)
    at = {joint: i for i, joint in enumerate(FULL.joints)}
    completed = jax.jit(local_frames.completed, static_argnums=1)
    np.testing.assert_array_equal(completed(jnp.asarray(body), FULL), body)
    for missing, expected in {
        ("head_top",): {"head_top": 2 * body[:, at["neck"]] - body[:, at["thorax"]]},
        ("neck",): {"neck": (body[:, at["thorax"]] + body[:, at["head_top"]]) / 2},
        ("neck", "head_top"): {"neck": 1.2 * body[:, at["thorax"]], "head_top": 1.4 * body[:, at["thorax"]]},
        ("left_foot",): {"left_foot": 2 * body[:, at["left_ankle"]] - body[:, at["left_knee"]]},
        ("left_knee",): {"left_knee": np.full((64, 3), np.nan)},
    }.items():
        holed = body.copy()
        holed[:, [at[joint] for joint in missing]] = np.nan
        found = np.asarray(completed(jnp.asarray(holed), FULL))
        wanted = body.copy()
        for joint, places in expected.items():
            wanted[:, at[joint]] = places
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_hangs_on_the_torso_does_not_depend_on_the_camera() -> None:
    turn = Rotation.from_euler("xyz", [20, 130, -60], degrees=True).as_matrix()
    pose = poses(FULL)[:64]
    one, other = (np.asarray(to_local(jnp.asarray(p, jnp.float32), FULL)) for p in (pose, pose @ turn.T))
    torso = np.array([joint == "thorax" or joint.endswith(("hip", "shoulder")) for joint in FULL.joints[1:]])
    np.testing.assert_allclose(one[:, ~torso], other[:, ~torso], atol=1e-4)
    np.testing.assert_allclose(one[:, torso] @ turn.T, other[:, torso], atol=1e-5)


@TREES
def test_mirrored_is_what_a_mirrored_image_shows(tree: BodyTree) -> None:
    pose = jnp.asarray(poses(tree), jnp.float32)
    flipped = local_frames.mirrored(pose, tree)
    np.testing.assert_array_equal(local_frames.mirrored(flipped, tree), pose)
    centre, focal = 64.0, 200.0
    camera = jnp.broadcast_to(jnp.asarray([[focal, 0, centre], [0, focal, 80], [0, 0, 1]]), (len(pose), 3, 3))
    away = jnp.asarray([[[0.0, 0.0, 4.0]]])
    image, mirror = (np.asarray(lifting.project(p + away, camera)) for p in (pose, flipped))
    for joint, name in enumerate(tree.joints):
        opposite = name.replace("left", "R").replace("right", "left").replace("R", "right")
        expected = image[:, tree.joints.index(opposite)] * [-1, 1] + [2 * centre, 0]
        np.testing.assert_allclose(mirror[:, joint], expected, atol=1e-3)


@TREES
def test_directions_of_a_mirrored_body_are_mirrored(tree: BodyTree) -> None:
    pose = jnp.asarray(poses(tree), jnp.float32)
    flipped = np.asarray(to_local(local_frames.mirrored(pose, tree), tree))
    expected = np.asarray(to_local(pose, tree))[:, tree.flip_permutation[1:] - 1] * [-1, 1, 1]
    plain = determined(expected, tree)
    np.testing.assert_allclose(flipped[plain], expected[plain], atol=1e-5)


def edge_cases() -> dict[str, np.ndarray]:
    spread_out = spread(FULL)
    at_rest, at = np.array(list(spread_out.values())), {joint: i for i, joint in enumerate(FULL.joints)}
    cases = {"all joints at one place": np.zeros_like(at_rest), "straight limbs": at_rest}
    folded = at_rest.copy()  # thighs up, arms across: opposite to rest
    folded[at["left_knee"]] = folded[at["left_hip"]] - [0, 0.105 * 4.2, 0]
    folded[at["left_elbow"]] = folded[at["left_shoulder"]] - [0.105 * 2.8, 0, 0]
    folded[at["left_ankle"]] = folded[at["left_hip"]]
    cases["limbs that fold back"] = folded
    along = at_rest.copy()
    along[at["left_shoulder"]] = along[at["thorax"]] - [0, 0.1, 0]
    along[at["right_shoulder"]] = along[at["thorax"]] + [0, 0.1, 0]
    cases["shoulders along the spine"] = along
    one = at_rest.copy()
    one[at["right_hip"]] = one[at["left_hip"]]
    one[at["right_wrist"]] = one[at["right_elbow"]]
    cases["coincident hips"] = one
    return cases


@pytest.mark.parametrize("name", edge_cases())
def test_gradients_are_finite_and_directions_are_of_length_one(name: str) -> None:
    weight = jax.random.normal(jax.random.key(1), (len(FULL.joints), 3))
    pose = jnp.asarray(edge_cases()[name], jnp.float32)
    local, back = jax.vjp(lambda x: to_local(x, FULL), pose)
    np.testing.assert_allclose(jnp.linalg.norm(local, axis=-1), 1, atol=1e-5)
    assert bool(jnp.isfinite(back(weight[1:])[0]).all())
    found, back = jax.vjp(lambda x: to_global(x, FULL), local)
    assert bool(jnp.isfinite(back(weight)[0]).all())
    assert bool(jnp.isfinite(jax.grad(lambda x: jnp.sum(to_global(x, FULL) * weight))(jnp.zeros_like(local))).all())
    bones, before = (np.asarray(p[1:] - p[np.array(FULL.parents[1:])]) for p in (found, pose))
    np.testing.assert_allclose(np.linalg.norm(bones, axis=-1), FULL.lengths[1:], atol=1e-5)
    lengths = np.linalg.norm(before, axis=-1, keepdims=True)
    directions = bones / np.array(FULL.lengths[1:])[:, None] * (lengths > 0)
    np.testing.assert_allclose(directions, before / np.maximum(lengths, 1e-9), atol=1e-5)


def test_any_batch_axes() -> None:
    pose = jnp.asarray(poses(MPII)[:6], jnp.float32)
    local = to_local(pose, MPII)
    for shape in ((2, 3), (1, 6, 1)):
        folded = pose.reshape(*shape, *pose.shape[1:])
        found = to_local(folded, MPII)
        np.testing.assert_allclose(found.reshape(local.shape), local, atol=1e-6)
        np.testing.assert_allclose(to_global(found, MPII), folded, atol=1e-5)
        np.testing.assert_array_equal(
            local_frames.mirrored(folded, MPII).reshape(pose.shape), local_frames.mirrored(pose, MPII)
        )
    np.testing.assert_allclose(to_local(pose[0], MPII), local[0], atol=1e-6)
