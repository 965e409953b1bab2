"""Encoders, a step, a head and a whole clip of a trained classifier, each a module that `torch.export` can trace."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.model.branch import Branch
from pipeline.model.cells.steps import Layer, reverse
from pipeline.model.classifier import Classifier, fuse
from pipeline.model.encoder import Encoder
from pipeline.model.folding import fold, fold_graph
from pipeline.model.plain.cells import LOWEST, Part, PlainLayer, States, plain_layer
from pipeline.model.pooling import Pooling
from pipeline.model.recurrent import valid_mask

Tensors = dict[str, Tensor]


class PlainEncoder(nn.Module):
    """Frames (N, 3, S, S) uint8 to vectors (N, D) float32: normalisation, folded trunk, means over a grid of cells."""

    def __init__(self, encoder: Encoder, size: int) -> None:
        super().__init__()
        trunk = fold(encoder.trunk, *fold_graph(encoder.trunk))
        self.trunk = trunk.to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", encoder.mean.clone())
        self.register_buffer("std", encoder.std.clone())
        with torch.no_grad():
            height, width = self.trunk(torch.zeros(1, 3, size, size)).shape[-2:]
        # adaptive pooling is no operation of ONNX where the cells do not divide the map: as two products it is
        self.register_buffer("rows", cell_weights(height, encoder.grid))
        self.register_buffer("columns", cell_weights(width, encoder.grid).t().contiguous())

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        maps = self.trunk((frames.float() - mean) / std)
        return (cast(Tensor, self.rows) @ maps @ cast(Tensor, self.columns)).flatten(1)


class PlainEncoders(nn.Module):
    """All encoders of a model: stream name -> frames (N, 3, S, S) to stream name -> vectors (N, D).

    Args:
        model: with one encoder or more.
        size: S.
    """

    def __init__(self, model: Classifier, size: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {name: PlainEncoder(cast(Encoder, encoder), size) for name, encoder in model.encoders.items()}
        )

    def forward(self, frames: Tensors) -> Tensors:
        """See the class."""
        return {name: encoder(frames[name]) for name, encoder in self.encoders.items()}


class PlainHead(nn.Module):
    """From the features of whole clips to the answer, and from those of one moment; `Classifier.head` and `.step`.

    Attributes:
        states: name -> what each tensor of the state is, such as `rgb.0.h`, the stream's first layer's h; none where
            the model reads both ways.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        # of the model no more than this, or its encoders would be written along
        self.numeric = model.numeric
        if model.numeric:
            self.register_buffer("target_mean", model.target_mean.clone())
            self.register_buffer("target_std", model.target_std.clone())
        self.branches = nn.ModuleDict(
            {name: _PlainBranch(cast(Branch, model.branches[name])) for name in model.streams}
        )
        self.states: dict[str, Part] = {}
        if model.streamable:
            for name, branch in self.branches.items():
                self.states |= {f"{name}.{part}": found for part, found in cast(_PlainBranch, branch).states.items()}

    def forward(self, features: Tensors, lengths: Tensor) -> Tensor:
        """Features per stream (B, T, D) and lengths int64 (B), 1..T, to logits or numbers, (B, K) or (B, T, K)."""
        return self._combine({name: branch(features[name], lengths) for name, branch in self.branches.items()})

    def step(self, features: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """One moment, (B, D) per stream, and the state by name, to logits or numbers (B, K) and the new state."""
        answers: Tensors = {}
        after: Tensors = {}
        for name, branch in self.branches.items():
            own = {part.removeprefix(f"{name}."): x for part, x in state.items() if part.startswith(f"{name}.")}
            answers[name], left = cast(_PlainBranch, branch).step(features[name], own)
            after |= {f"{name}.{part}": x for part, x in left.items()}
        return self._combine(answers), {name: after[name] for name in self.states}

    def _combine(self, answers: Tensors) -> Tensor:
        """As `Classifier.combine`."""
        if not self.numeric:
            return fuse(answers)
        mean, std = cast(Tensor, self.target_mean), cast(Tensor, self.target_std)
        return torch.stack(list(answers.values())).mean(0) * std + mean

    def start(self, batch: int) -> Tensors:
        """The state of clips that begin."""
        return {name: torch.full((batch, *part.shape), part.start) for name, part in self.states.items()}


class PlainStep(nn.Module):
    """`PlainHead.step` as a module of its own."""

    def __init__(self, head: PlainHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See `PlainHead.step`."""
        return self.head.step(features, state)


class PlainClip(nn.Module):
    """A whole clip: encoders, where a stream has images, and the head.

    Args:
        head: of the model.
        encoders: None where no stream has images.
    """

    def __init__(self, head: PlainHead, encoders: PlainEncoders | None) -> None:
        super().__init__()
        self.head, self.encoders = head, encoders

    def forward(self, inputs: Tensors, lengths: Tensor) -> Tensor:
        """Per stream frames uint8 (B, T, 3, S, S) or features (B, T, D), and lengths int64 (B), to the answer.

        What stands in the padding is encoded and never used.
        """
        features = dict(inputs)
        if self.encoders is not None:
            for name, encoder in self.encoders.encoders.items():
                frames = inputs[name]
                features[name] = encoder(frames.flatten(0, 1)).unflatten(0, (frames.shape[0], frames.shape[1]))
        answer: Tensor = self.head(features, lengths)
        return answer


class _PlainBranch(nn.Module):
    """One stream's way; see `pipeline.model.branch.Branch`, whose parts it calls."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch
        recurrent = branch.recurrent
        self.layers = nn.ModuleList(plain_layer(cast(Layer, layer)) for layer in recurrent.layers)
        self.backward_layers = nn.ModuleList(plain_layer(cast(Layer, layer)) for layer in recurrent.backward_layers)
        self.states: dict[str, Part] = {
            f"{depth}.{part.name}": part
            for depth, layer in enumerate(self.layers)
            for part in cast(PlainLayer, layer).states
        }
        if branch.pooling is not None:
            self.states |= {f"pooling.{part.name}": part for part in pooling_states(branch.pooling)}

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        steps = features.shape[1]
        padding = ~valid_mask(lengths, steps, features.device).unsqueeze(-1)
        x = self._prepare(features.masked_fill(padding, 0.0)).masked_fill(padding, 0.0)
        for depth, layer in enumerate(self.layers):
            hidden = run(cast(PlainLayer, layer), x)
            if self.backward_layers:
                turned = run(cast(PlainLayer, self.backward_layers[depth]), reverse(x, lengths))
                hidden = torch.cat([hidden, reverse(turned, lengths)], -1)
            if self.branch.recurrent.residual and hidden.shape[-1] == x.shape[-1]:
                hidden = hidden + x
            x = hidden.masked_fill(padding, 0.0)
        pooled = x if self.branch.pooling is None else self.branch.pooling(x, lengths)
        answer: Tensor = self.branch.output(pooled)
        return answer

    def step(self, features: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        x = self._prepare(features)
        after: Tensors = {}
        for depth, layer in enumerate(self.layers):
            cell = cast(PlainLayer, layer)
            names = [f"{depth}.{part.name}" for part in cell.states]
            inputs = tuple(y.squeeze(0) for y in cell.inputs(x.unsqueeze(0)))
            left, hidden = cell.step(tuple(state[name] for name in names), inputs)
            after |= dict(zip(names, left, strict=True))
            x = hidden + x if self.branch.recurrent.residual and hidden.shape[-1] == x.shape[-1] else hidden
        if self.branch.pooling is not None:
            own = {name.removeprefix("pooling."): y for name, y in state.items()}
            x, pooled = pool_step(self.branch.pooling, x, own)
            after |= {f"pooling.{name}": y for name, y in pooled.items()}
        return self.branch.output(x), after

    def _prepare(self, features: Tensor) -> Tensor:
        branch = self.branch
        prepared: Tensor = branch.projection(branch.normalisation(branch.standardisation(features)))
        return prepared


def run(layer: PlainLayer, x: Tensor) -> Tensor:
    """All steps of one layer from a clip's start: vectors (B, T, D) to hidden vectors (B, T, H)."""
    x = x.transpose(0, 1)

    def step(state: States, inputs: States) -> tuple[States, Tensor]:
        after, hidden = layer.step(state, inputs)
        return after, hidden.clone()  # a scan's results must not share memory

    state, inputs = layer.start(x[0]), layer.inputs(x)
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan

        return cast(Tensor, scan(step, state, inputs)[1]).transpose(0, 1)
    found = []  # the same without being compiled
    for now in zip(*(y.unbind() for y in inputs), strict=True):
        state, hidden = step(state, now)
        found.append(hidden)
    return torch.stack(found, 1)


def pooling_states(pooling: Pooling) -> list[Part]:
    """The state of `pool_step`."""
    size = (pooling.size,)
    if pooling.kind == "max":
        return [Part("largest", size, LOWEST)]
    if pooling.kind in ("mean", "linear"):
        return [Part("mean", size), Part("count", (1,))]
    if pooling.kind == "attention":
        return [Part("top", (1,), LOWEST), Part("total", (1,)), Part("mean", size)]
    return []


def pool_step(pooling: Pooling, hidden: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
    """`Pooling.step` with a state that is tensors alone: (B, H) of all steps so far, and the new state."""
    if pooling.kind == "last":
        return hidden, {}
    if pooling.kind == "max":
        largest = torch.maximum(state["largest"], hidden)
        return largest, {"largest": largest}
    if pooling.kind == "attention":
        score = pooling.context(torch.tanh(pooling.project(hidden)))
        top = torch.maximum(state["top"], score)
        weight = torch.exp(score - top)
        total = state["total"] * torch.exp(state["top"] - top) + weight
        mean = state["mean"] + weight / total * (hidden - state["mean"])
        return mean, {"top": top, "total": total, "mean": mean}
    count = state["count"]
    share = 1 / (count + 1) if pooling.kind == "mean" else 2 / (count + 2)  # step n weighs n of 1 + ... + n
    mean = state["mean"] + (hidden - state["mean"]) * share
    return mean, {"mean": mean, "count": count + 1}


def cell_weights(size: int, cells: int) -> Tensor:
    """Adaptive average pooling of one axis as a matrix float32 (cells, size), whose rows sum to 1."""
    weights = torch.zeros(cells, size)
    for cell in range(cells):
        first, last = cell * size // cells, math.ceil((cell + 1) * size / cells)
        weights[cell, first:last] = 1 / (last - first)
    return weights


def size_of(model: Classifier, stream: str) -> int:
    """D, the size of a stream's vectors."""
    return len(cast(Branch, model.branches[stream]).standardisation.mean)
