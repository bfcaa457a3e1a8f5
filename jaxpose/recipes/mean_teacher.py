"""Mean teacher with styled images and adaptive occlusion: UniFrame (Kim et al., ECCV 2022).

A teacher, the moving average of the student, labels its own view of a target image; the points of which it is sure,
carried into the student's view, are what the student is trained on. The student's view lacks one of those points.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, SHARE, limited
from jaxpose.losses import heatmap
from jaxpose.ops import augment
from jaxpose.ops.augment import Augmentation
from jaxpose.recipes import detector, inputs, optimizers, pseudo_labels, style, supervised, teaching, views
from jaxpose.recipes.detector import WHOLE
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads


@dataclasses.dataclass(kw_only=True)
class MeanTeacher:
    """UniFrame's hyper-parameters.

    Attributes:
      loss, mean: of maps against labels and pseudo-labels, and the mean over joints.
      maps: makes maps whose peak is the confidence out of the network's; belongs to the loss.
      coding: how labels are drawn and predictions read.
      teach: makes pseudo-labels out of the teacher's maps.
      schedule: of the adaptation's learning rate.
      weight: of the loss on pseudo-labels, lambda_c.
      decay: of the teacher's moving average.
      average: how the decay comes up.
      share: of the joints of a batch that become pseudo-labels, those of the highest confidence.
      teacher_view, student_view: augmentation of target images; None: as the source's. Both are views of one part of
        the image, of the student's `area`.
      transfer: what styles source images like the target, and the teacher's images like the source.
      style_network: trains the networks of the transfer `style.adain` before adapting, for `config.steps["style"]`.
      style_probability: of each of the two.
      cover_probability: per image, that a pseudo-labelled keypoint is covered.
      cover_confidence: the least confidence of a keypoint that may be covered; which may at all, `teach` says.
      cover_side: side of the patch, as a fraction of the image's.
      evaluated: which network predicts.
    """

    name: str = "mean_teacher"
    loss: supervised.Loss = heatmap.spatial_kl
    mean: supervised.Reduction = heatmap.masked_mean
    maps: views.ConfidenceMaps = views.softmax_maps
    coding: inputs.Coding = inputs.CLEAN
    teach: teaching.MakePseudoLabels = teaching.in_the_students_view
    schedule: optimizers.MakeSchedule = optimizers.inverse_schedule
    weight: float = limited(1.0, *AT_LEAST_0)
    decay: float = limited(0.999, *SHARE)
    average: views.DecaySchedule = views.rising
    share: float = limited(0.5, *SHARE)
    teacher_view: Augmentation | None = None
    student_view: Augmentation | None = None
    transfer: style.StyleTransfer = style.colour
    style_network: style.Style | None = None
    style_probability: float = limited(0.5, *SHARE)
    cover_probability: float = limited(0.5, *SHARE)
    cover_confidence: float = 0.0
    cover_side: float = limited(20 / 256, *SHARE)
    evaluated: views.Evaluated = views.teacher

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source, train the style networks if there are any, then adapt.

        Raises:
          ValueError: if a style network has no steps.
        """
        networks = detector.build(task, config, coding=self.coding)
        first = supervised.pretrain(task, config, networks, loss=self.loss, maps=self.maps, mean=self.mean)
        last = adapt(task, config, networks, self)
        if self.style_network is None:
            return first, last
        return first, style.train(task, config, self.style_network), last


def released_settings(*, rotation: float = 60.0) -> MeanTeacher:
    """The released code's settings for bodies and animals; for hands, with a rotation of 180 degrees.

    What differs:
      - One warp makes a view of the crop, so that it shows what lies around the part that was cut out; there it is
        black. Scales are uniform in their logarithm, and colours change in one order.
      - Keypoints are turned about the image's middle; there about a point half a pixel beside it, which puts labels up
        to one and a half pixels off.
      - A covered image is only patched; there it is warped back and again by nearest pixels, and the patch, which is
        square in the crop and not in the view, lies off its keypoint by three quarters of the view's translation.
      - Images are styled while adapting only; there while pretraining, too. `adain` takes the biased variance.
      - Adam starts anew with the adaptation, and the last states go on and are reported; there those that are best on
        the target's test labels.

    On TPUs it is slow, because sheared views and nearest pixels are gathered.

    Source: VisionLearningGroup/UDA_PoseEstimation, `train_human.py`; the loss on pseudo-labels is of whole squares
    there, hence the weight of 2.
    """
    view = Augmentation(
        rotation=rotation,
        scale=(0.6, 1.3),
        translation=0.05,
        shear=30.0,
        area=0.6,
        brightness=0.25,
        contrast=0.25,
        saturation=0.25,
        blur=0.0,
    )
    return MeanTeacher(
        loss=heatmap.l2,
        mean=heatmap.mean_with_zeros,
        maps=views.raw_maps,
        coding=inputs.RELEASED,
        teach=teaching.in_the_crop,
        schedule=released_schedule,
        weight=2.0,
        average=views.constant,
        teacher_view=view,
        student_view=view,
        cover_confidence=0.9,
    )


def released_schedule(high: float, steps: int, settings: optimizers.Optim) -> optimizers.Schedule:
    """A tenth after 4 and again after 19 of the 30 epochs of adaptation.

    The released code asks for 45 and 60 of 70 epochs, 40 of which pretrain, and counts each epoch when it begins.
    """
    return optimizers.step_schedule(high, steps, dataclasses.replace(settings, warmup=0.0, drops=(4 / 30, 19 / 30)))


def adapt(task: Task, config: Config, networks: detector.Detector, settings: MeanTeacher) -> Stage:
    """Trains the student on labels and pseudo-labels; the teacher follows."""
    apply_gradients = detector.adaptation(config, settings.schedule)
    side = max(1, round(settings.cover_side * task.image_size))

    def init(key: jax.Array, previous: State | None) -> State:
        state = next_state(key, previous, networks, dict.fromkeys(WHOLE, apply_gradients.rule))
        teacher = {"params": {name: state.params[name] for name in WHOLE}, "stats": state.stats}
        # Copied because a step is given the state's memory and cannot be given the same memory twice.
        return dataclasses.replace(state, extra={"teacher": jax.tree.map(jnp.copy, teacher)})

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        source_key, teacher_key, student_key, style_key, back_key, occlusion_key, cut_key = jax.random.split(key, 7)
        target, positions = batch["target"], batch["target"]["position"]
        labels = inputs.labelled(source_key, batch["source"], task, networks.draw)
        teacher_augmentation, student_augmentation = (
            v or task.augmentation for v in (settings.teacher_view, settings.student_view)
        )
        cuts = augment.random_cuts(cut_key, positions, task.image_size, student_augmentation.area)
        teacher_view = views.view(teacher_key, target, teacher_augmentation, cuts)
        student_view = views.view(student_key, target, student_augmentation, cuts)

        # The teacher's labels.
        images = stylised(back_key, state, teacher_view.images, labels.images)
        teacher = state.extra["teacher"]
        maps, teacher_stats = networks.maps(teacher["params"], teacher["stats"], images, train=True)
        maps = settings.maps(jax.lax.stop_gradient(maps))
        teacher_labels = settings.teach(maps, teacher_view, student_view, settings.share, networks, task)

        # The student.
        source_images = stylised(style_key, state, labels.images, teacher_view.images)
        target_images = views.occluded(
            occlusion_key,
            student_view.images,
            positions,
            teacher_labels.points,
            teacher_labels.known & (teacher_labels.confidence >= settings.cover_confidence),
            side=side,
            probability=settings.cover_probability,
        )

        grads, stats, metrics = pseudo_labels.gradients(
            networks,
            {name: state.params[name] for name in WHOLE},
            state.stats,
            dataclasses.replace(labels, images=source_images),
            inputs.Labelled(images=target_images, maps=teacher_labels.maps, mask=teacher_labels.mask),
            loss=settings.loss,
            mean=settings.mean,
            weight=settings.weight,
            align=teacher_labels.align,
        )
        state = apply_gradients(state, grads)
        teacher_params = views.ema_update(
            teacher["params"],
            {name: state.params[name] for name in WHOLE},
            settings.average(state.step, settings.decay),
        )
        state = dataclasses.replace(
            state, stats=stats, extra=state.extra | {"teacher": {"params": teacher_params, "stats": teacher_stats}}
        )
        return state, metrics | {
            "pseudo_labels": jnp.mean(teacher_labels.mask),
            "confidence": jnp.mean(teacher_labels.confidence),
        }

    def stylised(key: jax.Array, state: State, images: jax.Array, like: jax.Array) -> jax.Array:
        return style.stylised(key, settings.transfer, state.params, images, like, settings.style_probability)

    return Stage(
        name="adapt",
        steps=config.steps_of("adapt"),
        init=init,
        updates=(Update(reads=reads(source=inputs.LABELLED, target=inputs.UNLABELLED), step=step),),
        evaluations=(networks.evaluation(normal=settings.maps, evaluated=settings.evaluated),),
        apply_gradients=apply_gradients,
    )
