"""Batch statistics alone: pretrain, and go on so that they become the target's; the control of every other method.

    python -m jaxpose.main --config=configs/adabn.py[:PAIR]

Words: a pair and `quick`. On `bodies`, four minutes of two CPU cores and a PCK@0.05 of 52 ± 4, where source-only has
25 ± 10; see `docs/results.md`.
"""

from jaxpose import pairs
from jaxpose.recipes import adabn

get_config = pairs.adapted_by(adabn.AdaBN)
