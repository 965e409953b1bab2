"""What a model is made of: shape, parameters, multiply-adds and memory of each step, for one clip.

Nothing is computed: convolutions and linear layers run on the device "meta", which knows shapes alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.branch import Branch
from pipeline.model.cells.mlstm import MLSTMLayer
from pipeline.model.cells.steps import Layer
from pipeline.model.encoder import Encoder
from pipeline.model.inside import named_layers
from pipeline.model.trunk import shadow

CROWDED = 0.6
"""A part of the trunk with more than this share of its layers is shown by its own parts."""


@dataclass(frozen=True)
class Step:
    """One step on the way from a clip to its label.

    Attributes:
        name: what it is called.
        shape: of what it puts out for one clip; a letter where a file decides.
        dtype: of the same.
        parameters: weights and biases, a frozen encoder's too.
        trained: how many of them are trained.
        multiply_adds: products with weights for one clip; None where there are others, which are not counted.
        activations: bytes of all that its layers put out for one clip.
        weights: bytes of its parameters and buffers.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    parameters: int = 0
    trained: int = 0
    multiply_adds: int | None = 0
    activations: int = 0
    weights: int = 0


class _Call(NamedTuple):
    """One layer of the trunk at work."""

    name: str
    inputs: tuple[int, ...]
    multiply_adds: int
    activations: int


def encoder_steps(encoder: Encoder, moments: int, size: int) -> list[Step]:
    """The steps of an encoder for `moments` frames of `size` pixels: normalisation, the trunk's parts, pooling.

    The trunk's multiply-adds are those that PyTorch's `FlopCounterMode` counts, halved.
    """
    frames = (moments, 3, size, size)
    steps = [Step("normalise", frames, activations=_bytes(frames))]
    parts = _trunk_steps(encoder.trunk, frames)
    cells = f"{encoder.grid} x {encoder.grid} cells" if encoder.grid > 1 else "all pixels"
    vectors = (moments, encoder.dim)
    return [*steps, *parts, Step(f"mean over {cells}", vectors, activations=_bytes(vectors))]


def branch_steps(branch: Branch, moments: int) -> list[Step]:
    """The steps of a branch for `moments` feature vectors: standardise, project, recur, pool, score.

    Linear layers are counted by `FlopCounterMode`. For recurrences PyTorch counts nothing on a CPU, so a formula does:
    each weight is used once per step, a convolution's once per cell of the map.
    """
    size = len(branch.standardisation.mean)
    shape: tuple[int, ...] = (moments, size)
    steps = [_step("standardise", branch.standardisation, shape, 0)]
    if not isinstance(branch.normalisation, nn.Identity):
        both = nn.ModuleList([branch.standardisation, branch.normalisation])  # the former leaves things as they are
        steps = [_step("layer norm", both, shape, 0)]
    if not isinstance(branch.projection, nn.Identity):
        count, shape = _counted(branch.projection, shape)
        steps.append(_step("projection", branch.projection, shape, count))
    for name, layer in named_layers(branch.recurrent).items():
        out = (moments, layer.output_size)
        steps.append(_step(f"{branch.recurrent.kind} {name}", layer, out, recurrent_multiply_adds(layer, moments)))
    return [*steps, *_scoring_steps(branch, moments)]


def recurrent_multiply_adds(layer: Layer, moments: int) -> int:
    """Products with the weights of one recurrent layer over `moments` steps; an mLSTM's with its memory, too."""
    per_step = 0
    for name, parameter in layer.named_parameters():
        cells = getattr(layer, "grid", 1) ** 2 if name.startswith("weight") else 1  # a convolution's
        per_step += cells * parameter.numel() if parameter.ndim > 1 else 0
    if isinstance(layer, MLSTMLayer):
        per_step += 2 * layer.output_size**2 // layer.heads  # a matrix per head is written to and read
    return moments * per_step


def _scoring_steps(branch: Branch, moments: int) -> list[Step]:
    """Pooling, where there is one, and the output layer."""
    hidden, pooling = branch.recurrent.output_size, branch.pooling
    steps = []
    shape: tuple[int, ...] = (moments, hidden)
    if pooling is not None:
        count = 0
        if pooling.kind == "attention":
            count = _counted(nn.Sequential(pooling.project, pooling.context), shape)[0]
        shape = (hidden,)
        steps.append(_step(f"{pooling.kind} pooling", pooling, shape, count))
    count, shape = _counted(branch.output, shape)
    return [*steps, _step("output", branch.output, shape, count)]


def _trunk_steps(trunk: nn.Module, frames: tuple[int, ...]) -> list[Step]:
    """The trunk's parts in the order in which they run."""
    calls, last = _calls(trunk, frames)
    groups: list[tuple[str, list[_Call]]] = []
    for call, part in zip(calls, _parts([call.name for call in calls]), strict=True):
        # What multiplies nothing (norms, activations, pooling) belongs to the convolution before it.
        if not groups or (call.multiply_adds and part != groups[-1][0]):
            groups.append((part, []))
        groups[-1][1].append(call)
    # A part may end in a sum or a concatenation, which is no module: the next part reads its result.
    shapes = [*(members[0].inputs for _, members in groups[1:]), last]
    steps = []
    for (part, members), shape in zip(groups, shapes, strict=True):
        modules = nn.ModuleList(trunk.get_submodule(call.name) for call in members)
        step = _step(f"encoder {part}", modules, shape, sum(call.multiply_adds for call in members))
        steps.append(replace(step, activations=sum(call.activations for call in members)))
    return steps


def _calls(trunk: nn.Module, frames: tuple[int, ...]) -> tuple[list[_Call], tuple[int, ...]]:
    """Each call of a layer that has no parts, and the shape of the trunk's result."""
    model = shadow(trunk).eval()
    calls: list[_Call] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def after(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            count = counter.get_total_flops() // 2 - sum(call.multiply_adds for call in calls)
            made = 0 if getattr(layer, "inplace", False) else _bytes(tuple(output.shape))
            calls.append(_Call(name, tuple(arguments[0].shape), count, made))

        return after

    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(hook(name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = model(torch.empty(frames, device="meta"))
    return calls, tuple(result.shape)


def _parts(names: list[str]) -> list[str]:
    """For each layer's dotted name, the part of the trunk that it is shown under."""
    tops = Counter(name.split(".")[0] for name in names)
    crowded = {top for top, count in tops.items() if count > CROWDED * len(names)}
    return [".".join(name.split(".")[: 2 if name.split(".")[0] in crowded else 1]) for name in names]


def _counted(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Multiply-adds of a module without recurrence on an input of this shape, and the shape of its result."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = shadow(module).eval()(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2, tuple(result.shape)


def _step(name: str, module: nn.Module, shape: tuple[int, ...], multiply_adds: int) -> Step:
    parameters = list(module.parameters())
    return Step(
        name,
        shape,
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=multiply_adds,
        activations=_bytes(shape),
        weights=sum(x.nbytes for x in [*parameters, *module.buffers()]),
    )


def _bytes(shape: tuple[int, ...]) -> int:
    return 4 * math.prod(shape)
