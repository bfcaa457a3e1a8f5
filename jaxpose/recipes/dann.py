"""DANN: domain-adversarial training (Ganin et al., JMLR 2016) on pooled features."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, limited
from jaxpose.models import functional
from jaxpose.models.discriminator import VectorDiscriminator
from jaxpose.ops import gradients
from jaxpose.recipes import alignment
from jaxpose.recipes.detector import Detector, Features, Trees
from jaxpose.recipes.stage import Metrics, Stage, Task


@dataclasses.dataclass(kw_only=True)
class DANN:
    """A discriminator tells the domains apart by the backbone's pooled features; the trunk makes that hard.

    Attributes:
      trade_off: weight of the discriminator's loss.
      hidden: channels of the discriminator.
      steepness: gamma of the reversal's warm-up 2 / (1 + exp(-gamma p)) - 1.
    """

    name: str = "dann"
    trade_off: float = limited(1.0, *AT_LEAST_0)
    hidden: int = limited(1024, *AT_LEAST_1)
    steepness: float = 10.0

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain, then align."""
        return alignment.stages(task, config, self.game)

    def game(self, networks: Detector) -> alignment.Alignment:
        """The discriminator, and what it plays for."""
        made = functools.partial(VectorDiscriminator, inputs=networks.channels[-1], hidden=self.hidden)
        network = functional.network(made)

        def loss(params: Trees, source: Features, target: Features, progress: jax.Array) -> tuple[jax.Array, Metrics]:
            def judge(features: Features) -> jax.Array:
                pooled = jnp.mean(features.layers[-1].astype(jnp.float32), axis=(1, 2))
                reversed_features = gradients.scale_gradient(pooled, -warm_up(progress, self.steepness))
                return network.apply(params["discriminator"], {}, reversed_features, train=True)[0]

            cross_entropy = adversarial_loss(judge(source), judge(target))
            return self.trade_off * cross_entropy, {"domain_cross_entropy": cross_entropy}

        return alignment.Alignment(networks={"discriminator": network}, loss=loss)


def adversarial_loss(source: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of logits that shall be positive on the source; log 2 for a discriminator that guesses."""
    return 0.5 * (jnp.mean(jax.nn.softplus(-source)) + jnp.mean(jax.nn.softplus(target)))


def warm_up(progress: jax.Array, steepness: float) -> jax.Array:
    """How strongly the gradient is reversed, from 0 to 1.

    Source: Ganin et al. 2016, Sec. 5.2.2.
    """
    return 2 / (1 + jnp.exp(-steepness * progress)) - 1
