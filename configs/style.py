"""Style: trains the decoder that gives images of one domain the look of the other (AdaIN).

    python -m jaxpose.main --config=configs/style.py[:PAIR] --workdir=runs/style --config.method.vgg=vgg19.pth

The weights are torchvision's VGG-19. Without them the encoder is random and narrow, which shows that everything works
but blurs the images; the transfers `colour` and `fourier` need neither weights nor this stage. There is no detector and
so nothing to evaluate: the losses tell how training goes, and the report's pictures show what is made of images that it
did not train on. Recipes that transfer style train this stage themselves.
Words: a pair, `quick`, and `published` for the published 500,000 updates at a learning rate of 1e-5.
"""

import dataclasses

from jaxpose import pairs
from jaxpose.config import Config
from jaxpose.pairs import Pair
from jaxpose.recipes import style


@pairs.from_words()
def get_config(pair: Pair, *, published: bool = False) -> Config:
    method = style.Style() if published else style.Style(width=pair.config.model.width, learning_rate=3e-4)
    steps = {"style": 500_000 if published else pair.config.steps["pretrain"]}
    return dataclasses.replace(pair.config, method=method, steps=steps)
