"""What a pair of domains is."""

import dataclasses

from jaxpose.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two domains and what suits them.

    Attributes:
      config: everything but the method.
      few: what of the data is different where it shall be quick.
      of_a_paper: a paper's experiment, which its own settings of a method suit.
      epochs: of pretraining, where the schedule is RegDA's published one.
      upright: figures are seen upright, more or less; hands may not be.
    """

    config: Config
    few: dict[str, str] = dataclasses.field(default_factory=dict)
    of_a_paper: bool = False
    epochs: int | None = None
    upright: bool = True

    def quick(self) -> "Pair":
        """The same in under a minute on two cores, to see that everything works; its numbers mean nothing."""
        config = dataclasses.replace(
            self.config,
            steps=dict.fromkeys(self.config.steps, 40),
            eval_every=20,
            checkpoint_every=10,
            log_every=10,
            data=dataclasses.replace(self.config.data, **self.few, image_size=64, batch_size=8),
            model=dataclasses.replace(self.config.model, depth=18, width=8, head_width=16, sigma=1.0, weights=None),
        )
        return dataclasses.replace(self, config=config)
