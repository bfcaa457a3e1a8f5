"""MCD: two regressors that are led to disagree on the target, and a trunk that makes them agree.

    python -m jaxpose.main --config=configs/mcd.py[:PAIR]

Words: a pair and `quick`. On `bodies`, six minutes of two CPU cores and a PCK@0.05 of 18 ± 6, where source-only has
25 ± 10; see `docs/results.md`.
"""

from jaxpose import pairs
from jaxpose.recipes import mcd

get_config = pairs.adapted_by(mcd.MCD)
