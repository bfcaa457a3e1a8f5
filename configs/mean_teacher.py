"""Mean teacher, styled images and adaptive occlusion (UniFrame): pretrain on the source, adapt to the target.

    python -m jaxpose.main --config=configs/mean_teacher.py[:PAIR]

Words: a pair; `quick`; `fourier`, style by low frequencies instead of colours; `adain`, style by a network that is
trained first (give it weights with `--config.method.style_network.vgg=vgg19.pth`); `released`, the released settings:
squared error on heatmaps, wide views, Adam at 1e-4.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.recipes import mean_teacher, style


def get_config(words: str | None = None) -> Config:
    config, rest = pairs.choose(words)
    pairs.reject(rest, "released", "fourier", "adain")
    method = mean_teacher.MeanTeacher()
    if "released" in rest:
        method = mean_teacher.released_settings()
        optim = dataclasses.replace(
            config.optim,
            pretrain_rule="adam",
            adapt_rule="adam",
            adam_learning_rate=1e-4,
            pretrain_trunk_scale=1.0,
            adapt_trunk_scale=1.0,
            warmup=0.0,
            drops=(),
        )
        model = dataclasses.replace(config.model, head="linear", target_statistics=False)
        config = dataclasses.replace(config, optim=optim, model=model)
    if "fourier" in rest:
        method = dataclasses.replace(method, transfer=style.fourier)
    if "adain" in rest:
        network = style.Style(width=config.model.width, learning_rate=1e-3)
        method = dataclasses.replace(method, transfer=style.adain, style_network=network)
        config = dataclasses.replace(config, steps=config.steps | {"style": config.steps["pretrain"]})
    return dataclasses.replace(config, method=method)
