"""The correction of hands, against hands that SciPy's rotations bend and angles that are measured on points."""

import functools

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxpose import limits
from jaxpose.data.joints.skeletons import HAND21
from jaxpose.ops import kinematics, trees

COUNT = 4096
LENGTHS = hands.bounds(0)
RELEASED = np.zeros((5, 2))
NEUTRAL = np.array([[-20.0, -60.0], [-10.0, 0.0], [0.0, 5.0], [5.0, 0.0], [12.0, -5.0]])
ANY = (180.0, 180.0, 180.0)

compiled = jax.jit(functools.partial(kinematics.corrected_hand, limits=kinematics.Limits(plane=0.0)))
measured_angles = jax.jit(kinematics.angles)


def corrected(poses: np.ndarray, neutral: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
    """In one call of one shape."""
    found = compiled(
        jnp.asarray(poses, jnp.float32),
        palm=jnp.asarray(hands.PALM, jnp.float32),
        lengths=jnp.asarray(LENGTHS, jnp.float32),
        mirrored=jnp.asarray(np.zeros(COUNT, bool) if mirrored is None else mirrored),
        neutral=jnp.asarray(neutral, jnp.float32),
    )
    return np.asarray(found, np.float64)


def wild(seed: int) -> np.ndarray:
    """Any points at all, and possible hands whose joints were moved."""
    rng = np.random.default_rng(seed)
    bends = hands.bends(seed, COUNT, lengths=LENGTHS, neutral=RELEASED)
    near = hands.posed(seed, bends) + rng.uniform(0, 0.2, (COUNT, 1, 1)) * rng.normal(size=(COUNT, 21, 3))
    return np.where(rng.uniform(size=(COUNT, 1, 1)) < 0.5, rng.normal(size=(COUNT, 21, 3)), near)


def between(a: np.ndarray, b: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The angle from a to b about an axis, in degrees."""
    return np.degrees(np.arctan2(np.sum(np.cross(a, b) * axis, axis=-1), np.sum(a * b, axis=-1)))


def without(vectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
    return vectors - np.sum(vectors * axis, axis=-1, keepdims=True) * axis


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("neutral", [RELEASED, NEUTRAL], ids=["released", "neutral"])
def test_corrected_hands_obey_every_limit(neutral: np.ndarray) -> None:
    """To 0.1 degrees where a joint's angle hardly depends on its place, and 1e-5 of a length."""
    poses = wild(0)
    found = corrected(poses, neutral)
    np.testing.assert_array_equal(found[:, 0], np.float32(poses[:, 0]))
    palms = found[:, [0, 1, 5, 9, 13, 17]]
    bounds = LENGTHS.reshape(5, 4, 2)[:, 1:]
    apart = np.linalg.norm(palms[:, :, None] - palms[:, None], axis=-1)
    expected = np.linalg.norm(hands.PALM[:, None] - hands.PALM[None], axis=-1)
    np.testing.assert_allclose(apart, np.broadcast_to(expected, apart.shape), atol=1e-5)
    assert np.all(
        np.linalg.det(palms[:, [1, 2, 5]] - palms[:, :1]) * np.linalg.det(hands.PALM[[1, 2, 5]] - hands.PALM[0]) > 0
    )
    bent = 0
    for finger in range(5):
        along, normal, lateral = np.moveaxis(hands.knuckle_axes(palms, finger), 1, 0)
        chain = found[:, 1 + 4 * finger : 5 + 4 * finger]
        bones = np.diff(chain, axis=1)
        lengths = np.linalg.norm(bones, axis=-1)
        assert np.all(lengths > bounds[finger, :, 0] - 1e-5)
        assert np.all(lengths < bounds[finger, :, 1] + 1e-5)
        bones = unit(bones)
        abduction = np.degrees(np.arcsin(np.sum(bones[:, 0] * lateral, axis=-1)))
        assert np.max(np.abs(abduction - neutral[finger, 0])) < hands.ABDUCTION + 0.1
        knuckle = between(along, without(bones[:, 0], lateral), np.cross(along, normal))
        side = unit(without(lateral, bones[:, 0]))
        rest = Rotation.from_rotvec(np.radians(neutral[finger, 1]) * bones[:, 0]).apply(side)
        cosines = np.sum(bones[:, 1:] * bones[:, :-1], axis=-1)
        straight = np.all(cosines > 0.95, axis=-1)
        # Of a finger's plane, the direction that four points leave out.
        centred = chain - chain.mean(axis=1, keepdims=True)
        _, spread, axes = np.linalg.svd(centred)
        assert np.max(spread[~straight, 2]) < 1e-5
        hinge = axes[:, 2] * np.sign(np.sum(axes[:, 2] * rest, axis=-1, keepdims=True))
        twist = between(rest, unit(without(hinge, bones[:, 0])), bones[:, 0])
        assert np.max(np.abs(twist[~straight])) < hands.TWIST + 0.1
        hinge = np.where(straight[:, None], rest, hinge)
        flat = without(bones, hinge[:, None])
        flexion = np.stack([knuckle, *(between(flat[:, i], flat[:, i + 1], hinge) for i in (0, 1))], axis=-1)
        assert np.all(flexion < hands.FLEXION + 0.1)
        assert np.all(flexion > -hands.EXTENSION - 0.1)
        bent += np.sum(~straight)
    assert bent > COUNT


@pytest.mark.parametrize("neutral", [RELEASED, NEUTRAL], ids=["released", "neutral"])
def test_possible_hands_stay(neutral: np.ndarray) -> None:
    poses = hands.posed(1, hands.bends(1, COUNT, lengths=LENGTHS, neutral=neutral))
    np.testing.assert_allclose(corrected(poses, neutral), poses, atol=1e-5)


def test_angles_and_lengths_beyond_their_limits_become_the_limits() -> None:
    bends = hands.bends(2, COUNT, lengths=LENGTHS, neutral=NEUTRAL, excess=1.9)
    expected = hands.posed(3, hands.clipped(bends, lengths=LENGTHS, neutral=NEUTRAL))
    np.testing.assert_allclose(corrected(hands.posed(3, bends), NEUTRAL), expected, atol=2e-5)


def test_a_second_correction_changes_nothing() -> None:
    once = corrected(wild(4), RELEASED)
    np.testing.assert_allclose(corrected(once, RELEASED), once, atol=1e-4)


def test_left_hands_are_the_mirror_of_right_ones() -> None:
    poses, left = wild(5), np.arange(COUNT) % 2 == 0
    given = np.where(left[:, None, None], poses * [-1, 1, 1], poses)
    found = corrected(given, RELEASED, left)
    np.testing.assert_array_equal(np.where(left[:, None, None], found * [-1, 1, 1], found), corrected(poses, RELEASED))
    assert np.mean(np.abs(corrected(given, RELEASED) - found)) > 0.01


def test_turned_and_moved_hands_are_corrected_alike() -> None:
    rng = np.random.default_rng(6)
    bends = hands.bends(6, COUNT, lengths=LENGTHS, neutral=RELEASED, excess=1.5)
    poses = hands.posed(6, bends) + 0.03 * rng.normal(size=(COUNT, 21, 3))
    turns, moves = Rotation.random(COUNT, rng=rng).as_matrix(), rng.normal(size=(COUNT, 1, 3))

    def moved(x: np.ndarray) -> np.ndarray:
        return np.einsum("bxy,bky->bkx", turns, x) + moves

    error = np.abs(corrected(moved(poses), RELEASED) - moved(corrected(poses, RELEASED))).max(axis=(1, 2))
    # A finger that is bent to either side as well is decided by the last digit.
    assert np.mean(error < 5e-5) > 0.999


def test_slacks_leave_joints_as_far_from_palm_and_plane_as_they_say() -> None:
    rng = np.random.default_rng(7)
    bends = hands.bends(7, 64, lengths=LENGTHS, neutral=RELEASED)
    poses = hands.posed(7, bends) + 0.05 * rng.normal(size=(64, 21, 3))
    allowed = kinematics.Limits(flexion=ANY, extension=ANY, abduction=90.0, twist=90.0, palm=0.05, plane=0.03)
    options = {
        "palm": jnp.asarray(hands.PALM, jnp.float32),
        "lengths": jnp.tile(jnp.asarray([0.0, jnp.inf]), (20, 1)),
        "mirrored": jnp.zeros(64, bool),
    }
    loose = jax.jit(functools.partial(kinematics.corrected_hand, limits=allowed, **options))
    found = loose(jnp.asarray(poses, jnp.float32))
    expected, far, out = poses.copy(), 0, 0
    for pose in expected:
        template = hands.PALM[1:] - hands.PALM[0]
        knuckles = pose[1::4] - pose[0]
        turned = Rotation.align_vectors(knuckles, template)[0].apply(template)
        distance = np.linalg.norm(knuckles - turned, axis=-1, keepdims=True)
        far += np.sum(distance > allowed.palm)
        pose[1::4] = pose[0] + turned + (knuckles - turned) * np.minimum(1, allowed.palm / distance)
        for first in range(1, 21, 4):
            chain = pose[first : first + 4]
            bones = unit(np.diff(chain, axis=0))
            if np.all(np.sum(bones[1:] * bones[:-1], axis=-1) > 0.95):
                continue
            beside = without(chain[2:] - chain[0], bones[:1])
            normal = np.cross(bones[0], np.linalg.svd(beside)[2][0])
            offset = beside @ normal
            out += np.sum(np.abs(offset) > allowed.plane)
            chain[2:] += (np.clip(offset, -allowed.plane, allowed.plane) - offset)[:, None] * normal
    assert far > 64
    assert out > 64
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # What was moved to a border shows another palm and plane, but hardly.
    assert np.mean(np.abs(loose(found) - found)) < 0.05 * np.mean(np.abs(np.asarray(found) - poses))


def test_measured_angles_are_those_by_which_a_hand_was_bent() -> None:
    """Of right and left hands."""
    bends = hands.bends(8, COUNT, lengths=LENGTHS, neutral=RELEASED, excess=1.5)
    poses, left = hands.posed(8, bends), np.arange(COUNT) % 2 == 0
    poses = np.where(left[:, None, None], poses * [-1, 1, 1], poses)
    found = measured_angles(jnp.asarray(poses, jnp.float32), mirrored=jnp.asarray(left))
    np.testing.assert_allclose(found.abduction, bends.abduction, atol=0.02)
    np.testing.assert_allclose(found.twist, bends.twist, atol=0.02)
    np.testing.assert_allclose(found.flexion, bends.flexion, atol=0.02)
    assert not np.any(found.straight)
    flat = bends._replace(flexion=bends.flexion * [1.0, 0.1, 0.1])
    found = measured_angles(jnp.asarray(hands.posed(8, flat), jnp.float32), mirrored=jnp.zeros(COUNT, bool))
    expected = np.all(np.abs(flat.flexion[..., 1:]) < np.degrees(np.arccos(0.95)), axis=-1)
    assert np.mean(expected == np.asarray(found.straight)) > 0.999
    assert np.all(np.asarray(found.twist)[np.asarray(found.straight)] == 0)


def strange() -> np.ndarray:
    """Hands of which something has no direction, and one that is possible, first."""
    straight = hands.bends(9, 1, lengths=LENGTHS, neutral=RELEASED)
    possible = hands.posed(9, straight)[0]
    straight = hands.posed(9, straight._replace(flexion=np.zeros((1, 5, 3))))[0]
    folded = straight.copy()
    folded[3::4], folded[4::4] = folded[1::4], folded[2::4]
    backwards = straight.copy()
    backwards[2::4] = 2 * straight[1::4] - straight[2::4]
    palm = possible.copy()
    palm[[1, 5, 9, 13, 17]] = palm[5]
    line = np.linspace(0, 1, 21)[:, None] * np.ones(3)
    coincident = possible.copy()
    coincident[3::4] = coincident[2::4]
    knuckles = possible.copy()
    knuckles[2::4] = knuckles[1::4]
    fists = possible.copy()
    fists[1:] = fists[0]
    return np.array([possible, straight, folded, backwards, palm, line, coincident, knuckles, fists, np.zeros((21, 3))])


@pytest.mark.parametrize("palm", [0.0, 5.0], ids=["template", "as it is"])
def test_gradients_are_finite_where_joints_coincide(palm: float) -> None:
    poses = jnp.asarray(strange(), jnp.float32)
    weight = jax.random.normal(jax.random.key(0), poses.shape)
    options = {
        "palm": jnp.asarray(hands.PALM, jnp.float32),
        "lengths": jnp.asarray(LENGTHS, jnp.float32),
        "mirrored": jnp.zeros(len(poses), bool),
        "limits": kinematics.Limits(palm=palm),
    }

    @jax.jit
    def slopes(poses: jax.Array) -> tuple[jax.Array, jax.Array]:
        found, back = jax.vjp(lambda x: kinematics.corrected_hand(x, **options), poses)
        return found, back(weight)[0]

    found, slope = slopes(poses)
    assert bool(jnp.isfinite(found).all())
    assert bool(jnp.isfinite(slope).all())
    # A possible hand stays wherever it is put, but for knuckles that follow the template.
    free = np.ones(21, bool) if palm else ~np.isin(np.arange(21), (0, 1, 5, 9, 13, 17))
    np.testing.assert_allclose(slope[0, free], weight[0, free], atol=1e-4)
    if not palm:
        bones = np.diff(np.asarray(found)[:, 1:].reshape(-1, 5, 4, 3), axis=2)
        lengths, bounds = np.linalg.norm(bones, axis=-1), LENGTHS.reshape(5, 4, 2)[:, 1:]
        assert np.all((lengths > bounds[..., 0] - 1e-4) & (lengths < bounds[..., 1] + 1e-4))


@pytest.mark.parametrize("kind", ["turned", "reflected", "flat", "noise"])
def test_rotations_are_those_of_scipy(kind: str) -> None:
    rng = np.random.default_rng(10)
    points = rng.normal(size=(64, 5, 3)) * ([1, 1, 0] if kind == "flat" else [1, 1, 1])
    turned = np.einsum("bxy,bky->bkx", Rotation.random(64, rng=rng).as_matrix(), points)
    targets = rng.normal(size=points.shape) if kind == "noise" else turned + 0.1 * rng.normal(size=points.shape)
    if kind == "reflected":
        targets = targets * [-1, 1, 1]
    found = np.asarray(kinematics.rotation(jnp.asarray(points, jnp.float32), jnp.asarray(targets, jnp.float32)))
    expected = [Rotation.align_vectors(t, p)[0].as_matrix() for p, t in zip(points, targets, strict=True)]
    np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=2e-3 if kind in ("noise", "reflected") else 1e-5)


def test_hands_are_in_the_order_of_their_skeleton() -> None:
    """Wrist, then fingers, thumb first and each next to the one before, from base to tip."""
    assert HAND21.joints[0] == "wrist"
    fingers = [[joint.split("_") for joint in HAND21.joints[i : i + 4]] for i in range(1, 21, 4)]
    names = ["thumb", "index", "middle", "ring", "little"]
    assert [{name for name, _ in finger} for finger in fingers] == [{name} for name in names]
    assert [[joint for _, joint in finger] for finger in fingers[1:]] == 4 * [["mcp", "pip", "dip", "tip"]]
    assert [joint for _, joint in fingers[0]] == ["cmc", "mcp", "ip", "tip"]
    # So are the bounds of the bones.
    np.testing.assert_array_equal(trees.tree(HAND21.joints, HAND21.bones)[:, 1], np.arange(1, 21))


@pytest.mark.parametrize("wrong", [{"abduction": 91.0}, {"flexion": (90.0, 181.0, 0.0)}, {"plane": -0.1}])
def test_impossible_limits_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=rf"hand\.{next(iter(wrong))}: found .*, expected"):
        limits.check(kinematics.Limits(**wrong), "hand")
