"""CC-SSL: consistency-constrained semi-supervised learning (Mu et al., CVPR 2020).

In rounds, the detector labels every target image anew by what several views of it agree on, and is then trained on the
source and the surest of those labels; from round to round there are more of them.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxpose.config import Config
from jaxpose.data import augment
from jaxpose.losses import heatmap
from jaxpose.ops import affine
from jaxpose.recipes import detector, inputs, optimizers, supervised, views
from jaxpose.recipes.detector import TRUNK, Trees
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task

NETWORKS = (*TRUNK, "head")
MEMORY = ("image", "index")


@dataclasses.dataclass(kw_only=True)
class CCSSL:
    """CC-SSL's hyper-parameters.

    Attributes:
      rounds: of relabelling and training; they share `config.steps["adapt"]`, and one learning-rate schedule.
      first_share, more_share, last_share: of all joints of all target images, how many become pseudo-labels in the
        first round, how many more in each of the next, and at most; those of the highest confidence.
      random_views: of each image, besides the image as it is.
      scale_deviation, scale_limit: of a view's scale, normal around 1.
      rotation_deviation, rotation_limit: of a view's rotation, in degrees.
      weight: of the loss on pseudo-labels.
      loss, mean: of maps against labels and pseudo-labels, and the mean over joints.
      maps: makes maps that can be averaged, and whose peak is the confidence, out of the network's; belongs to the
        loss.
    """

    name: str = "cc_ssl"
    rounds: int = 4
    first_share: float = 0.2
    more_share: float = 0.2
    last_share: float = 0.8
    random_views: int = 4
    scale_deviation: float = 0.25
    scale_limit: float = 0.25
    rotation_deviation: float = 30.0
    rotation_limit: float = 60.0
    weight: float = 1.0
    loss: supervised.Loss = heatmap.spatial_kl
    mean: supervised.Mean = heatmap.masked_mean
    maps: views.Normal = views.softmax_maps

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source; then `relabel_1`, `adapt_1`, `relabel_2`, ..., the last of them `adapt`.

        Raises:
          ValueError: if there is no round or a share is not between 0 and 1, or the number of target images unknown.
        """
        if self.rounds < 1:
            raise ValueError(f"config.method.rounds: found {self.rounds}, expected at least 1")
        for field in ("first_share", "more_share", "last_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"config.method.{field}: found {getattr(self, field)}, expected 0 to 1")
        if not task.sizes.get("target"):
            raise ValueError(f"task.sizes: found {dict(task.sizes)}, expected the number of target images")
        networks = detector.build(task, config, heads={"head": config.model.head})
        first = supervised.pretrain(task, config, networks, loss=self.loss, mean=self.mean)
        rounds = (
            make(task, config, networks, self, number) for number in range(self.rounds) for make in (relabel, adapt)
        )
        return first, *rounds

    def share(self, number: int) -> float:
        """Of the joints that become pseudo-labels in a round, counted from 0."""
        return min(self.first_share + number * self.more_share, self.last_share)


def released_settings() -> CCSSL:
    """The released code's settings; it has stacked hourglasses and RMSprop."""
    return CCSSL(rounds=6, weight=10.0, loss=heatmap.l2, maps=views.plain_maps)


def relabel(task: Task, config: Config, networks: detector.Detector, settings: CCSSL, number: int) -> Stage:
    """Writes points and confidences of every target image, by record, into the memory in `State.extra`."""
    size, (rule, _) = task.sizes["target"], detector.adaptation(config)

    def init(key: jax.Array, previous: State | None) -> State:
        assert previous is not None
        if number:
            return again(previous)
        kept = {name: name for name in NETWORKS}
        joints = len(task.skeleton)
        # A record that is never written, because its image is broken, has no confidence.
        memory = {
            "points": jnp.zeros((size, joints, 2), jnp.float32),
            "confidence": jnp.zeros((size, joints), jnp.float32),
            "threshold": jnp.zeros((), jnp.float32),
            "before": jnp.zeros((), jnp.int32),
        }
        return detector.continued(key, previous, networks, dict.fromkeys(NETWORKS, rule), kept=kept, extra=memory)

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        fields = batch["target"]
        points, confidence = consensus(
            key, fields["image"], fields["index"], task, settings, lambda images: networks.predict(state, images)
        )
        # The last batch goes on with records of the next epoch; what is beyond the memory is dropped.
        row = state.step * fields["image"].shape[0] + fields["position"]
        record = jnp.where(row < size, fields["index"], size)
        written = {
            "points": state.extra["points"].at[record].set(points, mode="drop"),
            "confidence": state.extra["confidence"].at[record].set(confidence, mode="drop"),
        }
        return dataclasses.replace(state, extra=state.extra | written), {"confidence": jnp.mean(confidence)}

    return Stage(
        name=f"relabel_{number + 1}",
        steps=-(-size // config.data.batch_size),
        reads={"target": MEMORY},
        init=init,
        step=step,
        predict=None,
    )


def adapt(task: Task, config: Config, networks: detector.Detector, settings: CCSSL, number: int) -> Stage:
    """Trains on the source and the pseudo-labels of a round."""
    total = config.steps["adapt"]
    start, end = (total * i // settings.rounds for i in (number, number + 1))
    rule, rates = detector.adaptation(config)

    def init(key: jax.Array, previous: State | None) -> State:
        assert previous is not None
        # What differs between rounds lies in the state, so that their steps are one compiled program.
        changed = {
            "threshold": views.share_threshold(previous.extra["confidence"], settings.share(number)),
            "before": jnp.int32(start),
        }
        return again(dataclasses.replace(previous, extra=previous.extra | changed))

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        source_key, target_key = jax.random.split(key)
        labels = inputs.labelled(source_key, batch["source"], task, inputs.clean_labels)
        pseudo_labels = inputs.labelled(target_key, remembered(state, batch["target"]), task, inputs.clean_labels)

        def objective(params: Trees) -> tuple[jax.Array, tuple[Trees, Metrics]]:
            maps, stats = forward(params, state.stats, labels.images)
            supervision = settings.mean(settings.loss(labels.maps, maps), labels.mask)
            maps, stats = forward(params, networks.before_target(state.stats, stats), pseudo_labels.images)
            found = settings.mean(settings.loss(pseudo_labels.maps, maps), pseudo_labels.mask)
            return supervision + settings.weight * found, (stats, {"loss/source": supervision, "loss/target": found})

        grads, (stats, metrics) = jax.grad(objective, has_aux=True)(state.params)
        rate = rates(state.step + state.extra["before"], NETWORKS)
        descended = optimizers.descend(state, grads, dict.fromkeys(NETWORKS, rule), rate)
        metrics |= {"pseudo_labels": jnp.mean(pseudo_labels.mask)}
        return dataclasses.replace(descended, stats=stats), metrics

    def forward(params: Trees, stats: Trees, images: jax.Array) -> tuple[jax.Array, Trees]:
        features, stats = networks.trunk(params, stats, images, train=True)
        return networks.head("head", params["head"], stats, features, train=True)

    return Stage(
        name="adapt" if number + 1 == settings.rounds else f"adapt_{number + 1}",
        steps=end - start,
        reads={"source": inputs.LABELLED, "target": MEMORY},
        init=init,
        step=step,
        predict=networks.predict,
        first_batch=start,
    )


def again(state: State) -> State:
    """The state at step 0 of the next stage."""
    return dataclasses.replace(state, step=jnp.zeros((), jnp.int32))


def remembered(state: State, fields: inputs.Fields) -> dict[str, jax.Array]:
    """Target fields with the memory in the place of labels; visible is what is above the threshold."""
    confidence = state.extra["confidence"][fields["index"]]
    return {
        "image": fields["image"],
        "position": fields["position"],
        "keypoints": state.extra["points"][fields["index"]],
        "visible": (confidence > state.extra["threshold"]).astype(jnp.uint8),
    }


def consensus(
    key: Array,
    images: Array,
    records: Int[Array, " b"],
    task: Task,
    settings: CCSSL,
    predict: Callable[[jax.Array], jax.Array],
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
    """Points in crop pixels and confidences, from the mean of heatmaps of several views of each image.

    The views of all images pass through the network together. A record draws its own views, so that where it appears
    in a batch does not matter.
    """
    b, s, count = images.shape[0], images.shape[1], settings.random_views + 1
    matrix = _views(key, records, task.image_size, settings).reshape(b * count, 2, 3)
    repeated = jnp.broadcast_to(images[:, None], (b, count, s, s, 3)).reshape(b * count, s, s, 3)
    maps = settings.maps(predict(augment.normalize(affine.warp(repeated, matrix))))
    back = views.warp_maps(maps, affine.invert(views.on_heatmaps(matrix, task.stride)))
    return views.read(jnp.mean(back.reshape(b, count, *back.shape[1:]), axis=1), task)


def temporally_consistent(
    points: Float[Array, "b k 2"],
    confidence: Float[Array, "b k"],
    tracked: Float[Array, "b k 2"],
    previous_confidence: Float[Array, "b k"],
    found: Bool[Array, "b k"],
    *,
    ratio: float = 0.9,
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
    """A frame's labels, from the previous frame where confidence has fallen.

    Args:
      points, confidence: of the frame.
      tracked, found: where optical flow takes the previous frame's points, and whether it could; see `ops.flow.track`.
      previous_confidence: of the previous frame.
      ratio: below that ratio of confidences the tracked point takes over, with the previous confidence times it.

    Source: CC-SSL's released code, temporal consistency.
    """
    fallen = found & (confidence < ratio * previous_confidence)
    return (
        jnp.where(fallen[..., None], tracked, points),
        jnp.where(fallen, ratio * previous_confidence, confidence),
    )


def _views(key: Array, records: Int[Array, " b"], size: int, settings: CCSSL) -> Float[Array, "b v 2 3"]:
    """The image as it is and the random views of each record."""
    draw = jax.vmap(lambda record: jax.random.normal(jax.random.fold_in(key, record), (settings.random_views, 2)))
    scale, rotation = (draw(records)[..., i] for i in (0, 1))
    scale = 1 + jnp.clip(settings.scale_deviation * scale, -settings.scale_limit, settings.scale_limit)
    rotation = jnp.clip(settings.rotation_deviation * rotation, -settings.rotation_limit, settings.rotation_limit)
    scale, rotation = (
        jnp.pad(draws, ((0, 0), (1, 0)), constant_values=unchanged)
        for draws, unchanged in ((scale, 1.0), (rotation, 0.0))
    )
    n = scale.size
    matrix = affine.similarity(
        rotation=jnp.deg2rad(rotation.ravel()),
        scale=scale.ravel(),
        translation=jnp.zeros((n, 2), jnp.float32),
        mirror=jnp.ones((n,), jnp.float32),
        size=size,
    )
    return matrix.reshape(*scale.shape, 2, 3)
