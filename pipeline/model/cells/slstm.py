"""sLSTM (Beck et al. 2024, xLSTM): an LSTM with exponential input gates and a normaliser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import chrono_bias, default_, orthogonal_, xavier_
from pipeline.model.cells.regularise import drop_weights
from pipeline.model.cells.slstm_scan import slstm_scan
from pipeline.model.cells.steps import Layer, State, last_step

FORGET_BIAS = (3.0, 6.0)
"""Range of the forget gates' start biases in the authors' code: time constants from 20 to 400 steps."""


class SLSTMLayer(Layer):
    """h = sigmoid(o) * c / n, where c and n sum up, in log space, exp(i) * tanh(g) and exp(i); see slstm_scan.py.

    The memory c / n is a weighted mean of all former candidates, and a new one can outweigh everything before it. The
    recurrent matrices are dense (one head): the paper splits them into heads to be quick on GPUs. What the paper's
    block has around the cell (convolution, group normalisation, up-projection) is not part of it.

    At the start the forget biases are spread over 3..6, as in the authors' code, where the initialisation is
    `orthogonal`; `forget_bias` is not read, since a single value is what this spread replaces. chrono: by
    `chrono_bias`. A constant input bias cancels in c / n, so it stays 0.

    Args:
        input_size: D.
        config: hidden, weight_dropout and the initialisation are read.

    Attributes:
        output_size: H.
        weight_ih (4 * H, D), weight_hh (4 * H, H), bias (4 * H): gates in the order input, forget, cell, output.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = size = config.hidden
        self.weight_dropout = config.weight_dropout
        self.weight_ih = nn.Parameter(torch.empty(4 * size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size))
        self.bias = nn.Parameter(torch.empty(4 * size))
        default_(self, size)
        if config.initialisation != "default":
            xavier_(self.weight_ih, size)
            orthogonal_(self.weight_hh, size)
            nn.init.zeros_(self.bias)
            with torch.no_grad():
                self.bias[size : 2 * size] = spread_forget_biases(config, size)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """weight_hh, some of it dropped."""
        return {"weight_hh": drop_weights(self.weight_hh, self.weight_dropout, self.training)}

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None, **drawn: Tensor) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h, c, n, m), (B, H) each; m has no gradient."""
        states = self._scan(x, state, **(drawn or self.draw(x)))
        return states[0].transpose(0, 1), tuple(last_step(part, lengths) for part in states)

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values (B, T, H) by name: input, forget, cell, output.

        exp(i) has no scale of its own, so `input` is its share in the normaliser: the weight of the new candidate in
        the mean c / n.
        """
        states = self._scan(x, state, self.weight_hh)
        start = self._start(x, state)[0]
        before = torch.cat([start.unsqueeze(0), states[0][:-1]])
        pre = linear(x.transpose(0, 1), self.weight_ih, self.bias) + before @ self.weight_hh.t()
        i, f, g, o = pre.transpose(0, 1).chunk(4, -1)
        normaliser, stabiliser = states[2].transpose(0, 1), states[3].transpose(0, 1)
        return {
            "input": torch.exp(i - stabiliser) / normaliser,
            "forget": torch.sigmoid(f),
            "cell": torch.tanh(g),
            "output": torch.sigmoid(o),
        }

    def _scan(self, x: Tensor, state: State | None, weight_hh: Tensor) -> State:
        pre = linear(x.transpose(0, 1), self.weight_ih, self.bias)
        return slstm_scan(pre, weight_hh, self._start(x, state))

    def _start(self, x: Tensor, state: State | None) -> State:
        if state is not None:
            return state
        zeros = x.new_zeros(len(x), self.output_size)
        return zeros, zeros, zeros, torch.full_like(zeros, -torch.inf)


def spread_forget_biases(config: RecurrentConfig, size: int) -> Tensor:
    """Forget biases (size,) of the xLSTM cells: spread evenly over `FORGET_BIAS`; chrono: by `chrono_bias`."""
    if config.initialisation == "chrono":
        return chrono_bias(size, config.chrono_steps)
    return torch.linspace(*FORGET_BIAS, size)
