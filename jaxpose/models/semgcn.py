"""Graph networks over joints.

Source: Zhao et al. 2019, arXiv:1904.03345 ("SemGCN"), and Wang et al. 2018, arXiv:1711.07971, for the non-local block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models import layers
from jaxpose.ops import graph as graphs
from jaxpose.ops.graph import Graph

Nodes = Float[Array, "b k c"]
Readout = Callable[[int, nnx.Rngs], nnx.Module]  # (channels of the hidden layers, rngs) -> the last layer


class SemGCN(nnx.Module):
    """Features of joints to features of joints: a graph convolution, residual blocks of two, and a last layer.

    Attributes:
      first: the convolution of the input.
      nonlocal0, block1, nonlocal1, ...: blocks, and with `non_local` attention among all joints after the input and
        each of them.
      last: made by `readout`: another graph convolution (SemGCN), or a layer on every joint by itself (CAFA).
    """

    def __init__(
        self,
        *,
        graph: Graph,
        inputs: int,
        hidden: int = 128,
        blocks: int = 4,
        non_local: bool = False,
        channelwise: bool = False,
        one_kernel: bool = False,
        readout: Readout,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype  # float32: joints are few
        self.blocks, self.non_local = blocks, non_local
        options = {"graph": graph, "channelwise": channelwise, "one_kernel": one_kernel, "rngs": rngs}
        self.first = Unit(inputs=inputs, outputs=hidden, **options)
        for number in range(blocks + 1):
            if number:
                setattr(self, f"block{number}", Residual(channels=hidden, **options))
            if non_local:
                setattr(self, f"nonlocal{number}", NonLocal(channels=hidden, rngs=rngs))
        self.last = readout(hidden, rngs)

    def __call__(self, x: Nodes, train: bool) -> Float[Array, "b k d"]:
        """Features (B, K, D)."""
        x = self.first(x.astype(jnp.float32), train)
        for number in range(self.blocks + 1):
            if number:
                x = getattr(self, f"block{number}")(x, train)
            if self.non_local:
                x = getattr(self, f"nonlocal{number}")(x, train)
        return self.last(x)


class SemGraphConv(nnx.Module):
    """Semantic graph convolution with a bias, see `ops.graph.convolve`.

    Attributes:
      kernel: (2, inputs, outputs) of what nodes send to themselves and to others; (1, inputs, outputs) of both.
      edges: logits (E,), or (E, outputs) of every channel by itself; equal at the start.
      bias: (outputs,).
    """

    def __init__(
        self,
        *,
        graph: Graph,
        inputs: int,
        outputs: int,
        channelwise: bool = False,
        one_kernel: bool = False,
        rngs: nnx.Rngs,
    ):
        self.graph = graph
        kernels = 1 if one_kernel else 2
        bound = (12.0 / (inputs + outputs)) ** 0.5  # Glorot's, for ReLU
        shape = (kernels, inputs, outputs)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))
        self.edges = nnx.Param(jnp.ones((len(graph), outputs) if channelwise else len(graph)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Nodes) -> Float[Array, "b k d"]:
        """Features of the nodes' neighbourhoods."""
        kernel = self.kernel[...]
        y = graphs.convolve(x, kernel[0], kernel[-1], self.edges[...], self.graph)
        return y + self.bias[...][None, None]


class Unit(nnx.Module):
    """Graph convolution, normalisation over batch and joints, ReLU."""

    def __init__(self, *, outputs: int, **options):
        self.conv = SemGraphConv(outputs=outputs, **options)
        self.norm = layers.BatchNorm(outputs, dtype=jnp.float32)

    def __call__(self, x: Nodes, train: bool) -> Float[Array, "b k d"]:
        """Features."""
        return jax.nn.relu(self.norm(self.conv(x), train))


class Residual(nnx.Module):
    """Two units, whose result is added."""

    def __init__(self, *, channels: int, **options):
        self.unit1 = Unit(inputs=channels, outputs=channels, **options)
        self.unit2 = Unit(inputs=channels, outputs=channels, **options)

    def __call__(self, x: Nodes, train: bool) -> Nodes:
        """Features."""
        return x + self.unit2(self.unit1(x, train), train)


class NonLocal(nnx.Module):
    """Every joint receives from all joints, at first nothing: the scale of the last normalisation is zero.

    How much is a ReLU of a linear function of both joints' features, divided by the number of joints (the concatenation
    of Wang et al. 2018, Sec. 3.2). The released SemGCN takes the maxima of pairs of joints first, which needs pairs.

    Attributes:
      value, receiver, sender: affine maps to half the channels.
      affinity: (channels,), of a receiver's half and a sender's.
      output: an affine map back, and its normalisation `norm`.
    """

    def __init__(self, *, channels: int, rngs: nnx.Rngs):
        half = channels // 2
        self.value, self.receiver, self.sender = (pointwise(channels, half, rngs) for _ in range(3))
        self.affinity = nnx.Param(layers.normal(2**0.5)(rngs.params(), (2 * half,)))  # He's, of one output
        self.output = pointwise(half, channels, rngs)
        self.norm = layers.BatchNorm(channels, dtype=jnp.float32)
        self.norm.scale.set_value(jnp.zeros(channels))

    def __call__(self, x: Nodes, train: bool) -> Nodes:
        """Features, with what was received added."""
        to, by = jnp.split(self.affinity[...], 2)
        precision = jax.lax.Precision.HIGHEST
        received = jnp.einsum("bkc,c->bk", self.receiver(x), to, precision=precision)
        sent = jnp.einsum("bkc,c->bk", self.sender(x), by, precision=precision)
        weights = jax.nn.relu(received[:, :, None] + sent[:, None, :]) / x.shape[1]
        gathered = jnp.einsum("bij,bjc->bic", weights, self.value(x), precision=precision)
        return x + self.norm(self.output(gathered), train)


class Places(nnx.Module):
    """Features of joints to where they are, (x, y), by one affine map for all of them."""

    def __init__(self, *, inputs: int, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype
        self.affine = nnx.Linear(
            inputs,
            2,
            kernel_init=nnx.initializers.zeros,  # at first all joints are in the middle
            bias_init=nnx.initializers.constant(0.5),
            precision=jax.lax.Precision.HIGHEST,
            rngs=rngs,
        )

    def __call__(self, x: Nodes, train: bool) -> Float[Array, "b k 2"]:
        """Points."""
        return self.affine(x)


def pointwise(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """An affine map of every joint by itself, float32."""
    return nnx.Linear(
        inputs,
        outputs,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        precision=jax.lax.Precision.HIGHEST,
        rngs=rngs,
    )
