import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpose.losses.contrastive import info_nce


def printed(z: np.ndarray, positives: np.ndarray, temperature: float, *, with_positive: bool) -> np.ndarray:
    """Eq. 2 row by row, in double precision."""

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature)

    found = []
    for i in range(len(z)):
        total = sum(alike(z[i], z[k]) + alike(z[i], positives[k]) for k in range(len(z)) if k != i)
        own = alike(z[i], positives[i])
        found.append(-np.log(own / (total + (own if with_positive else 0))))
    return np.array(found)


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("rows", [2, 7])
def test_it_is_what_is_printed(rows: int, temperature: float, decoupled: bool) -> None:
    rng = np.random.default_rng(rows)
    z, positives = rng.normal(size=(2, rows, 5))
    found = info_nce(
        jnp.asarray(z, jnp.float32), jnp.asarray(positives, jnp.float32), temperature=temperature, decoupled=decoupled
    )
    np.testing.assert_allclose(found, printed(z, positives, temperature, with_positive=not decoupled), atol=2e-5)


def test_the_printed_form_goes_below_zero_and_the_usual_one_does_not() -> None:
    z = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]])
    assert float(info_nce(z, z, decoupled=True).max()) < 0
    assert float(info_nce(z, z).min()) > 0


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_zero_features_and_single_rows_are_finite(rows: int, decoupled: bool) -> None:
    z = jnp.zeros((rows, 4))
    value, slope = jax.value_and_grad(lambda x: info_nce(x, x, decoupled=decoupled).sum())(z)
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(slope).all())
