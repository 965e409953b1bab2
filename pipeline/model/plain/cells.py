"""The recurrent layers as their equations for one step, for graphs that leave Python.

Each class wraps a trained layer of `pipeline.model.cells` and shares its weights. What does not depend on the step
before is computed for all steps at once in `inputs`; `step` is the rest. Evaluation alone: nothing is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.cells.conv import ConvLSTMLayer
from pipeline.model.cells.fused import FusedLayer
from pipeline.model.cells.layer_norm import LayerNormLSTMLayer
from pipeline.model.cells.layer_norm_scan import EPSILON
from pipeline.model.cells.lstm import LSTMLayer
from pipeline.model.cells.minimal import MinGRULayer, MinLSTMLayer, _MinimalLayer
from pipeline.model.cells.mlstm import SMALLEST_LOG, MLSTMLayer
from pipeline.model.cells.slstm import SLSTMLayer
from pipeline.model.cells.steps import Layer

LOWEST = -1e30
"""What stands for the logarithm of nothing, and for the maximum of nothing: unlike -inf it can be written as JSON. It
gives the same numbers, since exp(LOWEST - x) is 0 and max(LOWEST, x) is x for every x that a network computes."""

States = tuple[Tensor, ...]
"""A layer's state: tensors (B, ...), in the order of its `states`."""


@dataclass(frozen=True)
class Part:
    """One tensor of a state.

    Attributes:
        name: such as h or c.
        shape: without the batch.
        start: what it is filled with at a clip's start.
    """

    name: str
    shape: tuple[int, ...]
    start: float = 0.0


class PlainLayer(nn.Module):
    """One layer, one direction.

    Attributes:
        states: what its state consists of.
    """

    states: tuple[Part, ...]

    def inputs(self, x: Tensor) -> States:
        """Vectors (T, B, D) to what each step reads, (T, B, ...) each."""
        raise NotImplementedError

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """State (B, ...) and one step's inputs (B, ...) to the new state and the hidden vector (B, H)."""
        raise NotImplementedError

    def start(self, like: Tensor) -> States:
        """The state of B clips that begin, for vectors `like` (B, D)."""
        return tuple(like.new_full((like.shape[0], *part.shape), part.start) for part in self.states)


class PlainRNN(PlainLayer):
    """`torch.nn.RNN`, tanh or rectified."""

    def __init__(self, layer: FusedLayer) -> None:
        super().__init__()
        self.net = layer.net
        self.function = torch.relu if cast(nn.RNN, layer.net).nonlinearity == "relu" else torch.tanh
        self.states = (Part("h", (layer.output_size,)),)

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        return (F.linear(x, _weight(self.net, "ih"), _bias(self.net, "ih") + _bias(self.net, "hh")),)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        h = self.function(inputs[0] + F.linear(state[0], _weight(self.net, "hh")))
        return (h,), h


class PlainGRU(PlainLayer):
    """`torch.nn.GRU`: the reset gate applies to the product of the state, its bias included."""

    def __init__(self, layer: FusedLayer) -> None:
        super().__init__()
        self.net = layer.net
        self.states = (Part("h", (layer.output_size,)),)

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        return (F.linear(x, _weight(self.net, "ih"), _bias(self.net, "ih")),)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        reset, update, new = inputs[0].chunk(3, -1)
        of_reset, of_update, of_new = F.linear(state[0], _weight(self.net, "hh"), _bias(self.net, "hh")).chunk(3, -1)
        z = torch.sigmoid(update + of_update)
        n = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
        h = (1 - z) * n + z * state[0]
        return (h,), h


class PlainTorchLSTM(PlainLayer):
    """`torch.nn.LSTM`, with `proj_size` where that is set."""

    def __init__(self, layer: FusedLayer) -> None:
        super().__init__()
        self.net = layer.net
        self.states = (Part("h", (layer.output_size,)), Part("c", (self.net.hidden_size,)))

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        return (F.linear(x, _weight(self.net, "ih"), _bias(self.net, "ih") + _bias(self.net, "hh")),)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        i, f, g, o = (inputs[0] + F.linear(state[0], _weight(self.net, "hh"))).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if self.net.proj_size:
            h = F.linear(h, _weight(self.net, "hr"))
        return (h, c), h


class PlainLSTM(PlainLayer):
    """Peepholes, coupled gates, and zoneout by its mean; see `cells.lstm_scan`."""

    def __init__(self, layer: LSTMLayer) -> None:
        super().__init__()
        self.layer = layer
        self.states = (Part("h", (layer.output_size,)), Part("c", (layer.output_size,)))

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        return (F.linear(x, self.layer.weight_ih, self.layer.bias),)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        h, c = state
        peephole, keep = self.layer.peephole, self.layer.zoneout
        *i_pre, f_pre, g, o_pre = (inputs[0] + F.linear(h, self.layer.weight_hh)).chunk(
            3 if self.layer.coupled else 4, -1
        )
        f = torch.sigmoid(f_pre if peephole is None else f_pre + peephole[1] * c)
        opened = () if self.layer.coupled else (i_pre[0] if peephole is None else i_pre[0] + peephole[0] * c,)
        i = torch.sigmoid(opened[0]) if opened else 1 - f
        new_c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o_pre if peephole is None else o_pre + peephole[2] * new_c)
        new_h = o * torch.tanh(new_c)
        if keep:
            new_h, new_c = keep * h + (1 - keep) * new_h, keep * c + (1 - keep) * new_c
        return (new_h, new_c), new_h


class PlainLayerNormLSTM(PlainLayer):
    """See `cells.layer_norm`."""

    def __init__(self, layer: LayerNormLSTMLayer) -> None:
        super().__init__()
        self.layer = layer
        self.states = (Part("h", (layer.output_size,)), Part("c", (layer.output_size,)))

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        return (_norm(F.linear(x, self.layer.weight_ih), self.layer.scale_ih) + self.layer.bias,)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        products = _norm(F.linear(state[0], self.layer.weight_hh), self.layer.scale_hh)
        i, f, g, o = (inputs[0] + products).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(_norm(c, self.layer.cell_scale, self.layer.cell_shift))
        return (h, c), h


class PlainConvLSTM(PlainLayer):
    """See `cells.conv`; its hidden vector is the flattened map."""

    def __init__(self, layer: ConvLSTMLayer) -> None:
        super().__init__()
        self.layer = layer
        shape = (layer.hidden, layer.grid, layer.grid)
        self.states = (Part("h", shape), Part("c", shape))

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        grid = self.layer.grid
        maps = x.flatten(0, 1).unflatten(-1, (-1, grid, grid))
        products = F.conv2d(maps, self.layer.weight_ih, self.layer.bias, padding=self.layer.weight_ih.shape[-1] // 2)
        return (products.unflatten(0, (x.shape[0], x.shape[1])),)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        h, c = state
        layer = self.layer
        pre = inputs[0] + F.conv2d(h, layer.weight_hh, padding=layer.weight_hh.shape[-1] // 2)
        i, f, g, o = pre.chunk(4, 1)
        i = torch.sigmoid(i + layer.peephole[0] * c)
        f = torch.sigmoid(f + layer.peephole[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + layer.peephole[2] * c) * torch.tanh(c)
        return (h, c), h.flatten(1)


class PlainMinimal(PlainLayer):
    """minGRU and minLSTM, see `cells.minimal`: the shares of all steps are known before the first."""

    def __init__(self, layer: _MinimalLayer) -> None:
        super().__init__()
        self.layer = layer
        self.states = (Part("h", (layer.output_size,)),)

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`: the shares of the former state, and what is added to it."""
        pre = F.linear(x, self.layer.weight_ih, self.layer.bias)
        size = self.layer.output_size
        keep, take = self.layer.of_cell.shares(pre[..., :-size])
        return keep, take * pre[..., -size:]

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        h = inputs[0] * state[0] + inputs[1]
        return (h,), h


class PlainSLSTM(PlainLayer):
    """See `cells.slstm_scan`."""

    def __init__(self, layer: SLSTMLayer) -> None:
        super().__init__()
        self.layer = layer
        size = (layer.output_size,)
        self.states = (Part("h", size), Part("c", size), Part("n", size), Part("m", size, LOWEST))

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`."""
        return (F.linear(x, self.layer.weight_ih, self.layer.bias),)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        h, c, n, m = state
        i, f, g, o = (inputs[0] + F.linear(h, self.layer.weight_hh)).chunk(4, -1)
        kept = F.logsigmoid(f) + m
        new_m = torch.maximum(kept, i)
        forget, take = torch.exp(kept - new_m), torch.exp(i - new_m)
        c, n = forget * c + take * torch.tanh(g), forget * n + take
        h = torch.sigmoid(o) * c / n
        return (h, c, n, new_m), h


class PlainMLSTM(PlainLayer):
    """The equations of `cells.mlstm` step by step."""

    def __init__(self, layer: MLSTMLayer) -> None:
        super().__init__()
        self.layer = layer
        self.size = layer.output_size // layer.heads
        memory = (layer.heads, self.size, self.size)
        self.states = (Part("C", memory), Part("n", memory[:2]), Part("m", memory[:1], LOWEST))

    def inputs(self, x: Tensor) -> States:
        """See `PlainLayer`: query, key, value (T, B, heads, size), output gate, logarithms of input and forget gate."""
        *vectors, output = F.linear(x, self.layer.weight_ih, self.layer.bias).chunk(4, -1)
        query, key, value = (y.unflatten(-1, (self.layer.heads, self.size)) for y in vectors)
        take, keep = F.linear(x, self.layer.weight_gates, self.layer.bias_gates).chunk(2, -1)
        return query, key / math.sqrt(self.size), value, torch.sigmoid(output), take, F.logsigmoid(keep)

    def step(self, state: States, inputs: States) -> tuple[States, Tensor]:
        """See `PlainLayer`."""
        memory, normaliser, scale = state
        query, key, value, output, take, keep = inputs
        new_scale = torch.maximum(keep + scale, take)
        kept = torch.exp(keep + scale - new_scale).unsqueeze(-1)
        stored = torch.exp(take - new_scale).unsqueeze(-1) * key
        memory = kept.unsqueeze(-1) * memory + value.unsqueeze(-1) * stored.unsqueeze(-2)
        normaliser = kept * normaliser + stored
        read = (memory @ query.unsqueeze(-1)).squeeze(-1)
        least = torch.exp(-new_scale.clamp(min=SMALLEST_LOG))
        norm = torch.maximum((normaliser * query).sum(-1).abs(), least)
        return (memory, normaliser, new_scale), output * (read / norm.unsqueeze(-1)).flatten(1)


PLAIN: dict[type[Layer], Callable[[Layer], PlainLayer]] = {
    LSTMLayer: PlainLSTM,  # type: ignore[dict-item]
    LayerNormLSTMLayer: PlainLayerNormLSTM,  # type: ignore[dict-item]
    ConvLSTMLayer: PlainConvLSTM,  # type: ignore[dict-item]
    MinGRULayer: PlainMinimal,  # type: ignore[dict-item]
    MinLSTMLayer: PlainMinimal,  # type: ignore[dict-item]
    SLSTMLayer: PlainSLSTM,  # type: ignore[dict-item]
    MLSTMLayer: PlainMLSTM,  # type: ignore[dict-item]
}
TORCH: dict[type[nn.RNNBase], Callable[[FusedLayer], PlainLayer]] = {
    nn.RNN: PlainRNN,
    nn.GRU: PlainGRU,
    nn.LSTM: PlainTorchLSTM,
}


def plain_layer(layer: Layer) -> PlainLayer:
    """The plain form of a trained layer, which shares its weights.

    Raises:
        KeyError: a layer of a kind that has none yet: a new one needs its class here.
    """
    return TORCH[type(layer.net)](layer) if isinstance(layer, FusedLayer) else PLAIN[type(layer)](layer)


def _norm(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, scale.shape, scale, shift, EPSILON)


def _weight(net: nn.RNNBase, name: str) -> Tensor:
    return cast(Tensor, getattr(net, f"weight_{name}_l0"))


def _bias(net: nn.RNNBase, name: str) -> Tensor:
    return cast(Tensor, getattr(net, f"bias_{name}_l0"))
