"""Makes convolution.npz, resnet.npz, tiny.pth and tiny_legacy.pth: what torch and torchvision compute, in float64.

Provenance: Python 3.11, torch 2.13.0+cpu, torchvision 0.28.0, numpy 2.4.6, on x86-64 Linux. To make them again:

    python -m venv torchenv && torchenv/bin/pip install torch==2.13.0 torchvision==0.28.0
    torchenv/bin/python tests/goldens/make_resnet.py

The networks are torchvision's at width 8 with weights that are a formula of their name (`formula.py`), so that these
need not be stored. Of a parameter's gradient two numbers are kept: its norm and its product with another formula.
"""

import collections
import json
import pathlib

import formula
import numpy as np
import torch  # noqa: TID251
from torchvision.models import resnet

FOLDER = pathlib.Path(__file__).parent
WIDTH = 8


class Narrow(resnet.ResNet):
    """torchvision's ResNet with WIDTH channels where it has 64."""

    def __init__(self, block, counts):
        super().__init__(block, counts)
        self.conv1 = torch.nn.Conv2d(3, WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(WIDTH)
        self.fc = torch.nn.Identity()
        self.avgpool = torch.nn.Identity()

    def _make_layer(self, block, planes, *args, **kwargs):
        if planes == 64:
            self.inplanes = WIDTH
        return super()._make_layer(block, planes * WIDTH // 64, *args, **kwargs)

    def features(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def make_networks() -> dict[str, np.ndarray]:
    kept = {}
    for name, block, counts in (
        ("resnet18", resnet.BasicBlock, [2, 2, 2, 2]),
        ("resnet50", resnet.Bottleneck, [3, 4, 6, 3]),
    ):
        model = Narrow(block, counts).double()
        shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
        model.load_state_dict({k: torch.tensor(formula.weights(k, shape)) for k, shape in shapes.items()})
        images = torch.tensor(formula.numbers("images", (4, 3, 64, 64)), requires_grad=True)

        model.eval()
        kept[f"{name}/eval"] = model.features(images).detach().numpy()
        model.train()
        output = model.features(images)
        kept[f"{name}/train"] = output.detach().numpy()
        (output * torch.tensor(formula.numbers("cotangent", output.shape))).mean().backward()
        # The first pixels are enough: a shift or a flip anywhere changes them.
        kept[f"{name}/image_gradient"] = images.grad.numpy()[:, :, :16, :16]
        gradients = {k: p.grad.numpy() for k, p in model.named_parameters()}
        norms = [[np.linalg.norm(g), np.sum(g * formula.numbers(k, g.shape))] for k, g in gradients.items()]
        kept[f"{name}/parameter_gradients"] = np.array(norms)
        after = model.state_dict()
        kept[f"{name}/running"] = np.concatenate([after[k].numpy().ravel() for k in shapes if "running" in k])
        kept[f"{name}/shapes"] = np.array(json.dumps(shapes))
        kept[f"{name}/gradient_names"] = np.array(json.dumps(list(gradients)))
    return kept


def make_operations() -> dict[str, np.ndarray]:
    kept = {}
    functional = torch.nn.functional
    operations = {
        "conv3x3": ((2, 3, 7, 6), (4, 3, 3, 3), lambda x, w: functional.conv2d(x, w, stride=2, padding=1)),
        "conv1x1": ((2, 3, 7, 6), (4, 3, 1, 1), lambda x, w: functional.conv2d(x, w, stride=2)),
        "deconv": (
            (2, 3, 5, 4),
            (3, 4, 4, 4),
            lambda x, w: functional.conv_transpose2d(x, w, stride=2, padding=1),
        ),
        "pool_even": ((2, 3, 8, 6), None, lambda x, w: functional.max_pool2d(x, 3, 2, 1)),
        "pool_odd": ((2, 3, 7, 9), None, lambda x, w: functional.max_pool2d(x, 3, 2, 1)),
    }
    for name, (x_shape, w_shape, function) in operations.items():
        x = formula.numbers(f"{name}/x", x_shape)
        # Rounded, the pools' windows hold the same maximum several times.
        x = torch.tensor(np.round(x) if "pool" in name else x, requires_grad=True)
        w = torch.tensor(formula.numbers(f"{name}/w", w_shape), requires_grad=True) if w_shape else None
        y = function(x, w)
        y.backward(torch.tensor(formula.numbers(f"{name}/dy", y.shape)))
        kept |= {f"{name}/x": x.detach().numpy(), f"{name}/y": y.detach().numpy(), f"{name}/dx": x.grad.numpy()}
        if w is not None:
            kept |= {f"{name}/w": w.detach().numpy(), f"{name}/dw": w.grad.numpy()}
        kept[f"{name}/dy"] = formula.numbers(f"{name}/dy", y.shape)
    return kept


def make_files() -> None:
    base = torch.arange(24, dtype=torch.float32)
    tensors = collections.OrderedDict(
        matrix=base.reshape(4, 6),
        transposed=base.reshape(4, 6).T,
        tail=base[20:],
        parameter=torch.nn.Parameter(base[:3] / 8),
        half=torch.tensor([0.5, -2.0], dtype=torch.float16),
        bfloat16=torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
        double=torch.tensor([1 / 3], dtype=torch.float64),
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
    )
    norm = torch.nn.BatchNorm1d(2)
    tensors.update({f"norm.{k}": v for k, v in norm.state_dict().items()})
    content = {"epoch": 3, "state_dict": tensors}
    torch.save(content, FOLDER / "tiny.pth")
    torch.save(content, FOLDER / "tiny_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    for stem, arrays in (("resnet", make_networks()), ("convolution", make_operations())):
        small = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
        np.savez_compressed(FOLDER / f"{stem}.npz", **small)
    make_files()
