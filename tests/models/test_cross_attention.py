import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.models import cross_attention, functional


def network() -> functional.Network:
    return functional.network(functools.partial(cross_attention.CrossAttention, inputs=16))


def test_with_closed_gates_features_leave_as_they_came() -> None:
    net = network()
    params, stats = net.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    both = tuple(jnp.asarray(rng.normal(size=(2, 3, 4, 16)), jnp.float32) for _ in range(2))
    for x, y in zip(both, net.apply(params, stats, both, train=True)[0], strict=True):
        np.testing.assert_array_equal(x, y)
    slope = jax.grad(lambda p: sum(jnp.sum(x**2) for x in net.apply(p, stats, both, train=True)[0]))(params)
    assert float(jnp.abs(slope["source_gate"])) > 0
    assert float(jnp.abs(slope["target_gate"])) > 0
    assert not np.any(slope["value"]["kernel"])


def test_every_place_receives_a_mean_over_the_other_images_places() -> None:
    net = network()
    params, stats = net.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(scale=0.3, size=p.shape), jnp.float32), params)
    source, target = (rng.normal(size=(2, 2, 3, 16)).astype(np.float32) for _ in range(2))
    found = net.apply(params, stats, (jnp.asarray(source), jnp.asarray(target)), train=True)[0]

    def conv(name: str, x: np.ndarray) -> np.ndarray:
        return x.reshape(6, -1) @ np.asarray(params[name]["kernel"], np.float64)[0, 0] + np.asarray(
            params[name]["bias"]
        )

    for row in range(2):
        query, key = conv("query", source[row]), conv("key", target[row])
        values = {"source": conv("value", source[row]), "target": conv("value", target[row])}
        received = {"source": np.zeros((6, 16)), "target": np.zeros((6, 16))}
        for i in range(6):
            alike = np.exp([query[i] @ key[j] for j in range(6)])
            received["source"][i] = sum(a / alike.sum() * values["target"][j] for j, a in enumerate(alike))
        for j in range(6):
            alike = np.exp([query[i] @ key[j] for i in range(6)])
            received["target"][j] = sum(a / alike.sum() * values["source"][i] for i, a in enumerate(alike))
        for image, name, output in ((source, "source", found[0]), (target, "target", found[1])):
            expected = image[row].reshape(6, 16) + float(params[f"{name}_gate"]) * received[name]
            np.testing.assert_allclose(output[row].reshape(6, 16), expected, atol=2e-4)


def test_places_may_be_exchanged() -> None:
    """Where the target's places change places, the source receives the same and the target's results follow."""
    net = network()
    params, stats = net.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.3, params)
    rng = np.random.default_rng(2)
    source, target = (jnp.asarray(rng.normal(size=(1, 2, 3, 16)), jnp.float32) for _ in range(2))
    first, second = net.apply(params, stats, (source, target), train=True)[0]
    again, turned = net.apply(params, stats, (source, target[:, ::-1, ::-1]), train=True)[0]
    np.testing.assert_allclose(first, again, atol=1e-4)
    np.testing.assert_allclose(second, turned[:, ::-1, ::-1], atol=1e-4)
