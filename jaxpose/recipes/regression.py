"""Poses in space from images: a network finds a code, which the frozen decoder of `pose_priors` makes a pose of.

Source: Kundu et al. 2021, arXiv:2204.01971, Sec. 3.1, and the networks of the released code.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpose.config import Config
from jaxpose.losses import heatmap
from jaxpose.metrics.metric import Predictions
from jaxpose.models import functional
from jaxpose.models import relations as networks_of_codes
from jaxpose.ops import augment, local_frames
from jaxpose.recipes import detector, optimizers
from jaxpose.recipes.pose_priors import Priors, Trees
from jaxpose.recipes.stage import Batch, Evaluation, Metrics, Stage, State, Task, Update, next_state, reads

BACKBONE, REGRESSOR = WHOLE = ("backbone", "regressor")
POSED = ("image", "keypoints3d")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseRegressor:
    """The networks, and what they find.

    Attributes:
      task: of the run.
      priors: whose codes are found.
      networks: by name.
      layer: of the backbone, which is read; the released one reads the last but one, at 1/16 of the image's side.
    """

    task: Task
    priors: Priors
    networks: Mapping[str, functional.Network]
    layer: int

    def init(self, key: Array, names: tuple[str, ...]) -> tuple[Trees, Trees]:
        """Fresh parameters and statistics of the named networks."""
        return functional.init_networks(self.networks, key, names)

    def __call__(self, params: Trees, stats: Trees, images: Array, *, train: bool) -> tuple[Array, Array, Trees]:
        """Codes (B, latent) of images and what they were found from (B, c), and all statistics with the backbone's."""
        layers, moved = self.networks[BACKBONE].apply(params[BACKBONE], stats[BACKBONE], images, train=train)
        (codes, seen), _ = self.networks[REGRESSOR].apply(
            params[REGRESSOR], stats[REGRESSOR], layers[self.layer], train=train
        )
        return codes, seen, stats | {BACKBONE: moved}

    def of_clips(self, params: Trees, stats: Trees, frames: Array) -> tuple[Array, Array]:
        """Codes (B, T, latent) of frames (B, T, S, S, 3) by running statistics, and what they were found from."""
        codes, seen, _ = self(params, stats, frames.reshape(-1, *frames.shape[2:]), train=False)
        return codes.reshape(*frames.shape[:2], -1), seen.reshape(*frames.shape[:2], -1)

    @property
    def evaluation(self) -> Evaluation:
        """Poses relative to the pelvis, in metres, of a body whose bones are as long as the canonical one's."""
        order = np.array([self.priors.tree.joints.index(joint) for joint in self.task.skeleton.joints])

        def find(state: State, fields: Mapping[str, Array]) -> Predictions:
            images = augment.normalize(fields["image"].astype(jnp.float32))
            codes, _, _ = self(state.params, state.stats, images, train=False)
            return Predictions(points3d=self.priors.poses(state.params, codes)[:, order])

        return Evaluation(predict=find)


def build(task: Task, config: Config, priors: Priors, *, layer: int) -> PoseRegressor:
    """The backbone of `config.model`, and what follows it.

    Raises:
      ValueError: if the backbone has no such layer.
    """
    dtype = detector.compute_dtype(config.dtype)
    trunk = config.model.trunk(dtype)
    if not -len(trunk.channels) <= layer < len(trunk.channels):
        raise ValueError(f"config.method.layer: found {layer}, expected one of the backbone's {len(trunk.channels)}")
    backbone = trunk.networks[BACKBONE]
    height, width = _size(backbone, task.image_size, layer)
    made: dict[str, Any] = {
        BACKBONE: backbone,
        REGRESSOR: functional.network(
            functools.partial(
                networks_of_codes.PoseRegressor,
                inputs=trunk.channels[layer],
                size=(height, width),
                latent=priors.settings.latent,
                bound=priors.settings.bound,
                width=priors.settings.width,
            ),
            dtype=dtype,
        ),
    }
    return PoseRegressor(task=task, priors=priors, networks=dict(priors.networks) | made, layer=layer)


def _size(backbone: functional.Network, image_size: int, layer: int) -> tuple[int, int]:
    """Height and width of what a layer makes of images."""

    def features(key: Array) -> Array:
        images = jnp.zeros((1, image_size, image_size, 3))
        return backbone.apply(*backbone.init(key), images, train=False)[0][layer]

    _, height, width, _ = jax.eval_shape(features, jax.random.key(0)).shape
    return height, width


def pretrain(config: Config, networks: PoseRegressor, *, domain: str = "source") -> Stage:
    """Learns to find the poses of labelled images; the decoder stays as it is."""
    task, tree = networks.task, networks.priors.tree
    steps, settings = config.steps_of("pretrain"), config.optim
    rule = optimizers.transformation(settings.pretrain_rule, settings)
    high = optimizers.peak(settings.pretrain_rule, settings)
    schedule = optimizers.step_schedule(high, steps, settings)
    order = task.skeleton.indices(tree.joints)

    def init(key: Array, previous: State | None) -> State:
        return next_state(key, previous, networks, dict.fromkeys(WHOLE, rule), fresh=WHOLE)

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        fields = batch[domain]
        images, drawn = augment.augment(key, fields["image"], fields["position"], task.augmentation)
        labels = augment.poses_of(drawn, fields["keypoints3d"], task.skeleton.flip_permutation)[:, order]
        known = jnp.all(jnp.isfinite(labels), axis=-1)
        labels = local_frames.completed(labels, tree)
        whole = jnp.all(jnp.isfinite(labels), axis=(1, 2))[:, None]
        wanted = local_frames.fitted(jnp.where(whole[..., None], labels, 0.0), tree)

        def loss(params: Trees) -> tuple[Array, Trees]:
            codes, _, stats = networks(state.params | params, state.stats, images, train=True)
            error = jnp.mean(jnp.abs(networks.priors.poses(state.params, codes) - wanted), axis=-1)
            return heatmap.masked_mean(error, known & whole), stats

        trained = {name: state.params[name] for name in WHOLE}
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        rates = {BACKBONE: schedule(state.step) * settings.pretrain_trunk_scale, REGRESSOR: schedule(state.step)}
        state = optimizers.apply_gradients(state, grads, dict.fromkeys(WHOLE, rule), rates)
        return dataclasses.replace(state, stats=stats), {f"loss/{domain}": value}

    def load(state: State) -> State:
        params, stats = config.model.load(state.params, state.stats)
        return dataclasses.replace(state, params=params, stats=stats)

    return Stage(
        name="pretrain",
        steps=steps,
        init=init,
        load=None if config.model.weights is None else load,
        updates=(Update(reads=reads(**{domain: POSED}), step=step),),
        evaluations=(networks.evaluation,),
    )
