"""Dropout for recurrent layers: kept over time, on weights, or of changes of the state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def drop(x: Tensor, rate: float) -> Tensor:
    """`F.dropout` whose mask is the same on every CPU: PyTorch's own is another on Intel's, and on others takes nearly
    twice as long.
    """
    if x.device.type != "cpu" or not rate:
        return F.dropout(x, rate)
    return x * ((torch.rand(x.shape) >= rate) * x.new_tensor(1 / (1 - rate)))


class Dropout(nn.Dropout):
    """A mask for each number."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return drop(x, self.p) if self.training else x


class LockedDropout(Dropout):
    """A mask drawn once per clip that holds at all its steps (Gal and Ghahramani 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to the same; another shape as `Dropout` does it."""
        if x.ndim != 3 or not self.training:
            return super().forward(x)
        return x * drop(torch.ones_like(x[:, :1]), self.p)


def dropout(rate: float, variational: bool) -> nn.Dropout:
    """The dropout that a configuration asks for."""
    return LockedDropout(rate) if variational else Dropout(rate)


def drop_weights(weight: Tensor, rate: float, training: bool) -> Tensor:
    """DropConnect on recurrent weights, the same ones at all steps of an update (Merity et al. 2018)."""
    return drop(weight, rate) if training else weight


def zoneout(rate: float, training: bool, like: Tensor) -> Tensor:
    """Shares of their former value that units keep, shaped as `like`: 0 or 1 at random; their mean in evaluation."""
    return torch.bernoulli(torch.full_like(like, rate)) if training else like.new_tensor(rate)
