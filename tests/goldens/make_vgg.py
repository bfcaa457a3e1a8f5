"""Makes vgg.npz: what torchvision's VGG-19 and the AdaIN decoder compute in torch.

Made with Python 3.11, torch 2.13.0+cpu, torchvision 0.28.0, numpy 2.4.6, on x86-64 Linux. To make it again:

    python -m venv torchenv && torchenv/bin/pip install torch==2.13.0 torchvision==0.28.0
    torchenv/bin/python tests/goldens/make_vgg.py

The encoder is torchvision's at width 4, the decoder is built here from the description in the paper; the weights are a
formula of their name (`formula.py`), so that they need not be stored.
"""

import itertools
import json
import pathlib

import formula
import numpy as np
import torch  # noqa: TID251
from torchvision.models import vgg

FOLDER = pathlib.Path(__file__).parent
WIDTH = 4
RELUS = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "relu5_1": 29}  # as in torchvision's features


def fill(model: torch.nn.Module) -> dict[str, list[int]]:
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.tensor(formula.weights(k, shape)) for k, shape in shapes.items()})
    return shapes


def make_encoder() -> dict[str, np.ndarray]:
    channels = [v if v == "M" else v * WIDTH // 64 for v in vgg.cfgs["E"]]
    model = vgg.VGG(vgg.make_layers(channels), init_weights=False)
    model.classifier = torch.nn.Identity()
    shapes = fill(model.double())
    images = torch.tensor(formula.numbers("images", (2, 3, 16, 32)), requires_grad=True)
    kept, x = {"shapes": np.array(json.dumps(shapes))}, images
    total = torch.zeros((), dtype=torch.float64)
    for i, layer in enumerate(model.features[: RELUS["relu5_1"] + 1]):
        x = layer(x)
        for name, index in RELUS.items():
            if i == index:
                kept[name] = x.detach().numpy()
                total = total + (x * torch.tensor(formula.numbers(name, x.shape))).mean()
    total.backward()
    kept["image_gradient"] = images.grad.numpy()
    for layer in model.features:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "reflect"
    kept["reflected"] = model.features[: RELUS["relu4_1"] + 1](images).detach().numpy()
    return kept


def make_decoder() -> dict[str, np.ndarray]:
    upsampled, outputs = (0, 4, 6), (4, 4, 4, 4, 2, 2, 1, 1)
    widths = [8 * WIDTH, *(n * WIDTH for n in outputs), 3]
    layers = []
    for i, (inside, outside) in enumerate(itertools.pairwise(widths)):
        layers += [torch.nn.ReflectionPad2d(1), torch.nn.Conv2d(inside, outside, 3)]
        if i < len(widths) - 2:
            layers.append(torch.nn.ReLU())
        if i in upsampled:
            layers.append(torch.nn.Upsample(scale_factor=2, mode="nearest"))
    convs = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    shapes = fill(torch.nn.ModuleList(convs).double())
    features = torch.tensor(formula.numbers("features", (2, 8 * WIDTH, 2, 3)))
    images = torch.nn.Sequential(*layers)(features)
    return {"decoder_shapes": np.array(json.dumps(shapes)), "decoded": images.detach().numpy()}


if __name__ == "__main__":
    arrays = make_encoder() | make_decoder()
    small = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
    np.savez_compressed(FOLDER / "vgg.npz", **small)
