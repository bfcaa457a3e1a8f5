"""CC-SSL: consistency-constrained semi-supervised learning (Mu et al., CVPR 2020).

In rounds, the detector labels every target image anew by what several views of it agree on, and is then trained on the
source and the surest of those labels; from round to round there are more of them. Where the target has clips, a frame
can take labels over from the frame before it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.data.host.windows import consecutive
from jaxpose.data.records import MISSING, VISIBLE
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, SHARE, limited
from jaxpose.losses import heatmap
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import consensus, detector, inputs, pseudo_labels, supervised, temporal, views
from jaxpose.recipes.detector import WHOLE
from jaxpose.recipes.stage import Batch, Metrics, Read, Stage, State, Task, Update, next_state, reads

MEMORY = ("image", "index")


@dataclasses.dataclass(kw_only=True)
class CCSSL:
    """CC-SSL's hyper-parameters.

    Attributes:
      rounds: of relabelling and training; they share `config.steps["adapt"]`, and one learning-rate schedule.
      first_share, more_share, last_share: of all joints of all target images, how many become pseudo-labels in the
        first round, how many more in each of the next, and at most; those of the highest confidence.
      random_views: of each image.
      temporal_ratio: where confidence has fallen below that ratio of the previous frame's, the joint is tracked from
        there, see `consensus.of_frames`; the released code has 0.9. Target images are then the frames of clips that
        have a previous one. None: images are labelled one by one.
      weight: of the loss on pseudo-labels.
      loss, mean: of maps against labels and pseudo-labels, and the mean over joints.
      maps: makes maps that can be averaged, and whose peak is the confidence, out of the network's; belongs to the
        loss.
      coding: how labels are drawn and predictions read.
      read: reads pseudo-labels off averaged maps.
    """

    name: str = "cc_ssl"
    rounds: int = limited(4, *AT_LEAST_1)
    first_share: float = limited(0.2, *SHARE)
    more_share: float = limited(0.2, *SHARE)
    last_share: float = limited(0.8, *SHARE)
    random_views: consensus.RandomViews = dataclasses.field(default_factory=consensus.RandomViews)
    temporal_ratio: float | None = limited(None, *SHARE)
    weight: float = limited(1.0, *AT_LEAST_0)
    loss: supervised.Loss = heatmap.spatial_kl
    mean: supervised.Reduction = heatmap.masked_mean
    maps: views.ConfidenceMaps = views.softmax_maps
    coding: inputs.Coding = inputs.CLEAN
    read: consensus.ReadMaps = views.read

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source; then `relabel_1`, `adapt_1`, `relabel_2`, ..., the last of them `adapt`.

        Raises:
          ValueError: if the number of target images is unknown.
        """
        if not task.sizes.get("target"):
            raise ValueError(f"task.sizes: found {dict(task.sizes)}, expected the number of target images")
        networks = detector.build(task, config, coding=self.coding)
        first = supervised.pretrain(task, config, networks, loss=self.loss, maps=self.maps, mean=self.mean)
        rounds = (
            make(task, config, networks, self, number) for number in range(self.rounds) for make in (relabel, adapt)
        )
        return first, *rounds

    def share(self, number: int) -> float:
        """Of the joints that become pseudo-labels in a round, counted from 0."""
        return min(self.first_share + number * self.more_share, self.last_share)

    @property
    def word(self) -> str:
        """For what is read of the target: single images, or pairs of frames."""
        return "target" if self.temporal_ratio is None else temporal.CLIPS

    @property
    def target(self) -> dict[str, Read]:
        """What is read of the target."""
        window = None if self.temporal_ratio is None else consecutive(2)
        return {self.word: Read(domain="target", fields=MEMORY, window=window)}


def released_settings() -> CCSSL:
    """The released code's settings.

    What differs: there, networks are stacked hourglasses with a loss of each stack, images are stretched to full
    contrast and not divided by their deviation, and RMSprop trains. Views are brought back there by turning maps about
    (32, 32), half a pixel beside their middle, and by scaling them to whole sides, which puts a point up to half a
    pixel off; here by one exact warp. A round may take one joint more or less of all, and never one without anything
    positive. Labels from the frame before, `temporal_ratio`, are left to the user; `consensus.of_frames` says how they
    differ.

    Source: JitengMu/Learning-from-Synthetic-Animals, `CCSSL.py`, `consistency.py`.
    """
    return CCSSL(
        rounds=6,
        weight=10.0,
        loss=heatmap.l2,
        mean=heatmap.mean_with_zeros,
        maps=views.raw_maps,
        coding=dataclasses.replace(inputs.CLEAN, draw=pixel_labels),
        read=consensus.read_quarters,
    )


def pixel_labels(keypoints: jax.Array, visible: jax.Array, grid: Grid) -> tuple[jax.Array, jax.Array]:
    """The released code's label maps: Gaussians around the pixels that keypoints fall into, cut to a square.

    A joint counts if it is labelled, occluded or not, and its square touches the map.

    Source: CC-SSL's released `transform` and `draw_labelmap`.
    """
    centre = jnp.trunc((keypoints + 0.5) / grid.stride)
    reach = 3 * grid.sigma
    touches = jnp.all((centre - reach < grid.size) & (centre + reach + 1 >= 0), axis=-1)
    return grid.gaussians(centre, support="square"), (visible > MISSING) & touches


def relabel(task: Task, config: Config, networks: detector.Detector, settings: CCSSL, number: int) -> Stage:
    """Writes points and confidences of every target image, by record, into the memory in `State.extra`.

    Where target images are pairs of frames a record is a pair. There are fewer of them than images, so that some rows
    of the memory stay empty and some pairs are labelled twice, in one batch with the same result.
    """
    size, rule = task.sizes["target"], detector.adaptation(config).rule

    def init(key: jax.Array, previous: State | None) -> State:
        assert previous is not None
        if number:
            return again(previous)
        joints = len(task.skeleton)
        # A record that is never written, because its image is broken, has no confidence.
        memory = {
            "points": jnp.zeros((size, joints, 2), jnp.float32),
            "confidence": jnp.zeros((size, joints), jnp.float32),
            "threshold": jnp.zeros((), jnp.float32),
            "before": jnp.zeros((), jnp.int32),
        }
        return next_state(key, previous, networks, dict.fromkeys(WHOLE, rule), extra=memory)

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        fields = batch[settings.word]

        def predict(images: jax.Array) -> jax.Array:
            return settings.maps(networks.maps(state.params, state.stats, images, train=False)[0])

        given = key, fields["image"], fields["index"], networks.grid, settings.random_views, predict, settings.read
        if settings.temporal_ratio is None:
            points, confidence = consensus.of_views(*given)
        else:
            points, confidence = consensus.of_frames(*given, ratio=settings.temporal_ratio)
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
        init=init,
        updates=(Update(reads=settings.target, step=step),),
    )


def adapt(task: Task, config: Config, networks: detector.Detector, settings: CCSSL, number: int) -> Stage:
    """Trains on the source and the pseudo-labels of a round."""
    total = config.steps_of("adapt")
    start, end = (total * i // settings.rounds for i in (number, number + 1))
    optimizer = detector.adaptation(config)

    def apply_gradients(state: State, grads: dict[str, Any]) -> State:
        return optimizer(state, grads, before=state.extra["before"])

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
        labels = inputs.labelled(source_key, batch["source"], task, networks.draw)
        target_labels = inputs.labelled(target_key, remembered(state, batch[settings.word]), task, networks.draw)
        grads, stats, metrics = pseudo_labels.gradients(
            networks,
            state.params,
            state.stats,
            labels,
            target_labels,
            loss=settings.loss,
            mean=settings.mean,
            weight=settings.weight,
        )
        metrics |= {"pseudo_labels": jnp.mean(target_labels.mask)}
        return dataclasses.replace(apply_gradients(state, grads), stats=stats), metrics

    return Stage(
        name="adapt" if number + 1 == settings.rounds else f"adapt_{number + 1}",
        steps=end - start,
        init=init,
        updates=(Update(reads=reads(source=inputs.LABELLED) | settings.target, step=step),),
        evaluations=(networks.evaluation(normal=settings.maps),),
        apply_gradients=apply_gradients,
        order="adapt",
        first_batch=start,
    )


def again(state: State) -> State:
    """The state at step 0 of the next stage."""
    return dataclasses.replace(state, step=jnp.zeros((), jnp.int32))


def remembered(state: State, fields: inputs.Fields) -> dict[str, jax.Array]:
    """Target fields with the memory in the place of labels; visible is what is above the threshold.

    Of pairs of frames (B, 2, S, S, 3) the second ones, whose labels they are.
    """
    images = fields["image"]
    confidence = state.extra["confidence"][fields["index"]]
    return {
        "image": images if images.ndim == 4 else images[:, 1],
        "position": fields["position"],
        "keypoints": state.extra["points"][fields["index"]],
        "visible": (confidence > state.extra["threshold"]).astype(jnp.uint8) * VISIBLE,
    }
