"""Heat maps as they could be as well: how often each one's hottest place lies in the region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from pipeline import Predictor
from pipeline.data.batches import collate
from pipeline.model.encoder import Encoder
from pipeline.model.heat import finer_place, heat_at, smooth
from pipeline.model.importance import Features, Score, class_score, differentiable, mean_gradients, occlusion
from planted.measure import Planted, features_of, points


def variants(predictor: Predictor, clips: Sequence[Planted]) -> dict[str, float]:
    """Shares of the clips: of heat maps where there is an encoder, of hiding a moment and nothing else everywhere."""
    found: dict[str, list[float]] = {}
    for clip in clips:
        score = class_score(clip.explanation.target)
        features = features_of(predictor, clip.shown)
        falls = occlusion(predictor.model, features, score, 1, alone=False).numpy()
        found.setdefault("variant_hidden_only", []).append(float(clip.evidence[falls.argmax()]))
        if predictor.model.encoders:
            for name, heat in _maps(predictor, clip, features, score).items():
                at = int(heat.max((1, 2)).argmax())
                found.setdefault(f"variant_{name}", []).append(float(points(heat[at], clip.truth)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _maps(predictor: Predictor, clip: Planted, features: Features, score: Score) -> dict[str, np.ndarray]:
    """Gradient at the clip or on the way to it, at the last map or a finer one, as it is or smoothed."""
    assert clip.shown.clip is not None
    frames = collate([clip.shown.clip.inputs], [-1]).to(predictor.device).inputs["rgb"][0]
    encoder = cast(Encoder, predictor.model.encoders["rgb"])
    leaf = features["rgb"].detach().requires_grad_()
    with torch.enable_grad(), differentiable():
        output = predictor.model.head({"rgb": leaf}, torch.tensor([leaf.shape[1]]))
        (here,) = torch.autograd.grad(score(output).sum(), leaf)
    mean = mean_gradients(predictor.model, features, score)["rgb"]
    last, finer = (encoder.trunk, 0), finer_place(encoder, frames[:1])
    maps = {
        "at_clip": heat_at(encoder, last, frames, here[0]),
        "mean_gradient": heat_at(encoder, last, frames, mean[0]),
        "finer": heat_at(encoder, finer, frames, mean[0]),
    }
    maps["finer_smooth"] = smooth(maps["finer"])
    return {name: heat.cpu().numpy() for name, heat in maps.items()}
