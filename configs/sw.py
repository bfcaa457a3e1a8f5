"""SW: strong alignment of local and weak alignment of global features, after pretraining on the source.

    python -m jaxpose.main --config=configs/sw.py[:PAIR]

Words: a pair and `quick`. On `bodies`, five minutes of two CPU cores and a PCK@0.05 of 49 ± 5, where source-only has
25 ± 10; see `docs/results.md`.
"""

from jaxpose import pairs
from jaxpose.recipes import sw

get_config = pairs.adapted_by(sw.StrongWeak)
