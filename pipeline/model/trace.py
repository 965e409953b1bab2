"""What a recurrent layer did with one clip, unit by unit: its gates, its memory, the sums that the gates are made of.

Nothing is computed anew by other equations: gates come from the layer's own `gates`, states from feeding it step by
step. The sums are what the page of `explain` needs to show where a gate's value came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.branch import Branch
from pipeline.model.cells.fused import NAMES, FusedLayer
from pipeline.model.cells.layer_norm import LayerNormLSTMLayer
from pipeline.model.cells.layer_norm_scan import EPSILON
from pipeline.model.cells.lstm import LSTMLayer
from pipeline.model.cells.minimal import MinGRULayer, MinLSTMLayer
from pipeline.model.cells.mlstm import MLSTMLayer
from pipeline.model.cells.slstm import SLSTMLayer
from pipeline.model.cells.steps import Layer, State
from pipeline.model.inside import named_layers, recorded

BACKWARD = "_backward"


@dataclass(frozen=True)
class Trace:
    """One layer in one direction and one clip; everything on the CPU, float32, in the order of the clip's moments.

    Attributes:
        form: which equations hold, a key of `FORMS`.
        values: by name (T, H) each: the gates and the candidate (`cell`, a GRU's too) as `Layer.gates` names them;
            `state` and `state_before`, the memory after and before the step, where it is one number per unit and not
            the hidden state itself; `hidden` and `hidden_before`, (T, P) where hidden states are projected; and what
            else the form's equations name. For a layer that reads backwards `before` is what it brought from the
            later moments.
        sums: gate -> part -> (T, H), whose sum is what the gate's nonlinearity sees; parts are `input`, `hidden`,
            `bias` and `peephole`. Empty for members whose gates are no such sum.
        kept: (T, H), the share of the memory that a step leaves in place; None without a gate that decides it.
        influence: (T, P), the gradient of the explained number with respect to the hidden state, times the hidden
            state: what each unit handed on at each moment.
        zoneout: share of a state that stays as it was; 0 but for the form zoneout.
    """

    form: str
    values: dict[str, Tensor]
    sums: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    kept: Tensor | None = None
    influence: Tensor | None = None
    zoneout: float = 0.0


FORMS = {
    "lstm": "c = f c' + i g, h = o tanh(c)",
    "projected": "c = f c' + i g, inner = o tanh(c), h = W inner",
    "zoneout": "new = f c' + i g, c = z c' + (1 - z) new, inner = o tanh(new), h = z h' + (1 - z) inner",
    "layer_norm": "c = f c' + i g, h = o tanh(normalised), normalised = LN(c)",
    "slstm": "c = (1 - i) c' + i g, h = o c",
    "mlstm": "h = o read",
    "gru": "h = z h' + (1 - z) g",
    "minimal": "h = f h' + i g",
    "rnn": "h = tanh(sum)",
    "irnn": "h = max(0, sum)",
}
"""What a member does with its gates, a prime for the step before. The page of `explain` shows these with numbers."""


OTHERS: tuple[tuple[type[Layer], str], ...] = (
    (LayerNormLSTMLayer, "layer_norm"),
    (SLSTMLayer, "slstm"),
    (MLSTMLayer, "mlstm"),
    (MinGRULayer, "minimal"),
    (MinLSTMLayer, "minimal"),
)


def traces(branch: Branch, features: Tensor, objective: Callable[[Tensor], Tensor]) -> dict[str, Trace]:
    """Follow one clip through every recurrent layer of a branch.

    Args:
        branch: in evaluation mode.
        features: float (1, T, D).
        objective: the branch's outputs (1, ...) to the number that is explained.

    Returns:
        By name: layer0, layer0_backward, layer1, ...; empty for the kind none.
    """
    layers = named_layers(branch.recurrent)
    if not layers:
        return {}
    lengths = torch.tensor([features.shape[1]])
    hidden: dict[str, Tensor] = {}

    def keep_output(name: str) -> Callable[[nn.Module, object, tuple[Tensor, State]], None]:
        def hook(_: nn.Module, __: object, output: tuple[Tensor, State]) -> None:
            hidden[name] = output[0]

        return hook

    handles = [layer.register_forward_hook(keep_output(name)) for name, layer in layers.items()]
    try:
        # cuDNN goes backward through a recurrence only in training mode, which would switch the dropout on.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), recorded(layers) as reads:
            score = objective(branch(features, lengths))
            gradients = torch.autograd.grad(score, [hidden[name] for name in layers], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
        influence = None if gradient is None else (gradient * hidden[name])[0].detach()
        found[name] = _in_clip_order(_trace(layer, reads[name].steps.detach(), influence), name.endswith(BACKWARD))
    return found


def half_lives(kept: Tensor, seconds_per_step: float) -> Tensor:
    """Seconds in which each unit's memory falls to a half: ln(1/2) / mean(ln kept), times the seconds of a step.

    Args:
        kept: (T, H) in 0..1; the first row is not read where there are others, as it multiplies a memory that is empty.
        seconds_per_step: above 0.

    Returns:
        float64 (H): infinite where nothing is forgotten, 0 where everything is.
    """
    rows = kept.double()[1:] if len(kept) > 1 else kept.double()
    rate = rows.clamp(0, 1).log().mean(0)
    return torch.where(rate < 0, math.log(0.5) / rate, torch.inf) * seconds_per_step


@torch.no_grad()
def _trace(layer: Layer, x: Tensor, influence: Tensor | None) -> Trace:
    """In the order in which the layer reads x (1, T, D)."""
    hidden, state = _stepped(layer, x)
    values = {name: gate[0] for name, gate in layer.gates(x, torch.tensor([x.shape[1]])).items()}
    values |= {"hidden": hidden, "hidden_before": _before(hidden)}
    if state is not None:
        values |= {"state": state, "state_before": _before(state)}
    sums = _sums(layer, x[0], values)
    if isinstance(layer, FusedLayer) and isinstance(layer.net, nn.GRU):
        new = sums["cell"]
        values["cell"] = torch.tanh(new["input"] + new["bias"] + values["reset"] * new["hidden"])
    form = _form(layer)
    zoneout = cast(float, layer.zoneout) if form == "zoneout" else 0.0
    return Trace(form, values | _extra(layer, form, values), sums, _kept(layer, values), influence, zoneout)


def _form(layer: Layer) -> str:
    """The key of `FORMS`."""
    if isinstance(layer, FusedLayer) and not isinstance(layer.net, nn.LSTM):
        return "gru" if isinstance(layer.net, nn.GRU) else "irnn" if layer.net.nonlinearity == "relu" else "rnn"
    if isinstance(layer, FusedLayer) and layer.net.proj_size:
        return "projected"
    if isinstance(layer, LSTMLayer) and layer.zoneout:
        return "zoneout"
    return next((form for kind, form in OTHERS if isinstance(layer, kind)), "lstm")


def _extra(layer: Layer, form: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a form's equations name besides gates and states."""
    if form == "projected":
        return {"inner": values["output"] * torch.tanh(values["state"])}
    if form == "zoneout":
        new = values["forget"] * values["state_before"] + values["input"] * values["cell"]
        return {"new": new, "inner": values["output"] * torch.tanh(new)}
    if isinstance(layer, LayerNormLSTMLayer):
        c = values["state"]
        return {"normalised": F.layer_norm(c, c.shape[1:], layer.cell_scale, layer.cell_shift, EPSILON)}
    if form == "mlstm":
        return {"read": values["hidden"] / values["output"]}
    return {}


def _stepped(layer: Layer, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Hidden states (T, P) and memory (T, H), None where it is the hidden state itself or a matrix."""
    hidden, memory = [], []
    state: State | None = None
    one = torch.ones(1, dtype=torch.int64)
    for step in x.split(1, 1):
        out, state = layer(step, one, state)
        hidden.append(out[0, 0])
        memory.append(_memory(layer, state))
    kept = [part for part in memory if part is not None]
    return torch.stack(hidden), torch.stack(kept) if kept else None


def _memory(layer: Layer, state: State) -> Tensor | None:
    """The memory (H) that a state holds of one clip."""
    if isinstance(layer, MLSTMLayer) or len(state) == 1:
        return None
    if isinstance(layer, SLSTMLayer):  # c and n apart have no scale of their own: the memory is their ratio
        return (state[1] / state[2])[0]
    return state[1][0].flatten()


def _before(values: Tensor) -> Tensor:
    """The same one step earlier, zeros at the start."""
    return torch.cat([torch.zeros_like(values[:1]), values[:-1]])


def _sums(layer: Layer, x: Tensor, values: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The parts of each gate's pre-activation for x (T, D), where it is a sum of products and a bias."""
    before = values["hidden_before"]
    if isinstance(layer, FusedLayer):
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(layer.net, f"{name}_l0") for name in NAMES)
        if isinstance(layer.net, nn.GRU):
            found = _named(("reset", "update", "cell"), x, before, weight_ih, weight_hh, bias_ih + bias_hh)
            size = layer.output_size  # the reset gate scales the recurrent product with its own bias
            new = found["cell"]
            new["hidden"] = new["hidden"] + bias_hh[-size:]
            new["bias"] = bias_ih[-size:].expand_as(new["input"])
            return found
        plain: tuple[str, ...] = ("hidden",) if isinstance(layer.net, nn.RNN) else ("input", "forget", "cell", "output")
        return _named(plain, x, before, weight_ih, weight_hh, bias_ih + bias_hh)
    if isinstance(layer, LSTMLayer):
        names = ("forget", "cell", "output") if layer.coupled else ("input", "forget", "cell", "output")
        found = _named(names, x, before, layer.weight_ih, layer.weight_hh, layer.bias)
        if layer.peephole is not None:
            fresh = values["forget"] * values["state_before"] + values["input"] * values["cell"]
            seen = (values["state_before"], values["state_before"], fresh)
            for name, weight, cell in zip(("input", "forget", "output"), layer.peephole, seen, strict=True):
                found[name]["peephole"] = weight * cell
        return found
    return {}


def _named(
    names: tuple[str, ...], x: Tensor, before: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> dict[str, dict[str, Tensor]]:
    from_input, from_hidden = (
        F.linear(y, weight).chunk(len(names), -1) for y, weight in ((x, weight_ih), (before, weight_hh))
    )
    biases = (part.expand(len(x), -1) for part in bias.chunk(len(names)))
    return {
        name: {"input": one, "hidden": other, "bias": constant}
        for name, one, other, constant in zip(names, from_input, from_hidden, biases, strict=True)
    }


def _kept(layer: Layer, values: Mapping[str, Tensor]) -> Tensor | None:
    """The share (T, H) of the memory that each step leaves in place."""
    if isinstance(layer, SLSTMLayer):  # c / n is a mean in which the newest candidate weighs `input`
        return 1 - values["input"]
    if isinstance(layer, FusedLayer) and isinstance(layer.net, nn.GRU):
        return values["update"]
    if "forget" not in values:
        return None
    forget = values["forget"]
    zoneout = cast(float, getattr(layer, "zoneout", 0.0))
    return zoneout + (1 - zoneout) * forget


def _in_clip_order(trace: Trace, backward: bool) -> Trace:
    """A layer that reads backwards met the clip's last moment first."""

    def turned(x: Tensor) -> Tensor:
        return (x.flip(0) if backward else x).detach().float().cpu()

    return Trace(
        trace.form,
        {name: turned(x) for name, x in trace.values.items()},
        {gate: {part: turned(x) for part, x in parts.items()} for gate, parts in trace.sums.items()},
        None if trace.kept is None else turned(trace.kept),
        None if trace.influence is None else turned(trace.influence),
        trace.zoneout,
    )
