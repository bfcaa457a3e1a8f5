"""Relation distillation: 3D pose that adapts itself to unlabelled video (Kundu et al., NeurIPS 2021).

`pose_priors` learn from recorded motions what poses and motions are like, and how relations (`relations`) move their
codes: a picture and its mirror image, a clip and the same played backwards. A network learns on labelled images to find
codes. On the target's clips its codes then have to follow the relations: what is done to the images has to move the
codes as it moves those of recorded motions. Besides, codes of one frame in other colours have to stay the same, and
tell it from other clips. Each of these five energies has an optimizer of its own, and its turn.

Source: arXiv:2204.01971, Sec. 3, and the released code, of whose relations two contradict the images they go with.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_1, POSITIVE, limited
from jaxpose.losses import contrastive
from jaxpose.models import functional
from jaxpose.models import relations as networks_of_codes
from jaxpose.ops import augment
from jaxpose.recipes import inputs, pose_priors, regression
from jaxpose.recipes.pose_priors import Trees
from jaxpose.recipes.regression import BACKBONE, PoseRegressor
from jaxpose.recipes.relations import FLIP, FLIP_BACKWARD, SLOW_BACKWARD, Relation
from jaxpose.recipes.stage import Batch, Metrics, Read, Stage, State, Task, Update, next_state

OF_FRAMES, OF_CLIPS = "projection_frames", "projection_clips"
Loss = Callable[[Trees, Trees, Array, Array], Array]  # (parameters, statistics, key, windows of frames) -> scalar


@dataclasses.dataclass(kw_only=True)
class Source:
    """What all of it begins with: the priors, and a network that finds poses on labelled images.

    Attributes:
      domain: where the labels are, `source`, or `target` for the oracle.
      priors: see `pose_priors.Settings`.
      relations: whose networks are trained.
      layer: of the backbone, whose features poses are found from.
    """

    name: str = "relation_source"
    domain: str = "source"
    priors: pose_priors.Settings = dataclasses.field(default_factory=pose_priors.Settings)
    relations: tuple[Relation, ...] = (FLIP, FLIP_BACKWARD, SLOW_BACKWARD)
    layer: int = -2

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Poses, motions, relations, and `pretrain`, which adaptation starts from."""
        networks = self.networks(task, config)
        return (
            *pose_priors.stages(networks.priors, {name: config.steps_of(name) for name in STAGES}),
            regression.pretrain(config, networks, domain=self.domain),
        )

    def notes(self) -> list[str]:
        """What the numbers mean."""
        return [
            "All poses have the canonical body's bones: other sizes count in MPJPE, not in N-MPJPE and PA-MPJPE.",
            "Non-localness is how far a relation moves codes, the relation error how far from there its network ends, "
            "both relative to the distance of codes that have nothing to do with each other.",
        ]

    def networks(self, task: Task, config: Config) -> PoseRegressor:
        """Those of all stages."""
        priors = pose_priors.build(task, self.priors, self.relations)
        return regression.build(task, config, priors, layer=self.layer)


STAGES = ("poses", "motions", "relations")


@dataclasses.dataclass(kw_only=True)
class Relations:
    """The hyper-parameters; the defaults suit hundreds of updates, `published_settings` has the paper's.

    Attributes:
      source: what it begins with.
      contrastive: whether frames and clips have to be told from those of other clips.
      related: relations that are followed; among those of the source.
      clips: rows of a batch.
      adapted: the parts of the backbone that are trained, by name; and the projections of the contrastive energies.
      temperature: of these.
      contrastive_rate, relation_rate: of Adam, constant.
    """

    name: str = "relation"
    source: Source = dataclasses.field(default_factory=Source)
    contrastive: bool = True
    related: tuple[Relation, ...] = (FLIP, FLIP_BACKWARD, SLOW_BACKWARD)
    clips: int = limited(8, *AT_LEAST_1)
    adapted: tuple[str, ...] = ("layer2",)
    temperature: float = limited(0.07, *POSITIVE)
    contrastive_rate: float = limited(2e-4, *POSITIVE)
    relation_rate: float = limited(1e-3, *POSITIVE)

    def notes(self) -> list[str]:
        """Those of the source."""
        return self.source.notes()

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Those of the source, and `adapt`."""
        return (*self.source.stages(task, config), adapt(self, task, config))


def published_settings(source: Source) -> Relations:
    """The paper's learning rates of the adaptation; its networks and batches are the defaults."""
    return Relations(source=source, contrastive_rate=2e-5, relation_rate=1e-5)


def adapt(settings: Relations, task: Task, config: Config) -> Stage:
    """Every energy in its turn, on the target's clips."""
    known = settings.source.relations
    if unknown := [of.name for of in settings.related if of not in known]:
        names = ", ".join(of.name for of in known)
        raise ValueError(f"config.method.related: found {unknown[0]}, expected some of {names}, which have networks")
    networks = _with_projections(settings.source.networks(task, config))
    energies = _energies(settings, networks, task)
    if not energies:
        raise ValueError("config.method: found neither contrastive energies nor relations, expected some")
    rule = optax.scale_by_adam()
    projections = tuple(name for energy in energies for name in energy.networks)
    steps = config.steps_of("adapt")

    def init(key: Array, previous: State | None) -> State:
        state = next_state(key, previous, networks, {}, fresh=projections)
        made = {energy.name: rule.init(_chosen(state.params, settings.adapted, energy.networks)) for energy in energies}
        return dataclasses.replace(state, optimizers=made)

    def step(energy: "Energy", state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        fields = batch[energy.word]

        def loss(trained: Trees) -> Array:
            params = _merged(state.params, trained)
            return energy.loss(params, state.stats, key, fields)

        trained = _chosen(state.params, settings.adapted, energy.networks)
        value, grads = jax.value_and_grad(loss)(trained)
        updates, moved = rule.update(grads, state.optimizers[energy.name])
        trained = jax.tree.map(lambda p, u: p - energy.rate * u, trained, updates)
        state = dataclasses.replace(
            state, params=_merged(state.params, trained), optimizers=state.optimizers | {energy.name: moved}
        )
        return state, {f"loss/{energy.name}": value, f"gradient/{energy.name}": optax.tree.norm(grads)}

    def update(energy: "Energy") -> Update:
        window = networks.priors.window(energy.span)
        read = Read(domain="target", fields=inputs.UNLABELLED, rows=settings.clips, window=window)
        return Update(reads={energy.word: read}, step=functools.partial(step, energy))

    return Stage(
        name="adapt",
        steps=steps,
        init=init,
        updates=tuple(map(update, energies)),
        evaluations=(networks.evaluation,),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Energy:
    """What is minimised in one of the turns.

    Attributes:
      name: as in the logs.
      networks: of its own, which are trained besides the backbone.
      span: motions that a window has, one after the other.
      rate: of its optimizer.
      loss: (parameters, statistics, key, fields) -> scalar.
    """

    name: str
    networks: tuple[str, ...] = ()
    span: int = 1
    rate: float
    loss: Callable[[Trees, Trees, Array, inputs.Fields], Array]

    @property
    def word(self) -> str:
        """What its batch is called."""
        return "clips" if self.span == 1 else "long_clips"


def _energies(settings: Relations, networks: PoseRegressor, task: Task) -> tuple[Energy, ...]:
    """In the order of their turns."""
    made = []
    if settings.contrastive:
        for name, network, loss in (("frames", OF_FRAMES, of_frames), ("clips", OF_CLIPS, of_clips)):
            bound = functools.partial(loss, networks, task, settings.temperature)
            made.append(Energy(name=name, networks=(network,), rate=settings.contrastive_rate, loss=bound))
    for relation in settings.related:
        bound = functools.partial(of_relation, networks, task, relation)
        made.append(Energy(name=relation.name, span=relation.span, rate=settings.relation_rate, loss=bound))
    return tuple(made)


def of_frames(
    networks: PoseRegressor,
    task: Task,
    temperature: float,
    params: Trees,
    stats: Trees,
    key: Array,
    fields: inputs.Fields,
) -> Array:
    """Every frame is told from the frames of other clips by what it looks like in other colours (LCR).

    Source: Eq. 1, which lacks its logarithm; the released code has one frame of the batch for an anchor, here all are.
    """
    _, seen = _of_both(networks, params, stats, *_recoloured(key, fields, task))
    projected = [networks.networks[OF_FRAMES].apply(params[OF_FRAMES], {}, x, train=True)[0] for x in seen]
    compare = functools.partial(contrastive.info_nce, temperature=temperature)
    return jnp.mean(jax.vmap(compare, in_axes=1)(*projected))


def of_clips(
    networks: PoseRegressor,
    task: Task,
    temperature: float,
    params: Trees,
    stats: Trees,
    key: Array,
    fields: inputs.Fields,
) -> Array:
    """The same with whole clips, by the codes of their motions (HCR)."""
    codes, _ = _of_both(networks, params, stats, *_recoloured(key, fields, task))
    motions = (networks.priors.motion(params, x) for x in codes)
    projected = (networks.networks[OF_CLIPS].apply(params[OF_CLIPS], {}, x, train=True)[0] for x in motions)
    return jnp.mean(contrastive.info_nce(*projected, temperature=temperature))


def of_relation(
    networks: PoseRegressor,
    task: Task,
    relation: Relation,
    params: Trees,
    stats: Trees,
    key: Array,
    fields: inputs.Fields,
) -> Array:
    """How far from where the relation leads to the codes of the images are to which it was done.

    Of motions the other end stands still, of poses both move, as released.

    Source: Eq. 3, in the mean of absolute differences.
    """
    priors = networks.priors
    windows = inputs.unlabelled(key, fields, task)
    first, second = relation.of_images(windows, priors.settings.frames)
    if relation.of_motion:  # which need not be computed backwards
        start, end = (networks.of_clips(params, stats, images)[0] for images in (first, second))
        end = jax.lax.stop_gradient(end)
    else:
        (start, end), _ = _of_both(networks, params, stats, first, second)
    start, end = (priors.embedded(params, relation, codes) for codes in (start, end))
    return jnp.mean(jnp.abs(priors.related(params, relation, start) - end))


def _of_both(
    networks: PoseRegressor, params: Trees, stats: Trees, first: Array, second: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Codes of two clips each, and what they were found from, in one pass."""
    codes, seen = networks.of_clips(params, stats, jnp.concatenate([first, second], axis=1))
    frames = first.shape[1]
    return (codes[:, :frames], codes[:, frames:]), (seen[:, :frames], seen[:, frames:])


def _recoloured(key: Array, fields: inputs.Fields, task: Task) -> tuple[Array, Array]:
    """Two views of clips, of which each has colours of its own and all frames of a clip the same."""
    first, second = jax.random.split(key)
    images, _ = augment.augment(first, fields["image"], fields["position"], task.augmentation)
    again = augment.draw(second, fields["position"], task.image_size, task.augmentation)
    return images, augment.recoloured(again, images, task.augmentation)


def _with_projections(networks: PoseRegressor) -> PoseRegressor:
    settings = networks.priors.settings
    sizes = {OF_FRAMES: networks_of_codes.embedding_size(settings.width), OF_CLIPS: settings.motion}
    made = {
        name: functional.network(functools.partial(networks_of_codes.Projection, inputs=size, width=settings.width))
        for name, size in sizes.items()
    }
    return dataclasses.replace(networks, networks=dict(networks.networks) | made)


def _chosen(params: Trees, parts: tuple[str, ...], networks: tuple[str, ...]) -> Trees:
    """What is trained: parts of the backbone, and whole networks.

    Raises:
      ValueError: if the backbone has no such part.
    """
    backbone = params[BACKBONE]
    if unknown := [part for part in parts if part not in backbone]:
        raise ValueError(f"config.method.adapted: found {unknown[0]!r}, expected some of {', '.join(backbone)}")
    return {BACKBONE: {part: backbone[part] for part in parts}} | {name: params[name] for name in networks}


def _merged(params: Trees, trained: Trees) -> Trees:
    """All parameters with the trained ones in their places."""
    return params | trained | {BACKBONE: params[BACKBONE] | trained[BACKBONE]}
