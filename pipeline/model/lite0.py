"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 in place of Swish.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (2019); the Lite
variants are from the TensorFlow TPU models. The published weights come from TensorFlow, so padding follows
its SAME rule, which at stride 2 pads more at the end than at the start.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01
STEM = 32
HEAD = 1280


class Stage(NamedTuple):
    """Some equal blocks: how many, kernel size, stride of the first, expansion, output channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution without bias whose output size is ceil(input / stride), padded as TensorFlow does."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 an odd kernel's SAME padding is symmetric and the convolution can do it itself.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, outputs, ceil(H/stride), ceil(W/stride))."""
        if self.stride[0] == 1:
            return super().forward(x)
        height, width = (_missing(size, self.kernel_size[0], self.stride[0]) for size in x.shape[-2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def _missing(size: int, kernel: int, stride: int) -> int:
    """Pixels that must be added in all, so that every stride-th pixel has a whole window."""
    steps = (size + stride - 1) // stride
    return max((steps - 1) * stride + kernel - size, 0)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)


class Block(nn.Module):
    """Inverted residual: widen (1x1), filter each channel (depthwise), narrow again (1x1).

    In training the block is left out for a frame with the chance `drop`, where it has a residual connection.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float = 0.0) -> None:
        super().__init__()
        inner = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = SameConv2d(inputs, inner, 1) if expansion > 1 else None
        self.expand_norm = _norm(inner) if expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.depthwise_norm = _norm(inner)
        self.project = SameConv2d(inner, outputs, 1)
        self.project_norm = _norm(outputs)
        self.drop = StochasticDepth(drop, "row") if drop and self.residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, ceil(H/stride), ceil(W/stride))."""
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = F.relu6(self.expand_norm(self.expand(y)), inplace=True)
        y = F.relu6(self.depthwise_norm(self.depthwise(y)), inplace=True)
        y = self.project_norm(self.project(y))
        y = y if self.drop is None else self.drop(y)
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite0 up to its last feature map, or to ImageNet's logits.

    Args:
        classes: size of the classification layer; 0: none, the output is the feature map.
        stochastic_depth: chance that training leaves out what would be the next block after the last; that of block i
            of n is i / n of it, as in torchvision's EfficientNet.

    Attributes:
        channels: channels of the map, 1280.
        mean, std: what the frames (0..255) are normalised with before they come here.
    """

    channels = HEAD
    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)

    def __init__(self, classes: int = 0, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM, 3, stride=2)
        self.stem_norm = _norm(STEM)
        blocks: list[nn.Module] = []
        inputs, count = STEM, sum(stage.repeats for stage in STAGES)
        for stage in STAGES:
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                drop = stochastic_depth * len(blocks) / count
                blocks.append(Block(inputs, stage.channels, stage.kernel, stride, stage.expansion, drop))
                inputs = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv2d(inputs, HEAD, 1)
        self.head_norm = _norm(HEAD)
        self.classifier = nn.Linear(HEAD, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames (N, 3, S, S) float to the map (N, 1280, ceil(S/32), ceil(S/32)) or logits."""
        x = F.relu6(self.stem_norm(self.stem(frames)), inplace=True)
        x = self.blocks(x)
        x = F.relu6(self.head_norm(self.head(x)), inplace=True)
        return x if self.classifier is None else self.classifier(x.mean((2, 3)))
