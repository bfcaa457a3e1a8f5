"""DAN: deep adaptation networks (Long et al., ICML 2015): the maximum mean discrepancy of pooled features."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, limited
from jaxpose.ops import kernels
from jaxpose.recipes import alignment
from jaxpose.recipes.detector import Features, Trees
from jaxpose.recipes.stage import Metrics, Stage, Task


@dataclasses.dataclass(kw_only=True)
class DAN:
    """Multi-kernel MMD on the backbone's pooled features.

    Attributes:
      trade_off: weight of the discrepancy, lambda of Eq. 9.
      factors, bandwidth, unbiased: see `kernels.mmd`.
    """

    name: str = "dan"
    trade_off: float = limited(1.0, *AT_LEAST_0)
    factors: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    bandwidth: Callable[[jax.Array], jax.Array] = kernels.mean_bandwidth
    unbiased: bool = False

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain, then align."""
        return alignment.stages(task, config, lambda _: alignment.Alignment(networks={}, loss=self.loss))

    def loss(self, params: Trees, source: Features, target: Features, progress: jax.Array) -> tuple[jax.Array, Metrics]:
        """The discrepancy."""
        discrepancy = kernels.mmd(
            jnp.mean(source.layers[-1].astype(jnp.float32), axis=(1, 2)),
            jnp.mean(target.layers[-1].astype(jnp.float32), axis=(1, 2)),
            factors=self.factors,
            bandwidth=self.bandwidth,
            unbiased=self.unbiased,
        )
        return self.trade_off * discrepancy, {"mmd": discrepancy}
