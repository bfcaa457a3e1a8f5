"""POST: prior-guided adaptation from synthetic to real images of hands and bodies (Lin et al., NeurIPS 2023).

The detector finds depths beside heatmaps. First its features learn to be the same in the style of the target. Then it
trains on its own predictions on the target where they can be trusted: as their maps are high, or as the pose that they
are lifted to hardly changes when it is made possible. From pairs of frames of a clip it learns besides to place
keypoints so that the second frame can be made of the first, see `reconstruction`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxpose.config import Config
from jaxpose.data.host.windows import Window, frame_pairs
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, POSITIVE, SHARE, limited
from jaxpose.losses import contrastive, heatmap
from jaxpose.models import functional
from jaxpose.ops import augment, normalization
from jaxpose.recipes import (
    anatomy,
    depths,
    detector,
    inputs,
    optimizers,
    reconstruction,
    style,
    supervised,
    trusted,
    views,
)
from jaxpose.recipes.depths import PoseDetector
from jaxpose.recipes.detector import TRUNK, Detector, Features, Trees
from jaxpose.recipes.reconstruction import Reconstruction
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
    reads,
)
from jaxpose.recipes.trusted import Taught
from jaxpose.recipes.views import View

Seen = dict[str, Features]  # of `source` and `target`
Term = tuple[Array, tuple[Trees, Metrics]]  # what is minimised, with all statistics after it
Through = Callable[[Array], Array]  # points -> points, whose gradient may end here
# (method, state, key, the target's fields, the student's view and features of it) -> what is taught, and statistics
Teacher = Callable[["Method", State, Array, inputs.Fields, View, Array], tuple[Taught, Trees]]


@dataclasses.dataclass(kw_only=True)
class POST:
    """The hyper-parameters; the defaults suit short schedules, `published_settings` has the paper's.

    Attributes:
      alignment, temperature, decoupled: of InfoNCE between features of an image and of the same in another style; its
        weight (lambda_a, of the mean over rows), tau, and whether the positive is left out of the denominator (Eq. 2).
      depth: weight of the source's depths (lambda_d); with 0 nothing is found in depth, and no pose is lifted.
      pseudo_labels: weight of what is learned from predictions (lambda_p).
      pseudo_depth: of these, weight of places and depths of corrected poses (lambda_y); 0: none are corrected.
      share: of the joints of a batch whose maps are highest, which are trusted (gamma_2D).
      shift: fraction of the image's side by which a joint that is trusted may move when its pose is corrected
        (gamma_3D).
      apart: share of the training on the target in which either trust counts for its own loss alone (T); after it, both
        for both.
      reconstruction: weight of the loss of reconstructed frames (lambda_r); 0: there is none.
      networks: of the reconstruction.
      warming: one of so many updates on the target is spent while the reconstruction learns without teaching.
      pairs: which two frames of a clip.
      teacher: who predicts what is learned from: `averaged`, the moving average of the detector, in a view of its own;
        or, as it is printed, `itself`.
      decay, average: of the moving average.
      evaluated: which network predicts.
      transfer, style_network, style_probability: of source images in the style of the target, as in `mean_teacher`.
      schedule: of the learning rate on the target.
      loss, maps, mean, coding: as in `supervised.Supervised`.
      probabilities: makes maps that add up to 1 out of the network's, to expect places and depths by.
    """

    name: str = "post"
    alignment: float = limited(0.1, *AT_LEAST_0)
    temperature: float = limited(0.5, *POSITIVE)
    decoupled: bool = False
    depth: float = limited(1.0, *AT_LEAST_0)
    pseudo_labels: float = limited(1.0, *AT_LEAST_0)
    pseudo_depth: float = limited(0.1, *AT_LEAST_0)
    share: float = limited(0.5, *SHARE)
    shift: float = limited(1 / 32, *SHARE)
    apart: float = limited(0.25, *SHARE)
    reconstruction: float = limited(0.1, *AT_LEAST_0)
    networks: Reconstruction = dataclasses.field(default_factory=Reconstruction)
    warming: int = limited(3, *AT_LEAST_1)
    pairs: Window = dataclasses.field(default_factory=lambda: frame_pairs(2, 6))
    teacher: Teacher = dataclasses.field(default_factory=lambda: averaged)
    decay: float = limited(0.999, *SHARE)
    average: views.DecaySchedule = views.rising
    evaluated: views.Evaluated = views.teacher
    transfer: style.StyleTransfer = style.colour
    style_network: style.Style | None = None
    style_probability: float = limited(0.5, *SHARE)
    schedule: optimizers.MakeSchedule = optimizers.inverse_schedule
    loss: supervised.Loss = heatmap.spatial_kl
    maps: views.ConfidenceMaps = views.softmax_maps
    mean: supervised.Reduction = heatmap.masked_mean
    coding: inputs.Coding = inputs.CLEAN
    probabilities: views.ConfidenceMaps = views.softmax_maps

    def share_out(self, steps: Mapping[str, int]) -> dict[str, int]:
        """Updates by stage, given those of pretraining and adapting: as many to align, if not said, as to adapt.

        Of the latter, some are spent while the reconstruction learns alone.
        """
        warm = steps["adapt"] // self.warming if self.reconstruction else 0
        own = {"align": steps["adapt"], "adapt": steps["adapt"] - warm} | ({"warm": warm} if warm else {})
        return own | dict(steps) | {"adapt": own["adapt"]}

    def notes(self) -> list[str]:
        """What stands in for what is not there."""
        found = []
        if self.reconstruction and self.networks.vgg is None:
            found.append(
                "Reconstructed frames are compared by random features and by blurred pixels, as "
                "config.method.networks.vgg names no file of VGG-19."
            )
        if self.depth:
            found.append(
                "Poses in space are as large as the source's are on average, as no image says how large somebody is: "
                "N-MPJPE is the error when each pose has its best size."
            )
        return found

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain; train the style networks if there are any; align; reconstruct, then adapt."""
        networks = detector.build(task, config, coding=self.coding)
        first = supervised.pretrain(task, config, networks, loss=self.loss, maps=self.maps, mean=self.mean)
        styles = () if self.style_network is None else (style.train(task, config, self.style_network),)
        method = Method.of(task, config, self)
        if method.reconstructor is None:
            return first, *styles, align(method), fine_tune(method, "adapt", through=all_of_it)
        warm = fine_tune(method, "warm", through=jax.lax.stop_gradient)
        return first, *styles, align(method), warm, fine_tune(method, "adapt", through=all_of_it)


def published_settings(vgg_file: str | None) -> POST:
    """The paper's weights, for maps that are trained by squares, and the sizes of articulated animation.

    What the paper does not say is as in articulated animation, UniFrame or SemiHand. What differs from it:
      - Images are styled by their colours; the paper's network for it is an embedding of styles, and no code is public.
      - Batches are of 32 images of each domain in all stages; the paper aligns with 64.
      - The mean over rows of InfoNCE is weighted, not their sum, and the positive is in the denominator; the printed
        form, which goes below zero, is `decoupled`, with a weight of 64 times as much.

    Args:
      vgg_file: torchvision's VGG-19; None: random features.
    """
    return POST(
        name="post_published",
        depth=0.1,
        pseudo_labels=0.1,
        shift=2 / 64,
        networks=reconstruction.published_settings(vgg_file),
        warming=8,
        pairs=frame_pairs(5, 15),
        teacher=itself,
        evaluated=views.student,
        schedule=published_schedule,
        loss=heatmap.l2,
        maps=views.plain_maps,
        probabilities=depths.sharpened_maps,
    )


# 40 epochs on the source and 80 on the target. The paper does not say what an epoch is: as many updates as UniFrame's.
PUBLISHED_STEPS = {"pretrain": 0, "align": 40 * 500, "adapt": 80 * 500}


def published_schedule(high: float, steps: int, settings: optimizers.Optim) -> optimizers.Schedule:
    """A tenth after 60 and again after 75 of the 80 epochs on the target."""
    return optimizers.step_schedule(high, steps, dataclasses.replace(settings, warmup=0.0, drops=(60 / 80, 75 / 80)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """What the stages have in common.

    Attributes:
      task, config, settings: of the run.
      detector: with depths, if there are any.
      trust: how predictions become labels.
      reconstructor: None: nothing is reconstructed.
    """

    task: Task
    config: Config
    settings: POST
    detector: PoseDetector
    trust: trusted.Trust
    reconstructor: reconstruction.Reconstructor | None

    @classmethod
    def of(cls, task: Task, config: Config, settings: POST) -> "Method":
        """The networks of a task.

        Raises:
          ValueError: naming what does not suit it.
        """
        heads = {"head": config.model.source_head} | ({depths.HEAD: functional.keypoint_head} if settings.depth else {})
        made = PoseDetector(
            task=task,
            networks=detector.build(task, config, heads=heads, coding=settings.coding),
            body=anatomy.body_of(task.skeleton) if settings.depth else None,
            loss=settings.loss,
            mean=settings.mean,
            maps=settings.maps,
            probabilities=settings.probabilities,
            weight=settings.depth,
        )
        body = made.body if settings.pseudo_depth else None
        trust = trusted.Trust(detector=made, share=settings.share, shift=settings.shift, body=body)
        reconstructor = None
        if settings.reconstruction:
            reconstructor = reconstruction.build(
                task.skeleton.bone_indices, task.image_size, settings.networks, detector.compute_dtype(config.dtype)
            )
        return cls(task=task, config=config, settings=settings, detector=made, trust=trust, reconstructor=reconstructor)

    @property
    def networks(self) -> Detector:
        """Of points."""
        return self.detector.networks

    def init(self, key: Array, names: tuple[str, ...]) -> tuple[Trees, Trees]:
        """As `Detector.init`, also of the reconstruction's networks."""
        every = {**self.networks.networks, **(self.reconstructor.networks if self.reconstructor else {})}
        return dataclasses.replace(self.networks, networks=every).init(key, names)

    def evaluation(self, evaluated: views.Evaluated) -> Evaluation:
        """See `PoseDetector.evaluation`."""
        return self.detector.evaluation(statistics=lambda state: state.extra["anatomy"], evaluated=evaluated)


def align(method: Method) -> Stage:
    """On the source, as it is and in the style of the target: labels, and features that are the same (Eq. 10)."""
    task, config, settings = method.task, method.config, method.settings
    # Both are of the source: the running statistics are to suit both.
    networks, body = dataclasses.replace(method.networks, target_statistics=False), method.detector.body
    steps, optim = config.steps_of("align"), config.optim
    rule = optimizers.transformation(optim.adapt_rule, optim)
    schedule = optimizers.inverse_schedule(optimizers.peak(optim.adapt_rule, optim), steps, optim)
    rates = detector.learning_rates(schedule, optim.adapt_trunk_scale)

    def init(key: Array, previous: State | None) -> State:
        fresh = (depths.HEAD,) if method.detector.body else ()
        rules = dict.fromkeys(method.detector.names, rule)
        extra = {} if body is None else {"anatomy": body.initial()}
        return next_state(key, previous, method, rules, fresh=fresh, extra=extra)

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        source_key, target_key, style_key = jax.random.split(key, 3)
        source = method.detector.labelled(source_key, batch["source"])
        target = inputs.unlabelled(target_key, batch["target"], task)
        styled = style.stylised(style_key, settings.transfer, state.params, source.labels.images, target, 1.0)

        def objective(params: Trees) -> Term:
            plain, other, stats = networks.features_of_both(params, state.stats, source.labels.images, styled)
            first, (stats, metrics) = method.detector.supervision(params, stats, plain.up, source)
            second, (stats, of_styled) = method.detector.supervision(params, stats, other.up, source)
            pooled = [jnp.mean(of.layers[-1].astype(jnp.float32), axis=(1, 2)) for of in (plain, other)]
            apart = contrastive.info_nce(*pooled, temperature=settings.temperature, decoupled=settings.decoupled)
            metrics |= {f"{name}_styled": value for name, value in of_styled.items()}
            metrics |= {"loss/alignment": jnp.mean(apart)}
            return (first + second) / 2 + settings.alignment * jnp.mean(apart), (stats, metrics)

        given = {name: state.params[name] for name in method.detector.names}
        grads, (stats, metrics) = jax.grad(objective, has_aux=True)(given)
        rules = dict.fromkeys(method.detector.names, rule)
        state = optimizers.apply_gradients(state, grads, rules, rates(state.step, method.detector.names))
        if body is not None:
            seen = body.updated(state.extra["anatomy"], source.points3d, source.mask)
            state = dataclasses.replace(state, extra={"anatomy": seen})
        return dataclasses.replace(state, stats=stats), metrics

    return Stage(
        name="align",
        steps=steps,
        init=init,
        updates=(Update(reads=reads(source=method.detector.fields, target=inputs.UNLABELLED), step=step),),
        evaluations=(method.evaluation(views.student),),
    )


def fine_tune(method: Method, name: str, *, through: Through) -> Stage:
    """Trains on the target (Eq. 11): while the reconstruction learns (`warm`), then with what it teaches (`adapt`).

    `through` is what the reconstruction sees of keypoints, and whether they learn from it.

    Raises:
      ValueError: if a batch cannot be made of pairs.
    """
    task, config, settings, networks = method.task, method.config, method.settings, method.networks
    reconstructor, parts = method.reconstructor, normalization.devices()
    if reconstructor is not None and config.data.batch_size % (2 * parts):
        raise ValueError(
            f"config.data.batch_size: found {config.data.batch_size}, expected a multiple of {2 * parts}: half as many "
            "pairs of frames are read, and every device has as many"
        )
    warm = config.steps_of("warm") if reconstructor else 0
    total, before = warm + config.steps_of("adapt"), 0 if name == "warm" else warm
    apply_gradients = detector.adaptation(config, settings.schedule, steps=total)
    own = optax.scale_by_adam(b1=0.5, b2=0.999)
    reconstructing = reconstruction.TRAINED if reconstructor else ()
    fields = (*inputs.UNLABELLED, "intrinsics") if method.trust.body else inputs.UNLABELLED
    of_target = Read(domain="target", fields=fields)
    if reconstructor is not None:
        of_target = dataclasses.replace(of_target, rows=config.data.batch_size // 2, window=settings.pairs)

    def init(key: Array, previous: State | None) -> State:
        assert previous is not None
        started = "teacher" in previous.extra
        rules = dict.fromkeys(method.detector.names, apply_gradients.rule) | dict.fromkeys(reconstructing, own)
        fresh = tuple(reconstructor.networks) if reconstructor and not started else ()
        state = next_state(key, previous, method, rules, fresh=fresh, extra=previous.extra)
        if started:
            return state
        teacher = {"params": {n: state.params[n] for n in method.detector.names}, "stats": state.stats}
        # Copied because a step is given the state's memory and cannot be given the same memory twice.
        return dataclasses.replace(state, extra=state.extra | {"teacher": jax.tree.map(jnp.copy, teacher)})

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        source_key, teacher_key, student_key, style_key = jax.random.split(key, 4)
        source, target = method.detector.labelled(source_key, batch["source"]), batch["target"]
        student = frame_by_frame(views.view(student_key, target, task.augmentation))
        images = style.stylised(
            style_key, settings.transfer, state.params, source.labels.images, student.images, settings.style_probability
        )

        def look(params: Trees) -> tuple[Seen, Trees]:
            first, second, stats = networks.features_of_both(params, state.stats, images, student.images)
            return {"source": first, "target": second}, stats

        seen, pull, stats = jax.vjp(look, {n: state.params[n] for n in TRUNK}, has_aux=True)
        taught, teacher_stats = settings.teacher(method, state, teacher_key, target, student, seen["target"].up)
        cameras = target["intrinsics"].reshape(-1, 3, 3) if method.trust.body else None
        together = state.step + before >= math.ceil(settings.apart * total)
        learned, metrics = method.trust.labels(
            jax.lax.stop_gradient(taught), student, cameras, state.extra.get("anatomy"), together=together
        )
        terms: dict[str, Callable[[Seen, Trees, Trees], Term]] = {
            "supervision": functools.partial(supervision, method, source),
            "pseudo_labels": functools.partial(from_pseudo_labels, method, learned),
        }
        if reconstructor is not None:
            terms["reconstruction"] = functools.partial(from_reconstruction, method, student.images, through)
        slope, grads = jax.tree.map(jnp.zeros_like, (seen, state.params))
        for term_name, term in terms.items():
            gradient = jax.grad(term, argnums=(0, 1), has_aux=True)
            (at_features, at_params), (stats, logged) = gradient(seen, state.params, stats)
            slope, grads = (jax.tree.map(jnp.add, a, b) for a, b in ((slope, at_features), (grads, at_params)))
            metrics |= logged | {f"gradient/{term_name}": optax.tree.norm(at_features)}
        grads |= pull(slope)[0]
        state = apply_gradients(state, {n: grads[n] for n in method.detector.names}, before=before)
        rate = jnp.asarray(settings.networks.learning_rate, jnp.float32)
        state = optimizers.apply_gradients(
            state,
            {n: grads[n] for n in reconstructing},
            dict.fromkeys(reconstructing, own),
            dict.fromkeys(reconstructing, rate),
        )
        average = views.ema_update(
            state.extra["teacher"]["params"],
            {n: state.params[n] for n in method.detector.names},
            settings.average(state.step + before, settings.decay),
        )
        extra = state.extra | {"teacher": {"params": average, "stats": teacher_stats}}
        return dataclasses.replace(state, stats=stats, extra=extra), metrics

    def draw(state: State, batch: Batch) -> dict[str, Array]:
        """Both frames of pairs, the first one warped, and the second one as it is made."""
        assert reconstructor is not None
        frames = augment.normalize(batch["target"]["image"].astype(jnp.float32))
        flat = frames.reshape(-1, *frames.shape[2:])
        maps = networks.maps(state.params, state.stats, flat, train=False)[0]
        points = depths.places(settings.probabilities(maps), networks.grid)
        made, _ = reconstructor(
            state.params, state.stats, frames, points.reshape(*frames.shape[:2], -1, 2), train=False
        )
        return {"base": made.base, "warped": made.warped, "reconstructed": made.image, "driving": made.wanted}

    shown = Read(domain="target", fields=inputs.UNLABELLED, window=settings.pairs)
    return Stage(
        name=name,
        steps=config.steps_of(name),
        init=init,
        load=reconstructor.load if reconstructor and name == "warm" else None,
        files=reconstructor.files if reconstructor and name == "warm" else (),
        updates=(Update(reads=reads(source=method.detector.fields) | {"target": of_target}, step=step),),
        evaluations=(method.evaluation(settings.evaluated),),
        pictures=Pictures(reads={"target": shown}, draw=draw) if reconstructor else None,
        apply_gradients=apply_gradients,
    )


def all_of_it(points: Array) -> Array:
    """Keypoints learn from the reconstruction."""
    return points


def frame_by_frame(view: View) -> View:
    """A view of windows of frames (B, T, ...) as one of B * T images; of images as it is."""
    if view.images.ndim == 4:
        return view
    b, t = view.images.shape[:2]
    images = view.images.reshape(b * t, *view.images.shape[2:])
    return View(images=images, matrix=jnp.repeat(view.matrix, t, axis=0), mirrored=jnp.repeat(view.mirrored, t, axis=0))


def averaged(
    method: Method, state: State, key: Array, target: inputs.Fields, student: View, up: Array
) -> tuple[Taught, Trees]:
    """The moving average of the detector, which sees the images in a view of its own."""
    teacher, networks = state.extra["teacher"], method.networks
    view = frame_by_frame(views.view(key, target, method.task.augmentation))
    features, stats = networks.trunk(teacher["params"], teacher["stats"], view.images, train=True)
    maps, by_pixel, stats = method.detector.find(teacher["params"], stats, features, train=True)
    return Taught(view=view, maps=maps, depths=by_pixel), stats


def itself(
    method: Method, state: State, key: Array, target: inputs.Fields, student: View, up: Array
) -> tuple[Taught, Trees]:
    """The detector, as it sees what it learns."""
    maps, by_pixel, _ = method.detector.find(state.params, state.stats, up, train=True)
    return Taught(view=student, maps=maps, depths=by_pixel), state.stats


def supervision(method: Method, source: depths.Posed, seen: Seen, params: Trees, stats: Trees) -> Term:
    """The source's labels; the head's statistics are those of the target after it, where they are to be."""
    before = stats["head"]
    value, (stats, metrics) = method.detector.supervision(params, stats, seen["source"].up, source)
    return value, (stats | {"head": method.networks.before_target(before, stats["head"])}, metrics)


def from_pseudo_labels(method: Method, learned: trusted.PseudoLabels, seen: Seen, params: Trees, stats: Trees) -> Term:
    """What is predicted on the target and trusted (Eq. 3)."""
    settings = method.settings
    maps, by_pixel, stats = method.detector.find(params, stats, seen["target"].up, train=True)
    value, metrics = trusted.loss(
        maps,
        method.detector.expected(maps, by_pixel),
        learned,
        of_maps=settings.loss,
        mean=settings.mean,
        weight=settings.pseudo_depth,
    )
    return settings.pseudo_labels * value, (stats, metrics)


def from_reconstruction(
    method: Method, images: Array, through: Through, seen: Seen, params: Trees, stats: Trees
) -> Term:
    """The second frames of pairs, made of the first ones (Eq. 9)."""
    settings, reconstructor = method.settings, method.reconstructor
    assert reconstructor is not None
    maps, _, _ = method.detector.find(params, stats, seen["target"].up, train=True)
    points = through(depths.places(settings.probabilities(maps), method.networks.grid))
    frames, pairs = (x.reshape(-1, 2, *x.shape[1:]) for x in (images, points))
    made, stats = reconstructor(params, stats, frames, pairs, train=True)
    value = jnp.mean(reconstructor.loss(params, made))
    return settings.reconstruction * value, (stats, {"loss/reconstruction": value})
