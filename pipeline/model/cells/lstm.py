"""LSTM layers that PyTorch does not have: peepholes, coupled gates, and a plain one with zoneout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import default_, forget_biases, orthogonal_, xavier_
from pipeline.model.cells.lstm_scan import Kept, lstm_gates, lstm_scan
from pipeline.model.cells.regularise import drop, drop_weights, zoneout
from pipeline.model.cells.steps import Layer, State, last_step


class LSTMLayer(Layer):
    """An LSTM layer, one direction, with all that the kinds of the family add; its equations are those of `lstm_scan`.

    - lstm: as `torch.nn.LSTM`; here because that has neither zoneout nor dropout on the recurrent connection.
    - peephole_lstm: the gates see the cell state through diagonal weights (Gers and Schmidhuber 2000).
    - coupled_lstm: what is forgotten is replaced, input gate = 1 - forget gate (Greff et al. 2015), a quarter fewer
      weights.

    Args:
        input_size: D.
        config: kind, hidden, dropout and variational (on the recurrent connection), zoneout, weight_dropout and the
            initialisation are read.

    Attributes:
        output_size: H.
        weight_ih (G * H, D), weight_hh (G * H, H), bias (G * H): gates in the order input, forget, cell, output, or
            forget, cell, output where coupled.
        peephole (3, H): to the input, forget and output gate, or None.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = size = config.hidden
        self.coupled = config.kind == "coupled_lstm"
        self.zoneout, self.weight_dropout = config.zoneout, config.weight_dropout
        self.recurrent_dropout = config.dropout if config.variational else 0.0
        rows = (3 if self.coupled else 4) * size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh = nn.Parameter(torch.empty(rows, size))
        self.bias = nn.Parameter(torch.empty(rows))
        self.peephole = nn.Parameter(torch.empty(3, size)) if config.kind == "peephole_lstm" else None
        default_(self, size)
        if config.initialisation != "default":
            self._initialise(config)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """weight_hh, some of it dropped; recurrent: a mask (B, H) of the hidden state on its way into the gates."""
        drawn = {"weight_hh": drop_weights(self.weight_hh, self.weight_dropout, self.training)}
        if self.recurrent_dropout and self.training:
            drawn["recurrent"] = drop(x.new_ones(len(x), self.output_size), self.recurrent_dropout)
        return drawn

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None, **drawn: Tensor) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h, c), (B, H) each."""
        before = self._start(x, state)
        pre = linear(x.transpose(0, 1), self.weight_ih, self.bias)
        drawn = drawn or self.draw(x)
        kept = self._kept(pre, before[0], drawn.get("recurrent"))
        hidden, cells = lstm_scan(pre, drawn["weight_hh"], before, self.peephole, self.coupled, kept)
        return hidden.transpose(0, 1), (last_step(hidden, lengths), last_step(cells, lengths))

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values of the gates and of the cell candidate, (B, T, H) each, by name."""
        h, c = self._start(x, state)
        pre = F.linear(x.transpose(0, 1), self.weight_ih, self.bias)
        hidden, cells = lstm_scan(pre, self.weight_hh, (h, c), self.peephole, self.coupled, self._kept(pre, h))
        h_before, c_before = torch.cat([h.unsqueeze(0), hidden[:-1]]), torch.cat([c.unsqueeze(0), cells[:-1]])
        found = lstm_gates(pre + h_before @ self.weight_hh.t(), c_before, self.peephole, self.coupled)
        return {name: gate.transpose(0, 1) for name, gate in found.items()}

    def _start(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor]:
        if state is None:
            zeros = x.new_zeros(len(x), self.output_size)
            return zeros, zeros
        return state[0], state[1]

    def _kept(self, pre: Tensor, h: Tensor, recurrent: Tensor | None = None) -> Kept:
        hidden = cell = None
        if self.zoneout:
            like = h.unsqueeze(0).expand(len(pre), *h.shape)
            hidden, cell = (zoneout(self.zoneout, self.training, like) for _ in range(2))
        return Kept(recurrent, hidden, cell)

    @torch.no_grad()
    def _initialise(self, config: RecurrentConfig) -> None:
        size = config.hidden
        xavier_(self.weight_ih, size)
        orthogonal_(self.weight_hh, size)
        self.bias.zero_()
        forget, opening = forget_biases(config, size)
        if self.coupled:
            self.bias[:size] = forget
        else:
            self.bias[:size], self.bias[size : 2 * size] = opening, forget
        if self.peephole is not None:
            self.peephole.zero_()  # at the start a plain LSTM
