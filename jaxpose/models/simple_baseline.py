"""SimpleBaseline: a ResNet, and transposed convolutions that bring its features back to the heatmaps' resolution.

Source: Xiao et al. 2018, arXiv:1804.06208.
"""

import dataclasses

from annotated_types import Interval, MinLen, Predicate
from jax.typing import DTypeLike

from jaxpose.limits import AT_LEAST_1, POSITIVE, limited, one_of
from jaxpose.models import functional, layers, torch_import
from jaxpose.models.functional import Tree
from jaxpose.ops.heatmaps import Grid


@dataclasses.dataclass(kw_only=True)
class SimpleBaseline:
    """The networks.

    Attributes:
      depth: of the ResNet: 18, 34, 50, 101 or 152.
      width: channels of its first stage; 64 is the published network.
      norm: what follows the ResNet's convolutions: `layers.BatchNorm`, or `layers.Bias` to normalise nothing. The
        upsampling is normalised either way.
      head_width: channels of the upsampling layers and regressors.
      upsampling: transposed convolutions, each of which doubles the resolution.
      sigma: of the label heatmaps, in heatmap pixels.
      head: of the source model: `linear`, one 1x1 convolution, or `regressor`, RegDA's two layers. RegDA's and MCD's
        regressors go on from the latter and start anew after the former.
      target_statistics: while adapting, only target batches move the running batch statistics, so that the adapted
        detector normalises by the target alone; else source batches move them too.
      weights: a torchvision `.pth` or `.safetensors` file for the backbone; None starts from random weights.
    """

    depth: int = limited(50, "18, 34, 50, 101 or 152", Predicate((18, 34, 50, 101, 152).__contains__))
    width: int = limited(64, *AT_LEAST_1)
    norm: layers.Norm = layers.BatchNorm
    head_width: int = limited(256, *AT_LEAST_1)
    upsampling: int = limited(3, "1 to 5", Interval(ge=1, le=5))
    sigma: float = limited(2.0, *POSITIVE)
    head: str = limited("linear", *one_of(*functional.HEADS))
    target_statistics: bool = False
    weights: str | None = limited(None, "a file, or None", MinLen(1))

    def grid(self, image_size: int) -> Grid:
        """The ResNet leaves 1/32 of the image's side, and every transposed convolution doubles it."""
        size = image_size * 2**self.upsampling // 32
        return Grid(size=size, stride=image_size / size, sigma=self.sigma)

    def trunk(self, dtype: DTypeLike) -> functional.Trunk:
        """The backbone's layers are at 1/4, 1/8, 1/16 and 1/32 of the image."""
        channels = tuple(functional.backbone_channels(self.depth, self.width, layer) for layer in (1, 2, 3, 4))
        networks = {
            "backbone": functional.backbone(self.depth, self.width, dtype, norm=self.norm, all_layers=True),
            "upsampling": functional.upsampling(channels[-1], self.head_width, dtype, layers=self.upsampling),
        }
        return functional.Trunk(networks=networks, channels=channels, width=self.head_width)

    @property
    def source_head(self) -> functional.Head:
        """What `head` says."""
        return functional.HEADS[self.head]

    def load(self, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
        """Puts the file's weights into the backbone.

        Raises:
          FileNotFoundError, ValueError: see `torch_import`.
        """
        assert self.weights is not None
        found = torch_import.load_torch_weights(self.weights)
        backbone, statistics = torch_import.resnet_from_torch(found, params["backbone"], stats["backbone"])
        return params | {"backbone": backbone}, stats | {"backbone": statistics}
