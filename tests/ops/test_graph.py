import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.data.joints.skeletons import COCO17, HAND21, MPII16, Skeleton
from jaxpose.ops import graph as graphs

# Human3.6M's 16 joints as SemGCN numbers them: each joint's parent, the first one's is none.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14)
H36M16 = np.array([(child, parent) for child, parent in enumerate(PARENTS) if parent >= 0])


def bones_of(skeleton: Skeleton) -> tuple[int, np.ndarray]:
    return len(skeleton), skeleton.bone_indices


BONES = {
    "h36m16": (16, H36M16),
    "coco17": bones_of(COCO17),
    "mpii16": bones_of(MPII16),
    "hand21": bones_of(HAND21),
}


def dense(x, own, others, logits, nodes, bones):
    """The convolution by matrices: a masked softmax over rows, whose diagonal goes with one kernel and the rest with
    the other; `logits` in the order of the mask's true places."""
    mask = np.eye(nodes, dtype=bool)
    for a, b in bones:
        mask[a, b] = mask[b, a] = True
    channels = own.shape[1]
    spread = jnp.broadcast_to(logits.reshape(len(logits), -1), (len(logits), channels))
    full = jnp.full((nodes, nodes, channels), -9e15).at[mask].set(spread)
    weights = jax.nn.softmax(full, axis=1)
    eye = jnp.eye(nodes)[:, :, None]
    return jnp.einsum("ijd,bjd->bid", weights * eye, x @ own) + jnp.einsum(
        "ijd,bjd->bid", weights * (1 - eye), x @ others
    )


@pytest.mark.parametrize("channelwise", [False, True])
@pytest.mark.parametrize("name", BONES)
def test_convolution_is_that_of_masked_matrices_forward_and_backward(name: str, channelwise: bool) -> None:
    nodes, bones = BONES[name]
    graph = graphs.of_bones(nodes, bones)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, own, others = (jnp.asarray(rng.normal(size=s)) for s in ((3, nodes, 4), (4, 5), (4, 5)))
        logits = jnp.asarray(rng.normal(scale=3.0, size=(len(graph), 5) if channelwise else len(graph)))
        towards = jnp.asarray(rng.normal(size=(3, nodes, 5)))
        arguments = (x, own, others, logits)
        (found, slopes), (expected, reference) = (
            jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sum(towards * f(*a)), argnums=(0, 1, 2, 3)))(*arguments)
            for f in (
                lambda *a: graphs.convolve(*a, graph),
                lambda *a: dense(*a, nodes, bones),
            )
        )
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        for a, b in zip(slopes, reference, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def test_weights_of_what_a_node_receives_add_up_to_one_however_large_the_logits() -> None:
    graph = graphs.of_bones(*BONES["mpii16"])
    logits = jnp.asarray(np.random.default_rng(0).normal(scale=1e4, size=len(graph)), jnp.float32)
    weights = np.asarray(graphs.edge_weights(logits, graph))
    total = np.zeros(16)
    np.add.at(total, graph.receivers, weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(graphs.edge_weights(x, graph) ** 2))(logits)
    assert bool(jnp.isfinite(slope).all())


def test_edges_are_both_directions_of_every_bone_once_and_loops() -> None:
    graph = graphs.of_bones(4, np.array([(0, 1), (1, 0), (2, 1)]))  # one bone is given twice; 3 has none
    assert list(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True)) == [
        *((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3))
    ]
    with pytest.raises(ValueError, match="found bones of joints 1 to 4, expected joints below 4"):
        graphs.of_bones(4, np.array([(1, 4)]))


def test_what_is_far_away_in_the_graph_is_not_heard_of() -> None:
    graph = graphs.of_bones(3, np.array([(0, 1), (1, 2)]))
    kernel, logits = jnp.ones((1, 1)), jnp.zeros(len(graph))
    slope = jax.jacobian(lambda x: graphs.convolve(x, kernel, kernel, logits, graph)[0, :, 0])(jnp.ones((1, 3, 1)))
    np.testing.assert_allclose(
        slope[:, 0, :, 0], [[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 2, 1 / 2]], atol=1e-6
    )
