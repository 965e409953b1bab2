"""Which moments, and which places in them, an answer rests on: gradients, occlusion, attention.

Tensors in, tensors out, one clip at a time. All of it works on what lies between the encoder and the answer, so that a
frozen encoder is explained like one that learned, and the CNN runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor

from pipeline.model.branch import Branch
from pipeline.model.classifier import Classifier
from pipeline.model.encoder import CHUNK, Encoder

Score = Callable[[Tensor], Tensor]
"""What the head puts out for B variants of a clip, (B, K) or (B, T, K), to the B numbers that are explained."""

Features = Mapping[str, Tensor]
"""Stream -> float32 (1, T, D), what the branches read."""

VALUES = 4_000_000
"""Numbers of a pass over variants of a clip; more variants go in several passes."""
PATH = 32
"""Points on the way from the baseline, for integrated gradients."""


def class_score(index: int, temperature: float = 1.0) -> Score:
    """The log-odds of a class, log p / (1 - p): the logit of its probability.

    Of a softmax's K logits only differences mean something, and adding a number to all of them must not change an
    explanation. This one says what speaks for the class rather than for the others, and does not saturate with p.
    Logits are divided by `temperature` first, as the model's probabilities are.
    """

    def score(logits: Tensor) -> Tensor:
        output = logits / temperature
        others = torch.cat([output[..., :index], output[..., index + 1 :]], -1)
        if others.shape[-1] == 0:
            return output[..., index]
        return output[..., index] - others.logsumexp(-1)

    return score


def over_moments(score: Score, moments: slice) -> Score:
    """The mean of a score (B, T) over some moments; of an output per moment."""
    return lambda output: score(output)[:, moments].mean(1)


def number_score(output: Tensor) -> Tensor:
    """The number itself, in the target's unit."""
    return output[..., 0]


def differentiable() -> AbstractContextManager[None]:
    """CuDNN goes backward through a recurrence only in training mode, which would switch the dropout on."""
    return torch.backends.cudnn.flags(enabled=False)  # type: ignore[no-any-return]


@torch.no_grad()
def feature_maps(model: Classifier, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each stream's last spatial layer holds of one clip.

    Args:
        model: in evaluation mode.
        inputs: stream -> images (1, T, 3, S, S) or a grid's vectors (1, T, 2 * grid * grid).

    Returns:
        Stream -> float (T, C, h, w): the encoder's last feature map; or the two planes of a grid of flow or
        differences.
    """
    maps = {}
    for name in model.streams:
        x = inputs[name][0]
        if x.ndim == 4:
            encoder = cast(Encoder, model.encoders[name])
            maps[name] = torch.cat([encoder.feature_map(part) for part in x.split(CHUNK)])
        else:
            side = round((x.shape[1] / 2) ** 0.5)
            maps[name] = x.float().view(len(x), 2, side, side)
    return maps


def pooled(model: Classifier, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Feature maps (T, C, h, w) to the features (1, T, D) that the branches read."""
    return {
        name: (cast(Encoder, model.encoders[name]).pool(x) if name in model.encoders else x.flatten(1)).unsqueeze(0)
        for name, x in maps.items()
    }


def neutral(model: Classifier, features: Features) -> dict[str, Tensor]:
    """What stands for "nothing to be seen at this moment", per stream (1, 1, D).

    For an encoder the mean of the clip's own feature vectors, which no single moment decides; for flow and differences
    zeros, which are stillness.
    """
    return {
        name: x.mean(1, keepdim=True) if name in model.encoders else torch.zeros_like(x[:, :1])
        for name, x in features.items()
    }


def occlusion(model: Classifier, features: Features, score: Score, width: int = 1, alone: bool = True) -> Tensor:
    """How much of a score hangs on each moment, by hiding it (Zeiler and Fergus 2014, in time) and by hiding all else.

    Each run of `width` neighbouring moments is replaced by what is `neutral`, in all streams at once; then everything
    but that run. A moment's number is the mean, over the runs that hold it, of half the fall in the one case and half
    the rise above a clip with nothing in it in the other. The fall alone misses evidence that several moments share,
    since hiding any one of them changes nothing; `alone` False gives it all the same.

    Returns:
        float64 (T,) on the CPU.
    """
    steps = next(iter(features.values())).shape[1]
    width = min(max(1, width), steps)
    starts = torch.arange(1 - width, steps)
    moments = torch.arange(steps)
    runs = (moments >= starts[:, None]) & (moments < starts[:, None] + width)  # (runs, T)
    none = torch.zeros(1, steps, dtype=torch.bool)
    scores = masked_scores(model, features, torch.cat([none, ~none, runs, ~runs]), score)
    whole, empty = scores[:2]
    falls, rises = whole - scores[2 : 2 + len(runs)], scores[2 + len(runs) :] - empty
    changes = (falls + rises) / 2 if alone else falls
    weights = runs.double()
    return (weights * changes[:, None]).sum(0) / weights.sum(0)


@torch.no_grad()
def masked_scores(model: Classifier, features: Features, hidden: Tensor, score: Score) -> Tensor:
    """The score of a clip with some moments hidden.

    Args:
        model: in evaluation mode.
        features: of the clip.
        hidden: bool (N, T), the moments that are replaced by what is `neutral`, in N variants.
        score: of each.

    Returns:
        float64 (N,) on the CPU.
    """
    blank = neutral(model, features)
    steps = hidden.shape[1]
    per_pass = max(1, VALUES // sum(x[0].numel() for x in features.values()))
    scores = []
    for part in hidden.split(per_pass):
        mask = part.unsqueeze(-1).to(next(iter(features.values())).device)
        variants = {name: torch.where(mask, blank[name], x) for name, x in features.items()}
        scores.append(score(model.head(variants, torch.full((len(part),), steps))).double().cpu())
    return torch.cat(scores)


def mean_gradients(model: Classifier, features: Features, score: Score) -> dict[str, Tensor]:
    """The mean gradient of a score on the straight way from what is `neutral` to the clip.

    Times the way it is integrated gradients (Sundararajan et al. 2017).

    Returns:
        Stream -> float32 (1, T, D) on the CPU.
    """
    from captum.attr import IntegratedGradients

    names = list(features)
    given = tuple(features[name].detach() for name in names)
    blank = neutral(model, features)
    steps = given[0].shape[1]

    def run(*variants: Tensor) -> Tensor:
        lengths = torch.full((len(variants[0]),), steps)
        return score(model.head(dict(zip(names, variants, strict=True)), lengths))

    per_pass = max(1, VALUES // sum(x.numel() for x in given))
    with torch.enable_grad(), differentiable():
        found = IntegratedGradients(run, multiply_by_inputs=False).attribute(
            given,
            baselines=tuple(blank[name].expand_as(x).detach() for name, x in zip(names, given, strict=True)),
            n_steps=PATH,
            internal_batch_size=min(per_pass, PATH),
        )
    return {name: x.detach().float().cpu() for name, x in zip(names, found, strict=True)}


@torch.no_grad()
def integrated_gradients(
    model: Classifier, features: Features, gradients: Features, score: Score
) -> tuple[dict[str, Tensor], float]:
    """Integrated gradients of each moment, and what they miss.

    Args:
        model: in evaluation mode.
        features: of the clip.
        gradients: of `mean_gradients`.
        score: what was differentiated.

    Returns:
        Stream -> float64 (T,) on the CPU; and their sum over all streams minus the score's difference between the clip
        and what is `neutral`, which would be 0 with more points on the way.
    """
    blank = neutral(model, features)
    parts = {
        name: ((x - blank[name]).cpu().double() * gradients[name].double()).sum(2)[0] for name, x in features.items()
    }
    steps = next(iter(features.values())).shape[1]
    ends = masked_scores(model, features, torch.tensor([[False] * steps, [True] * steps]), score)
    return parts, float(sum(part.sum() for part in parts.values()) - (ends[0] - ends[1]))


@torch.no_grad()
def pooling_weights(branch: Branch, features: Tensor) -> Tensor | None:
    """Where pooling reads from, (T,) summing to 1, of one clip's features (1, T, D).

    Attention: its weights. Max: the share of the hidden vector's numbers that are taken from each moment. None for the
    kinds whose weights do not depend on the clip, and where each moment has its own answer.
    """
    pooling = branch.pooling
    if pooling is None or pooling.kind not in ("attention", "max"):
        return None
    lengths = torch.tensor([features.shape[1]])
    hidden = branch.hidden(features, lengths)
    if pooling.kind == "attention":
        return pooling.weights(hidden, lengths)[0].double().cpu()
    taken = hidden[0].argmax(0)
    return torch.bincount(taken, minlength=features.shape[1]).double().cpu() / hidden.shape[2]


@torch.no_grad()
def running_outputs(model: Classifier, features: Features) -> Tensor:
    """What the model answers after each moment of a clip, (T, K) on the CPU.

    Step by step; a bidirectional model, which cannot, reads every beginning of the clip as a clip of its own. Where
    there is an answer for each moment anyway, those.
    """
    steps = next(iter(features.values())).shape[1]
    if model.per_moment:
        return model.head(features, torch.tensor([steps]))[0].cpu()
    if not model.streamable:
        ends = range(1, steps + 1)
        beginnings = (
            model.head({name: x[:, :end] for name, x in features.items()}, torch.tensor([end])) for end in ends
        )
        return torch.cat(list(beginnings)).cpu()
    state, outputs = None, []
    for t in range(steps):
        output, state = model.step({name: x[:, t] for name, x in features.items()}, state)
        outputs.append(output[0])
    return torch.stack(outputs).cpu()
