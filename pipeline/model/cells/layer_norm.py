"""LSTM with layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import default_, forget_biases, orthogonal_, xavier_
from pipeline.model.cells.regularise import drop_weights
from pipeline.model.cells.steps import Layer, State, last_step


class LayerNormLSTMLayer(Layer):
    """The LSTM of Ba et al. (2016), equations 20 to 22.

        i, f, g, o = LN(W_ih x) + LN(W_hh h) + b        c' = f * c + i * g        h' = o * tanh(LN(c'))

    Args:
        input_size: D.
        config: hidden, weight_dropout and the initialisation are read.

    Attributes:
        output_size: H.
        weight_ih (4 * H, D), weight_hh (4 * H, H), bias (4 * H): gates in the order input, forget, cell, output.
        norm_ih, norm_hh, norm_cell: the three normalisations; the bias stands for that of the first two.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = size = config.hidden
        self.weight_dropout = config.weight_dropout
        self.weight_ih = nn.Parameter(torch.empty(4 * size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size))
        self.bias = nn.Parameter(torch.empty(4 * size))
        default_(self, size)
        self.norm_ih: nn.Module = nn.LayerNorm(4 * size, bias=False)
        self.norm_hh: nn.Module = nn.LayerNorm(4 * size, bias=False)
        self.norm_cell: nn.Module = nn.LayerNorm(size)
        if config.initialisation != "default":
            xavier_(self.weight_ih, size)
            orthogonal_(self.weight_hh, size)
            with torch.no_grad():
                self.bias.zero_()
                self.bias[size : 2 * size], self.bias[:size] = forget_biases(config, size)

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h, c), (B, H) each."""
        hidden, cells, _ = self._run(x, state)
        return hidden.transpose(0, 1), (last_step(hidden, lengths), last_step(cells, lengths))

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values of the gates and of the cell candidate, (B, T, H) each, by name."""
        found = self._run(x, state)[2].transpose(0, 1).chunk(4, -1)
        return dict(zip(("input", "forget", "cell", "output"), found, strict=True))

    def _run(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden and cell states (T, B, H), gates (T, B, 4 * H)."""
        size = self.output_size
        h, c = (x.new_zeros(len(x), size),) * 2 if state is None else state
        weight = drop_weights(self.weight_hh, self.weight_dropout, self.training).t()
        hidden, cells, gates = [], [], []
        for pre in (self.norm_ih(linear(x.transpose(0, 1), self.weight_ih)) + self.bias).unbind():
            i_f, g, o = (pre + self.norm_hh(h @ weight)).split((2 * size, size, size), -1)
            i_f, g, o = torch.sigmoid(i_f), torch.tanh(g), torch.sigmoid(o)
            i, f = i_f.chunk(2, -1)
            c = torch.addcmul(i * g, f, c)
            h = o * torch.tanh(self.norm_cell(c))
            hidden.append(h)
            cells.append(c)
            gates.append(torch.cat([i_f, g, o], -1))
        return torch.stack(hidden), torch.stack(cells), torch.stack(gates)
