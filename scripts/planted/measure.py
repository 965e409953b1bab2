"""How well explanations find evidence whose frames and place are known, and whether they depend on what was learned."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import Predictor
from pipeline.data.batches import collate
from pipeline.data.catalog import Policy
from pipeline.data.shown import ShownClip
from pipeline.model.importance import feature_maps, masked_scores, pooled
from pipeline.report.explanation import Explanation
from pipeline.stages.explain import read
from pipeline.stages.explain_clip import Question, explain_clip
from pipeline.video.heatmap import on_frame
from planted.render import Truth

ORDERS = 10
"""Random orders that the curves are compared with."""
FINE = 64
"""Pixels per side at which the hottest place is looked for."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Planted:
    """One test clip that was answered correctly, and its explanation."""

    truth: Truth
    shown: ShownClip
    explanation: Explanation

    @property
    def evidence(self) -> NDArray[np.bool_]:
        """Which moments show it, bool (T,). All frames are looked at, so that moments are frames."""
        frames = np.arange(len(self.explanation.times))
        return (frames >= self.truth.first) & (frames <= self.truth.last)

    @property
    def heat(self) -> NDArray[np.float32]:
        """float32 (T, h, w), signed."""
        return self.explanation.streams[0].heat

    @property
    def gradients(self) -> Floats:
        """float64 (T,)."""
        return self.explanation.streams[0].gradients


def explained(predictor: Predictor, folder: Path, truths: Sequence[Truth], labels: dict[str, str]) -> Iterator[Planted]:
    """The clips that are answered correctly."""
    paths = [str(folder / truth.path) for truth in truths]
    policy = Policy(predictor.plan.limits, "accept")
    for truth, shown in zip(truths, read(predictor, paths, 0, policy), strict=True):
        explanation = explain_clip(predictor, shown, Question())
        if predictor.classes[explanation.target] == labels[truth.path]:
            yield Planted(truth, shown, explanation)


def hits(clips: Sequence[Planted]) -> dict[str, float]:
    """Shares of the clips whose evidence is found, in time and in space, and what chance would find.

    space_evidence is the pointing game: the hottest place while the evidence is shown. space_hottest and time_heat ask
    more: the hottest place of the whole clip is to lie in the region, and in the right frames.
    """
    found: dict[str, list[float]] = {}
    for clip in clips:
        evidence, heat = clip.evidence, clip.heat
        at = int(heat.max((1, 2)).argmax())
        during = heat * evidence[:, None, None]
        left, top, right, bottom = clip.truth.box
        for name, value in {
            "time_occlusion": evidence[clip.explanation.occlusion.argmax()],
            "time_gradients": evidence[clip.gradients.argmax()],
            "time_heat": evidence[at],
            "time_chance": evidence.mean(),
            "space_hottest": points(heat[at], clip.truth),
            "space_evidence": points(during.sum(0), clip.truth),
            "space_chance": (right - left) * (bottom - top),
        }.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def points(heat: NDArray[np.float32], truth: Truth) -> bool:
    """The pointing game (Zhang et al. 2016) without its tolerance: the hottest place lies in the box."""
    top = float(heat.max()) or 1.0
    fine = on_frame(np.maximum(heat, 0).astype(np.float32) / top, FINE, FINE, "stretch")
    y, x = np.unravel_index(int(fine.argmax()), fine.shape)
    left, upper, right, lower = truth.box
    return left <= (x + 0.5) / FINE <= right and upper <= (y + 0.5) / FINE <= lower


def curves(predictor: Predictor, clips: Sequence[Planted], seed: int) -> dict[str, float]:
    """Deletion and insertion (Petsiuk et al. 2018) of moments: areas under the answer's probability.

    The most important moment is hidden first, then the second, ...; or shown first in a clip with nothing in it. A good
    order has a small area of deletion and a large one of insertion.
    """
    rng = np.random.default_rng(seed)
    areas: dict[str, list[float]] = {}
    for clip in clips:
        steps = len(clip.explanation.times)
        orders = {
            "occlusion": np.argsort(-clip.explanation.occlusion, kind="stable"),
            "gradients": np.argsort(-clip.gradients, kind="stable"),
        }
        orders |= {f"random{n}": rng.permutation(steps) for n in range(ORDERS)}
        for name, order in orders.items():
            deletion, insertion = _areas(predictor, clip, order)
            key = "random" if name.startswith("random") else name
            areas.setdefault(f"deletion_{key}", []).append(deletion)
            areas.setdefault(f"insertion_{key}", []).append(insertion)
    return {name: float(np.mean(values)) for name, values in areas.items()}


def _areas(predictor: Predictor, clip: Planted, order: NDArray[np.int64]) -> tuple[float, float]:
    steps, label = len(order), clip.explanation.target
    rank = np.empty(steps, dtype=np.int64)
    rank[order] = np.arange(steps)
    hidden = torch.from_numpy(rank[None, :] < np.arange(steps + 1)[:, None])
    features = features_of(predictor, clip.shown)

    def probability(output: torch.Tensor) -> torch.Tensor:
        return output.softmax(-1)[..., label]

    values = masked_scores(predictor.model, features, torch.cat([hidden, ~hidden]), probability).numpy()
    deletion, insertion = values[: steps + 1], values[steps + 1 :]
    return float(np.trapezoid(deletion) / steps), float(np.trapezoid(insertion) / steps)


def features_of(predictor: Predictor, shown: ShownClip) -> dict[str, torch.Tensor]:
    """What the branches read of one clip."""
    assert shown.clip is not None
    batch = collate([shown.clip.inputs], [-1]).to(predictor.device)
    return pooled(predictor.model, feature_maps(predictor.model, batch.inputs))


def randomised(predictor: Predictor, clips: Sequence[Planted], seed: int) -> dict[str, float]:
    """Rank correlation of explanations with those of the same model after its weights were shuffled (Adebayo et al.
    2018): of every tensor's values among themselves. The class that is explained stays the same.
    """
    other = Predictor(copy.deepcopy(predictor.model), predictor.card, predictor.device, predictor.digest)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view_as(weight))
    other.model.eval()  # what was derived from the weights is made anew
    found: dict[str, list[float]] = {}
    for clip in clips:
        again = explain_clip(other, clip.shown, Question(clip.explanation.target))
        pairs: dict[str, tuple[Any, Any]] = {
            "occlusion": (clip.explanation.occlusion, again.occlusion),
            "gradients": (clip.gradients, again.streams[0].gradients),
            "heat": (clip.heat.ravel(), again.streams[0].heat.ravel()),
        }
        for name, (one, two) in pairs.items():
            found.setdefault(f"shuffled_{name}", []).append(rank_correlation(one, two))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Spearman's, of two arrays of one size; equal values, which are rare, keep their order."""
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])
