"""The CNN that turns frames into vectors, with its own normalisation inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import EncoderConfig
from pipeline.model.trunk import build_trunk, check_frame_size, normalisation
from pipeline.model.weights import apply_weights, load_weights

CHUNK = 128  # frames per pass in evaluation: a long clip must not need memory for all its maps at once


class Encoder(nn.Module):
    """A CNN trunk between normalisation and pooling.

    Frames come in as they left the decoder, so that training, evaluation and streaming cannot normalise
    differently.

    Args:
        trunk: maps normalised frames (N, 3, S, S) to feature maps (N, channels, h, w).
        channels: channels of those maps.
        mean, std: per channel, in 0..255.
        grid: cells per side that the map is averaged to.
        frozen: no gradient, and always in evaluation mode: neither weights nor batch-norm statistics move.

    Attributes:
        dim: size of the vector, channels * grid * grid.
        frozen: as given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        grid: int = 1,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.grid = grid
        self.frozen = frozen
        self.dim = channels * grid * grid
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        # NHWC in memory: a third quicker on a CPU, and what tensor cores want.
        self.trunk.to(memory_format=torch.channels_last)
        if frozen:
            self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, except that a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S), uint8 or float in 0..255, to vectors (N, dim) float.

        In training all N frames share their batch statistics; in evaluation they are independent, and go
        through in chunks.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.training:
                return self._pool(self.feature_map(frames))
            return torch.cat([self._pool(self.feature_map(part)) for part in frames.split(CHUNK)])

    def feature_map(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S), uint8 or float in 0..255, to the trunk's last map (N, channels, h, w)."""
        normalised = (frames.to(self.mean.dtype) - self.mean) / self.std
        return self.trunk(normalised.contiguous(memory_format=torch.channels_last))

    def _pool(self, maps: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(maps, self.grid).flatten(1)


def build_encoder(config: EncoderConfig, load: bool = True, size: int | None = None) -> Encoder:
    """The encoder that `config` names, with its weights.

    Args:
        config: name, weights, frozen, grid.
        load: read the pretrained weights; False where a checkpoint will supply them.
        size: height and width of the frames in pixels, where known: checked against the CNN's smallest.

    Raises:
        ConfigError: unknown name (with the nearest ones), or frames too small for this CNN.
        WeightsError: the weights are missing or do not fit.
    """
    trunk, channels = build_trunk(config.name)
    if size is not None:
        check_frame_size(trunk, config.name, size)
    if load and config.weights != "none":
        apply_weights(trunk, load_weights(config.name, config.weights))
    mean, std = normalisation(config.name)
    return Encoder(trunk, channels, mean, std, config.grid, config.frozen)
