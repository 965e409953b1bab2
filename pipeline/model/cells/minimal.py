"""minGRU and minLSTM (Feng et al. 2024): gates that see the input alone, so all steps can be computed at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import default_, forget_biases, xavier_
from pipeline.model.cells.scan import Gates, gated_scan
from pipeline.model.cells.steps import Layer, State, last_step

SHUT = -60.0
"""Pre-activation below which sigmoid(x) is exp(x) in float64 too; exp(-60) is far above the smallest float32."""


class _MinimalLayer(Layer):
    """What both have in common: h_t = forget_t * h_(t-1) + input_t * candidate_t, all three made from x_t alone.

    The candidate is linear in x_t, without tanh, as in the paper's main text: the state is a weighted mean of
    candidates and cannot grow beyond them. The variant of its appendix, which keeps states positive so that they have
    logarithms, is not needed here (see scan.py).

    Args:
        input_size: D.
        config: hidden and the initialisation are read.

    Attributes:
        output_size: H.
        weight_ih (G * H, D), bias (G * H): blocks of H rows in the order `blocks`.
        blocks: what each block computes.
    """

    blocks: tuple[str, ...]
    of_cell: Gates

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = config.hidden
        rows = len(self.blocks) * config.hidden
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.bias = nn.Parameter(torch.empty(rows))
        default_(self, config.hidden)
        if config.initialisation != "default":
            xavier_(self.weight_ih, config.hidden)
            nn.init.zeros_(self.bias)
            with torch.no_grad():
                self._set_memory(*forget_biases(config, config.hidden))

    def _set_memory(self, forget: Tensor, take: Tensor) -> None:
        """Set the gates' biases (H) of keeping and of taking in."""
        raise NotImplementedError

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h,), (B, H)."""
        pre = linear(x.transpose(0, 1), self.weight_ih, self.bias)
        start = pre.new_zeros(pre.shape[1], self.output_size) if state is None else state[0]
        hidden = gated_scan(pre, start, self.of_cell)
        return hidden.transpose(0, 1), (last_step(hidden, lengths),)

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values (B, T, H) by name: forget and input, the shares of state and candidate in the new state; cell."""
        pre, candidate = linear(x, self.weight_ih, self.bias).tensor_split((-self.output_size,), -1)
        keep, take = self.of_cell.shares(pre)
        return {"forget": keep, "input": take, "cell": candidate}


def min_gru_shares(update: Tensor) -> tuple[Tensor, Tensor]:
    """1 - z and z of the update gate's pre-activations (..., H)."""
    return torch.sigmoid(-update), torch.sigmoid(update)


def min_gru_gradient(update: Tensor, slope: Tensor, out: Tensor) -> None:
    """See `Gates`: the derivative of 1 - z is -z * (1 - z)."""
    torch.neg(slope, out=out)


def min_lstm_shares(pre: Tensor) -> tuple[Tensor, Tensor]:
    """The shares f / (f + i) and i / (f + i) for sigmoids f and i of the pre-activations, together (..., 2 * H).

    Where both gates are all but shut, sigmoids are exponentials, and both pre-activations can be raised alike: the
    shares stay what they are, and do not become 0 / 0. (The difference of log-sigmoids would be as exact, but PyTorch's
    log1p is not vectorised on a CPU and takes 20 times as long.)
    """
    forget, take = pre.chunk(2, -1)
    raised = torch.maximum(forget, take).neg_().add_(SHUT).clamp_(min=0)
    kept, taken = torch.add(forget, raised).sigmoid_(), torch.add(take, raised).sigmoid_()
    total = kept + taken
    return kept.div_(total), taken.div_(total)


def min_lstm_gradient(pre: Tensor, slope: Tensor, out: Tensor) -> None:
    """See `Gates`: the derivative of f / (f + i) by a is its slope times sigmoid(-a), by b times -sigmoid(-b)."""
    torch.neg(pre, out=out).sigmoid_()
    forget, take = out.chunk(2, -1)
    forget.mul_(slope)
    take.mul_(slope).neg_()


class MinGRULayer(_MinimalLayer):
    """h_t = (1 - z_t) * h_(t-1) + z_t * candidate_t, with the update gate z_t = sigmoid(W_z x_t + b_z).

    Arguments, attributes and methods as `_MinimalLayer`. The gate `input` is z, `forget` is 1 - z, and so b_z starts
    at the negative of the forget bias.
    """

    blocks = ("update", "cell")
    of_cell = Gates(min_gru_shares, min_gru_gradient)

    def _set_memory(self, forget: Tensor, take: Tensor) -> None:
        self.bias[: self.output_size] = -forget


class MinLSTMLayer(_MinimalLayer):
    """h_t = f'_t * h_(t-1) + i'_t * candidate_t, with f' = f / (f + i), i' = i / (f + i); f and i are sigmoids.

    The division keeps the state's size independent of time; there is one state, and no output gate. Arguments,
    attributes and methods as `_MinimalLayer`; the gates `forget` and `input` are f' and i'.
    """

    blocks = ("forget", "input", "cell")
    of_cell = Gates(min_lstm_shares, min_lstm_gradient)

    def _set_memory(self, forget: Tensor, take: Tensor) -> None:
        # chrono: sigmoid(-b) = 1 - sigmoid(b), so f' is f at the start and forgets as slowly as it should
        self.bias[: 2 * self.output_size] = torch.cat([forget, take])
