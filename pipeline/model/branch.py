"""One stream's way from its features to its outputs: standardise, project, recur, pool, score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.errors import ConfigError
from pipeline.model.cells.regularise import dropout
from pipeline.model.pooling import Pooling
from pipeline.model.recurrent import Recurrent, valid_mask

# A feature that moves a hundred times less than the average one carries noise: it is not blown up to size 1.
SMALLEST_SHARE = 1e-2
SMALLEST_STD = 1e-6


class Standardisation(nn.Module):
    """(x - mean) / std per feature, with numbers taken from the training clips; nothing until they are set.

    The two buffers are part of the state dict, so a checkpoint carries them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set the numbers, float (D,) each; standard deviations near 0 are raised to a floor.

        Raises:
            ValueError: another size, or a number that is not finite.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            size = len(self.mean)
            raise ValueError(f"standardisation needs ({size},), got {tuple(mean.shape)} and {tuple(std.shape)}")
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise ValueError("standardisation needs finite numbers")
        floor = max(float(std.double().mean()) * SMALLEST_SHARE, SMALLEST_STD)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=floor))

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) to standardised features (..., D)."""
        return (features - self.mean) / self.std


class Branch(nn.Module):
    """The head of one stream.

    Args:
        size: D, size of a moment's feature vector.
        outputs: K, the classes, or 1 for a number.
        config: projection, kind and size of the recurrence, pooling, dropout.
        moving: the features come from an encoder that is being trained, so no fixed mean and deviation fit them: each
            vector is normalised by itself (Ba et al. 2016). An early version of the demo reached 0.43 with it in 12
            epochs, 0.26 without.
        per_moment: answer at each moment, from its hidden vector alone: there is no pooling.
        grid: cells per side of the feature map that a moment's vector is.
    """

    def __init__(
        self,
        size: int,
        outputs: int,
        config: RecurrentConfig,
        moving: bool = False,
        per_moment: bool = False,
        grid: int = 1,
    ) -> None:
        super().__init__()
        self.standardisation = Standardisation(size)
        self.normalisation = nn.LayerNorm(size) if moving else nn.Identity()
        self.projection: nn.Module = nn.Identity()
        if config.projection:
            self.projection = nn.Sequential(nn.Linear(size, config.projection), nn.ReLU())
            size = config.projection
        self.dropout = dropout(config.dropout, config.variational)
        self.recurrent = Recurrent(size, config, grid)
        hidden = self.recurrent.output_size
        self.pooling = None if per_moment else Pooling(config.pooling, hidden, self.recurrent.bidirectional)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, T, D) and lengths int64 (B), 1..T, to outputs (B, K), or (B, T, K) with one per moment.

        The padding is never read; what the outputs per moment hold there means nothing.
        """
        hidden = self.hidden(features, lengths)
        return self.output(self.dropout(hidden if self.pooling is None else self.pooling(hidden, lengths)))

    def hidden(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The same input to the hidden vectors of the last layer, (B, T, H)."""
        mask = valid_mask(lengths, features.shape[1], features.device).unsqueeze(-1)
        # Masked before the first layer: its gradient would otherwise see whatever stands in the padding.
        features = features.masked_fill(~mask, 0.0)
        hidden, _ = self.recurrent(self._prepare(features), lengths)
        return hidden  # type: ignore[no-any-return]

    def step(self, features: Tensor, state: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """One moment (B, D): the outputs (B, K) of all moments so far, and the state for the next call.

        Where there is an output per moment, it is this moment's.

        Raises:
            ConfigError: bidirectional.
        """
        if not self.recurrent.streamable:
            raise ConfigError("a bidirectional model reads the whole clip and cannot be fed step by step")
        before = state or {"recurrent": None, "pooling": None}
        lengths = torch.ones(features.shape[0], dtype=torch.int64)
        prepared = self._prepare(features.unsqueeze(1))
        hidden, recurrent = self.recurrent(prepared, lengths, before["recurrent"])
        pooled, pooling = hidden.squeeze(1), None
        if self.pooling is not None:
            pooled, pooling = self.pooling.step(pooled, before["pooling"])
        return self.output(self.dropout(pooled)), {"recurrent": recurrent, "pooling": pooling}

    def _prepare(self, features: Tensor) -> Tensor:
        return self.dropout(self.projection(self.normalisation(self.standardisation(features))))
