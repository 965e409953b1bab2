"""LSTM with layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import default_, forget_biases, orthogonal_, xavier_
from pipeline.model.cells.layer_norm_scan import EPSILON, layer_norm_scan
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
        scale_ih, scale_hh (4 * H): of the normalised products; the bias stands for the shift of both.
        cell_scale, cell_shift (H): of the normalised cell state.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = size = config.hidden
        self.weight_dropout = config.weight_dropout
        self.weight_ih = nn.Parameter(torch.empty(4 * size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size))
        self.bias = nn.Parameter(torch.empty(4 * size))
        default_(self, size)
        self.scale_ih, self.scale_hh = (nn.Parameter(torch.ones(4 * size)) for _ in range(2))
        self.cell_scale, self.cell_shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        if config.initialisation != "default":
            xavier_(self.weight_ih, size)
            orthogonal_(self.weight_hh, size)
            with torch.no_grad():
                self.bias.zero_()
                self.bias[size : 2 * size], self.bias[:size] = forget_biases(config, size)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """weight_hh, some of it dropped."""
        return {"weight_hh": drop_weights(self.weight_hh, self.weight_dropout, self.training)}

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None, **drawn: Tensor) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h, c), (B, H) each."""
        hidden, cells, _ = self._run(x, state, **(drawn or self.draw(x)))
        return hidden.transpose(0, 1), (last_step(hidden, lengths), last_step(cells, lengths))

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values of the gates and of the cell candidate, (B, T, H) each, by name."""
        found = self._run(x, state, self.weight_hh)[2].transpose(0, 1).chunk(4, -1)
        return dict(zip(("input", "forget", "cell", "output"), found, strict=True))

    def _run(self, x: Tensor, state: State | None, weight_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden and cell states (T, B, H), gates (T, B, 4 * H)."""
        zeros = x.new_zeros(len(x), self.output_size)
        before = (zeros, zeros) if state is None else (state[0], state[1])
        products = linear(x.transpose(0, 1), self.weight_ih)
        pre = F.layer_norm(products, self.scale_ih.shape, self.scale_ih, None, EPSILON) + self.bias
        return layer_norm_scan(pre, weight_hh, self.scale_hh, self.cell_scale, self.cell_shift, before)
