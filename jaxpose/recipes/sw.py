"""SW: strong alignment of local, weak of global features (Saito et al., CVPR 2019), as the CAFA paper compares it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, limited
from jaxpose.models import functional
from jaxpose.models.discriminator import PixelDiscriminator, VectorDiscriminator
from jaxpose.ops import gradients
from jaxpose.recipes import alignment
from jaxpose.recipes.detector import Detector, Features, Trees
from jaxpose.recipes.stage import Metrics, Stage, Task


@dataclasses.dataclass(kw_only=True)
class StrongWeak:
    """Least squares on every pixel of an early layer; a focal loss on pooled features of the last.

    The focal loss leaves images alone that are easily told apart, so that unlike scenes are not forced together.

    Attributes:
      trade_off: weight of both losses against the supervision, lambda of Eq. 11.
      focus: gamma of the focal loss, Eq. 5.
      hidden: channels of the discriminators.
    """

    name: str = "sw"
    trade_off: float = limited(1.0, *AT_LEAST_0)
    focus: float = limited(5.0, *AT_LEAST_0)
    hidden: int = limited(256, *AT_LEAST_1)

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain, then align."""
        return alignment.stages(task, config, self.game)

    def game(self, networks: Detector) -> alignment.Alignment:
        """The discriminators, and what they play for."""
        early, late = networks.channels[0], networks.channels[-1]
        made = {
            "local": functional.network(functools.partial(PixelDiscriminator, inputs=early, hidden=self.hidden)),
            "global": functional.network(functools.partial(VectorDiscriminator, inputs=late, hidden=self.hidden)),
        }

        def judge(name: str, params: Trees, features: jax.Array) -> jax.Array:
            reversed_features = gradients.scale_gradient(features, -1.0)
            return made[name].apply(params[name], {}, reversed_features, train=True)[0]

        def loss(params: Trees, source: Features, target: Features, progress: jax.Array) -> tuple[jax.Array, Metrics]:
            local = local_loss(*(judge("local", params, domain.layers[0]) for domain in (source, target)))
            pooled = (jnp.mean(d.layers[-1].astype(jnp.float32), axis=(1, 2)) for d in (source, target))
            weak = global_loss(*(judge("global", params, vectors) for vectors in pooled), focus=self.focus)
            return self.trade_off * (local + weak), {"local": local, "global": weak}

        return alignment.Alignment(networks=made, loss=loss)


def local_loss(source: jax.Array, target: jax.Array) -> jax.Array:
    """Least squares of probabilities, 0 on the source and 1 on the target, halved (Eqs. 6-8)."""
    off_source = jnp.mean(jnp.square(jax.nn.sigmoid(-source)))
    off_target = jnp.mean(jnp.square(jax.nn.sigmoid(target)))
    return 0.5 * (off_source + off_target)


def global_loss(source: jax.Array, target: jax.Array, *, focus: float) -> jax.Array:
    """The focal cross-entropy -(1 - p)^focus log p of the true domain's probability p, halved (Eqs. 3-5)."""

    def focal(logits: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.sigmoid(-logits) ** focus * jax.nn.softplus(-logits))

    return 0.5 * (focal(source) + focal(-target))
