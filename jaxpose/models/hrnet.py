"""HRNet: branches of four resolutions side by side that exchange what they find; heads read the finest.

Source: Sun et al. 2019, arXiv:1902.09212, with the shapes and names of the released pose networks.
"""

import dataclasses
import functools

import jax
from annotated_types import MinLen, Predicate
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.limits import AT_LEAST_1, POSITIVE, limited, one_of
from jaxpose.models import functional, layers, resnet, torch_import
from jaxpose.models.functional import Tree
from jaxpose.models.layers import Layers
from jaxpose.ops.activation import relu
from jaxpose.ops.heatmaps import Grid

Maps = tuple[Float[Array, "*b _ _ _"], ...]  # one per resolution, from the finest


@dataclasses.dataclass(kw_only=True)
class HRNet:
    """The networks; the defaults are HRNet-W32.

    Attributes:
      width: channels of the finest branch, which double from branch to branch; 32 and 48 are the published networks.
      stem: channels of the first convolutions; 64 in the published networks.
      modules: exchanges between two, three and four branches.
      blocks: residual blocks between exchanges.
      sigma: of the label heatmaps, in heatmap pixels.
      head, target_statistics: as of `SimpleBaseline`.
      weights: a `.pth` or `.safetensors` file of a released pose or ImageNet network, or of mmpose's, for everything
        but the head; None starts from random weights.
    """

    width: int = limited(32, *AT_LEAST_1)
    stem: int = limited(64, *AT_LEAST_1)
    modules: tuple[int, int, int] = limited(
        (1, 4, 3), "three counts of at least 1", Predicate(lambda found: min(found) >= 1)
    )
    blocks: int = limited(4, *AT_LEAST_1)
    sigma: float = limited(2.0, *POSITIVE)
    head: str = limited("linear", *one_of(*functional.HEADS))
    target_statistics: bool = False
    weights: str | None = limited(None, "a file, or None", MinLen(1))

    def grid(self, image_size: int) -> Grid:
        """The finest branch has a quarter of the image's side."""
        return Grid(size=image_size // 4, stride=4.0, sigma=self.sigma)

    def trunk(self, dtype: DTypeLike) -> functional.Trunk:
        """The backbone's layers are the branches, at 1/4 to 1/32 of the image; the last exchange is the upsampling.

        So what a method does between backbone and upsampling it does to the branch at 1/32 as it enters that exchange.
        """
        channels = _channels(self.width, 4)
        backbone = functools.partial(
            Branches, width=self.width, stem=self.stem, modules=self.modules, blocks=self.blocks
        )
        networks = {
            "backbone": functional.network(backbone, dtype=dtype),
            "upsampling": functional.network(functools.partial(LastExchange, channels=channels), dtype=dtype),
        }
        return functional.Trunk(networks=networks, channels=channels, width=self.width)

    @property
    def source_head(self) -> functional.Head:
        """What `head` says."""
        return functional.HEADS[self.head]

    def load(self, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
        """Puts the file's weights into backbone and upsampling.

        An ImageNet network's classifier is left out, and what its last module has for the coarser branches.

        Raises:
          FileNotFoundError, ValueError: see `torch_import`.
        """
        assert self.weights is not None
        last = f"stage4.{self.modules[-1] - 1}."
        return torch_import.networks_from_torch(
            torch_import.load_torch_weights(self.weights),
            params,
            stats,
            prefixes={"backbone": "", "upsampling": last},
            left_out=(*_CLASSIFIER, "final_layer.", *(f"{last}fuse_layers.{coarse}." for coarse in (1, 2, 3))),
            settings="model.width, model.modules, model.blocks",
        )


class Branches(nnx.Module):
    """Images to the features of four branches at 1/4, 1/8, 1/16 and 1/32 of their size, as the last exchange gets them.

    Attributes:
      conv1, bn1, conv2, bn2: each convolution halves the size.
      layer1: bottlenecks.
      transition1 .. transition3: each adds a branch of half the size of the coarsest.
      stage2 .. stage4: modules named "0", "1", ...
    """

    def __init__(
        self,
        *,
        width: int,
        stem: int,
        modules: tuple[int, int, int],
        blocks: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = layers.Conv(3, stem, 3, stride=2, init=layers.he_normal, **options)
        self.bn1 = layers.BatchNorm(stem, dtype=dtype)
        self.conv2 = layers.Conv(stem, stem, 3, stride=2, init=layers.he_normal, **options)
        self.bn2 = layers.BatchNorm(stem, dtype=dtype)
        self.layer1 = resnet.blocks(resnet.Bottleneck, stem, stem, 1, blocks, **options)
        channels = (resnet.Bottleneck.expansion * stem,)
        for stage, count in zip((2, 3, 4), modules, strict=True):
            before, channels = channels, _channels(width, stage)
            setattr(self, f"transition{stage - 1}", _transition(before, channels, **options))
            made = {}
            for i in range(count):
                last = stage == 4 and i == count - 1
                made[str(i)] = Module(channels=channels, blocks=blocks, exchanges=not last, **options)
            setattr(self, f"stage{stage}", nnx.Dict(made))

    def __call__(self, x: Float[Array, "*b h w 3"], train: bool) -> Maps:
        """Features of normalised images, whose sides are multiples of 32."""
        x = relu(self.bn1(self.conv1(x), train))
        x = relu(self.bn2(self.conv2(x), train))
        for block in self.layer1.values():
            x = block(x, train)
        branches = (x,)
        for stage in (2, 3, 4):
            branches = _with_another(getattr(self, f"transition{stage - 1}"), branches, train)
            for module in getattr(self, f"stage{stage}").values():
                branches = module(branches, train)
        return branches


class LastExchange(nnx.Module):
    """The features of all branches to those of the finest.

    Attributes:
      fuse_layers: as of `Module`, of the one output.
    """

    def __init__(self, *, channels: tuple[int, ...], dtype: DTypeLike, rngs: nnx.Rngs):
        self.fuse_layers = _fuse_layers(channels, 1, dtype=dtype, rngs=rngs)

    def __call__(self, branches: Maps, train: bool) -> Float[Array, "*b _ _ _"]:
        """Features at 1/4 of the image."""
        return _exchanged(self.fuse_layers, branches, train)[0]


class Module(nnx.Module):
    """Residual blocks on every branch, then an exchange between all branches.

    Attributes:
      branches: blocks by branch.
      fuse_layers: by output branch, what is done to each of the others before they are added; None without exchange.
    """

    def __init__(self, *, channels: tuple[int, ...], blocks: int, exchanges: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        made = [resnet.blocks(resnet.BasicBlock, c, c, 1, blocks, dtype=dtype, rngs=rngs) for c in channels]
        self.branches = _numbered(made)
        self.fuse_layers = _fuse_layers(channels, len(channels), dtype=dtype, rngs=rngs) if exchanges else None

    def __call__(self, branches: Maps, train: bool) -> Maps:
        """Features of the same shapes."""
        found = []
        for x, blocks in zip(branches, self.branches.values(), strict=True):
            for block in blocks.values():
                x = block(x, train)
            found.append(x)
        return tuple(found) if self.fuse_layers is None else _exchanged(self.fuse_layers, tuple(found), train)


# What ImageNet networks have after their branches.
_CLASSIFIER = ("incre_modules.", "downsamp_modules.", "classifier.")


def _channels(width: int, branches: int) -> tuple[int, ...]:
    return tuple(width << i for i in range(branches))


def _transition(before: tuple[int, ...], after: tuple[int, ...], **options) -> Layers:
    """Convolutions of the branches whose channels change, and one that makes the last branch of the coarsest."""
    made = {
        str(i): layers.conv_norm(old, new, 3, **options)
        for i, (old, new) in enumerate(zip(before, after, strict=False))
        if old != new
    }
    added = layers.conv_norm(before[-1], after[-1], 3, stride=2, **options)
    return nnx.Dict(made | {str(len(before)): nnx.Dict({"0": added})})


def _with_another(transition: Layers, branches: Maps, train: bool) -> Maps:
    kept = (
        relu(layers.apply_conv_norm(transition[str(i)], x, train)) if str(i) in transition else x
        for i, x in enumerate(branches)
    )
    added = transition[str(len(branches))]["0"]
    return *kept, relu(layers.apply_conv_norm(added, branches[-1], train))


def _fuse_layers(channels: tuple[int, ...], outputs: int, **options) -> Layers:
    """By output and input: of coarser ones a 1x1 convolution, of finer ones 3x3 convolutions that halve the size."""

    def path(output: int, other: int) -> Layers:
        if other > output:
            return layers.conv_norm(channels[other], channels[output], 1, **options)
        steps = [channels[other]] * (output - other - 1) + [channels[output]]
        return _numbered([layers.conv_norm(channels[other], after, 3, stride=2, **options) for after in steps])

    others = ({str(j): path(i, j) for j in range(len(channels)) if j != i} for i in range(outputs))
    return _numbered([nnx.Dict(made) for made in others])


def _exchanged(fuse_layers: Layers, branches: Maps, train: bool) -> Maps:
    return tuple(_sum(paths, branches, output, train) for output, paths in enumerate(fuse_layers.values()))


def _sum(paths: Layers, branches: Maps, output: int, train: bool) -> jax.Array:
    # From coarse to fine, each sum enlarged by two: the fine maps, and their gradients, are passed over once.
    coarser: list[jax.Array] = []
    for other in reversed(range(output + 1, len(branches))):
        x = layers.apply_conv_norm(paths[str(other)], branches[other], train)
        coarser = [layers.doubled(sum(coarser, x))]
    total = sum(coarser, branches[output])
    for other in range(output):
        x, steps = branches[other], list(paths[str(other)].values())
        for step in steps[:-1]:
            x = relu(layers.apply_conv_norm(step, x, train))
        total = total + layers.apply_conv_norm(steps[-1], x, train)
    return relu(total)


def _numbered(modules: list[Layers]) -> Layers:
    return nnx.Dict({str(i): made for i, made in enumerate(modules)})
