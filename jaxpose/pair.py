"""What a pair of domains is."""

import dataclasses
from typing import Any

from jaxpose.config import Config
from jaxpose.models.hrnet import HRNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two domains and what suits them.

    Attributes:
      config: everything but the method.
      few, small: what of the data and of the model is different where it shall be quick.
      of_a_paper: a paper's experiment, which its own settings of a method suit.
      epochs: of pretraining, where the schedule is RegDA's published one.
      upright: figures are seen upright, more or less; hands may not be.
      posed: poses in space are known of the source, and cameras of both.
      clips: the target's images are frames of clips, by number, and its joints have bones.
    """

    config: Config
    few: dict[str, str] = dataclasses.field(default_factory=dict)
    small: dict[str, Any] = dataclasses.field(default_factory=lambda: {"depth": 18, "width": 8, "head_width": 16})
    of_a_paper: bool = False
    epochs: int | None = None
    upright: bool = True
    posed: bool = False
    clips: bool = False

    def quick(self) -> "Pair":
        """The same in under a minute on two cores, to see that everything works; its numbers mean nothing."""
        config = dataclasses.replace(
            self.config,
            steps=dict.fromkeys(self.config.steps, 40),
            eval_every=20,
            checkpoint_every=10,
            log_every=10,
            data=dataclasses.replace(self.config.data, **self.few, image_size=64, batch_size=8),
            model=dataclasses.replace(self.config.model, **self.small, sigma=1.0, weights=None),
        )
        return dataclasses.replace(self, config=config)

    def with_hrnet(self, width: int, weights: str) -> "Pair":
        """The same with another network; from a file of ImageNet weights where the pair's own starts from one."""
        own = self.config.model
        model = HRNet(
            width=width,
            sigma=own.sigma,
            head=own.head,
            target_statistics=own.target_statistics,
            weights=own.weights and weights,
        )
        small = {"width": 8, "stem": 16, "modules": (1, 1, 1), "blocks": 1}
        return dataclasses.replace(self, config=dataclasses.replace(self.config, model=model), small=small)


def with_adam(config: Config, rate: float, *, drops: tuple[float, ...] = (), **optim: Any) -> Config:
    """Adam at one rate for all networks, as the released code of many methods has it; `optim` changes more of it."""
    scales = {"pretrain_trunk_scale": 1.0, "adapt_trunk_scale": 1.0}
    rules = {"pretrain_rule": "adam", "adapt_rule": "adam", "adam_learning_rate": rate, "warmup": 0.0, "drops": drops}
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **scales | rules | optim))
