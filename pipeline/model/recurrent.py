"""What happens over time: stacked recurrent layers whose state is a value, handed in and out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells import build_layer
from pipeline.model.cells.regularise import dropout
from pipeline.model.cells.steps import Layer, reverse
from pipeline.model.cells.steps import State as LayerState

State = tuple[LayerState, ...] | None
"""One entry per layer; None at a clip's start, and for kind none."""


def valid_mask(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """True where a step belongs to the clip, False in the padding at its end.

    Args:
        lengths: int64 (B), 1..steps, on any device; on the CPU it costs a GPU no wait.
        steps: T.
        device: where the mask is wanted.

    Returns:
        bool (B, T).
    """
    return torch.arange(steps, device=device) < lengths.to(device).unsqueeze(1)


class Recurrent(nn.Module):
    """One hidden vector per step.

    The module keeps no state between calls: whoever feeds a clip in pieces hands the state of one call to
    the next, and a clip that is whole starts from None. T steps at once, in chunks or one at a time give the
    same numbers. It computes in float32 at least, whatever the precision around it: a cell state is a sum over many
    steps, of which bfloat16 would lose the small terms.

    Args:
        input_size: D, size of a step's vector.
        config: kind (none: the steps pass unchanged), sizes, and everything else of the section but pooling.
        grid: cells per side of the feature map that a step's vector is, read by conv_lstm: D = C * grid * grid.

    Attributes:
        output_size: H, size of a hidden vector; both directions together where there are two.
        bidirectional: a recurrence that reads both ways.
        streamable: can be fed step by step.
        layers: the forward layers, the lowest first; see `pipeline.model.cells`.
        backward_layers: as many that read backwards; none unless bidirectional.
    """

    def __init__(self, input_size: int, config: RecurrentConfig, grid: int = 1) -> None:
        super().__init__()
        self.kind = config.kind
        self.bidirectional = config.bidirectional and config.kind != "none"
        self.streamable = not self.bidirectional
        self.residual, self.truncate = config.residual, config.truncate
        self.layers, self.backward_layers = nn.ModuleList(), nn.ModuleList()
        self.dropout = dropout(config.dropout, config.variational)
        size = input_size
        for _ in range(config.layers if self.kind != "none" else 0):
            layer = build_layer(size, config, grid)
            self.layers.append(layer)
            if self.bidirectional:
                self.backward_layers.append(build_layer(size, config, grid))
            size = layer.output_size * (2 if self.bidirectional else 1)
        self.output_size = size

    def forward(self, x: Tensor, lengths: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Read T steps.

        Args:
            x: float (B, T, D); what stands in the padding is never read.
            lengths: int64 (B), 1..T.
            state: what the previous call returned, or None at a clip's start.

        Returns:
            Hidden vectors (B, T, H), exactly 0 in the padding; the state after each clip's last valid step, a tuple
            with the state of each layer (None for kind none and where bidirectional).

        Raises:
            ValueError: a state for a bidirectional recurrence, which reads whole clips alone.
        """
        if state is not None and self.bidirectional:
            raise ValueError("a bidirectional recurrence reads whole clips and takes no state")
        padding = ~valid_mask(lengths, x.shape[1], x.device).unsqueeze(-1)
        x = x.masked_fill(padding, 0.0)
        if not self.layers:
            return x, None
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            return self._stack(x, lengths.cpu(), padding, state)

    def _stack(self, x: Tensor, lengths: Tensor, padding: Tensor, state: State) -> tuple[Tensor, State]:
        after: list[LayerState] = []
        for depth, layer in enumerate(self.layers):
            below = self.dropout(x) if depth else x
            hidden, last = self._run(cast(Layer, layer), below, lengths, state[depth] if state else None)
            after.append(last)
            if self.bidirectional:
                turned, _ = self.backward_layers[depth](reverse(below, lengths), lengths, None)
                hidden = torch.cat([hidden, reverse(turned, lengths)], -1)
            if self.residual and hidden.shape == x.shape:
                hidden = hidden + x
            x = hidden.masked_fill(padding, 0.0)
        return x, None if self.bidirectional else tuple(after)

    def _run(self, layer: Layer, x: Tensor, lengths: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """One layer; in training the gradient of its state is cut every `truncate` steps (Williams and Peng 1990)."""
        if not (self.truncate and self.training and x.shape[1] > self.truncate):
            hidden, after = layer(x, lengths, state)
            return hidden, after
        pieces, drawn = [], layer.draw(x)
        for start in range(0, x.shape[1], self.truncate):
            piece = x[:, start : start + self.truncate]
            left = (lengths - start).clamp(0, piece.shape[1])
            hidden, reached = layer(piece, left.clamp(min=1), state, **drawn)
            state = _where_left(left > 0, reached, state)
            pieces.append(hidden)
            if start + self.truncate < x.shape[1]:
                state = tuple(part.detach() for part in state)
        assert state is not None
        return torch.cat(pieces, 1), state


def _where_left(left: Tensor, reached: LayerState, before: LayerState | None) -> LayerState:
    """The state reached, but the former one of clips that were over before this piece."""
    if before is None or bool(left.all()):
        return reached
    rows = left.to(reached[0].device)
    return tuple(
        torch.where(rows.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(reached, before, strict=True)
    )
