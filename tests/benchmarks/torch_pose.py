"""RegDA's released iteration, written plainly in PyTorch from the paper and the published procedure.

It is what `regda_torch.py` measures jaxpose against. Images and maps are NCHW; parameters carry the names that jaxpose
gives them. `Settings` names what "as released" leaves on the table: nothing in it changes the result.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch  # noqa: TID251  this file is the PyTorch side
import torch.nn.functional as F  # noqa: TID251
from torch import Tensor, nn  # noqa: TID251

MARGIN, EPS, MOMENTUM, DECAY, BATCH_NORM = 4.0, 1e-7, 0.9, 1e-4, 0.1
Labels = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits -> ground-true and ground-false maps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the iteration is run.

    Attributes:
      shared: one pass of the target through trunk and f where the released code has two.
      tuned: `torch.compile`, fused SGD, and pseudo-labels drawn on the device.
      channels_last: memory format of the parameters and images.
      autocast: convolutions in bfloat16.
    """

    shared: bool = False
    tuned: bool = False
    channels_last: bool = False
    autocast: bool = False


class Detector(nn.Module):
    """A residual trunk with three transposed convolutions, and the regressors f (`head`) and f' (`head_adv`)."""

    def __init__(self, *, depth: int, width: int, head_width: int, joints: int):
        super().__init__()
        self.backbone = ResNet(depth, width)
        self.upsampling = Upsampling(self.backbone.channels, head_width)
        self.head = Regressor(head_width, joints)
        self.head_adv = Regressor(head_width, joints)
        for name, parameter in self.named_parameters():
            if name.startswith("backbone") and parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
            elif parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.001)
            elif name.endswith(("conv1.bias", "conv2.bias")):
                nn.init.zeros_(parameter)

    def trunk(self, images: Tensor) -> Tensor:
        return self.upsampling(self.backbone(images))

    def adversary(self, features: Tensor, share: Tensor) -> Tensor:
        return self.head_adv(ScaleGradient.apply(features, share))


class Iteration:
    """One iteration of RegDA on `{domain: {"image", "maps", "weight"}}`, given the number of iterations before it.

    It updates the model and returns the four losses.
    """

    def __init__(self, model: Detector, settings: Settings, *, heatmap_size: int, sigma: float):
        self.model, self.settings = model, settings
        self.trunk_parameters = [*model.backbone.parameters(), *model.upsampling.parameters()]
        self.device = self.trunk_parameters[0].device
        self.share = torch.zeros((), dtype=self.trunk_parameters[0].dtype, device=self.device)
        self.optimizer_f, self.optimizer_h, self.optimizer_adv = (
            torch.optim.SGD(
                parameters,
                lr=rate,
                momentum=MOMENTUM,
                weight_decay=DECAY,
                nesterov=True,
                **({"fused": True} if settings.tuned else {}),
            )
            for parameters, rate in (
                (self.trunk_parameters, 0.01),
                (list(model.head.parameters()), 0.1),
                (list(model.head_adv.parameters()), 0.1),
            )
        )
        labels = device_labels if settings.tuned else HostLabels
        self.labels = labels(model.head.conv2.out_channels, heatmap_size, sigma, self.trunk_parameters[0].dtype)
        lower: Callable = torch.compile if settings.tuned else lambda function: function
        self.trunk, self.head, self.adversary = lower(model.trunk), lower(model.head), lower(model.adversary)
        self.source_losses, self.disparity = lower(self._source_losses), lower(self._disparity)

    def __call__(self, batch: Mapping[str, Mapping[str, Tensor]], number: int) -> dict[str, Tensor]:
        self.share.fill_(0.1 * np.tanh(number / 2000))
        decay = (1 + 1e-4 * number) ** -0.75
        for optimizer, rate in ((self.optimizer_f, 0.01), (self.optimizer_h, 0.1), (self.optimizer_adv, 0.1)):
            for group in optimizer.param_groups:
                group["lr"] = rate * decay
        losses = self._source(**batch["source"])
        target = self._target_shared if self.settings.shared else self._target
        return losses | target(batch["target"]["image"], batch["target"]["weight"])

    def _source(self, image: Tensor, maps: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """A: both regressors and the trunk on the source."""
        for optimizer in (self.optimizer_f, self.optimizer_h, self.optimizer_adv):
            optimizer.zero_grad()
        with self._precision():
            features = self.trunk(image)
            logits, adverse = self.head(features), self.adversary(features, self.share)
        source, disparity = self.source_losses(logits, adverse, maps, weight)
        (source + MARGIN * disparity).backward()
        for optimizer in (self.optimizer_f, self.optimizer_h, self.optimizer_adv):
            optimizer.step()
        return {"source": source.detach(), "source_disparity": disparity.detach()}

    def _target(self, image: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """B: f' towards the ground-false maps; C: the trunk towards agreement. Each with its own pass of the target."""
        found = {}
        for name, optimizer in (("false", self.optimizer_adv), ("true", self.optimizer_f)):
            optimizer.zero_grad()
            with self._precision():
                features = self.trunk(image)
                logits, adverse = self.head(features), self.adversary(features, self.share)
            loss = self.disparity(logits, adverse, weight, name)
            loss.backward()
            optimizer.step()
            found[f"target_{name}"] = loss.detach()
        return found

    def _target_shared(self, image: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """B and C on one pass through trunk and f: between them only f' changes."""
        with self._precision():
            # r <- 0.9 (0.9 r + 0.1 b) + 0.1 b: the running statistics of two passes from one.
            with _batch_norm_momentum((self.model.backbone, self.model.upsampling, self.model.head), 0.19):
                features = self.trunk(image)
                with torch.no_grad():
                    logits = self.head(features)
            adverse = self.adversary(features.detach(), self.share)
        self.optimizer_adv.zero_grad()
        false = self.disparity(logits, adverse, weight, "false")
        false.backward()
        self.optimizer_adv.step()
        self.optimizer_f.zero_grad()
        with self._precision():
            adverse = self.adversary(features, self.share)
        true = self.disparity(logits, adverse, weight, "true")
        true.backward(inputs=self.trunk_parameters)
        self.optimizer_f.step()
        return {"target_false": false.detach(), "target_true": true.detach()}

    def _source_losses(self, logits: Tensor, adverse: Tensor, maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        true, _ = self.labels(logits.detach())
        return divergence(maps, logits, weight, 0.0), divergence(true, adverse, weight, EPS)

    def _disparity(self, logits: Tensor, adverse: Tensor, weight: Tensor, name: str) -> Tensor:
        true, false = self.labels(logits.detach())
        return divergence(true if name == "true" else false, adverse, weight, EPS)

    def _precision(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.autocast)


def divergence(target: Tensor, logits: Tensor, weight: Tensor, eps: float) -> Tensor:
    """KL of the spatial softmax from the normalised maps, weighted, mean over all joints.

    A map without mass counts 0, as it did in the torch of the release.
    """
    target = target.flatten(2) + eps
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-12)
    log_found = F.log_softmax(_full(logits).flatten(2), dim=-1)
    return (F.kl_div(log_found, target, reduction="none").sum(-1) * weight).mean()


class HostLabels:
    """Pseudo-labels on the CPU as released: argmax in NumPy, then a table that holds a Gaussian for every pixel.

    A map whose maximum is not positive predicts pixel (0, 0). Ground-false maps are clipped to 1.
    """

    def __init__(self, joints: int, size: int, sigma: float, dtype: torch.dtype):
        line = _cut_gaussian(np.subtract.outer(np.arange(size), np.arange(size)), sigma)  # (centre, pixel)
        number = np.float64 if dtype == torch.float64 else np.float32
        self.table = np.einsum("ay,bx->abyx", line, line).astype(number)
        self.others = 1 - np.eye(joints, dtype=number)

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        found = _full(logits).cpu().numpy()
        flat = found.reshape(*found.shape[:2], -1)
        y, x = np.divmod(flat.argmax(-1) * (flat.max(-1) > 0), found.shape[3])
        true = self.table[y, x]
        false = np.clip(self.others @ true.reshape(flat.shape), 0, 1).reshape(true.shape)
        return torch.from_numpy(true).to(logits.device), torch.from_numpy(false).to(logits.device)


def device_labels(joints: int, size: int, sigma: float, dtype: torch.dtype) -> Labels:
    """The maps of `HostLabels`, drawn where the logits are."""

    def labels(logits: Tensor) -> tuple[Tensor, Tensor]:
        peak, index = _full(logits).flatten(2).max(-1)
        index = torch.where(peak > 0, index, 0)
        pixels = torch.arange(size, device=logits.device)
        column, row = (
            torch.where(d.abs() <= 3 * sigma, torch.exp(-d.to(dtype).square() / (2 * sigma**2)), 0.0)
            for d in (pixels - (index // size)[..., None], pixels - (index % size)[..., None])
        )
        true = column[..., :, None] * row[..., None, :]
        return true, (true.sum(1, keepdim=True) - true).clamp(0, 1)

    return labels


def label_maps(keypoints: np.ndarray, visible: np.ndarray, *, size: int, heatmap_size: int, sigma: float) -> tuple:
    """The released label maps (B, K, H, W) and weights (B, K) of keypoints in image pixels; seen ones (2) count."""
    maps = np.zeros((*visible.shape, heatmap_size, heatmap_size))
    weight = np.zeros(visible.shape)
    pixels = np.arange(heatmap_size)
    for place in np.ndindex(visible.shape):
        x, y = (int(v / (size / heatmap_size) + 0.5) for v in keypoints[place])
        if visible[place] == 2 and all(0 <= c < heatmap_size for c in (x, y)):
            maps[place] = np.outer(_cut_gaussian(pixels - y, sigma), _cut_gaussian(pixels - x, sigma))
            weight[place] = 1
    return maps, weight


def _full(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _cut_gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(np.abs(distance) <= 3 * sigma, np.exp(-(distance**2) / (2 * sigma**2)), 0)


@contextlib.contextmanager
def _batch_norm_momentum(modules, momentum):
    norms = [norm for module in modules for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = momentum
    yield
    for norm in norms:
        norm.momentum = BATCH_NORM


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is scaled: what the warm-start gradient layer does."""

    @staticmethod
    def forward(ctx, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(share)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return gradient * share.to(gradient.dtype), None


class ResNet(nn.Module):
    """Images to feature maps of `channels` channels at 1/32 of the size (He et al. 2016, "v1.5")."""

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, depth: int, width: int):
        super().__init__()
        block, counts = _ARCHITECTURES[depth]
        self.conv1, self.bn1 = _conv(3, width, 7, 2), nn.BatchNorm2d(width)
        self.channels = width
        for index, count in enumerate(counts):
            blocks = []
            for position in range(count):
                stride = 2 if index and not position else 1
                blocks.append(block(self.channels, width << index, stride))
                self.channels = (width << index) * block.expansion
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.downsample = _downsample(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        outputs = channels * self.expansion
        self.conv1, self.bn1 = _conv(inputs, channels, 1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = _conv(channels, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


_ARCHITECTURES = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class Upsampling(nn.Module):
    """Three doublings of height and width."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.deconv0, self.bn0 = _deconv(inputs, width), nn.BatchNorm2d(width)
        self.deconv1, self.bn1 = _deconv(width, width), nn.BatchNorm2d(width)
        self.deconv2, self.bn2 = _deconv(width, width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        for deconv, norm in ((self.deconv0, self.bn0), (self.deconv1, self.bn1), (self.deconv2, self.bn2)):
            x = F.relu(norm(deconv(x)), inplace=True)
        return x


class Regressor(nn.Module):
    """Features to one map of logits per joint."""

    def __init__(self, inputs: int, joints: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inputs, 3, padding=1), nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))


def _conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


def _deconv(inputs, outputs):
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


def _downsample(inputs, outputs, stride):
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
