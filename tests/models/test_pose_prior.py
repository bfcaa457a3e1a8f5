"""The pose prior's networks beside their description in NumPy, and against the tree that they are made for."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxpose.data.joints.skeletons import MPII16
from jaxpose.models import functional, pose_prior
from jaxpose.ops import local_frames

FULL = local_frames.body_tree((*MPII16.joints, "left_foot", "right_foot"))
MPII = local_frames.body_tree(MPII16.joints)
SMALL = local_frames.body_tree([joint for joint in MPII16.joints if joint not in ("neck", "head_top")])
TREES = pytest.mark.parametrize("tree", [FULL, MPII, SMALL], ids=["full", "mpii", "no head"])
LATENT, WIDTH = 5, 1 / 16
SIDES = ("right", "left")


def tiny(kind: Any, **options: Any) -> functional.Network:
    return functional.network(functools.partial(kind, width=WIDTH, **options))


@functools.cache
def encoder(tree: local_frames.BodyTree, bound: float = 1.0) -> functional.Network:
    return tiny(pose_prior.PoseEncoder, tree=tree, latent=LATENT, bound=bound)


@functools.cache
def decoder(tree: local_frames.BodyTree) -> functional.Network:
    return tiny(pose_prior.PoseDecoder, tree=tree, latent=LATENT)


@functools.cache
def critic(tree: local_frames.BodyTree) -> functional.Network:
    return tiny(pose_prior.PoseCritic, tree=tree)


@functools.cache
def directions(tree: local_frames.BodyTree, count: int = 6) -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(count, len(tree.joints) - 1, 3))
    return (found / np.linalg.norm(found, axis=-1, keepdims=True)).astype(np.float32)


@functools.cache
def filled(network: functional.Network) -> Any:
    """Parameters none of which is 0."""
    rng = np.random.default_rng(1)
    shapes, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert stats == {}
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) / np.sqrt(s.shape[0]), jnp.float32), shapes)


def applied(network: functional.Network, x: Any) -> jax.Array:
    return jax.jit(functools.partial(network.apply, train=True))(filled(network), {}, jnp.asarray(x))[0]


def dense(made: Any, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(made["kernel"], np.float64) + np.asarray(made["bias"])


def leaky(made: Any, x: np.ndarray) -> np.ndarray:
    y = dense(made, x)
    return np.where(y > 0, y, 0.2 * y)


def parts_of(tree: local_frames.BodyTree) -> dict[str, list[int]]:
    """Rows of the directions, without the joints that the tree has not."""
    names = {"trunk": ["thorax", "neck", "head_top"]}
    for side in SIDES:
        names[f"{side}_arm"] = ["thorax", f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"]
        names[f"{side}_leg"] = [f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "foot")]
    return {part: [tree.joints.index(j) - 1 for j in found if j in tree.joints] for part, found in names.items()}


@TREES
def test_encoding_puts_limbs_together(tree: local_frames.BodyTree) -> None:
    params, x = filled(encoder(tree, 2.0)), directions(tree).astype(np.float64)
    parts = {p: leaky(params["parts"][p], x[:, rows].reshape(len(x), -1)) for p, rows in parts_of(tree).items()}
    limbs = {
        limb: leaky(params["limbs"][limb], np.concatenate([parts["trunk"], parts[limb]], axis=-1))
        for limb in ("right_arm", "left_arm", "right_leg", "left_leg")
    }
    halves = [
        leaky(params[half], np.concatenate([limbs[f"{side}_{limb}"] for side in SIDES], axis=-1))
        for half, limb in (("upper", "arm"), ("lower", "leg"))
    ]
    full = leaky(params["full2"], leaky(params["full1"], np.concatenate(halves, axis=-1)))
    expected = 2 * np.tanh(dense(params["latent"], full) / 2)
    found = applied(encoder(tree, 2.0), directions(tree))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@TREES
def test_decoding_takes_them_apart(tree: local_frames.BodyTree) -> None:
    z = np.random.default_rng(2).uniform(-1, 1, (6, LATENT))
    params, size = filled(decoder(tree)), 2
    full = leaky(params["full3"], leaky(params["full2"], leaky(params["full1"], z)))
    expected = np.zeros((6, len(tree.joints) - 1, 3))
    trunk = np.zeros((6, size))
    own = {}
    for half, (name, limb) in enumerate((("upper", "arm"), ("lower", "leg"))):
        both = leaky(params[name], full[:, 8 * size * half : 8 * size * (half + 1)])
        for second, side in enumerate(SIDES):
            piece = both[:, 2 * size * second : 2 * size * (second + 1)]
            piece = leaky(params["limbs"][f"{side}_{limb}"], piece)
            trunk += piece[:, :size]
            own[f"{side}_{limb}"] = piece[:, size:]
    for part, features in {"trunk": trunk, **own}.items():
        vectors = dense(params["bones"][part], leaky(params["parts"][part], features))
        for row, vector in zip(parts_of(tree)[part], np.split(vectors, vectors.shape[-1] // 3, axis=-1), strict=True):
            expected[:, row] += vector
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(applied(decoder(tree), z.astype(np.float32)), expected, atol=2e-5)


@TREES
def test_the_critic_looks_at_bones_parts_and_the_body(tree: local_frames.BodyTree) -> None:
    params, x = filled(critic(tree)), directions(tree).astype(np.float64)
    features = leaky(params["bone2"], leaky(params["bone1"], x))
    bones = [
        features[:, e] @ np.asarray(params["bones"]["kernel"])[:, e] + np.asarray(params["bones"]["bias"])[e]
        for e in range(x.shape[1])
    ]
    rows = parts_of(tree)
    parts = [
        dense(params["parts2"][p], leaky(params["parts1"][p], features[:, rows[p]].reshape(len(x), -1)))[:, 0]
        for p in ("trunk", "right_arm", "left_arm", "right_leg", "left_leg")
    ]
    full = leaky(params["full2"], leaky(params["full1"], features.reshape(len(x), -1)))
    expected = np.stack([*bones, *parts, dense(params["full3"], full)[:, 0]], axis=-1)
    np.testing.assert_allclose(applied(critic(tree), directions(tree)), expected, atol=2e-5)


def test_logits_of_bones_parts_and_the_body_count_a_third_each() -> None:
    bones = len(FULL.joints) - 1
    weights = pose_prior.logit_weights(FULL)
    assert weights.shape == applied(critic(FULL), directions(FULL)).shape[1:]
    np.testing.assert_allclose(weights, [1 / (3 * bones)] * bones + [1 / 15] * 5 + [1 / 3], rtol=1e-6)
    assert weights.sum() == pytest.approx(1)


def test_published_sizes() -> None:
    """Of the released layers, with 17 bones, and the second layer of the body."""

    def affine(*sizes: int) -> int:
        return sum((a + 1) * b for a, b in itertools.pairwise(sizes))

    limbs = affine(9, 32) + 4 * affine(12, 32)
    inner = 4 * affine(64, 64) + 2 * affine(128, 128)
    counts = {
        pose_prior.PoseEncoder: limbs + inner + affine(256, 512, 512, 32),
        pose_prior.PoseDecoder: affine(32, 512, 512, 512)
        + 2 * affine(256, 128)
        + 4 * affine(64, 64)
        + 5 * affine(32, 32)
        + affine(32, 9)
        + 4 * affine(32, 12),
        pose_prior.PoseCritic: affine(3, 32, 32)
        + 17 * 33
        + affine(3 * 32, 200, 1)
        + 4 * affine(4 * 32, 200, 1)
        + affine(17 * 32, 1024, 1024, 1),
    }
    for kind, expected in counts.items():
        assert naive.count(functional.network(functools.partial(kind, tree=FULL))) == expected, kind
    latent = functional.network(pose_prior.LatentCritic)
    assert naive.count(latent) == affine(32, 512, 512, 1)


def test_the_latent_critic_is_three_layers() -> None:
    network = tiny(pose_prior.LatentCritic, latent=LATENT)
    params, z = filled(network), np.random.default_rng(3).uniform(-1, 1, (4, 2, LATENT))
    expected = dense(params["layer3"], leaky(params["layer2"], leaky(params["layer1"], z)))[..., 0]
    np.testing.assert_allclose(applied(network, z.astype(np.float32)), expected, atol=1e-5)


@pytest.mark.parametrize("bound", [1.0, 10.0])
def test_latent_vectors_stay_within_the_bound_and_use_it(bound: float) -> None:
    params = jax.tree.map(lambda p: 30 * p, filled(encoder(MPII, bound)))
    z, _ = encoder(MPII, bound).apply(params, {}, jnp.asarray(directions(MPII)), train=False)
    assert 0.9 * bound < float(jnp.abs(z).max()) <= bound


def test_sequences_are_batches_of_frames() -> None:
    x = directions(MPII)
    sequences = x.reshape(2, 3, *x.shape[1:])
    for network in (encoder(MPII), critic(MPII)):
        np.testing.assert_allclose(
            applied(network, sequences).reshape(6, -1), np.asarray(applied(network, x)), atol=1e-6
        )
    z = applied(encoder(MPII), sequences)
    poses = applied(decoder(MPII), z)
    assert poses.shape == sequences.shape
    np.testing.assert_allclose(poses.reshape(x.shape), applied(decoder(MPII), z.reshape(6, -1)), atol=1e-6)


def test_every_parameter_has_a_gradient_and_an_undecided_decoder_a_finite_one() -> None:
    x = jnp.asarray(directions(MPII))

    def loss(encoding, decoding):
        z, _ = encoder(MPII).apply(encoding, {}, x, train=True)
        return jnp.sum(jnp.abs(decoder(MPII).apply(decoding, {}, z, train=True)[0] - x))

    slope = jax.jit(jax.grad(loss, argnums=(0, 1)))
    for leaf in jax.tree.leaves(slope(filled(encoder(MPII)), filled(decoder(MPII)))):
        assert np.isfinite(leaf).all()
        assert float(jnp.abs(leaf).max()) > 0
    nothing = jax.tree.map(jnp.zeros_like, filled(decoder(MPII)))
    for leaf in jax.tree.leaves(slope(filled(encoder(MPII)), nothing)):
        assert np.isfinite(leaf).all()


@TREES
def test_a_new_decoder_starts_near_the_body_at_rest(tree: local_frames.BodyTree) -> None:
    """No bone is opposite to where it may have to go, where the L1 distance has a minimum."""
    params, _ = decoder(tree).init(jax.random.key(0))
    z = jax.random.uniform(jax.random.key(1), (64, LATENT), minval=-1)
    found, _ = jax.jit(functools.partial(decoder(tree).apply, train=True))(params, {}, z)
    others = {"thorax": (0, -1, 0), "neck": (0, 1, 0), "head_top": (0, 1, 0)}
    others |= {f"{s}_{j}": (0, -1, 0) for s in SIDES for j in ("knee", "ankle")} | {
        f"{s}_foot": (0, 0, 1) for s in SIDES
    }
    arms_and_hips = {joint: (-1 if "right" in joint else 1, 0, 0) for joint in tree.joints[1:]}
    expected = np.array([(arms_and_hips | others)[joint] for joint in tree.joints[1:]])
    assert float(jnp.min(jnp.sum(found * jnp.asarray(expected, jnp.float32)[None], axis=-1))) > 0.8
    assert float(jnp.min(jnp.std(found, axis=0).max(axis=-1))) > 1e-4
