"""mLSTM (Beck et al. 2024, xLSTM): a matrix per head that stores values under keys, with exponential gating."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells.gemm import linear
from pipeline.model.cells.initialise import default_, xavier_
from pipeline.model.cells.slstm import spread_forget_biases
from pipeline.model.cells.steps import Layer, State

MOST_HEADS = 4
CHUNK = 64
"""Steps that are computed at once. The work inside a chunk grows with its square, that between chunks with their
number."""
SMALLEST_LOG = -80.0
"""exp(80) is a finite float32; memories that weigh less than exp(-80) in all are read as if they weighed that."""


class MLSTMLayer(Layer):
    """Per head, with q, k, v, o linear in x_t (H / heads each) and the gates i, f (a number each) too:

        C' = sigmoid(f) C + exp(i) v k^T / sqrt(size)      n' = sigmoid(f) n + exp(i) k / sqrt(size)
        h' = sigmoid(o) * (C' q) / max(|n' . q|, 1)

    Nothing sees the former hidden state, so the steps of a chunk are computed at once, as attention within the chunk
    plus what the memory before it adds; the numbers are those of the equations step by step. The states are kept
    divided by exp(m), with m' = max(log sigmoid(f) + m, i), which cancels. What the paper's block has around the cell
    (convolution, group normalisation, up-projection) is not part of it. There are 4 heads, or as many of 2 and 1 as
    divide H. At the start the heads' forget biases are spread over 3..6, as in the authors' code (chrono: by
    `chrono_bias`), and the gates' weights are 0, so that they see the input only once it helps.

    Args:
        input_size: D.
        config: hidden and the initialisation are read; of its options there is no dropout of recurrent weights, as it
            has none.

    Attributes:
        output_size: H.
        heads: how many.
        weight_ih (4 * H, D), bias (4 * H): query, key, value, output gate.
        weight_gates (2 * heads, D), bias_gates (2 * heads): input and forget gates of the heads.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.output_size = size = config.hidden
        self.heads = math.gcd(size, MOST_HEADS)
        self.weight_ih = nn.Parameter(torch.empty(4 * size, input_size))
        self.bias = nn.Parameter(torch.empty(4 * size))
        self.weight_gates = nn.Parameter(torch.empty(2 * self.heads, input_size))
        self.bias_gates = nn.Parameter(torch.empty(2 * self.heads))
        default_(self, size)
        if config.initialisation != "default":
            xavier_(self.weight_ih, size)
            for zero in (self.bias, self.weight_gates, self.bias_gates):
                nn.init.zeros_(zero)
            with torch.no_grad():
                self.bias_gates[self.heads :] = spread_forget_biases(config, self.heads)

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See `pipeline.model.cells`.

        The state is C (B, heads, size, size), rows by value, columns by key, n (B, heads, size) and m (B, heads) with
        size = H / heads; m has no gradient.
        """
        query, key, value, output = self._vectors(x)
        take, keep = self._log_gates(x, lengths)
        memory = self._start(x) if state is None else state
        parts = []
        for q, k, v, i, f in zip(*(y.split(CHUNK, 2) for y in (query, key, value, take, keep)), strict=True):
            read, memory = read_chunk(q, k, v, i, f, memory)
            parts.append(read)
        hidden = torch.cat(parts, 2).transpose(1, 2).flatten(2)
        return torch.sigmoid(output) * hidden, memory

    @torch.no_grad()
    def gates(self, x: Tensor, lengths: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Values (B, T, H) by name: output; and forget, a head's for all of its units.

        The input gate is an exponential without a scale of its own, and is left out.
        """
        keep = self._log_gates(x, torch.full((len(x),), x.shape[1]))[1].exp().transpose(1, 2)
        units = self.output_size // self.heads
        return {"forget": keep.repeat_interleave(units, -1), "output": torch.sigmoid(self._vectors(x)[3])}

    def _vectors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key and value (B, heads, T, size), the output gate's pre-activation (B, T, H)."""
        *vectors, output = linear(x, self.weight_ih, self.bias).chunk(4, -1)
        query, key, value = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in vectors)
        return query, key / math.sqrt(key.shape[-1]), value, output

    def _log_gates(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the input and forget gates, (B, heads, T): -inf and 0 in the padding, which changes nothing."""
        take, keep = linear(x, self.weight_gates, self.bias_gates).transpose(1, 2).chunk(2, 1)
        padding = (torch.arange(x.shape[1]) >= lengths.unsqueeze(1)).unsqueeze(1).to(x.device)
        return take.masked_fill(padding, -torch.inf), nn.functional.logsigmoid(keep).masked_fill(padding, 0.0)

    def _start(self, x: Tensor) -> State:
        size = self.output_size // self.heads
        memory = x.new_zeros(len(x), self.heads, size, size)
        return memory, memory[..., 0], x.new_full((len(x), self.heads), -torch.inf)


def read_chunk(
    query: Tensor, key: Tensor, value: Tensor, take: Tensor, keep: Tensor, state: State
) -> tuple[Tensor, State]:
    """The steps of one chunk at once.

    Step t reads what step s <= t stored with the weight exp(take_s + sum of keep over s+1..t), and the memory before
    the chunk with exp(m + sum of keep over all steps up to t). m' of the equations is the largest of these exponents.
    The sums are added up one by one: differences of one running sum would lose their digits where it is large.

    Args:
        query, key, value: (B, heads, L, size), the key divided by sqrt(size).
        take, keep: (B, heads, L), logarithms of the gates.
        state: C, n and m before the chunk, as `MLSTMLayer.forward`.

    Returns:
        (C q) / max(|n . q|, 1), (B, heads, L, size), and the state after the chunk.
    """
    memory, normaliser, stabiliser = state
    length = take.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool, device=take.device).tril(-1)
    sums = torch.where(later, keep.unsqueeze(-1), 0.0).cumsum(-2)  # [t, s]: over s+1..t
    inside = (sums + take.unsqueeze(-2)).masked_fill(later.t(), -torch.inf)
    former = keep.cumsum(-1) + stabiliser.unsqueeze(-1)
    # A constant for the gradient: it cancels, and so do its derivatives.
    scale = torch.maximum(inside.amax(-1), former).detach()
    weights, before = torch.exp(inside - scale.unsqueeze(-1)), torch.exp(former - scale).unsqueeze(-1)

    scores = weights * (query @ key.transpose(-1, -2))
    read = scores @ value + before * (query @ memory.transpose(-1, -2))
    norm = scores.sum(-1) + before.squeeze(-1) * (query @ normaliser.unsqueeze(-1)).squeeze(-1)
    least = torch.exp(-scale.clamp(min=SMALLEST_LOG))
    hidden = read / torch.maximum(norm.abs(), least).unsqueeze(-1)

    kept, stored = before[..., -1:, :], weights[..., -1, :].unsqueeze(-1) * key
    memory = kept * memory + value.transpose(-1, -2) @ stored
    return hidden, (memory, kept.squeeze(-1) * normaliser + stored.sum(-2), scale[..., -1])
