"""A look into a recurrence: the gradient that reaches each step, what the gates do, how large updates are.

Tensors in, numbers out. Nothing here changes a weight, a gradient that an optimiser uses, or a random number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.model.branch import Branch
from pipeline.model.cells.steps import Layer as RecurrentLayer
from pipeline.model.cells.steps import State
from pipeline.model.recurrent import Recurrent, valid_mask

CLOSED, OPEN = 0.1, 0.9
"""A gate below the one is shut, above the other wide open; in between it can still learn."""

QUANTILE_VALUES = 10_000
"""Values of a gate that are sorted for its quantiles, evenly chosen."""

Objective = Callable[[Tensor], Tensor]
"""Logits (B, ...) to the scalar loss, a mean over the B clips."""


@dataclass(frozen=True)
class Gate:
    """One gate of one layer over all valid steps, clips and units.

    Attributes:
        mean: its mean value.
        low, high: between these lie all but the lowest and the highest tenth.
        closed, open: shares of the values below `CLOSED` and above `OPEN`; None for a gate that is not between 0 and
            1, as an exponential one.
    """

    mean: float
    low: float
    high: float
    closed: float | None
    open: float | None


@dataclass(frozen=True)
class Layer:
    """One recurrent layer in one direction.

    Attributes:
        gradient: per step, in the order in which the layer reads, the norm of the gradient of a clip's loss with
            respect to what the layer reads there; mean over the clips that have this step, counted from their last.
        first, last: the same norm at the first and at the last step of each clip of two steps or more; None without
            such clips.
        gates: by name; empty for a recurrence without.
        half_life: steps after which a cell has forgotten half of its content; None without a forget gate between 0
            and 1, and where it forgets nothing.
    """

    gradient: list[float]
    first: float | None
    last: float | None
    gates: dict[str, Gate] = field(default_factory=dict)
    half_life: float | None = None


@dataclass(frozen=True)
class _Read:
    """What a layer was called with: steps (B, T, D), int64 (B) of them valid, state before the first."""

    steps: Tensor
    lengths: Tensor
    state: State | None


def look(branch: Branch, features: Tensor, lengths: Tensor, objective: Objective) -> dict[str, Layer]:
    """Measure every recurrent layer of a branch on one batch.

    The hidden vectors that a layer returns are an end of its graph: their gradient tells of the layers above and
    nothing of the way through time. What a layer reads at step t reaches the loss through its recurrence alone, so
    that gradient is the one that vanishes or explodes (Hochreiter 1991, Bengio et al. 1994, Pascanu et al. 2013).

    It is measured over whole clips, also where `recurrent.truncate` cuts training's.

    Args:
        branch: in evaluation mode, so that dropout draws nothing.
        features: float (B, T, D).
        lengths: int64 (B) on the CPU, 1..T.
        objective: the loss of the branch's logits.

    Returns:
        By name: layer0, layer0_backward, layer1, ...; empty for the kind none.
    """
    layers = named_layers(branch.recurrent)
    if not layers:
        return {}
    # cuDNN goes backward through a recurrence only in training mode, which would switch the dropout on.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), recorded(layers) as reads:
        loss = objective(branch(features, lengths))
        gradients = torch.autograd.grad(loss, [reads[name].steps for name in layers])
    measured = {}
    for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
        norms = gradient.flatten(2).norm(dim=2).cpu() * len(lengths)  # the objective is a mean over the clips
        gates = _gates(layer, reads[name])
        first, last = _ends(norms, lengths)
        kept = half_life(gates["forget"]) if "forget" in gates else None
        summaries = {gate: summary(values) for gate, values in gates.items()}
        measured[name] = Layer(_from_the_end(norms, lengths), first, last, summaries, kept)
    return measured


def named_layers(recurrent: Recurrent) -> dict[str, RecurrentLayer]:
    """The layers of a stack by name, bottom first."""
    found: dict[str, RecurrentLayer] = {}
    for index, layer in enumerate(recurrent.layers):
        found[f"layer{index}"] = cast(RecurrentLayer, layer)
        if recurrent.bidirectional:
            found[f"layer{index}_backward"] = cast(RecurrentLayer, recurrent.backward_layers[index])
    return found


def summary(values: Tensor) -> Gate:
    """The numbers of one gate from its values, of any shape."""
    values = values.float().flatten()
    some = values[:: max(1, len(values) // QUANTILE_VALUES)]
    low, high = (float(x) for x in torch.quantile(some, values.new_tensor([0.1, 0.9])))
    mean = float(values.mean())
    if float(values.min()) < 0 or float(values.max()) > 1:
        return Gate(mean, low, high, None, None)
    closed, opened = (float(x.float().mean()) for x in (values < CLOSED, values > OPEN))
    return Gate(mean, low, high, closed, opened)


def half_life(forget: Tensor) -> float | None:
    """Steps in which a cell's content falls to a half: ln(1/2) / mean(ln f), f the forget gate's values.

    The mean of the logarithm is what counts: a content is multiplied by f at each step. None where f is not between 0
    and 1, or nothing is forgotten.
    """
    values = forget.double()
    if float(values.min()) < 0 or float(values.max()) > 1:
        return None
    rate = float(values.log().mean())
    return math.log(0.5) / rate if rate < 0 else None


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that are trained, by the part of the model that they belong to.

    Returns:
        encoder, normalisation, projection, recurrent.layer0, recurrent.layer0_backward, ..., pooling, output; with
        the stream before it (`rgb/output`) where there are several.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    streams = getattr(model, "streams", ())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            room, stream, *path = name.split(".")
            part = "encoder" if room == "encoders" else _part(path)
            groups.setdefault(f"{stream}/{part}" if len(streams) > 1 else part, []).append(parameter)
    return groups


def copies(groups: Mapping[str, list[nn.Parameter]]) -> dict[str, list[Tensor]]:
    """The groups' values as they are now."""
    return {name: [parameter.detach().clone() for parameter in group] for name, group in groups.items()}


def update_ratios(before: Mapping[str, list[Tensor]], groups: Mapping[str, list[nn.Parameter]]) -> dict[str, float]:
    """Per group, the length of the change since `before` over the length of the weights; 1e-3 is usual.

    A group of zeros has no ratio.
    """
    ratios = {}
    for name, group in groups.items():
        length = _length(before[name])
        if length > 0:
            moved = [parameter.detach() - old for parameter, old in zip(group, before[name], strict=True)]
            ratios[name] = _length(moved) / length
    return ratios


@contextmanager
def recorded(layers: Mapping[str, RecurrentLayer]) -> Iterator[dict[str, _Read]]:
    """While this is open, what each layer is called with."""
    reads: dict[str, _Read] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def before(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            steps, lengths, state = arguments
            # A node of its own: what two directions or a residual connection share would sum up their gradients.
            steps = steps.view_as(steps) if steps.requires_grad else steps.detach().requires_grad_()
            reads[name] = _Read(steps, lengths, state)
            return steps, lengths, state

        return before

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield reads
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _gates(layer: RecurrentLayer, read: _Read) -> dict[str, Tensor]:
    """Per gate its values at the valid steps, (N, H); the candidate `cell` is no gate."""
    mask = valid_mask(read.lengths, read.steps.shape[1], read.steps.device)
    gates = layer.gates(read.steps, read.lengths, read.state)
    return {name: values[mask] for name, values in gates.items() if name != "cell"}


def _from_the_end(norms: Tensor, lengths: Tensor) -> list[float]:
    """Norms (B, T) to their means over the clips, the clips aligned at their last steps."""
    steps = int(lengths.max())
    place = lengths.unsqueeze(1) - steps + torch.arange(steps)
    present = place >= 0
    aligned = norms.gather(1, place.clamp(min=0)).masked_fill(~present, 0.0)
    return [float(x) for x in aligned.sum(0) / present.sum(0)]


def _ends(norms: Tensor, lengths: Tensor) -> tuple[float | None, float | None]:
    longer = lengths > 1
    if not longer.any():
        return None, None
    last = norms.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)
    return float(norms[longer, 0].mean()), float(last[longer].mean())


def _part(path: list[str]) -> str:
    """The part of a branch from the rest of a parameter's name."""
    if path[0] != "recurrent":
        return path[0]
    kind, index = path[1], path[2]
    return f"recurrent.layer{index}" + ("_backward" if kind == "backward_layers" else "")


def _length(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(x.double().square().sum()) for x in tensors))
