"""Mean teacher, styled images and adaptive occlusion (UniFrame): pretrain on the source, adapt to the target.

    python -m jaxpose.main --config=configs/mean_teacher.py[:PAIR]

Words: a pair; `quick`; `fourier`, style by low frequencies instead of colours; `adain`, style by a network that is
trained first (give it weights with `--config.method.style_network.vgg=vgg19.pth`); `released`, the released settings:
squared error on heatmaps, wide views, Adam at 1e-4, and on published pairs UniFrame's 40 + 30 epochs. UniFrame itself
is `rhd_h3d,released,adain` with `--config.steps.style=500000 --config.method.style_network.learning_rate=1e-5`.
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
        hands = config.augmentation.rotation == 180
        method = mean_teacher.released_settings(rotation=180.0 if hands else 60.0)
        config = pairs.with_adam(config, 1e-4)
        model = dataclasses.replace(config.model, head="linear", target_statistics=False)
        config = dataclasses.replace(config, model=model)
        if config.pair in pairs.PUBLISHED:
            total = config.steps["pretrain"]  # RegDA pretrains for 70 epochs, UniFrame for 40 of 70
            steps = {"pretrain": 40 * total // 70, "adapt": 30 * total // 70}
            config = dataclasses.replace(config, steps=steps, augmentation=method.student_view)
    if "fourier" in rest:
        method = dataclasses.replace(method, transfer=style.fourier)
    if "adain" in rest:
        network = style.Style(width=config.model.width, learning_rate=1e-3)
        method = dataclasses.replace(method, transfer=style.adain, style_network=network)
        config = dataclasses.replace(config, steps=config.steps | {"style": config.steps["pretrain"]})
    return dataclasses.replace(config, method=method)
