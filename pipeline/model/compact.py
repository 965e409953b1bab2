"""Our four-layer CNN for small data and small frames, quick enough to train on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (32, 64, 96, 128)


class Compact(nn.Module):
    """Four times 3x3 convolution of stride 2, batch norm, ReLU: frames to maps of a sixteenth of their size.

    Strided convolutions rather than max pooling: each layer runs at the smaller size, which is what makes
    it quick on a CPU.

    Attributes:
        channels: channels of the map, 128.
        mean, std: what the frames (0..255) are normalised with before they come here.
    """

    channels = WIDTHS[-1]
    mean = (127.5, 127.5, 127.5)
    std = (64.0, 64.0, 64.0)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames (N, 3, S, S) float to the feature map (N, 128, ceil(S/16), ceil(S/16))."""
        return self.layers(frames)
