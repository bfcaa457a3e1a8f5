"""Relation distillation: what is frozen stays so, what is related moves, and what is learned from is what it says."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation
from tiny import BATCH, NONE, SIZE, Backbone, make_config

from jaxpose import limits
from jaxpose.data.generators import embedded
from jaxpose.data.joints.skeletons import MPII16, Skeleton
from jaxpose.data.motion.source import canonical_skeleton
from jaxpose.models import functional
from jaxpose.ops import augment, local_frames
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import pose_priors, regression, relation, relations
from jaxpose.recipes.stage import Stage, State, Task

FRAMES = 2
SMALL = pose_priors.Settings(
    latent=4, motion=3, units=3, width=1 / 16, frames=FRAMES, rate=None, poses=BATCH, motions=BATCH
)
SOURCE = relation.Source(priors=SMALL)
SETTINGS = relation.Relations(source=SOURCE, clips=BATCH, adapted=("conv1",))
TASK = Task(
    skeleton=MPII16,
    image_size=SIZE,
    augmentation=dataclasses.replace(NONE, brightness=0.5, contrast=0.5),
    skeletons={"source": MPII16, "target": MPII16, "motions": MPII16},
)
KEY = jax.random.key(3)
STEPS = {"poses": 4, "motions": 4, "relations": 6, "pretrain": 4, "adapt": 10}


@dataclasses.dataclass(kw_only=True)
class _Model:
    """Two convolutions, as `tiny.make_networks` has them."""

    target_statistics: bool = False
    weights: str | None = None

    def trunk(self, dtype: Any) -> functional.Trunk:
        return functional.Trunk(networks={"backbone": functional.network(Backbone)}, channels=(4, 4, 4, 6), width=5)


def config_of(method: Any) -> Any:
    config = make_config(method)
    optim = dataclasses.replace(config.optim, pretrain_rule="adam", drops=())
    return dataclasses.replace(config, model=_Model(), steps=STEPS, optim=optim)


def fields(name: str) -> dict[str, jax.Array]:
    rng = np.random.default_rng(len(name))
    recorded = embedded.motions("studio", "train", BATCH)[:BATCH]
    positions = np.stack([motion.positions[: 2 * FRAMES] for motion in recorded])
    span = 2 if "long" in name else 1
    found: dict[str, Any] = {"position": np.arange(BATCH)}
    if "motions" in name:
        found["positions"] = positions[:, : span * FRAMES]
    elif "clips" in name:
        found["image"] = rng.integers(0, 256, (BATCH, span * FRAMES, SIZE, SIZE, 3), np.uint8)
    else:
        found["image"] = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
        places = positions[:, 0] @ np.array(((1, 0, 0), (0, 0, 1), (0, -1, 0)), np.float32) + (0, 0, 3)
        found["keypoints3d"] = places.astype(np.float32)
    return {key: jnp.asarray(value) for key, value in found.items()}


@functools.cache
def stages() -> dict[str, Stage]:
    return {stage.name: stage for stage in SETTINGS.stages(TASK, config_of(SETTINGS))}


@functools.cache
def trained() -> dict[str, State]:
    """The first state of every stage, after those before it, of which nothing was learned."""
    state, found = None, {}
    for name, stage in stages().items():
        state = jax.jit(stage.init)(jax.random.fold_in(KEY, len(found)), state)
        found[name] = state
    return found


def updated(name: str, turn: int = 0) -> tuple[State, State, dict[str, jax.Array]]:
    """A state before and after one of a stage's updates, and its metrics."""
    update = stages()[name].updates[turn]
    batch = {word: fields(word) for word in update.reads}
    if name == "poses":
        batch = {"motions": {**batch["motions"], "positions": batch["motions"]["positions"][:, 0]}}
    before = trained()[name]
    with jax.numpy_dtype_promotion("standard"):  # as optax counts on
        after, metrics = jax.jit(update.step)(before, batch, KEY)
    return before, after, metrics


def changed(before: Any, after: Any) -> set[str]:
    """Networks, or parts of them, of which a parameter differs."""
    flat, other = (dict(jax.tree_util.tree_flatten_with_path(x)[0]) for x in (before, after))
    assert flat.keys() == other.keys()
    return {str(path[0].key) for path, x in flat.items() if not np.array_equal(x, other[path])}


def test_settings_are_valid() -> None:
    limits.check(SETTINGS, "config.method")
    limits.check(relation.published_settings(SOURCE), "config.method")


@pytest.mark.parametrize(
    ("name", "turn", "moved"),
    [
        ("poses", 0, {"pose_encoder", "pose_decoder", "pose_critic"}),
        ("motions", 0, {"motion_encoder", "motion_decoder"}),
        ("relations", 0, {"relation_flip"}),
        ("relations", 2, {"relation_slow_backward"}),
        ("pretrain", 0, {"backbone", "regressor"}),
    ],
)
def test_a_stage_changes_its_own_networks_alone(name: str, turn: int, moved: set[str]) -> None:
    before, after, metrics = updated(name, turn)
    assert changed(before.params, after.params) == moved
    assert all(jnp.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("turn", range(5), ids=["frames", "clips", "flip", "flip_backward", "slow_backward"])
def test_adapting_moves_one_part_of_the_backbone_by_an_optimizer_of_its_own(turn: int) -> None:
    """All else is the same to the last bit, running statistics included."""
    before, after, metrics = updated("adapt", turn)
    (energy,) = (name.removeprefix("loss/") for name in metrics if name.startswith("loss/"))
    assert changed(before.params["backbone"], after.params["backbone"]) == {"conv1"}
    own = {"frames": {"projection_frames"}, "clips": {"projection_clips"}}.get(energy, set())
    assert changed(before.params, after.params) == {"backbone"} | own
    assert changed(before.optimizers, after.optimizers) == {energy}
    assert not changed(before.stats, after.stats)
    assert metrics[f"gradient/{energy}"] > 0
    # The first step of Adam is the learning rate, in the direction of the gradient.
    rate = SETTINGS.contrastive_rate if own else SETTINGS.relation_rate
    step = np.abs(after.params["backbone"]["conv1"]["kernel"] - before.params["backbone"]["conv1"]["kernel"])
    assert np.max(step) == pytest.approx(rate, rel=0.02)


def networks() -> regression.PoseRegressor:
    return SOURCE.networks(TASK, config_of(SETTINGS))


def test_the_contrast_of_clips_is_its_formula() -> None:
    """Of anchors of all rows, negatives all other rows and their views; here from the codes on, in NumPy."""
    state, made = trained()["adapt"], relation._with_projections(networks())
    clips = fields("clips")
    value = relation.of_clips(made, TASK, 0.07, state.params, state.stats, KEY, clips)
    views = relation._recoloured(KEY, clips, TASK)
    assert not np.allclose(views[0], views[1], atol=0.1)
    projected = []
    for images in views:
        codes, _ = made.of_clips(state.params, state.stats, images)
        motion = made.priors.motion(state.params, codes)
        x = made.networks["projection_clips"].apply(state.params["projection_clips"], {}, motion, train=True)[0]
        projected.append(np.asarray(x, np.float64))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in projected)
    losses = []
    for i in range(BATCH):
        others = [a[i] @ a[j] for j in range(BATCH) if j != i] + [a[i] @ b[j] for j in range(BATCH)]
        losses.append(-a[i] @ b[i] / 0.07 + np.log(np.sum(np.exp(np.array(others) / 0.07))))
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-4)


@pytest.mark.parametrize("of", [relations.FLIP, relations.FLIP_BACKWARD, relations.SLOW_BACKWARD], ids=lambda x: x.name)
def test_a_relation_is_followed_from_the_codes_of_the_images(of: relations.Relation) -> None:
    """By hand: frames are cut and mirrored as images, one by one; the relation's network leads on from there."""
    state, made, task = trained()["adapt"], networks(), dataclasses.replace(TASK, augmentation=NONE)
    windows = fields("long_clips" if of.span == 2 else "clips")
    value = relation.of_relation(made, task, of, state.params, state.stats, KEY, windows)
    images = np.asarray(windows["image"], np.float32)
    images = np.asarray(augment.normalize(jnp.asarray(images.reshape(-1, SIZE, SIZE, 3)))).reshape(images.shape)
    first, second = {
        "flip": (images, images[:, :, :, ::-1]),
        "flip_backward": (images, images[:, ::-1, :, ::-1]),
        "slow_backward": (images[:, ::2], images[:, 1:3][:, ::-1]),
    }[of.name]
    ends = []
    for clip in (first, second):
        codes = [made(state.params, state.stats, jnp.asarray(clip[:, t]), train=False)[0] for t in range(FRAMES)]
        stacked = jnp.stack(codes, axis=1)
        ends.append(made.priors.motion(state.params, stacked) if of.of_motion else stacked)
    led = made.priors.related(state.params, of, ends[0])
    np.testing.assert_allclose(value, np.mean(np.abs(led - ends[1])), rtol=1e-4)


def test_recorded_bodies_are_seen_from_somewhere_around() -> None:
    """Bones keep their lengths, nobody is turned inside out, what is up is so in the image; rows are on their own."""
    priors = networks().priors
    level = dataclasses.replace(priors, settings=dataclasses.replace(SMALL, tilt=0.0))
    positions = fields("motions")["positions"]
    found = np.asarray(level.seen(KEY, positions, jnp.arange(BATCH)))
    draw = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(KEY, row), (3,)))
    mirrored = np.asarray(draw(jnp.arange(BATCH)))[:, 2] < 0.5
    assert set(mirrored) == {True, False}
    for row in range(BATCH):
        own = np.asarray(positions)[row][:, MPII16.indices(priors.tree.joints)]
        if mirrored[row]:
            own = own[:, priors.tree.flip_permutation] * (-1, 1, 1)
        np.testing.assert_allclose(-found[row][..., 1], own[..., 2], atol=1e-5)
        # One proper turn about the vertical axis explains all joints of all frames.
        flat, turned = own.reshape(-1, 3), found[row].reshape(-1, 3) @ np.array(((1, 0, 0), (0, 0, -1), (0, 1, 0)))
        turn, error = Rotation.align_vectors(turned, flat)
        assert error < 1e-3
        np.testing.assert_allclose(turn.as_matrix()[2], (0, 0, 1), atol=1e-4)
    again = level.seen(KEY, positions[2:], jnp.arange(2, BATCH))
    np.testing.assert_array_equal(again, found[2:])


def test_a_head_that_nobody_recorded_is_where_the_neck_points_to() -> None:
    bandai = canonical_skeleton("bandai", [joint for joint in MPII16.joints if joint != "head_top"])
    task = dataclasses.replace(TASK, skeletons={**TASK.skeletons, "motions": bandai})
    priors = pose_priors.build(task, SMALL, SOURCE.relations)
    whole = fields("motions")["positions"]
    found = priors.seen(KEY, whole[..., MPII16.indices(bandai.joints), :], jnp.arange(BATCH))
    thorax, neck, head = (found[..., priors.tree.joints.index(joint), :] for joint in ("thorax", "neck", "head_top"))
    np.testing.assert_allclose(head - neck, neck - thorax, atol=1e-6)


def test_non_localness_is_relative_to_other_bodies() -> None:
    """A relation that leads nowhere is at 0, and what it is divided by is the distance between rows."""
    priors, state = networks().priors, trained()["adapt"]
    points = priors.seen(KEY, fields("long_motions")["positions"], jnp.arange(BATCH))
    found = jax.jit(functools.partial(pose_priors.non_localness, priors))(state.params, points)
    assert set(found) == {f"non_localness/{of.name}" for of in relations.CANDIDATES} | {
        f"relation_error/{of.name}" for of in SOURCE.relations
    }
    codes = np.asarray(priors.code(state.params, points[:, :FRAMES]))
    mirrored = np.asarray(priors.code(state.params, local_frames.mirrored(points[:, :FRAMES], priors.tree)))
    unrelated = np.linalg.norm(codes - np.roll(codes, 1, axis=0), axis=-1).mean()
    expected = np.linalg.norm(codes - mirrored, axis=-1).mean(axis=1) / unrelated
    np.testing.assert_allclose(found["non_localness/flip"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["non_localness/turn"] < found["non_localness/flip"], True)


@pytest.mark.parametrize("prior", [pose_priors.aae, pose_priors.decoded], ids=["aae", "decoded"])
def test_the_critic_and_the_auto_encoder_do_not_train_each_other(prior: pose_priors.Prior) -> None:
    priors = pose_priors.build(TASK, dataclasses.replace(SMALL, prior=prior), SOURCE.relations)
    params, _ = priors.init(KEY, pose_priors.POSE)
    poses = local_frames.to_local(
        jnp.asarray(priors.seen(KEY, fields("motions")["positions"][:, 0], jnp.arange(BATCH))), priors.tree
    )

    def part(number: int, params: Any) -> jax.Array:
        codes = priors.apply("pose_encoder", params, poses)
        return prior.losses(priors, params, KEY, poses, codes)[number]

    outer, critic = jax.jit(lambda of: [jax.grad(functools.partial(part, number))(of) for number in (0, 1)])(params)
    assert optax.tree.norm(outer["pose_critic"]) == 0
    assert optax.tree.norm(outer["pose_encoder"]) > 0
    assert optax.tree.norm(critic["pose_critic"]) > 0
    assert optax.tree.norm([critic["pose_encoder"], critic["pose_decoder"]]) == 0


def test_labels_turn_with_their_images() -> None:
    """A joint is seen in the augmented image in the direction in which the augmented pose has it."""
    settings = Augmentation(rotation=60.0, mirror=0.5, translation=0.0, scale=(1.0, 1.0))
    drawn = augment.draw(KEY, jnp.arange(64), SIZE, settings)
    points = np.random.default_rng(0).normal(size=(64, 16, 3)).astype(np.float32)
    flat = (SIZE - 1) / 2 + 5 * points[..., :2]  # seen from very far
    moved = augment.poses_of(drawn, jnp.asarray(points), MPII16.flip_permutation)
    seen = augment.keypoints_of(drawn, jnp.asarray(flat), MPII16.flip_permutation)
    np.testing.assert_allclose((SIZE - 1) / 2 + 5 * moved[..., :2], seen, atol=1e-3)
    sides = np.where(np.asarray(drawn.mirrored)[:, None], points[:, MPII16.flip_permutation, 2], points[..., 2])
    np.testing.assert_array_equal(moved[..., 2], sides)


@pytest.mark.parametrize(
    ("skeletons", "skeleton", "expected"),
    [
        ({}, MPII16, "config.data.motions: found None, expected recorded motions"),
        ({"motions": MPII16}, Skeleton(name="two", joints=("a", "b")), "config.data: found joints a, b, expected also"),
        (
            {"motions": Skeleton(name="few", joints=("pelvis", "thorax"))},
            MPII16,
            "config.data.motions: found no joint neck",
        ),
        (
            {"motions": MPII16},
            Skeleton(name="more", joints=(*MPII16.joints, "nose")),
            "config.data: found joints nose, .*joints=mpii16",
        ),
    ],
)
def test_motions_and_images_that_do_not_fit_are_named(
    skeletons: dict[str, Skeleton], skeleton: Skeleton, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        pose_priors.build(dataclasses.replace(TASK, skeletons=skeletons, skeleton=skeleton), SMALL, SOURCE.relations)


def test_settings_that_leave_nothing_to_do_are_named() -> None:
    nothing = dataclasses.replace(SETTINGS, contrastive=False, related=())
    with pytest.raises(ValueError, match="found neither contrastive energies nor relations"):
        relation.adapt(nothing, TASK, config_of(nothing))
    other = dataclasses.replace(SETTINGS, adapted=("layer9",))
    stage = relation.adapt(other, TASK, config_of(other))
    with pytest.raises(ValueError, match=r"config\.method\.adapted: found 'layer9', expected some of bn1, bn2, conv1"):
        jax.eval_shape(stage.init, KEY, trained()["pretrain"])
    unknown = dataclasses.replace(SETTINGS, related=(relations.BACKWARD,))
    with pytest.raises(
        ValueError, match=r"config\.method\.related: found backward, expected some of flip, flip_backward"
    ):
        relation.adapt(unknown, TASK, config_of(unknown))
