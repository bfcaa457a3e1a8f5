"""A metric's rows as an evaluation finds them: the update jitted, the rest on the host."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpose.metrics.metric import Groups, Measurement, Metric, Predictions


def rows_of(
    metric: Metric, found: Mapping[str, Any], fields: Mapping[str, Any], groups: Groups, clips: Sequence[str] = ()
) -> dict[tuple[str, str], Measurement]:
    """By metric and group; all rows of the batch count unless `fields` says which."""
    size = len(next(iter(found.values())))
    fields = {"row": np.ones(size, bool), **fields}
    sums, per_row = jax.jit(lambda p, f: metric.update(Predictions(**p), f))(
        *({name: as_fields(value) for name, value in x.items()} for x in (found, fields))
    )
    rows = list(metric.rows(sums, jax.tree.map(np.asarray, per_row), groups, clips))
    named = {(row["metric"], row["group"]): row for row in rows}
    assert len(named) == len(rows)
    return named


def as_fields(x: Any) -> jax.Array:
    """As elements have them: float32, int32, uint8 or bool."""
    x = np.asarray(x)
    return jnp.asarray(x, {"f": np.float32, "i": np.int32}.get(x.dtype.kind, x.dtype))
