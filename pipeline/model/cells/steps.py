"""What all recurrent layers do with their steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
"""A layer's state: tensors (B, ...), handed in and out, never kept on the module."""


class Layer(nn.Module):
    """A recurrent layer, one direction; `pipeline.model.cells` says how it is called.

    Attributes:
        output_size: H, size of a hidden vector.
    """

    output_size: int

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """What is random once per clip or update, for x (B, T, D): keywords for `forward`, which draws what it does
        not get. Nothing here.
        """
        return {}

    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values of the gates by name, (B, T, H) each; none here."""
        return {}


def last_step(sequence: Tensor, lengths: Tensor) -> Tensor:
    """The value (B, ...) after each clip's last valid step.

    Args:
        sequence: (T, B, ...).
        lengths: int64 (B), 1..T, on the CPU.
    """
    if int(lengths.min()) == len(sequence):
        return sequence[-1]
    return sequence[lengths.to(sequence.device) - 1, torch.arange(sequence.shape[1], device=sequence.device)]


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each clip (B, T, D) read backwards, its padding left at its end; its own inverse."""
    steps = torch.arange(x.shape[1], device=x.device)
    ends = lengths.to(x.device).unsqueeze(1)
    order = torch.where(steps < ends, ends - 1 - steps, steps)
    return x.gather(1, order.unsqueeze(-1).expand_as(x))
