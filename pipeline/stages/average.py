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
        model: its values now are the start; from here on they may only be changed in place, as optimisers and
            `load_state_dict` do.
        decay: share of the average that an update leaves, below 1; the n-th update leaves at most n / (9 + n), so that
            the random start is soon forgotten.
        still: how the names of weights begin that nothing changes; they are no part of the average.

    Attributes:
        weights: the average, as the model's whole state dict.
        updates: how many it has seen.
    """

    def __init__(self, model: nn.Module, decay: float, still: tuple[str, ...] = ()) -> None:
        self.decay = decay
        self.updates = 0
        # found once: to walk through a frozen encoder costs as much as an update on stored features
        live = {name: x.detach() for name, x in model.state_dict().items()}
        self._live = {name: x for name, x in live.items() if not name.startswith(still)}
        self._moving = {name: x.clone() for name, x in self._live.items()}
        self.weights = live | self._moving
        self._fractions = [name for name, x in self._live.items() if x.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an update."""
        self.updates += 1
        averaged, current = ([values[name] for name in self._fractions] for values in (self._moving, self._live))
        get_ema_multi_avg_fn(min(self.decay, self.updates / (9 + self.updates)))(averaged, current, None)
        for name in self._live.keys() - set(self._fractions):
            self._moving[name].copy_(self._live[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own again, to the bit."""
        own = {name: x.clone() for name, x in self._live.items()}
        _copy(self._moving, self._live)
        try:
            yield
        finally:
            _copy(own, self._live)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a file."""
        return {UPDATES: torch.tensor(self.updates), **{f"weights.{name}": x for name, x in self._moving.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`.

        Raises:
            KeyError, RuntimeError: it is the average of another model, or of none.
        """
        _copy({name: tensors[f"weights.{name}"] for name in self._moving}, self._moving)
        self.updates = int(tensors[UPDATES])


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, x in target.items():
        x.copy_(source[name])
