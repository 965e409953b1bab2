"""What happens over time: stacked RNN, GRU or LSTM whose state is a value, handed in and out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.config import RecurrentConfig

State = Tensor | tuple[Tensor, Tensor] | None

KINDS: dict[str, type[nn.RNN | nn.GRU | nn.LSTM]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


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
    same numbers.

    Args:
        input_size: D, size of a step's vector.
        config: kind (none: the steps pass unchanged), hidden, layers, bidirectional, dropout, forget_bias.

    Attributes:
        output_size: H, size of a hidden vector; both directions together where there are two.
        bidirectional: a recurrence that reads both ways.
        streamable: can be fed step by step.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.kind = config.kind
        self.bidirectional = config.bidirectional and config.kind != "none"
        self.streamable = not self.bidirectional
        self.output_size = input_size
        if self.kind == "none":
            return
        self.output_size = config.hidden * (2 if self.bidirectional else 1)
        self.net = KINDS[self.kind](
            input_size,
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
            bidirectional=self.bidirectional,
        )
        initialise(self.net, config.forget_bias)

    def forward(self, x: Tensor, lengths: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Read T steps.

        Args:
            x: float (B, T, D); what stands in the padding is never read.
            lengths: int64 (B), 1..T.
            state: what the previous call returned, or None at a clip's start.

        Returns:
            Hidden vectors (B, T, H), exactly 0 in the padding; the state after each clip's last valid step
            (None for kind none, the hidden state (layers, B, hidden) for rnn and gru, and the pair with the
            cell state for lstm).
        """
        steps = x.shape[1]
        if self.kind == "none":
            return x.masked_fill(~valid_mask(lengths, steps, x.device).unsqueeze(-1), 0.0), None
        if int(lengths.min()) == steps:
            return self.net(x, state)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, after = self.net(packed, state)
        return pad_packed_sequence(hidden, batch_first=True, total_length=steps)[0], after


@torch.no_grad()
def initialise(net: nn.RNNBase, forget_bias: float) -> None:
    """Xavier input weights, orthogonal recurrent weights, zero biases, an LSTM's forget gate open.

    Both kinds of weights are drawn gate by gate (a gate is a block of `hidden` rows), since a stacked matrix
    that is orthogonal as a whole has gates that are not (Saxe et al. 2014). The forget bias is that of
    Jozefowicz et al. (2015); PyTorch adds two biases per gate, so one of them gets it and the other stays 0.
    """
    size = net.hidden_size
    for name, parameter in net.named_parameters():
        if name.startswith("weight_ih"):
            for gate in parameter.split(size):
                nn.init.xavier_uniform_(gate)
        elif name.startswith("weight_hh"):
            for gate in parameter.split(size):
                nn.init.orthogonal_(gate)
        else:
            parameter.zero_()
            if isinstance(net, nn.LSTM) and name.startswith("bias_ih"):
                parameter[size : 2 * size] = forget_bias  # gate order: input, forget, cell, output
