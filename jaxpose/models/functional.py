"""The functional boundary: Flax modules go in, pure functions of plain nested dicts come out."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxpose.models import layers, pose, resnet

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network as two pure functions.

    Attributes:
      init: key -> (params, stats), nested dicts of float32 arrays.
      apply: (params, stats, x, *, train) -> (y, new stats). With `train` the batch is normalised by its own statistics
        and these enter the running ones; without, the running ones are used and returned as they came.
    """

    init: Callable[[jax.Array], tuple[Tree, Tree]]
    apply: Callable[..., tuple[Any, Tree]]


Head = Callable[[int, int, DTypeLike], Network]  # (channels of the features, joints, dtype) -> features to heatmaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trunk:
    """What a detector's heads stand on.

    Attributes:
      networks: `backbone`, normalised images (B,H,W,3) -> a tuple of its layers' features, (B,h,w,c) each, from fine to
        coarse; and `upsampling`, that tuple -> the features that heads read. In between, methods may change the last.
      channels: of each layer.
      width: channels of the features that heads read.
    """

    networks: Mapping[str, Network]
    channels: tuple[int, ...]
    width: int


def network(module: Callable[..., nnx.Module], *, dtype: DTypeLike = jnp.float32) -> Network:
    """Makes a network of a module.

    Args:
      module: called as `module(dtype=dtype, rngs=rngs)`; the result is called as `(x, train)`. Its variables are
        `nnx.Param` or `nnx.BatchStat`.
      dtype: what layers compute in; parameters and statistics stay float32.
    """

    def split(key):
        return nnx.split(module(dtype=dtype, rngs=_Rngs(key)), nnx.Param, nnx.BatchStat)

    def init(key):
        _, params, stats = split(key)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    # The structure of a module does not depend on the key, so it is known without computing anything.
    graphdef = jax.eval_shape(split, jax.random.key(0))[0]

    def apply(params, stats, x, *, train):
        merged = nnx.merge(graphdef, params, stats)
        y = merged(x, train)
        return y, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat)) if train else stats

    return Network(init=init, apply=apply)


def init_networks(networks: Mapping[str, Network], key: jax.Array, names: tuple[str, ...]) -> tuple[Tree, Tree]:
    """Fresh parameters and statistics of the named networks."""
    keys = jax.random.split(key, len(names))
    made = {name: networks[name].init(k) for name, k in zip(names, keys, strict=True)}
    return {n: p for n, (p, _) in made.items()}, {n: s for n, (_, s) in made.items()}


def backbone(
    depth: int, width: int, dtype: DTypeLike, *, norm: layers.Norm = layers.BatchNorm, all_layers: bool = False
) -> Network:
    """A ResNet of 18, 34, 50, 101 or 152 layers: images (B,H,W,3) -> features (B,H/32,W/32,C), see `backbone_channels`.

    `width` is the number of channels after the first convolution, from which all others follow; the published
    networks have 64. `norm` is what follows each convolution, `layers.BatchNorm` or `layers.Bias`. With `all_layers`, a
    tuple of the features of its four layers at 1/4, 1/8, 1/16 and 1/32.
    """
    made = functools.partial(resnet.ResNet, depth=depth, width=width, norm=norm, all_layers=all_layers)
    return network(made, dtype=dtype)


def backbone_channels(depth: int, width: int, layer: int = 4) -> int:
    """The number of channels that a layer of `backbone(depth, width, dtype)` returns; 4 is the last."""
    return resnet.output_channels(depth, width) // 2 ** (4 - layer)


def upsampling(in_channels: int, head_width: int, dtype: DTypeLike, *, layers: int = 3) -> Network:
    """Transposed convolutions of the last of a backbone's layers, see `Trunk`.

    From features (B,h,w,in_channels) to (B,h*2**layers,w*2**layers,head_width).
    """
    module = functools.partial(pose.Upsampling, inputs=in_channels, width=head_width, layers=layers)
    return network(module, dtype=dtype)


def keypoint_head(in_channels: int, joints: int, dtype: DTypeLike = jnp.float32) -> Network:
    """One 1x1 convolution: features (B,h,w,in_channels) -> float32 heatmaps of logits (B,h,w,joints).

    It is computed in float32, whatever `dtype` is.
    """
    del dtype
    return network(functools.partial(pose.KeypointHead, inputs=in_channels, joints=joints))


def regressor(in_channels: int, joints: int, dtype: DTypeLike) -> Network:
    """RegDA's two-layer head: features (B,h,w,in_channels) -> float32 heatmaps of logits (B,h,w,joints)."""
    return network(functools.partial(pose.Regressor, inputs=in_channels, joints=joints), dtype=dtype)


HEADS: dict[str, Head] = {"linear": keypoint_head, "regressor": regressor}


class _Rngs(nnx.Rngs):
    """What `nnx.Rngs(params=key)` is."""

    params: nnx.RngStream

    def __init__(self, key: jax.Array):
        super().__init__()
        self.params = _Stream(key, tag="params")


class _Stream(nnx.RngStream):
    """The same keys, but counting them does not compare shardings, which makes tracing quadratic in depth."""

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
        return key
