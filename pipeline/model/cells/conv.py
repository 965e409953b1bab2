"""ConvLSTM (Shi et al. 2015): an LSTM whose states are feature maps and whose matrix products are convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import RecurrentConfig
from pipeline.model.cells.initialise import default_, forget_biases, orthogonal_, xavier_
from pipeline.model.cells.steps import Layer, State, last_step


class ConvLSTMLayer(Layer):
    """Equations 3 of the paper, * a convolution, the peepholes P element by element:

        i = sigmoid(W_i * x + R_i * h + P_i c + b_i)     f = sigmoid(W_f * x + R_f * h + P_f c + b_f)
        c' = f c + i tanh(W_g * x + R_g * h + b_g)       o = sigmoid(W_o * x + R_o * h + P_o c' + b_o)
        h' = o tanh(c')

    A step's vector is read as the feature map (C, grid, grid) that the encoder flattened, and so is the hidden vector
    that comes out, so layers stack. On a grid of 1 this is a peephole LSTM.

    Args:
        input_size: D = C * grid * grid.
        config: hidden (channels of the state) and the initialisation are read.
        grid: cells per side.

    Attributes:
        output_size: hidden * grid * grid.
        weight_ih (4 * hidden, C, k, k), weight_hh (4 * hidden, hidden, k, k), bias (4 * hidden): gates in the order
            input, forget, cell, output; k is 3, and 1 on a grid of 1, where all but the middle would see padding.
        peephole (3, hidden, grid, grid): to the input, forget and output gate; 0 at the start.

    Raises:
        ValueError: input_size is no multiple of grid * grid.
    """

    def __init__(self, input_size: int, config: RecurrentConfig, grid: int = 1) -> None:
        super().__init__()
        channels, rest = divmod(input_size, grid * grid)
        if rest:
            raise ValueError(f"conv_lstm cannot read a vector of {input_size} as maps of {grid} x {grid} cells")
        self.hidden, self.grid = config.hidden, grid
        self.output_size = config.hidden * grid * grid
        size, kernel = config.hidden, 3 if grid > 1 else 1
        self.weight_ih = nn.Parameter(torch.empty(4 * size, channels, kernel, kernel))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(4 * size))
        default_(self, size * kernel * kernel)
        self.peephole = nn.Parameter(torch.zeros(3, size, grid, grid))
        if config.initialisation != "default":
            xavier_(self.weight_ih, size)
            orthogonal_(self.weight_hh, size)  # as matrices (hidden, hidden * k * k), gate by gate
            nn.init.zeros_(self.bias)
            with torch.no_grad():
                self.bias[size : 2 * size], self.bias[:size] = forget_biases(config, size)

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h, c), (B, hidden, grid, grid) each."""
        hidden, cells, _ = self._run(x, state)
        return hidden.flatten(2).transpose(0, 1), (last_step(hidden, lengths), last_step(cells, lengths))

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values of the gates and of the cell candidate, (B, T, hidden * grid * grid) each, by name."""
        found = self._run(x, state)[2].transpose(0, 1).chunk(4, 2)
        return {name: gate.flatten(2) for name, gate in zip(("input", "forget", "cell", "output"), found, strict=True)}

    def _run(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden and cell states (T, B, hidden, grid, grid), gates (T, B, 4 * hidden, grid, grid)."""
        size, grid, steps = self.hidden, self.grid, x.shape[1]
        h, c = (x.new_zeros(len(x), size, grid, grid),) * 2 if state is None else state
        maps = x.transpose(0, 1).reshape(len(x) * steps, -1, grid, grid)
        inputs = F.conv2d(maps, self.weight_ih, self.bias, padding="same")
        to_input_and_forget, to_output = self.peephole[:2].flatten(0, 1), self.peephole[2]
        hidden, cells, gates = [], [], []
        for pre in inputs.view(steps, len(x), 4 * size, grid, grid).unbind():
            i_f, g, o = (pre + F.conv2d(h, self.weight_hh, padding="same")).split((2 * size, size, size), 1)
            i_f = torch.sigmoid(torch.addcmul(i_f, to_input_and_forget, torch.cat([c, c], 1)))
            i, f = i_f.chunk(2, 1)
            g = torch.tanh(g)
            c = torch.addcmul(i * g, f, c)
            o = torch.sigmoid(torch.addcmul(o, to_output, c))
            h = o * torch.tanh(c)
            hidden.append(h)
            cells.append(c)
            gates.append(torch.cat([i_f, g, o], 1))
        return torch.stack(hidden), torch.stack(cells), torch.stack(gates)
