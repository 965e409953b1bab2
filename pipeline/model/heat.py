"""Where in each frame an answer lies: Grad-CAM through encoder, pooling, recurrence and head. Tensors in and out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.classifier import Classifier
from pipeline.model.encoder import CHUNK, Encoder
from pipeline.model.importance import Features

Place = tuple[nn.Module, int]
"""A layer of a trunk, and which of its calls."""

FINER = 2
"""The map that is read has at least so many times the cells per side of the trunk's last one."""


def heat_maps(model: Classifier, inputs: Mapping[str, Tensor], gradients: Features) -> dict[str, Tensor]:
    """What each place adds to a score: activation times gradient, summed over the channels.

    For an encoder this is Grad-CAM (Selvaraju et al. 2017) with three changes, each of which planted evidence asked
    for (docs/explanation.md):

    - The gradient is the mean one on the way to the clip (Sattarzadeh et al. 2021), not that at the clip itself, where
      gates and answer are saturated and what is left of the gradient points nowhere.
    - It is not averaged over the map (HiResCAM, Draelos and Carin 2020), since a model with a grid of cells reads each
      with weights of its own.
    - The map is the last one that has twice the cells of the trunk's last (as in LayerCAM, Jiang et al. 2021), smoothed
      over 3 x 3 cells.

    For a grid of flow or differences it is integrated gradients, cell by cell.

    Args:
        model: in evaluation mode.
        inputs: stream -> images (1, T, 3, S, S) or a grid's vectors (1, T, 2 * grid * grid).
        gradients: of `importance.mean_gradients`.

    Returns:
        Stream -> float32 (T, h, w) on the CPU, signed: above 0 is what speaks for the answer.
    """
    heat = {}
    for name in model.streams:
        x, reached = inputs[name][0], gradients[name][0].to(inputs[name].device)
        if x.ndim == 4:
            heat[name] = _through(cast(Encoder, model.encoders[name]), x, reached)
        else:
            side = round((x.shape[1] / 2) ** 0.5)
            heat[name] = (x.float() * reached).view(len(x), 2, side, side).sum(1).cpu()
    return heat


def _through(encoder: Encoder, frames: Tensor, gradients: Tensor) -> Tensor:
    """Heat (T, h, w) of frames (T, 3, S, S) whose features have these gradients (T, D)."""
    return smooth(heat_at(encoder, finer_place(encoder, frames[:1]), frames, gradients)).cpu()


def heat_at(encoder: Encoder, place: Place, frames: Tensor, gradients: Tensor) -> Tensor:
    """Activation times gradient at one place of a trunk, summed over its channels, (T, h, w)."""
    parts = []
    for some, reached in zip(frames.split(CHUNK), gradients.split(CHUNK), strict=True):
        with torch.enable_grad(), _cut(place) as kept:
            vectors = encoder.pool(encoder.feature_map(some))
            (found,) = torch.autograd.grad(vectors, kept[0], reached)
        parts.append((kept[0].detach() * found).sum(1).float())
    return torch.cat(parts)


@contextmanager
def _cut(place: Place) -> Iterator[list[Tensor]]:
    """While this is open, the graph begins at a place; the list holds what comes out there."""
    layer, call = place
    kept: list[Tensor] = []
    calls = count()

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        if next(calls) != call:
            return None
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # the next layer may write into it

    handle = layer.register_forward_hook(hook)
    try:
        yield kept
    finally:
        handle.remove()


def smooth(heat: Tensor) -> Tensor:
    """The mean over 3 x 3 cells of maps (T, h, w), zeros beyond the border."""
    return F.avg_pool2d(heat[:, None], 3, 1, 1)[:, 0]


def finer_place(encoder: Encoder, frame: Tensor) -> Place:
    """The last place of a trunk whose map has `FINER` times the cells per side of the last one, or more.

    Everything that comes out of the trunk must have come through it: inside a residual block it would miss what goes
    around. Where there is no such place it is the trunk's end. `frame`: (1, 3, S, S).
    """
    sizes: list[tuple[Place, int]] = []
    calls: Counter[nn.Module] = Counter()

    def note(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sizes.append(((layer, calls[layer]), min(output.shape[2:])))
        calls[layer] += 1  # some networks use one ReLU in several places

    layers = [layer for layer in encoder.trunk.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.enable_grad():  # without, a copy of the trunk runs that has other layers
            last = min(encoder.feature_map(frame).shape[2:])
    finally:
        for handle in handles:
            handle.remove()
    fine = [place for place, size in sizes if size >= FINER * last]
    whole = (place for place in reversed(fine) if _all_passes(encoder, place, frame))
    return next(whole, (encoder.trunk, 0))


def _all_passes(encoder: Encoder, place: Place, frame: Tensor) -> bool:
    """Whether nothing goes around a place: cut there, the map no longer depends on the frame."""
    given = frame.detach().float().requires_grad_()
    with torch.enable_grad(), _cut(place):
        maps = encoder.feature_map(given)
        return torch.autograd.grad(maps.sum(), given, allow_unused=True)[0] is None
