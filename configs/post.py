"""POST: synthetic-to-real with style, geometry and reconstruction; the target has clips.

    python -m jaxpose.main --config=configs/post.py:hands
    python -m jaxpose.main --config=configs/post.py:synth_hand --config.data.root=DATA

Words: a pair; `quick`; `flat`, nothing is found in depth, for pairs without poses in space; `still`, nothing is
reconstructed, for pairs without clips; `itself`, no averaged teacher; `published`, the paper's weights, schedule and
sizes, for a GPU.

The paper's experiments (see `jaxpose/pairs.py` for their data and the published numbers):

    python -m jaxpose.main --config=configs/post.py:rhd_h3d,published,still --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/post.py:rhd_mvhand,published --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/post.py:surreal_human36m,published --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/post.py:surreal_threedpw,published --config.data.root=DATA --workdir=DIR
    python -m jaxpose.main --config=configs/post.py:surreal_lsp,published,flat --config.data.root=DATA --workdir=DIR
"""

import dataclasses

from jaxpose import methods, pairs
from jaxpose.config import Config
from jaxpose.pair import Pair, with_adam
from jaxpose.recipes import post, views


@pairs.from_words()
def get_config(
    pair: Pair, *, flat: bool = False, still: bool = False, itself: bool = False, published: bool = False
) -> Config:
    config, method = pair.config, methods.post_for(pair)
    if published:
        method = post.published_settings("vgg19-dcbb9e9d.pth")
        config = pairs.with_new_head(with_adam(config, 1e-4, adapt_decay=0.0))
    if flat:
        method = dataclasses.replace(method, depth=0.0)
    if still:
        method = dataclasses.replace(method, reconstruction=0.0)
    if itself:
        method = dataclasses.replace(method, teacher=post.itself, evaluated=views.student)
    if method.depth:
        config = dataclasses.replace(config, metrics=(*config.metrics, "sure_pck", "mpjpe", "n_mpjpe", "pa_mpjpe"))
    steps = method.share_out(post.PUBLISHED_STEPS if published else config.steps)
    return dataclasses.replace(config, method=method, steps=steps)
