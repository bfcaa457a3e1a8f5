"""DAN: pretrain on the source, then make the mean features of both domains alike.

    python -m jaxpose.main --config=configs/dan.py[:PAIR]

Words: a pair and `quick`. On `bodies`, four minutes of two CPU cores and a PCK@0.05 of 54 ± 3, where source-only has
25 ± 10; see `docs/results.md`.
"""

from jaxpose import pairs
from jaxpose.recipes import dan

get_config = pairs.adapted_by(dan.DAN)
