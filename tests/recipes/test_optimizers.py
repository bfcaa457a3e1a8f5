import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.recipes import optimizers
from jaxpose.recipes.optimizers import Optim
from jaxpose.recipes.stage import initial_state


def test_sgd_is_torchs_nesterov_with_weight_decay() -> None:
    """Ten steps against the recurrence of torch.optim.SGD(nesterov=True)."""
    settings = Optim(momentum=0.9, weight_decay=1e-2)
    rule = optimizers.transformation("sgd", settings)
    params = {"net": {"w": jnp.array([1.0, -2.0])}}
    state = initial_state(params=params, stats={}, optimizers={"net": rule.init(params["net"])})
    p, buffer = np.array([1.0, -2.0]), np.zeros(2)
    for i in range(10):
        grad = np.array([0.3 * i, -1.0])
        decayed = grad + 1e-2 * p
        buffer = 0.9 * buffer + decayed
        p = p - 0.05 * (decayed + 0.9 * buffer)
        grads = {"net": {"w": jnp.asarray(grad, jnp.float32)}}
        state = optimizers.apply_gradients(state, grads, {"net": rule}, {"net": jnp.asarray(0.05)})
    np.testing.assert_allclose(state.params["net"]["w"], p, rtol=1e-5)


def test_networks_without_a_gradient_stay() -> None:
    rule = optimizers.transformation("sgd", Optim(momentum=0.0, weight_decay=0.0))
    params = {name: {"w": jnp.ones(2)} for name in ("a", "b")}
    state = initial_state(params=params, stats={}, optimizers={n: rule.init(p) for n, p in params.items()})
    moved = optimizers.apply_gradients(state, {"a": {"w": jnp.ones(2)}}, {"a": rule}, {"a": jnp.asarray(0.1)})
    np.testing.assert_allclose(moved.params["a"]["w"], 0.9, rtol=1e-5)
    np.testing.assert_array_equal(moved.params["b"]["w"], 1.0)
    assert moved.optimizers["b"] is state.optimizers["b"]


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (15_000, 0.0503)])
def test_adaptation_schedule_is_the_papers(step: int, rate: float) -> None:
    schedule = optimizers.inverse_schedule(0.1, 15_000, Optim())
    assert float(schedule(jnp.asarray(step))) == pytest.approx(rate, abs=1e-4)


def test_pretraining_schedule_warms_up_and_drops() -> None:
    settings = Optim(warmup=0.1, drops=(0.5, 0.75))
    schedule = optimizers.step_schedule(1.0, 100, settings)
    found = [float(schedule(jnp.asarray(i))) for i in (0, 4, 9, 49, 50, 74, 75)]
    np.testing.assert_allclose(found, [0.1, 0.5, 1.0, 1.0, 0.1, 0.1, 0.01], rtol=1e-5)


def test_released_drops_come_at_epochs_44_and_59_of_70() -> None:
    schedule = optimizers.step_schedule(0.1, 35_000, Optim())
    found = [float(schedule(jnp.asarray(500 * epoch))) for epoch in (43, 44, 58, 59)]
    np.testing.assert_allclose(found, [0.1, 0.01, 0.01, 0.001], rtol=1e-5)
