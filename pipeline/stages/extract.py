"""Extract: what a frozen encoder makes of each clip, computed once and kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.batches import ClipFile, Request, stream_clips, view_seed
from pipeline.data.clips import Plan
from pipeline.data.features import FeatureStore, feature_key
from pipeline.model.classifier import Classifier
from pipeline.model.weights import weights_digest
from pipeline.stages.predict import encode_clip
from pipeline.stages.progress import bar, say

STANDARDISED_CLIPS = 256
"""Clips read to standardise a stream that no store holds: enough for a mean and a deviation."""


def encoders_digest(model: Classifier, grid: int) -> str:
    """What decides the features besides the clip: the encoders' weights, and the grid they are averaged to."""
    return f"{weights_digest(model.encoders)}:{grid}"


def training_views(files: Sequence[ClipFile], views: int) -> list[list[Request]]:
    """Per clip, the plain view and `views - 1` random ones.

    A view's seed comes from the clip's content, so that another training, with another seed or more clips, finds the
    same views in the store.
    """
    return [
        [(i, None), *((i, view_seed(int(file.digest[:12], 16), view)) for view in range(1, views))]
        for i, file in enumerate(files)
    ]


def extract(
    model: Classifier,
    files: Sequence[ClipFile],
    requests: Sequence[Sequence[Request]],
    plan: Plan,
    store: FeatureStore,
    encoders: str,
    device: torch.device,
    workers: int,
) -> dict[str, str]:
    """Fill the store with the views that it does not hold yet.

    Args:
        model: with frozen encoders.
        files: the clips.
        requests: per clip its views, see `training_views`.
        plan, store, encoders: see `feature_key`.

    Returns:
        Path and reason of the files that could not be read; they have no features.
    """
    model.eval()
    keys = {view: feature_key(files[view[0]].digest, plan, encoders, view[1]) for views in requests for view in views}
    missing = [request for request, key in keys.items() if store.get(key) is None]
    if not missing:
        return {}
    failed: dict[str, str] = {}
    say(f"encoding {len(missing)} of {len(keys)} clip views")
    with bar("encoding", len(missing)) as advance:
        # clips come back in the order they were asked for
        for request, loaded in zip(missing, stream_clips(files, plan, workers, missing), strict=True):
            advance(1)
            if loaded.clip is None:
                if loaded.error is not None and loaded.error.path not in failed:
                    failed[loaded.error.path] = str(loaded.error.reason)
                    say(f"left out: {loaded.error}")
                continue
            store.put(keys[request], encode_clip(model, loaded.clip, device))
    return failed


def standardise(
    model: Classifier,
    files: Sequence[ClipFile],
    plan: Plan,
    store: FeatureStore,
    encoders: str,
    workers: int,
    seed: int,
) -> None:
    """Set each stream's mean and deviation from plain training clips; a stream whose encoder is trained has none."""
    streams = [name for name in model.streams if name not in model.encoders or model.frozen]
    if not streams:
        return
    order = np.random.default_rng(seed).permutation(len(files))[:STANDARDISED_CLIPS]
    chosen = [files[int(i)] for i in np.sort(order)]
    clips: list[dict[str, NDArray[np.float32]]] = []
    if model.frozen:
        found = [store.get(feature_key(file.digest, plan, encoders, None)) for file in chosen]
        clips = [features for features in found if features is not None]
    else:
        for loaded in stream_clips(chosen, plan, workers):
            if loaded.clip is not None:
                clips.append({n: np.asarray(loaded.clip.inputs[n], dtype=np.float32) for n in streams})
    for name in streams:
        vectors = torch.from_numpy(np.concatenate([clip[name] for clip in clips]))
        model.fit_standardisation(name, vectors.mean(dim=0), vectors.std(dim=0, correction=0))
