"""Start values of recurrent layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig


@torch.no_grad()
def default_(layer: nn.Module, hidden: int) -> None:
    """Every parameter as `torch.nn.LSTM` draws it: uniform within 1 / sqrt(hidden) of 0."""
    bound = 1 / math.sqrt(hidden)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound)


@torch.no_grad()
def xavier_(weight: Tensor, hidden: int) -> None:
    """Input weights (G * hidden, D), drawn gate by gate (Glorot and Bengio 2010)."""
    for gate in weight.split(hidden):
        nn.init.xavier_uniform_(gate)


@torch.no_grad()
def orthogonal_(weight: Tensor, hidden: int) -> None:
    """Recurrent weights (G * hidden, R), orthogonal gate by gate (Saxe et al. 2014).

    A stacked matrix that is orthogonal as a whole would have gates that are not.
    """
    for gate in weight.split(hidden):
        nn.init.orthogonal_(gate)


def forget_biases(config: RecurrentConfig, size: int) -> tuple[Tensor, Tensor]:
    """Biases (size,) of the forget and the input gate.

    orthogonal: `forget_bias` (Jozefowicz et al. 2015) and 0. chrono: see `chrono_bias`, and its negative.
    """
    if config.initialisation == "chrono":
        forget = chrono_bias(size, config.chrono_steps)
        return forget, -forget
    return torch.full((size,), float(config.forget_bias)), torch.zeros(size)


def chrono_bias(size: int, steps: int) -> Tensor:
    """Forget biases (size,) that make units remember for 1 to `steps` steps: log U(1, steps - 1).

    A unit whose forget gate is sigmoid(b) forgets with the time constant 1 + exp(b) (Tallec and Ollivier 2018).

    Args:
        size: how many.
        steps: the longest gap to expect; below 3 nothing can be spread, and all are 0.
    """
    return torch.empty(size).uniform_(1, max(steps - 1, 1)).log() if steps > 2 else torch.zeros(size)
