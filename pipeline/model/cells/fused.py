"""PyTorch's own RNN, GRU and LSTM as layers: the reference, and the fastest for clips of one length."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import forget_biases, orthogonal_, xavier_
from pipeline.model.cells.lstm_native import suits
from pipeline.model.cells.lstm_scan import lstm_gates, lstm_scan
from pipeline.model.cells.regularise import drop_weights
from pipeline.model.cells.steps import Layer, State, last_step

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class FusedLayer(Layer):
    """`torch.nn.RNN` (tanh, or rectified from the identity: Le et al. 2015), `GRU` or `LSTM`, one layer, one direction.

    Args:
        input_size: D.
        config: kind (rnn, irnn, gru, lstm), hidden, proj_size, weight_dropout and the initialisation are read.

    Attributes:
        output_size: H; proj_size where it is set.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = config.proj_size or config.hidden
        self.net: nn.RNNBase
        if config.kind == "gru":
            self.net = nn.GRU(input_size, config.hidden, batch_first=True)
        elif config.kind == "lstm":
            self.net = nn.LSTM(input_size, config.hidden, batch_first=True, proj_size=config.proj_size)
        else:
            nonlinearity = "relu" if config.kind == "irnn" else "tanh"
            self.net = nn.RNN(input_size, config.hidden, batch_first=True, nonlinearity=nonlinearity)
        self.weight_dropout = config.weight_dropout
        if config.initialisation != "default":
            _initialise(self.net, config)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """weight_hh_l0, some of it dropped, where that is asked for."""
        if not (self.weight_dropout and self.training):
            return {}
        recurrent = dict(self.net.named_parameters())["weight_hh_l0"]
        return {"weight_hh_l0": drop_weights(recurrent, self.weight_dropout, True)}

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None, **drawn: Tensor) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`. The state is (h,), an LSTM's (h, c)."""
        weights = drawn or self.draw(x)
        whole = int(lengths.min()) == x.shape[1]
        if not whole and isinstance(self.net, nn.LSTM) and not self.net.proj_size and suits(x, None):
            return self._scanned(x, lengths, state, weights)
        given = None if state is None else tuple(part.unsqueeze(0) for part in state)
        before = given[0] if given is not None and len(given) == 1 else given
        steps = x if whole else pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        hidden, after = functional_call(self.net, weights, (steps, before)) if weights else self.net(steps, before)
        if not whole:
            hidden = pad_packed_sequence(hidden, batch_first=True, total_length=x.shape[1])[0]
        return hidden, tuple(part.squeeze(0) for part in (after if isinstance(after, tuple) else (after,)))

    def _scanned(
        self, x: Tensor, lengths: Tensor, state: State | None, drawn: dict[str, Tensor]
    ) -> tuple[Tensor, State]:
        """An LSTM by `lstm_scan`: on a CPU half of the time that PyTorch needs for clips of several lengths."""
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(self.net, f"{name}_l0") for name in NAMES)
        h, c = state or x.new_zeros(2, len(x), self.output_size)
        pre = linear(x.transpose(0, 1), weight_ih, bias_ih + bias_hh)
        hidden, cells = lstm_scan(pre, drawn.get("weight_hh_l0", weight_hh), (h, c))
        return hidden.transpose(0, 1), (last_step(hidden, lengths), last_step(cells, lengths))

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values of the gates (B, T, H) by name; none for an RNN."""
        net = self.net
        if isinstance(net, nn.RNN):
            return {}
        hidden, _ = self(x, lengths, state)
        start = hidden.new_zeros(len(x), 1, self.output_size) if state is None else state[0].unsqueeze(1)
        before = torch.cat([start, hidden[:, :-1]], 1)
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(net, f"{name}_l0") for name in NAMES)
        pre = F.linear(x, weight_ih, bias_ih) + F.linear(before, weight_hh, bias_hh)
        if isinstance(net, nn.GRU):
            reset, update, _ = torch.sigmoid(pre).chunk(3, -1)
            return {"reset": reset, "update": update}
        return lstm_gates(pre)


@torch.no_grad()
def _initialise(net: nn.RNNBase, config: RecurrentConfig) -> None:
    """Xavier input weights, orthogonal or identity recurrent weights, zero biases, gates open as configured.

    PyTorch adds two biases per gate: one of them gets the value, the other stays 0.
    """
    size = config.hidden
    for name, parameter in net.named_parameters():
        if name.startswith("weight_ih"):
            xavier_(parameter, size)
        elif name.startswith("weight_hr"):
            nn.init.xavier_uniform_(parameter)
        elif name.startswith("weight_hh") and config.kind == "irnn":
            nn.init.eye_(parameter)
        elif name.startswith("weight_hh"):
            orthogonal_(parameter, size)
        else:
            parameter.zero_()
    bias = dict(net.named_parameters())["bias_ih_l0"]
    if config.kind == "lstm":  # gates: input, forget, cell, output
        bias[size : 2 * size], bias[:size] = forget_biases(config, size)
    elif config.kind == "gru" and config.initialisation == "chrono":  # reset, update (1 keeps the state), new
        bias[size : 2 * size] = forget_biases(config, size)[0]
