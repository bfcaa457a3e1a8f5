"""Mean teacher, styled images and adaptive occlusion (UniFrame): pretrain on the source, adapt to the target.

    python -m jaxpose.main --config=configs/mean_teacher.py[:PAIR]

Words: a pair; `quick`; `fourier`, style by low frequencies instead of colours; `adain`, style by a network that is
trained first (give it weights with `--config.method.style_network.vgg=vgg19.pth`); `released`, the released settings:
squared error on heatmaps, wide views, Adam at 1e-4, and on published pairs UniFrame's 40 + 30 epochs. UniFrame itself
is `rhd_h3d,released,adain` with `--config.steps.style=500000 --config.method.style_network.learning_rate=1e-5`.
On `bodies`, five minutes of two CPU cores and a PCK@0.05 of 54 ± 2; see `docs/results.md`.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.pair import Pair, with_adam
from jaxpose.recipes import mean_teacher, style


@pairs.from_words()
def get_config(pair: Pair, *, released: bool = False, fourier: bool = False, adain: bool = False) -> Config:
    config, method = pair.config, mean_teacher.MeanTeacher()
    if released:
        method = mean_teacher.released_settings(rotation=60.0 if pair.upright else 180.0)
        config = pairs.with_new_head(with_adam(config, 1e-4))
        if pair.epochs is not None:
            total = config.steps["pretrain"]
            steps = {"pretrain": 40 * total // pair.epochs, "adapt": 30 * total // pair.epochs}
            config = dataclasses.replace(config, steps=steps, augmentation=method.student_view)
    if fourier:
        method = dataclasses.replace(method, transfer=style.fourier)
    if adain:
        network = style.Style(width=config.model.width, learning_rate=1e-3)
        method = dataclasses.replace(method, transfer=style.adain, style_network=network)
        config = dataclasses.replace(config, steps=config.steps | {"style": config.steps["pretrain"]})
    return dataclasses.replace(config, method=method)
