"""Makes hrnet.npz: what an HRNet written from its description (Sun et al. 2019, Sec. 3) computes in torch, in float64.

Provenance: Python 3.11, torch 2.13.0+cpu, numpy 2.4.6, on x86-64 Linux. To make it again:

    python -m venv torchenv && torchenv/bin/pip install torch==2.13.0
    torchenv/bin/python tests/goldens/make_hrnet.py

Names are those of the released pose networks. A narrow network's weights are a formula of their name (`formula.py`), so
that they need not be stored; of a parameter's gradient its norm and its product with another formula are kept, and of
the running statistics each one's sum and product. Of the published sizes there are names and shapes.
"""

import json
import pathlib

import formula
import numpy as np
import torch  # noqa: TID251
from torch import nn  # noqa: TID251

FOLDER = pathlib.Path(__file__).parent
NARROW = {"width": 4, "stem": 8, "modules": (1, 1, 2), "blocks": 1}
PUBLISHED = {"stem": 64, "modules": (1, 4, 3), "blocks": 4}
IMAGES = (2, 3, 64, 96)


class Residual(nn.Module):
    """Convolutions of given sizes and strides with normalisation, around a shortcut."""

    def __init__(self, before: int, outputs: list[int], sizes: list[int]):
        super().__init__()
        self.count = len(outputs)
        for i, (after, size) in enumerate(zip(outputs, sizes, strict=True)):
            source = before if i == 0 else outputs[i - 1]
            setattr(self, f"conv{i + 1}", nn.Conv2d(source, after, size, padding=size // 2, bias=False))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(after))
        self.downsample = normalised(before, outputs[-1], 1) if before != outputs[-1] else None

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Module(nn.Module):
    """Blocks on parallel branches; then the first `outputs` branches each get the sum of all."""

    def __init__(self, channels: list[int], blocks: int, outputs: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(Residual(c, [c, c], [3, 3]) for _ in range(blocks))) for c in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(channels, source, to) for source in range(len(channels))) for to in range(outputs)
        )

    @staticmethod
    def path(channels, source, to):
        if source > to:
            enlarge = nn.Upsample(scale_factor=2 ** (source - to), mode="nearest")
            return nn.Sequential(*normalised(channels[source], channels[to], 1), enlarge)
        steps = []
        for k in range(source, to):
            last = k == to - 1
            steps.append(normalised(channels[source], channels[to] if last else channels[source], 3, 2))
            if not last:
                steps[-1].append(nn.ReLU())
        return nn.Sequential(*steps) if steps else None

    def forward(self, maps):
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        self.entered = maps
        sums = (
            sum(x if path is None else path(x) for path, x in zip(paths, maps, strict=True))
            for paths in self.fuse_layers
        )
        return [torch.relu(total) for total in sums]


class HRNet(nn.Module):
    """Up to the last sum and, with `joints`, the output layer."""

    def __init__(self, *, width: int, stem: int, modules: tuple[int, ...], blocks: int, joints: int | None = None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem)
        self.conv2, self.bn2 = nn.Conv2d(stem, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem)
        inside = [stem, stem, 4 * stem]
        self.layer1 = nn.Sequential(*(Residual(4 * stem if i else stem, inside, [1, 3, 1]) for i in range(blocks)))
        channels = [4 * stem]
        for number, count in zip((2, 3, 4), modules, strict=True):
            wanted = [width * 2**i for i in range(number)]
            changes = [
                None if a == b else normalised(a, b, 3).append(nn.ReLU())
                for a, b in zip(channels, wanted, strict=False)
            ]
            added = nn.Sequential(normalised(channels[-1], wanted[-1], 3, 2).append(nn.ReLU()))
            setattr(self, f"transition{number - 1}", nn.ModuleList([*changes, added]))
            made = []
            for i in range(count):
                outputs = 1 if number == 4 and i == count - 1 else number
                made.append(Module(wanted, blocks, outputs))
            setattr(self, f"stage{number}", nn.Sequential(*made))
            channels = wanted
        self.final_layer = nn.Conv2d(width, joints, 1) if joints else None

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        maps = [self.layer1(torch.relu(self.bn2(self.conv2(x))))]
        for number in (2, 3, 4):
            *changes, added = getattr(self, f"transition{number - 1}")
            new = added(maps[-1])
            maps = [x if change is None else change(x) for change, x in zip(changes, maps, strict=True)]
            maps = getattr(self, f"stage{number}")([*maps, new])
        return maps[0] if self.final_layer is None else self.final_layer(maps[0])


def normalised(before: int, after: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after))


def make_narrow() -> dict[str, np.ndarray]:
    model = HRNet(**NARROW).double()
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.tensor(formula.weights(k, shape)) for k, shape in shapes.items()})
    images = torch.tensor(formula.numbers("images", IMAGES), requires_grad=True)
    model.eval()
    kept = {"shapes": as_bytes(shapes), "eval": model(images).detach().numpy()}
    kept |= {f"branch{i}": x.detach().mean(1).numpy() for i, x in enumerate(model.stage4[-1].entered)}
    model.train()
    output = model(images)
    kept["train"] = output.detach().numpy()
    (output * torch.tensor(formula.numbers("cotangent", output.shape))).mean().backward()
    kept["image_gradient"] = images.grad.numpy()[:, :, :16, :16]
    gradients = {k: p.grad.numpy() for k, p in model.named_parameters()}
    kept["gradients"] = np.array([[np.linalg.norm(g), product(k, g)] for k, g in gradients.items()])
    running = {k: v.numpy() for k, v in model.state_dict().items() if "running" in k}
    kept["running"] = np.array([[v.sum(), product(k, v)] for k, v in running.items()])
    return kept


def product(name: str, array: np.ndarray) -> float:
    return float(np.sum(array * formula.numbers(name, array.shape)))


def make_published() -> dict[str, np.ndarray]:
    found = {}
    for width in (32, 48):
        model = HRNet(width=width, **PUBLISHED, joints=17)
        shapes = {k: list(v.shape) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
        found[f"w{width}/shapes"] = as_bytes(shapes)
        found[f"w{width}/parameters"] = np.array(sum(p.numel() for p in model.parameters()))
    return found


def as_bytes(shapes: dict[str, list[int]]) -> np.ndarray:
    return np.array(json.dumps(shapes).encode())


if __name__ == "__main__":
    arrays = make_narrow() | make_published()
    small = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
    np.savez_compressed(FOLDER / "hrnet.npz", **small)
