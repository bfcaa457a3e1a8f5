"""DANN: pretrain on the source, then learn features by which a discriminator cannot tell the domains apart.

    python -m jaxpose.main --config=configs/dann.py[:PAIR]

Words: a pair and `quick`. On `bodies`, four minutes of two CPU cores and a PCK@0.05 of 53 ± 6, where source-only has
25 ± 10; see `docs/results.md`.
"""

from jaxpose import pairs
from jaxpose.recipes import dann

get_config = pairs.adapted_by(dann.DANN)
