"""Graphs of joints, and convolution on them by segment operations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Nodes = Float[Array, "b k c"]
Logits = Float[Array, "edges"] | Float[Array, "edges d"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """The edges of an undirected graph, in both directions, and one from every node to itself.

    Attributes:
      nodes: K.
      edges: (receiver, sender) of each, in order.
    """

    nodes: int
    edges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.edges)

    @property
    def receivers(self) -> np.ndarray:
        """Those of all edges, int32 (E,)."""
        return np.array(self.edges, np.int32)[:, 0]

    @property
    def senders(self) -> np.ndarray:
        """Those of all edges, int32 (E,)."""
        return np.array(self.edges, np.int32)[:, 1]


def of_bones(nodes: int, bones: Int[np.ndarray, "m 2"]) -> Graph:
    """The graph of a skeleton's bones, such as `Skeleton.bone_indices`.

    Raises:
      ValueError: if a bone names a joint that there is not.
    """
    bones = np.asarray(bones, np.int64).reshape(-1, 2)
    if bones.size and (bones.min() < 0 or bones.max() >= nodes):
        raise ValueError(f"found bones of joints {bones.min()} to {bones.max()}, expected joints below {nodes}")
    linked = np.eye(nodes, dtype=bool)
    linked[bones[:, 0], bones[:, 1]] = linked[bones[:, 1], bones[:, 0]] = True
    return Graph(nodes=nodes, edges=tuple((int(a), int(b)) for a, b in np.argwhere(linked)))


def edge_weights(logits: Logits, graph: Graph) -> Logits:
    """Softmax over the edges that each node receives, of every channel by itself if there are some."""
    receivers = jnp.asarray(graph.receivers)
    options = {"num_segments": graph.nodes, "indices_are_sorted": True}
    largest = jax.lax.stop_gradient(jax.ops.segment_max(logits, receivers, **options))
    weights = jnp.exp(logits - largest[receivers])
    return weights / jax.ops.segment_sum(weights, receivers, **options)[receivers]


def convolve(
    x: Nodes,
    own: Float[Array, "c d"],
    others: Float[Array, "c d"],
    logits: Logits,
    graph: Graph,
) -> Float[Array, "b k d"]:
    """Semantic graph convolution: every node receives a weighted mean of its neighbours' features and its own.

    Args:
      x: features of the nodes.
      own, others: kernels for what a node sends to itself and to others; the same one twice is Eq. 3 of the paper.
      logits: of the edges; (E, D) weighs every output channel by itself.
      graph: K nodes and E edges.

    Source: Zhao et al. 2019 (SemGCN), arXiv:1904.03345, Eqs. 3-4, and the two kernels of its released code.
    """
    leading = jnp.swapaxes(x, 0, 1)  # (K, B, C): what is gathered and summed are rows
    precision = jax.lax.Precision.HIGHEST
    kept, sent = (jnp.einsum("kbc,cd->kbd", leading, kernel, precision=precision) for kernel in (own, others))
    loops = (graph.receivers == graph.senders)[:, None, None]
    weights = edge_weights(logits, graph).reshape(len(graph), 1, -1)
    messages = weights * jnp.where(loops, kept[graph.senders], sent[graph.senders])
    received = jax.ops.segment_sum(
        messages, jnp.asarray(graph.receivers), num_segments=graph.nodes, indices_are_sorted=True
    )
    return jnp.swapaxes(received, 0, 1)
