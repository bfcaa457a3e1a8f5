"""What each term of relation distillation brings: one source model per seed, adapted with more of them every time.

    python -m jaxpose.main --mode=compare --config=configs/relation_terms.py[:PAIR] --seeds=3 --workdir=DIR

Words: a pair; `quick`. Fields of all runs are set by `--config.base.FIELD=VALUE`.
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Comparison
from jaxpose.pair import Pair
from jaxpose.recipes import relation


@pairs.from_words()
def get_config(pair: Pair) -> Comparison:
    source = methods.relation_source_for(pair)
    made = {"contrastive": relation.Relations(source=source, related=())}
    for number, last in enumerate(source.relations, start=1):
        made[f"+ {last.name}"] = relation.Relations(source=source, related=source.relations[:number])
    named = {name: dataclasses.replace(method, name=name) for name, method in made.items()}
    return Comparison(base=methods.for_relation(pair), source=source, methods=named)
