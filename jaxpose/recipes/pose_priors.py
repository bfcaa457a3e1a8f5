"""What poses and motions are like, learned from recorded motions without a single image.

An auto-encoder of poses and one of motions: what adapts to a target is kept on what they can decode. Networks besides
learn how each relation (`relations`) moves the codes; all of them are frozen when images come.

Source: Kundu et al. 2021, arXiv:2204.01971, Sec. 3.1-3.2, and the released code.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxpose.data.host.windows import Window, consecutive
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, POSITIVE, limited
from jaxpose.metrics.metric import Predictions
from jaxpose.metrics.scalars import Means
from jaxpose.models import functional, motion_prior, pose_prior
from jaxpose.models import relations as relation_networks
from jaxpose.ops import bones, local_frames
from jaxpose.ops.local_frames import BodyTree
from jaxpose.recipes import optimizers
from jaxpose.recipes.relations import CANDIDATES, Relation
from jaxpose.recipes.stage import (
    Batch,
    Evaluation,
    Metrics,
    Pictures,
    Read,
    Stage,
    State,
    Task,
    Update,
    next_state,
)

Trees = dict[str, Any]

POSE_ENCODER, POSE_DECODER, POSE_CRITIC = POSE = ("pose_encoder", "pose_decoder", "pose_critic")
MOTION_ENCODER, MOTION_DECODER = MOTION = ("motion_encoder", "motion_decoder")
_WORD, _LONG = "motions", "long_motions"  # what a batch calls one motion, and two after one another


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior:
    """What keeps the codes of poses where decoding them gives poses.

    Attributes:
      critic: makes the network that tells what is learned from what is made: (tree, settings) -> a module.
      losses: (priors, parameters, key, local poses, their codes) -> what the auto-encoder minimises, and the critic.
    """

    critic: Callable[[BodyTree, "Settings"], functools.partial]
    losses: Callable[["Priors", Trees, Array, Array, Array], tuple[Array, Array]]


@dataclasses.dataclass(kw_only=True)
class Settings:
    """The priors' networks and how they are learned; the defaults suit thousands of steps.

    Attributes:
      prior: `aae`, the adversarial auto-encoder of the paper, or `decoded`, what the released code does instead.
      latent: numbers that are a pose.
      bound: codes lie between minus and plus this; the released code has 10.
      motion: numbers that are a motion.
      units: of the recurrent networks, in each direction.
      width: scales the hidden layers of all other networks; 1 is published.
      frames, rate: of a motion, T and how many per second; a rate of None takes the frames as they were recorded.
      tilt: degrees by which the camera looks up or down at most.
      adversary: weight of the critic's opinion, where reconstruction weighs 1.
      poses, motions: rows of a batch.
      learning_rate: of Adam for poses and motions, falling to 0 as a cosine.
      relation_rate: the same for relations.
    """

    prior: Prior = dataclasses.field(default_factory=lambda: aae)
    latent: int = limited(32, *AT_LEAST_1)
    bound: float = limited(1.0, *POSITIVE)
    motion: int = limited(128, *AT_LEAST_1)
    units: int = limited(128, *AT_LEAST_1)
    width: float = limited(1.0, *POSITIVE)
    frames: int = limited(30, *AT_LEAST_1)
    rate: float | None = 30.0
    tilt: float = limited(20.0, *AT_LEAST_0)
    adversary: float = limited(0.001, *AT_LEAST_0)
    poses: int = limited(256, *AT_LEAST_1)
    motions: int = limited(64, *AT_LEAST_1)
    learning_rate: float = limited(1e-3, *POSITIVE)
    relation_rate: float = limited(1e-3, *POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Priors:
    """The networks for a body, and what they make of poses (..., K, 3) before the camera, in metres.

    Attributes:
      tree: the body.
      joints: by domain, where its motions have the tree's joints (K,); -1: nowhere.
      settings: see `Settings`.
      relations: that have networks.
      networks: by name.
    """

    tree: BodyTree
    joints: Mapping[str, np.ndarray]
    settings: Settings
    relations: tuple[Relation, ...]
    networks: Mapping[str, functional.Network]

    def init(self, key: Array, names: tuple[str, ...]) -> tuple[Trees, Trees]:
        """Fresh parameters and statistics of the named networks."""
        return functional.init_networks(self.networks, key, names)

    def apply(self, name: str, params: Trees, x: Array) -> Array:
        """What a network makes of something."""
        return self.networks[name].apply(params[name], {}, x, train=True)[0]

    def code(self, params: Trees, poses: Array) -> Array:
        """Codes (..., latent) of poses."""
        return self.apply(POSE_ENCODER, params, local_frames.to_local(poses, self.tree))

    def poses(self, params: Trees, codes: Array) -> Array:
        """Poses that codes stand for, the pelvis at 0."""
        return local_frames.to_global(self.apply(POSE_DECODER, params, codes), self.tree)

    def motion(self, params: Trees, codes: Array) -> Array:
        """Codes (B, motion) of sequences of poses' codes (B, T, latent)."""
        return self.apply(MOTION_ENCODER, params, codes)

    def embedded(self, params: Trees, relation: Relation, codes: Array) -> Array:
        """What a relation is between: the codes (B, T, latent) as they are, or what they are as a motion."""
        return self.motion(params, codes) if relation.of_motion else codes

    def related(self, params: Trees, relation: Relation, embedded: Array) -> Array:
        """Where a relation leads to from there."""
        return self.apply(network_of(relation), params, embedded)

    def window(self, span: int = 1) -> Window:
        """Frames of `span` motions, one after the other."""
        return consecutive(span * self.settings.frames, rate=self.settings.rate)

    def seen(self, key: Array, positions: Array, rows: Array, *, domain: str = "motions") -> Array:
        """Recorded joints (B, [T,] J, 3), z up, as a camera somewhere around sees them (B, [T,] K, 3).

        A head's top that nobody recorded lies where the neck points to.

        Args:
          key: of the directions that rows are seen from, how far up or down cameras look, and who is mirrored.
          positions: relative to the pelvis of each frame.
          rows: places in the global batch (B,), which each row is drawn from.
          domain: whose joints they are.
        """
        draws = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), (3,)))(rows)
        azimuth, tilt = 2 * np.pi * draws[:, 0], np.deg2rad(self.settings.tilt) * (2 * draws[:, 1] - 1)
        zero, one = jnp.zeros_like(azimuth), jnp.ones_like(azimuth)

        def matrix(*entries: Array) -> Array:
            return jnp.stack(entries, axis=-1).reshape(-1, 3, 3)

        # World axes: x, y, z up; the camera's: right, down, forward.
        sin, cos = jnp.sin(azimuth), jnp.cos(azimuth)
        turned = matrix(cos, -sin, zero, zero, zero, -one, sin, cos, zero)
        sin, cos = jnp.sin(tilt), jnp.cos(tilt)
        rotation = jnp.matmul(matrix(one, zero, zero, zero, cos, -sin, zero, sin, cos), turned, precision="highest")
        joints = self.joints[domain]
        recorded = (joints >= 0).reshape((1,) * (positions.ndim - 2) + (-1, 1))
        points = jnp.where(recorded, positions[..., joints, :], jnp.nan)
        points = local_frames.completed(points, self.tree)
        flat = points.reshape(len(points), -1, 3)
        points = jnp.einsum("bij,bnj->bni", rotation, flat, precision="highest").reshape(points.shape)
        mirrored = (draws[:, 2] < 0.5).reshape(-1, *(1 for _ in points.shape[1:]))
        return jnp.where(mirrored, local_frames.mirrored(points, self.tree), points)


def build(task: Task, settings: Settings, relations: tuple[Relation, ...]) -> Priors:
    """The priors of a task that has recorded motions.

    Raises:
      ValueError: if there are none, or their joints are not those of the canonical body.
    """
    if "motions" not in task.skeletons:
        raise ValueError("config.data.motions: found None, expected recorded motions, which poses are learned from")
    try:
        tree = local_frames.body_tree(task.skeleton.joints)
    except ValueError as error:
        raise ValueError(f"config.data: {error} among those of source and target") from None
    if others := [joint for joint in task.skeleton.joints if joint not in tree.joints]:
        raise ValueError(
            f"config.data: found joints {', '.join(others)}, which are no part of the canonical body; expected them to "
            "be left out, as ?joints=mpii16 does"
        )
    joints = {}
    for domain in ("motions", "poses"):
        there = task.skeletons[domain].joints if domain in task.skeletons else tree.joints
        if missing := [joint for joint in tree.joints if joint not in (*there, "head_top")]:
            raise ValueError(f"config.data.{domain}: found no joint {', '.join(missing)}, expected those of the images")
        joints[domain] = np.array([there.index(joint) if joint in there else -1 for joint in tree.joints])
    width = settings.width
    sizes = {"latent": settings.latent, "bound": settings.bound, "width": width}
    recurrent = {"latent": settings.latent, "motion": settings.motion, "units": settings.units}
    made: dict[str, Callable[..., Any]] = {
        POSE_ENCODER: functools.partial(pose_prior.PoseEncoder, tree=tree, **sizes),
        POSE_DECODER: functools.partial(pose_prior.PoseDecoder, tree=tree, latent=settings.latent, width=width),
        POSE_CRITIC: settings.prior.critic(tree, settings),
        MOTION_ENCODER: functools.partial(motion_prior.MotionEncoder, bound=settings.bound, **recurrent),
        MOTION_DECODER: functools.partial(
            motion_prior.MotionDecoder, frames=settings.frames, bound=settings.bound, **recurrent
        ),
    }
    for relation in relations:
        size = settings.motion if relation.of_motion else settings.latent
        made[network_of(relation)] = functools.partial(
            relation_networks.RelationNetwork, inputs=size, outputs=size, bound=settings.bound, width=width
        )
    return Priors(
        tree=tree,
        joints=joints,
        settings=settings,
        relations=relations,
        networks={name: functional.network(module) for name, module in made.items()},
    )


def network_of(relation: Relation) -> str:
    """The name of the network that follows a relation."""
    return f"relation_{relation.name}"


def stages(priors: Priors, steps: Mapping[str, int]) -> tuple[Stage, ...]:
    """Poses, motions, and how relations move them."""
    return (
        of_poses(priors, steps["poses"]),
        of_motions(priors, steps["motions"]),
        of_relations(priors, steps["relations"]),
    )


def of_poses(priors: Priors, steps: int) -> Stage:
    """The auto-encoder of poses, and the critic of its prior."""
    settings = priors.settings
    read = Read(domain="motions", fields=("positions",), rows=settings.poses)

    def losses(params: Trees, key: Array, points: Array) -> tuple[Array, Metrics]:
        poses = local_frames.to_local(points, priors.tree)
        codes = priors.apply(POSE_ENCODER, params, poses)
        error = jnp.mean(jnp.abs(priors.poses(params, codes) - local_frames.to_global(poses, priors.tree)))
        outer, critic = settings.prior.losses(priors, params, key, poses, codes)
        metrics = {"loss/poses": error, "loss/prior": outer, "loss/critic": critic, "codes": jnp.std(codes)}
        return error + settings.adversary * outer + critic, metrics

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        view, prior = jax.random.split(key)
        points = priors.seen(view, batch[_WORD]["positions"], batch[_WORD]["position"])
        return _descended(state, lambda params: losses(params, prior, points), POSE, settings.learning_rate, steps)

    def find(state: State, points: Array) -> Predictions:
        wanted = local_frames.fitted(points, priors.tree)
        found = priors.poses(state.params, priors.code(state.params, points))
        return Predictions(scalars={"reconstruction/poses": _millimetres(found, wanted)})

    return Stage(
        name="poses",
        steps=steps,
        init=_init(priors, POSE, fresh=POSE),
        updates=(Update(reads={_WORD: read}, step=step),),
        evaluations=_evaluations(priors, find, None, "reconstruction"),
        pictures=Pictures(reads={_WORD: dataclasses.replace(read, rows=4)}, draw=functools.partial(_drawn, priors)),
    )


def of_motions(priors: Priors, steps: int) -> Stage:
    """The auto-encoder of sequences of codes; its loss is that of the poses they are decoded to."""
    settings, window = priors.settings, priors.window()
    read = Read(domain="motions", fields=("positions",), rows=settings.motions, window=window)

    def decoded(params: Trees, points: Array) -> tuple[Array, Array]:
        codes = jax.lax.stop_gradient(priors.code(params, points))
        again = priors.apply(MOTION_DECODER, params, priors.motion(params, codes))
        return priors.poses(params, again), local_frames.fitted(points, priors.tree)

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        view, backwards = jax.random.split(key)
        points = priors.seen(view, batch[_WORD]["positions"], batch[_WORD]["position"])
        coin = jax.random.bernoulli(backwards, 0.5, (len(points),))
        points = jnp.where(coin[:, None, None, None], points[:, ::-1], points)

        def loss(params: Trees) -> tuple[Array, Metrics]:
            found, wanted = decoded(params, points)
            value = jnp.mean(jnp.square(found - wanted))
            return value, {"loss/motions": value}

        return _descended(state, loss, MOTION, settings.learning_rate, steps)

    def find(state: State, points: Array) -> Predictions:
        found, wanted = decoded(state.params, points)
        return Predictions(scalars={"reconstruction/motions": _millimetres(found, wanted)})

    return Stage(
        name="motions",
        steps=steps,
        init=_init(priors, MOTION, fresh=MOTION),
        updates=(Update(reads={_WORD: read}, step=step),),
        evaluations=_evaluations(priors, find, window, "reconstruction"),
    )


def of_relations(priors: Priors, steps: int) -> Stage:
    """For each relation a network that says where it leads to, in turn; they are not trained on images again."""
    settings = priors.settings
    names = tuple(map(network_of, priors.relations))

    def step(relation: Relation, state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        fields = batch[_WORD if relation.span == 1 else _LONG]
        points = priors.seen(key, fields["positions"], fields["position"])
        first, second = _both(priors, state.params, relation, points)

        def loss(params: Trees) -> tuple[Array, Metrics]:
            value = jnp.mean(jnp.square(priors.related(params, relation, first) - second))
            return value, {f"loss/{relation.name}": value}

        return _descended(state, loss, (network_of(relation),), settings.relation_rate, steps)

    def find(state: State, points: Array) -> Predictions:
        return Predictions(scalars=_spread(non_localness(priors, state.params, points), points))

    def update(relation: Relation) -> Update:
        word = _WORD if relation.span == 1 else _LONG
        read = Read(domain="motions", fields=("positions",), rows=settings.motions, window=priors.window(relation.span))
        return Update(reads={word: read}, step=functools.partial(step, relation))

    return Stage(
        name="relations",
        steps=steps,
        init=_init(priors, names, fresh=names),
        updates=tuple(map(update, priors.relations)),
        evaluations=_evaluations(priors, find, priors.window(2), "non_localness", "relation_error"),
    )


def non_localness(priors: Priors, params: Trees, windows: Array) -> dict[str, Array]:
    """How far relations lead away, and how far from there the networks that follow them end, (B,) each.

    Relative to the distance between two rows that have nothing to do with each other, so that poses and motions can be
    compared. What leads far away says something that neighbours in the space of codes do not.

    Source: Sec. 3.2; d_r, there not relative to anything.
    """
    found = {}
    for relation in CANDIDATES:
        first, second = _both(priors, params, relation, windows)
        unrelated = _distance(first, jnp.roll(first, 1, axis=0)).mean()
        found[f"non_localness/{relation.name}"] = _distance(first, second) / unrelated
        if relation in priors.relations:
            led = priors.related(params, relation, first)
            found[f"relation_error/{relation.name}"] = _distance(led, second) / unrelated
    return found


def _aae_losses(priors: Priors, params: Trees, key: Array, poses: Array, codes: Array) -> tuple[Array, Array]:
    """Codes shall be spread like uniform ones: the critic is shown both."""
    del poses
    settings = priors.settings
    drawn = jax.random.uniform(key, codes.shape, minval=-settings.bound, maxval=settings.bound)
    fixed = params | {POSE_CRITIC: jax.lax.stop_gradient(params[POSE_CRITIC])}
    outer = jnp.mean(jax.nn.softplus(-priors.apply(POSE_CRITIC, fixed, codes)))
    real = priors.apply(POSE_CRITIC, params, drawn)
    made = priors.apply(POSE_CRITIC, params, jax.lax.stop_gradient(codes))
    return outer, jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(made))


def _decoded_losses(priors: Priors, params: Trees, key: Array, poses: Array, codes: Array) -> tuple[Array, Array]:
    """Uniform codes shall be decoded to poses, which the critic tells from recorded ones, and encoded to themselves."""
    settings = priors.settings
    drawn = jax.random.uniform(key, codes.shape, minval=-settings.bound, maxval=settings.bound)
    made = priors.apply(POSE_DECODER, params, drawn)
    again = priors.apply(POSE_ENCODER, params, made)
    fixed = params | {POSE_CRITIC: jax.lax.stop_gradient(params[POSE_CRITIC])}

    def opinion(of: Trees, shown: Array, wanted: float) -> Array:
        logits = priors.apply(POSE_CRITIC, of, shown)
        weights = jnp.asarray(pose_prior.logit_weights(priors.tree))
        return jnp.mean(jnp.sum(weights[None] * jnp.abs(logits - wanted), axis=-1))

    outer = opinion(fixed, made, 1.0) + 20.0 * jnp.mean(jnp.abs(again - drawn)) / settings.bound
    critic = opinion(params, poses, 1.0) + opinion(params, jax.lax.stop_gradient(made), -1.0)
    return outer, critic / 2


def _latent_critic(tree: BodyTree, settings: Settings) -> functools.partial:
    del tree
    return functools.partial(pose_prior.LatentCritic, latent=settings.latent, width=settings.width)


def _pose_critic(tree: BodyTree, settings: Settings) -> functools.partial:
    return functools.partial(pose_prior.PoseCritic, tree=tree, width=settings.width)


aae = Prior(critic=_latent_critic, losses=_aae_losses)
decoded = Prior(critic=_pose_critic, losses=_decoded_losses)


def _both(priors: Priors, params: Trees, relation: Relation, points: Array) -> tuple[Array, Array]:
    """What a relation is between, of windows (B, span * T or more, K, 3); without a gradient."""
    first, second = relation.of_poses(points, priors.settings.frames, priors.tree)
    ends = (priors.embedded(params, relation, priors.code(params, poses)) for poses in (first, second))
    start, end = map(jax.lax.stop_gradient, ends)
    return start, end


def _distance(first: Array, second: Array) -> Array:
    """Mean distance of codes (B, [T,] n), (B,)."""
    apart = jnp.linalg.norm(first - second, axis=-1)
    return apart if apart.ndim == 1 else jnp.mean(apart, axis=1)


def _millimetres(found: Array, wanted: Array) -> Array:
    """Mean distance of joints (B, [T,] K, 3) metres, (B, [T])."""
    return 1000.0 * jnp.mean(jnp.linalg.norm(found - wanted, axis=-1), axis=-1)


def _spread(scalars: Mapping[str, Array], windows: Array) -> dict[str, Array]:
    """Scalars of windows as those of each of their frames."""
    return {name: jnp.broadcast_to(x[:, None], windows.shape[:2]) for name, x in scalars.items()}


def _plainly_seen(priors: Priors, positions: Array, domain: str = "motions") -> Array:
    """As `seen`, in the same way every time."""
    return priors.seen(jax.random.key(0), positions, jnp.arange(len(positions)), domain=domain)


def _evaluations(
    priors: Priors, find: Callable[[State, Array], Predictions], window: Window | None, *metrics: str
) -> tuple[Evaluation, ...]:
    """On held-out motions, and on those of another data set, if `poses` are motions."""

    def of(domain: str) -> Evaluation:
        return Evaluation(
            predict=lambda state, fields: find(state, _plainly_seen(priors, fields["positions"], domain)),
            domains=(domain,),
            fields=("positions",),
            window=window,
            metrics=(Means(metrics=metrics),),
        )

    return tuple(of(domain) for domain in priors.joints)


def _init(
    priors: Priors, trained: tuple[str, ...], *, fresh: tuple[str, ...]
) -> Callable[[Array, State | None], State]:
    return lambda key, previous: next_state(
        key, previous, priors, dict.fromkeys(trained, optax.scale_by_adam()), fresh=fresh
    )


def _descended(
    state: State, loss: Callable[[Trees], tuple[Array, Metrics]], names: tuple[str, ...], high: float, steps: int
) -> tuple[State, Metrics]:
    """One update of some networks by Adam, at a rate that falls as a cosine."""
    others = {name: tree for name, tree in state.params.items() if name not in names}
    trained = {name: state.params[name] for name in names}
    grads, metrics = jax.grad(lambda params: loss(others | params), has_aux=True)(trained)
    rate = optimizers.cosine_schedule(high, steps)(state.step)
    rule = optax.scale_by_adam()
    return optimizers.apply_gradients(state, grads, dict.fromkeys(names, rule), dict.fromkeys(names, rate)), metrics


def _drawn(priors: Priors, state: State, batch: Batch) -> dict[str, Array]:
    """Recorded poses, the same decoded, and poses that nobody has recorded, from the front."""
    settings, count = priors.settings, len(batch[_WORD]["positions"])
    recorded = _plainly_seen(priors, batch[_WORD]["positions"])
    codes = jax.random.uniform(
        jax.random.key(0), (count, settings.latent), minval=-settings.bound, maxval=settings.bound
    )
    poses = {
        "recorded": local_frames.fitted(recorded, priors.tree),
        "encoded and decoded": priors.poses(state.params, priors.code(state.params, recorded)),
        "of random codes": priors.poses(state.params, codes),
    }
    return {caption: _sketch(points, priors.tree) for caption, points in poses.items()}


def _sketch(poses: Array, tree: BodyTree) -> Array:
    """Bones of poses (B, K, 3) in white, those of the right side in orange: (B, 96, 96, 3)."""
    where = poses[..., :2]
    parents = jnp.asarray(tree.parents[1:])
    maps = bones.bone_maps(where[:, parents], where[:, 1:], (96, 96), decay=0.02)
    right = np.array([joint.startswith("right_") for joint in tree.joints[1:]], bool)
    colours = np.where(right[:, None], (1.0, 0.6, 0.2), (1.0, 1.0, 1.0)).astype(np.float32)
    return jnp.max(maps[..., None] * colours[None, None, None], axis=3)
