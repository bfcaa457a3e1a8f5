"""Relation distillation: 3D pose from images, adapted to unlabelled clips by what is known of recorded motions.

    python -m jaxpose.main --config=configs/relation.py
    python -m jaxpose.main --config=configs/relation.py:mocap_people --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/relation.py:source,mocap_people ... --workdir=SOURCE
    python -m jaxpose.main --config=configs/relation.py:mocap_people,flip ... --config.start=SOURCE --workdir=DIR

Words: a pair; `quick`; `source`, no adaptation; `oracle`, the same with the target's labels; terms of the adaptation,
without which all of them are used: `contrastive`, `flip`, `flip_backward`, `slow_backward`.

The paper's experiments (see `jaxpose/pose_pairs.py` for their data and the published numbers), for a GPU:

    python -m jaxpose.main --config=configs/relation.py:surreal_human36m_3d --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/relation.py:human36m_3dhp --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/relation.py:surreal_video --config.data.root=DATA --workdir=DIR

Recorded motions come from `--config.data.motions`; those of another data set, `--config.data.poses`, are measured
beside them. A video of your own is a target, too: `--config.data.target=video:FILE`.
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.pair import Pair
from jaxpose.recipes import relation

_TERMS = {of.name: of for of in relation.Source().relations}


@pairs.from_words("contrastive", *_TERMS)
def get_config(pair: Pair, *terms: str, source: bool = False, oracle: bool = False) -> Config:
    config, made = methods.for_relation(pair), methods.relation_source_for(pair)
    if oracle:
        made = dataclasses.replace(made, name="oracle", domain="target")
    if source or oracle:
        return dataclasses.replace(config, steps={k: n for k, n in config.steps.items() if k != "adapt"}, method=made)
    related = tuple(of for name, of in _TERMS.items() if name in terms or not terms)
    method = relation.published_settings(made) if pair.of_a_paper else relation.Relations(source=made)
    method = dataclasses.replace(method, contrastive=not terms or "contrastive" in terms, related=related)
    return dataclasses.replace(config, method=method)
