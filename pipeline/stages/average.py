"""The exponential moving average of a training's weights (Polyak and Juditsky 1992, Tarvainen and Valpola 2017).

The last updates of a training scatter around a minimum; their average lies closer to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

UPDATES = "updates"


class Average:
    """A model's weights and buffers, averaged over its updates.

    Batch norm's running statistics are averaged like the weights: they then belong to the same updates. Other numbers
    that are no fractions, such as counts, are the model's own. What does not move keeps its bits.

    Args:
        model: its values now are the start.
        decay: share of the average that an update leaves, below 1; the n-th update leaves at most n / (9 + n), so that
            the random start is soon forgotten.

    Attributes:
        weights: the average, as a state dict.
        updates: how many it has seen.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: x.detach().clone() for name, x in model.state_dict().items()}
        self._fractions = [name for name, x in self.weights.items() if x.is_floating_point()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an update."""
        self.updates += 1
        now = model.state_dict()
        averaged, current = ([values[name] for name in self._fractions] for values in (self.weights, now))
        get_ema_multi_avg_fn(min(self.decay, self.updates / (9 + self.updates)))(averaged, current, None)
        for name in now.keys() - set(self._fractions):
            self.weights[name].copy_(now[name])

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own again, to the bit."""
        own = {name: x.detach().clone() for name, x in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a file."""
        return {UPDATES: torch.tensor(self.updates), **{f"weights.{name}": x for name, x in self.weights.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`.

        Raises:
            KeyError, RuntimeError: it is the average of another model, or of none.
        """
        for name, x in self.weights.items():
            x.copy_(tensors[f"weights.{name}"])
        self.updates = int(tensors[UPDATES])
