"""From one hidden vector per step to one per clip: the whole clip at once, or step by step."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.recurrent import valid_mask

Kind = Literal["last", "mean", "max", "attention", "linear"]
PoolingState = Any  # nested tuples of tensors and numbers, None at a clip's start


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis, exactly 0 where the mask is False.

    The largest valid score is subtracted first (torch.softmax does), so scores of any finite size stay
    finite; float32 whatever the precision around it.

    Args:
        scores: (B, T).
        mask: bool (B, T), at least one True per row.
    """
    return torch.softmax(scores.float().masked_fill(~mask, -torch.inf), dim=-1)


class Pooling(nn.Module):
    """Last valid step, mean, maximum, learned attention over the valid steps, or a mean that grows with time.

    linear weighs step t with t, so that what is known late counts more (Ng et al. 2015).

    Attention is that of Yang et al., Hierarchical Attention Networks (2016): a step's score is the product
    of a learned vector with tanh(W h + b).

    Args:
        kind: last, mean, max, attention or linear.
        size: H, size of a hidden vector.
        bidirectional: the second half of each vector comes from reading backwards, whose last step is the
            clip's first; only `last` needs to know.
    """

    def __init__(self, kind: Kind, size: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.size = size
        self.bidirectional = bidirectional
        if kind == "attention":
            self.project = nn.Linear(size, size)
            self.context = nn.Linear(size, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Hidden vectors (B, T, H) and lengths int64 (B), 1..T, to (B, H); the padding is never read."""
        if self.kind == "last":
            return self._last(hidden, lengths)
        mask = valid_mask(lengths, hidden.shape[1], hidden.device).unsqueeze(-1)
        if self.kind == "max":
            return hidden.masked_fill(~mask, -torch.inf).amax(1)
        hidden = hidden.masked_fill(~mask, 0.0)
        if self.kind == "mean":
            return hidden.sum(1) / mask.sum(1).to(hidden.dtype)
        if self.kind == "linear":
            growing = mask.cumsum(1).masked_fill(~mask, 0).to(hidden.dtype)
            return (growing * hidden).sum(1) / growing.sum(1)
        return (self.weights(hidden, lengths).unsqueeze(-1) * hidden).sum(1)

    def weights(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Attention alone: the weight of each step, float32 (B, T), summing to 1, 0 in the padding."""
        return masked_softmax(self._scores(hidden), valid_mask(lengths, hidden.shape[1], hidden.device))

    def step(self, hidden: Tensor, state: PoolingState = None) -> tuple[Tensor, PoolingState]:
        """One more step (B, H): the pooled vector (B, H) of all steps so far, and the next call's state.

        Equal to `forward` over the steps so far; memory and time do not grow with their number.

        Raises:
            ConfigError: bidirectional, where the backward half would change at every step.
        """
        if self.bidirectional:
            raise ConfigError("a bidirectional model reads the whole clip and cannot be fed step by step")
        if self.kind == "last":
            return hidden, None
        if self.kind == "max":
            pooled = hidden if state is None else torch.maximum(state, hidden)
            return pooled, pooled
        if self.kind == "mean":
            mean, count = (torch.zeros_like(hidden), 0) if state is None else state
            mean = mean + (hidden - mean) / (count + 1)
            return mean, (mean, count + 1)
        if self.kind == "linear":
            mean, count = (torch.zeros_like(hidden), 0) if state is None else state
            mean = mean + (hidden - mean) * (2 / (count + 2))  # step n weighs n of 1 + ... + n
            return mean, (mean, count + 1)
        return self._attend(hidden, state)

    def _attend(self, hidden: Tensor, state: PoolingState) -> tuple[Tensor, PoolingState]:
        """Online softmax: all weights so far are relative to the largest score so far."""
        score = self._scores(hidden).float().unsqueeze(-1)
        if state is None:
            return hidden, (score, torch.ones_like(score), hidden)
        largest, total, mean = state
        top = torch.maximum(largest, score)
        weight = torch.exp(score - top)
        total = total * torch.exp(largest - top) + weight
        mean = mean + weight / total * (hidden - mean)
        return mean, (top, total, mean)

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.context(torch.tanh(self.project(hidden))).squeeze(-1)

    def _last(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        last = hidden[rows, lengths.to(hidden.device) - 1]
        if not self.bidirectional:
            return last
        half = self.size // 2
        return torch.cat([last[:, :half], hidden[:, 0, half:]], dim=1)
